"""Tensor Fusion Network: Zadeh et al., EMNLP 2017, section 4."""

import torch.nn.functional as F
from torch import Tensor, nn

from mitfrnet.data.batches import Batch
from mitfrnet.models.base import SCORE, Model, Output, Task, task_loss
from mitfrnet.models.layers import BatchNorm, Count, PerModality, Probability, zero_padding
from mitfrnet.models.recurrent import LSTM
from mitfrnet.params import StageParams, parse_params

AVERAGED = ("acoustic", "visual")  # modalities that are averaged over time


class TFNParams(StageParams):
    """Section `model.tfn.network`."""

    hidden_dims: PerModality[Count]  # text: units of the LSTM; others: of each layer
    text_out: Count  # features of the text vector
    dropout: PerModality[Probability]  # text: of the LSTM's state; others: of the mean
    post_fusion_dim: Count  # width of the layers that read the tensor
    post_fusion_dropout: Probability  # of the tensor


class TextSubnet(nn.Module):
    """Turns the tokens into one vector: an LSTM's state after the last token, projected.

    Not in the paper, but in MMSA: only the last state is used, with no activation after its
    projection. MMSA's LSTM also reads the padding, and a condition meant for stacked LSTMs
    switches its dropout off; here it ends at the last real token, and dropout works.

    Args:
        in_dim: features of a token.
        hidden: units of the LSTM.
        out_dim: features of the result.
        dropout: of the state.
    """

    def __init__(self, *, in_dim: int, hidden: int, out_dim: int, dropout: float) -> None:
        super().__init__()
        self.lstm = LSTM(in_dim=in_dim, hidden=hidden)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(hidden, out_dim)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """Return (batch, out_dim).

        Args:
            x: (batch, time, in_dim).
            valid: real tokens, (batch, time) of bool; at least one in each row.
        """
        _, state = self.lstm(x, valid)  # (batch, hidden)
        return self.linear(self.dropout(state))


class MeanSubnet(nn.Module):
    """Turns a clip's sound or picture into one vector: three layers over its mean.

    The mean is over observed steps. MMSA divides by the padded length, so that missing steps pull
    the mean towards zero and the length of a clip shows in its features. Not in the paper: a clip
    without observed steps has a mean of zero, which is the mean of scaled features. The mean is
    normalised before the layers, as in MMSA.

    Args:
        in_dim: features of a step.
        hidden: width of each layer.
        dropout: of the normalised mean.
    """

    def __init__(self, *, in_dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            BatchNorm(in_dim),
            nn.Dropout(dropout),
            nn.Linear(in_dim, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
        )

    def forward(self, x: Tensor, observed: Tensor) -> Tensor:
        """Return (batch, hidden).

        Args:
            x: (batch, time, in_dim).
            observed: steps to average, (batch, time) of bool.
        """
        return self.layers(observed_mean(x, observed))


def observed_mean(x: Tensor, observed: Tensor) -> Tensor:
    """Return the mean of `x`, (batch, time, dim), over observed steps: (batch, dim).

    Rows without a True in `observed`, (batch, time), are zero.
    """
    return zero_padding(x, observed).sum(1) / observed.sum(1, keepdim=True).clamp(min=1)


def tensor_fusion(text: Tensor, acoustic: Tensor, visual: Tensor) -> Tensor:
    r"""Return the outer product of three vectors, each with a 1 appended; section 4.2.

    .. math::
        z = \begin{bmatrix} z_l \\ 1 \end{bmatrix} \otimes
        \begin{bmatrix} z_a \\ 1 \end{bmatrix} \otimes \begin{bmatrix} z_v \\ 1 \end{bmatrix}

    Args:
        text: z_l, (batch, L).
        acoustic: z_a, (batch, A).
        visual: z_v, (batch, V).

    Returns:
        (batch, (L + 1) (A + 1) (V + 1)); the visual index varies fastest.
    """
    z_l, z_a, z_v = (F.pad(z, (0, 1), value=1.0) for z in (text, acoustic, visual))
    product = z_l[:, :, None, None] * z_a[:, None, :, None] * z_v[:, None, None, :]
    return product.flatten(1)


class TFN(Model):
    r"""Scores an utterance from every product of one feature of each modality.

    .. math::
        \hat{y} = low + (high - low) \, \mathrm{sigmoid}(\mathrm{MLP}(z))

    z is the outer product of the modalities' vectors (see `tensor_fusion`), so that it holds
    each vector alone, each pair and all three. low and high are the bounds of the label scale;
    MMSA uses -3 and 3 for CH-SIMS too, whose labels lie in [-1, 1]. For classes the result of the
    MLP is returned as logits. The loss is the mean absolute error, as in MMSA.

    Checked against MMSA 2.2.1 (`tests/parity/test_tfn.py`): with the same weights, complete
    utterances of equal length and the means over time from MMSA's loader, scores differ by at
    most 3e-7.

    `losses` holds `task` alone.

    Args:
        dims: features of a step by modality.
        task: what is predicted.
        settings: the fields of `TFNParams`.

    Raises:
        ParamsError: a setting is unknown, absent or out of range.
    """

    def __init__(self, *, dims: dict[str, int], task: Task = SCORE, **settings: object) -> None:
        super().__init__()
        params = parse_params(TFNParams, settings, where="model.tfn.network")
        hidden, dropout = dict(params.hidden_dims), dict(params.dropout)
        self.text = TextSubnet(
            in_dim=dims["text"],
            hidden=hidden["text"],
            out_dim=params.text_out,
            dropout=dropout["text"],
        )
        self.means = nn.ModuleDict(
            {m: MeanSubnet(in_dim=dims[m], hidden=hidden[m], dropout=dropout[m]) for m in AVERAGED}
        )
        fused_dim = (params.text_out + 1) * (hidden["acoustic"] + 1) * (hidden["visual"] + 1)
        self.post_fusion = nn.Sequential(
            nn.Dropout(params.post_fusion_dropout),
            nn.Linear(fused_dim, params.post_fusion_dim),
            nn.ReLU(),
            nn.Linear(params.post_fusion_dim, params.post_fusion_dim),
            nn.ReLU(),
            nn.Linear(params.post_fusion_dim, task.outputs),
        )
        self.task = task
        self.weights = {"task": 1.0}

    def forward(self, batch: Batch, *, aux: bool = True) -> Output:
        """Return scores and the task loss.

        Args:
            batch: utterances; neither padding nor targets affect a score.
            aux: ignored, as there is no auxiliary loss.
        """
        text = self.text(batch.values["text"], batch.valid["text"])  # (batch, text_out)
        acoustic, visual = (
            self.means[m](batch.values[m], batch.observed[m]) for m in AVERAGED
        )  # (batch, hidden) each
        head = self.post_fusion(tensor_fusion(text, acoustic, visual))  # (batch, outputs)
        if not self.task.classes:
            head = self.task.low + (self.task.high - self.task.low) * head.sigmoid()
        prediction = self.task.prediction(head)
        loss = task_loss(prediction, batch.label, weight=self.weights["task"])
        return Output(prediction, {}, {"task": loss})
