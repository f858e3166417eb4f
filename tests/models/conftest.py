from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mitfrnet.data.batches import Utterance
from mitfrnet.modalities import MODALITIES
from mitfrnet.models.baselines.tfrnet import TFRNetParams

DIMS = {"text": 8, "acoustic": 5, "visual": 6}


def make_utterance(
    seed: int,
    *,
    lengths: dict[str, int] | None = None,
    missing_rate: float = 0.3,
    absent: tuple[str, ...] = (),
) -> Utterance:
    """Return a random utterance with features of `DIMS`.

    Modalities have 2 to 9 steps unless `lengths` says otherwise; those in `absent` have one null
    step.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(m: str) -> tuple[Tensor, Tensor]:
        length = int(torch.randint(2, 10, (), generator=generator))
        target = torch.randn((lengths or {}).get(m, length), DIMS[m], generator=generator)
        kept = torch.rand(len(target), generator=generator) >= missing_rate
        return target, kept

    target, observed, hidden = {}, {}, {}
    for m in MODALITIES:
        target[m], observed[m] = draw(m)
        hidden[m] = ~observed[m]
        if m in absent:
            target[m] = torch.zeros(1, DIMS[m])
            observed[m] = hidden[m] = torch.tensor([False])
    return Utterance(
        utterance_id=f"video/{seed}",
        values={m: target[m] * observed[m][:, None] for m in MODALITIES},
        target=target,
        observed=observed,
        hidden=hidden,
        token_ids=torch.arange(len(target["text"])),
        label=float((3 * torch.randn((), generator=generator)).clamp(-3, 3)),
    )


@pytest.fixture(name="make_utterance")
def _make_utterance() -> Callable[..., Utterance]:
    return make_utterance


@pytest.fixture
def dims() -> dict[str, int]:
    return dict(DIMS)


@pytest.fixture
def mitfrnet_settings() -> dict[str, object]:
    """A small MIT-FRNet without dropout."""
    return {
        "dim": 6,
        "heads": 3,
        "intra_layers": 1,
        "cross_layers": 1,
        "feedforward_factor": 2,
        "kernels": {"text": 1, "acoustic": 5, "visual": 3},
        "text_dropout": 0.0,
        "attention_dropout": {"text": 0.0, "acoustic": 0.0, "visual": 0.0},
        "relu_dropout": 0.0,
        "residual_dropout": 0.0,
        "embed_dropout": 0.0,
        "causal": False,
        "mmr": True,
        "reconstruction_layers": 1,
        "reconstruction_heads": 3,
        "reconstruct": "missing",
        "reconstruction_weights": {"text": 1.0, "acoustic": 1.0, "visual": 1.0},
        "mitr": True,
        "timestamps": 16,
        "common_dim": 4,
        "similarity": "kl",
        "fuse": "encoded",
        "gate": "printed",
        "gru_hidden": {"text": 4, "acoustic": 3, "visual": 5},
        "gru_layers": 2,
        "fusion_dropout": 0.0,
        "classifier_dim": 8,
        "classifier_dropout": 0.0,
        "classifier_norm": "batch",
        "reconstruction_weight": 1.0,
        "invariance_weight": 0.001,
        "task_weight": 1.0,
        "aux_start_epoch": 2,
    }


@pytest.fixture
def mult_settings() -> dict[str, object]:
    """A small MulT without dropout."""
    return {
        "dim": 6,
        "heads": 3,
        "cross_layers": 1,
        "memory_layers": 1,
        "feedforward_factor": 2,
        "kernels": {"text": 1, "acoustic": 5, "visual": 3},
        "padded_convolutions": True,
        "positions": True,
        "causal": True,
        "text_dropout": 0.0,
        "attention_dropout": {"text": 0.0, "acoustic": 0.0, "visual": 0.0},
        "memory_attention_dropout": 0.0,
        "relu_dropout": 0.0,
        "residual_dropout": 0.0,
        "embed_dropout": 0.0,
        "output_dropout": 0.0,
    }


@pytest.fixture
def tfrnet_settings(mitfrnet_settings: dict[str, object]) -> dict[str, object]:
    """A small TFR-Net without dropout, but wide enough to learn although its gate saturates."""
    shared = {key: mitfrnet_settings[key] for key in TFRNetParams.model_fields}
    return {**shared, "causal": True, "gate": "released", "gru_layers": 1, "classifier_dim": 16}


@pytest.fixture
def tfn_settings() -> dict[str, object]:
    """A small TFN without dropout."""
    return {
        "hidden_dims": {"text": 6, "acoustic": 4, "visual": 6},
        "text_out": 5,
        "dropout": {"text": 0.0, "acoustic": 0.0, "visual": 0.0},
        "post_fusion_dim": 16,
        "post_fusion_dropout": 0.0,
    }


@pytest.fixture
def misa_settings() -> dict[str, object]:
    """A small MISA without dropout."""
    return {
        "dim": 12,
        "heads": 2,
        "feedforward_dim": 24,
        "transformer_dropout": 0.0,
        "dropout": 0.0,
        "moments": 5,
        "similarity_weight": 0.8,
        "difference_weight": 0.3,
        "reconstruction_weight": 0.8,
    }
