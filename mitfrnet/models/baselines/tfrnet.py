"""TFR-Net, the Transformer-based Feature Reconstruction Network.

Yuan, Li, Xu and Yu, ACM Multimedia 2021; section 3 of the paper. MIT-FRNet extends it, so the two
share extraction, reconstruction and fusion.
"""

import torch
from torch import Tensor

from mitfrnet.data.batches import Batch
from mitfrnet.models.base import SCORE, Loss, Model, Output, Task, task_loss
from mitfrnet.models.layers import Count
from mitfrnet.models.mitfrnet.extraction import Extraction
from mitfrnet.models.mitfrnet.fusion import Fusion, FusionParams
from mitfrnet.models.mitfrnet.reconstruction import (
    Reconstruction,
    ReconstructionParams,
    reconstruction_counts,
    reconstruction_sums,
)
from mitfrnet.params import parse_params


class TFRNetParams(ReconstructionParams, FusionParams):
    """Section `model.tfrnet.network`; includes extraction, reconstruction and fusion."""

    aux_start_epoch: Count  # first epoch, counted from 1, with reconstruction


class TFRNet(Model):
    r"""Sentiment from features that also rebuild missing steps.

    .. math::
        H_m &= [X_{m \to m}; X_{s_1 \to m}; X_{s_2 \to m}] \\
        \hat X_m &= \mathrm{linear}(\mathrm{Transformer}(H_m)) \\
        \mathcal L &= |y - \hat y| + \sum_m \lambda_m \,
        \mathrm{smoothL1}(\hat X_m - X_m \text{ at missing steps})

    H is fused by a gated recurrent encoder per modality and a classifier; the rebuilt features
    serve the loss alone. Published settings are `causal: true`, `gate: released` and
    `reconstruct: missing`.

    Not in the paper: padding is masked everywhere. The smooth L1 distance is averaged over the
    elements of detected steps that the mask hides, and is zero without any. No gradient flows into
    its target, which the published code encodes with the BERT that it is training. The
    reconstruction's transformer attends over the steps of one utterance and has positions; in the
    published code it attends over the batch (so that utterances are rebuilt from each other, with
    25 heads that must divide the padded length) and has none. A central moment discrepancy beside
    the smooth L1 distance is left out: the code published with the paper never computes it, though
    MMSA does.

    Checked against MMSA 2.2.1 (`tests/parity/test_tfrnet.py`) on clips of full length: the same
    predictions to 1e-6 with `causal: true` and `gate: released`. The reconstructions cannot be
    compared.

    `losses` holds `task` and `reconstruction_<modality>`.

    Args:
        dims: features of a step by modality.
        task: what is predicted.
        settings: the fields of `TFRNetParams`.

    Raises:
        ParamsError: a setting is unknown, absent or out of range.
    """

    def __init__(self, *, dims: dict[str, int], task: Task = SCORE, **settings: object) -> None:
        super().__init__()
        params = parse_params(TFRNetParams, settings, where="model.tfrnet.network")
        self.extraction = Extraction.from_params(params, dims)
        self.reconstruction = Reconstruction.from_params(params, dims)
        self.fusion = Fusion.from_params(params, in_dim=3 * params.dim, outputs=task.outputs)
        self.task = task
        self.aux_start_epoch = params.aux_start_epoch
        self.reconstruct = params.reconstruct
        self.weights = {
            "task": 1.0,
            **{f"reconstruction_{m}": weight for m, weight in params.reconstruction_weights},
        }

    def forward(self, batch: Batch, *, aux: bool = True) -> Output:
        """Return scores, rebuilt features and losses.

        Args:
            batch: utterances; neither padding nor targets affect a score.
            aux: whether reconstruction counts. If not, its losses are zero but part of the
                graph.
        """
        encoded = self.extraction(batch.values, batch.valid)  # H, (batch, time, 3 dim) each
        _, rebuilt = self.reconstruction(encoded, batch.valid)
        prediction = self.task.prediction(self.fusion(encoded, batch.valid))
        losses = {"task": task_loss(prediction, batch.label, weight=self.weights["task"])}
        counts = self.loss_counts(batch)
        sums = reconstruction_sums(rebuilt, batch, self.reconstruct, aux=aux)
        losses |= {name: Loss(sums[name], counts[name], self.weights[name]) for name in sums}
        return Output(prediction, rebuilt, losses)

    def loss_counts(self, batch: Batch) -> dict[str, Tensor]:
        """Return the count of each loss: utterances for `task`, else feature elements."""
        task = torch.ones_like(batch.label).sum()
        return {"task": task} | reconstruction_counts(batch, self.reconstruct)
