"""Modality-Invariant and -Specific Representations: Hazarika et al., ACM MM 2020, section 3."""

import torch
from torch import Tensor, nn

from mitfrnet.data.batches import Batch
from mitfrnet.modalities import MODALITIES
from mitfrnet.models.base import SCORE, Loss, Model, Output, Task, task_loss
from mitfrnet.models.layers import Count, HeadsParams, Probability, Weight, zero_padding
from mitfrnet.models.recurrent import LSTM
from mitfrnet.params import parse_params

RECURRENT = ("acoustic", "visual")  # modalities whose vector comes from LSTMs

# Their shared representations should be alike, and their private ones should differ.
PAIRS = (("text", "acoustic"), ("text", "visual"), ("acoustic", "visual"))


class MISAParams(HeadsParams):
    """Section `model.misa.network`; `dim` is that of each representation."""

    feedforward_dim: Count  # of the fusion transformer
    transformer_dropout: Probability
    dropout: Probability  # in the layers after the transformer
    moments: Count  # how many the similarity loss compares
    similarity_weight: Weight
    difference_weight: Weight
    reconstruction_weight: Weight


class StackedLSTM(nn.Module):
    """Turns a sequence into one vector: the final states of two stacked bidirectional LSTMs.

    Not in the paper, but in its code: each LSTM has as many units as a step has features, with a
    LayerNorm between them, and the final states of both are used. The code cuts sound and picture
    to the length of the *text*; here each ends with its own last step.

    Args:
        dim: features of a step.
    """

    def __init__(self, *, dim: int) -> None:
        super().__init__()
        self.first = LSTM(in_dim=dim, hidden=dim, bidirectional=True)
        self.norm = nn.LayerNorm(2 * dim)
        self.second = LSTM(in_dim=2 * dim, hidden=dim, bidirectional=True)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """Return (batch, 4 dim): forward and backward state of the first LSTM, then of the second.

        Args:
            x: (batch, time, dim).
            valid: real steps, (batch, time) of bool; at least one in each row.
        """
        steps, first = self.first(x, valid)
        with torch.autocast(x.device.type, enabled=False):
            normed = self.norm(steps)
        _, second = self.second(normed, valid)
        return torch.cat([first, second], dim=-1)


class TokenMean(nn.Module):
    """Turns a text into one vector: the mean of its tokens' vectors, as in the paper with BERT."""

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """Return (batch, dim).

        Args:
            x: (batch, time, dim).
            valid: real tokens, (batch, time) of bool; at least one in each row.
        """
        return zero_padding(x, valid).sum(1) / valid.sum(1, keepdim=True)


def central_moment_discrepancy(x: Tensor, y: Tensor, *, moments: int) -> Tensor:
    r"""Return how far the distributions of two samples in [0, 1] are apart; section 3.4.1.

    .. math::
        \mathrm{CMD}_K(X, Y) = \lVert E(X) - E(Y) \rVert_2
        + \sum_{k=2}^K \lVert C_k(X) - C_k(Y) \rVert_2, \quad
        C_k(X) = E((X - E(X))^k)

    At zero, which a batch of one reaches in every C_k, the gradient of the norm is zero.

    Args:
        x: (batch, dim).
        y: (batch, dim).
        moments: K.

    Returns:
        A scalar.
    """
    mean_x, mean_y = x.mean(0), y.mean(0)
    distance = torch.linalg.vector_norm(mean_x - mean_y)
    x, y = x - mean_x, y - mean_y
    for k in range(2, moments + 1):
        distance = distance + torch.linalg.vector_norm(x.pow(k).mean(0) - y.pow(k).mean(0))
    return distance


def overlap(x: Tensor, y: Tensor) -> Tensor:
    r"""Return how far from orthogonal two sets of representations are; section 3.4.2.

    .. math:: \frac{1}{d^2} \lVert X^\top Y \rVert_F^2

    X and Y are centred over the batch, then their rows are scaled to length 1; a batch of one
    gives zero. Not in the paper, but in its code: the division by d², and no gradient through the
    lengths.

    Args:
        x: (batch, d).
        y: (batch, d).

    Returns:
        A scalar.
    """
    return (_unit_rows(x - x.mean(0)).T @ _unit_rows(y - y.mean(0))).square().mean()


def _unit_rows(x: Tensor) -> Tensor:
    length = torch.linalg.vector_norm(x, dim=1, keepdim=True).detach()
    return x / (length + 1e-6)


def auxiliary_losses(
    vectors: dict[str, Tensor],
    shared: dict[str, Tensor],
    private: dict[str, Tensor],
    rebuilt: dict[str, Tensor],
    *,
    moments: int,
) -> dict[str, Tensor]:
    """Return L_sim, L_diff and L_recon of a batch by name; see `MISA`.

    All arguments are (batch, dim) by modality. Everything is computed in float32 even under
    autocast.
    """
    vectors, shared, private, rebuilt = (
        {m: x.float() for m, x in group.items()} for group in (vectors, shared, private, rebuilt)
    )
    with torch.autocast(shared["text"].device.type, enabled=False):
        similarity = [
            central_moment_discrepancy(shared[m], shared[n], moments=moments) for m, n in PAIRS
        ]
        difference = [overlap(shared[m], private[m]) for m in MODALITIES]
        difference += [overlap(private[m], private[n]) for m, n in PAIRS]
        distance = [(vectors[m] - rebuilt[m]).square().mean() for m in MODALITIES]
        return {
            "similarity": torch.stack(similarity).mean(),
            "difference": torch.stack(difference).sum(),
            "reconstruction": torch.stack(distance).mean(),
        }


class MISA(Model):
    r"""Scores an utterance from shared and private representations of its modalities.

    .. math::
        h^c_m &= E^c(u_m), \quad h^p_m = E^p_m(u_m), \quad \hat{u}_m = D_m(h^c_m + h^p_m) \\
        \mathcal{L} &= \mathcal{L}_{task} + \alpha \mathcal{L}_{sim}
        + \beta \mathcal{L}_{diff} + \gamma \mathcal{L}_{recon} \\
        \mathcal{L}_{sim} &= \frac13 \sum_{(m, n)} \mathrm{CMD}_K(h^c_m, h^c_n) \\
        \mathcal{L}_{diff} &= \sum_m \mathrm{overlap}(h^c_m, h^p_m)
        + \sum_{(m, n)} \mathrm{overlap}(h^p_m, h^p_n) \\
        \mathcal{L}_{recon} &= \frac13 \sum_m \frac1d \lVert u_m - \hat{u}_m \rVert_2^2

    u_m is one projected vector per modality, of d features. The six representations pass a
    transformer without positions, in which those of the same utterance attend to each other, and
    then two layers. L_task is the mean squared error, or the cross-entropy of classes. L_sim and
    L_diff compare the utterances of a batch, and so depend on how it is divided.

    Not in the paper: an absent or wholly hidden modality takes part in the losses with the
    representation of its null step or of its zeros. The decoder's target u_m gets a gradient too.
    Left out of the published code: an adversarial loss in place of CMD, and a discriminator
    between shared and private representations that enters no loss.

    Checked against MMSA 2.2.1 (`tests/parity/test_misa.py`): with the same weights and complete
    utterances of equal lengths in all modalities, scores and losses differ by at most 3e-7.

    `losses` holds `task`, `similarity`, `difference` and `reconstruction`. The last rebuilds
    vectors and not features, so `reconstructed` is empty.

    Args:
        dims: features of a step by modality.
        task: what is predicted.
        settings: the fields of `MISAParams`.

    Raises:
        ParamsError: a setting is unknown, absent or out of range.
    """

    batch_losses = ("similarity", "difference")

    def __init__(self, *, dims: dict[str, int], task: Task = SCORE, **settings: object) -> None:
        super().__init__()
        params = parse_params(MISAParams, settings, where="model.misa.network")
        dim = params.dim
        self.summaries = nn.ModuleDict(
            {"text": TokenMean(), **{m: StackedLSTM(dim=dims[m]) for m in RECURRENT}}
        )
        in_dims = {m: 4 * dims[m] if m in RECURRENT else dims[m] for m in MODALITIES}
        self.projections = nn.ModuleDict(
            {
                m: nn.Sequential(nn.Linear(in_dims[m], dim), nn.ReLU(), nn.LayerNorm(dim))
                for m in MODALITIES
            }
        )
        # The sigmoids bound the representations to [0, 1], as CMD requires.
        self.shared = nn.Sequential(nn.Linear(dim, dim), nn.Sigmoid())
        self.private = nn.ModuleDict(
            {m: nn.Sequential(nn.Linear(dim, dim), nn.Sigmoid()) for m in MODALITIES}
        )
        self.decoders = nn.ModuleDict({m: nn.Linear(dim, dim) for m in MODALITIES})
        self.transformer = nn.TransformerEncoderLayer(
            dim,
            params.heads,
            params.feedforward_dim,
            params.transformer_dropout,
            batch_first=True,
        )
        self.fusion = nn.Sequential(
            nn.Linear(6 * dim, 3 * dim),
            nn.Dropout(params.dropout),
            nn.ReLU(),
            nn.Linear(3 * dim, task.outputs),
        )
        self.task = task
        self.moments = params.moments
        self.weights = {
            "task": 1.0,
            "similarity": params.similarity_weight,
            "difference": params.difference_weight,
            "reconstruction": params.reconstruction_weight,
        }

    def forward(self, batch: Batch, *, aux: bool = True) -> Output:
        """Return scores and losses.

        Args:
            batch: utterances; neither padding nor targets affect a score.
            aux: whether losses other than `task` count. If not, they are zero but part of the
                graph.
        """
        vectors = {  # u_m, (batch, dim)
            m: self.projections[m](self.summaries[m](batch.values[m], batch.valid[m]))
            for m in MODALITIES
        }
        shared = {m: self.shared(vectors[m]) for m in MODALITIES}
        private = {m: self.private[m](vectors[m]) for m in MODALITIES}
        rebuilt = {m: self.decoders[m](private[m] + shared[m]) for m in MODALITIES}

        parts = torch.stack([*private.values(), *shared.values()], dim=1)  # (batch, 6, dim)
        prediction = self.task.prediction(self.fusion(self.transformer(parts).flatten(1)))

        means = auxiliary_losses(vectors, shared, private, rebuilt, moments=self.moments)
        counts = self.loss_counts(batch)
        task = task_loss(prediction, batch.label, weight=self.weights["task"], kind="mse")
        losses = {
            name: Loss(mean * counts[name] * aux, counts[name], self.weights[name])
            for name, mean in means.items()
        }
        return Output(prediction, {}, {"task": task, **losses})
