"""MMSA's models beside ours: loading them, batches for both, and copying their weights."""

from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mitfrnet.data.batches import Batch
from mitfrnet.modalities import MODALITIES
from mitfrnet.models.attention import TransformerEncoder
from mitfrnet.models.mitfrnet.extraction import Extraction
from mitfrnet.models.mitfrnet.fusion import Fusion

LETTERS = {"text": "l", "acoustic": "a", "visual": "v"}  # in MMSA's names of modules
THEIR_NAMES = {"text": "text", "acoustic": "audio", "visual": "vision"}

DIMS = {"text": 32, "acoustic": 5, "visual": 20}  # sound and picture as in MMSA's file of MOSI
LENGTHS = {"text": 9, "acoustic": 21, "visual": 14}
KERNELS = {"text": 1, "acoustic": 5, "visual": 3}
GRU_HIDDEN = {"text": 36, "acoustic": 20, "visual": 48}

# The published settings of TFR-Net and MIT-FRNet for MOSI, in our terms.
EXTRACTION: dict[str, Any] = {
    "dim": 30,
    "heads": 6,
    "intra_layers": 3,
    "cross_layers": 3,
    "feedforward_factor": 4,
    "kernels": KERNELS,
    "text_dropout": 0.2,
    "attention_dropout": {"text": 0.2, "acoustic": 0.1, "visual": 0.0},
    "relu_dropout": 0.2,
    "residual_dropout": 0.2,
    "embed_dropout": 0.2,
    "causal": True,
}
RECONSTRUCTION: dict[str, Any] = {
    "reconstruction_layers": 3,
    "reconstruction_heads": 6,
    "reconstruct": "missing",
    "reconstruction_weights": {"text": 5, "acoustic": 2, "visual": 20},
}
FUSION: dict[str, Any] = {
    "gate": "released",
    "gru_hidden": GRU_HIDDEN,
    "gru_layers": 3,
    "fusion_dropout": 0.2,
    "classifier_dim": 128,
    "classifier_dropout": 0.0,
    "classifier_norm": "batch",
}


class Args(SimpleNamespace):
    """Settings as MMSA reads them, by attribute and by key."""

    def __getitem__(self, key: str) -> Any:
        return getattr(self, key)


class GivenText(nn.Module):
    """Replaces BERT: returns `features`, (batch, time, dim), for any token ids."""

    features: Tensor

    def __init__(self, **_: object) -> None:
        super().__init__()

    def forward(self, text: Tensor) -> Tensor:
        return self.features


def load(name: str) -> ModuleType:
    """Return module `MMSA.models.<name>`, or skip the test if MMSA is not installed."""
    return pytest.importorskip(f"MMSA.models.{name}", reason="needs MMSA (run: make parity)")


def dense_batch(
    count: int, *, dims: dict[str, int] = DIMS, lengths: dict[str, int] = LENGTHS
) -> Batch:
    """Return complete utterances of full length, in which no feature is zero."""
    generator = torch.Generator().manual_seed(0)
    values = {m: torch.randn(count, lengths[m], dims[m], generator=generator) for m in MODALITIES}
    valid = {m: torch.ones(count, lengths[m], dtype=torch.bool) for m in MODALITIES}
    return Batch(
        utterance_ids=tuple(f"video/{i}" for i in range(count)),
        values=values,
        target=values,
        valid=valid,
        observed=valid,
        hidden={m: ~valid[m] for m in MODALITIES},
        token_ids=torch.zeros(count, lengths["text"], dtype=torch.int64),
        label=torch.zeros(count),
    )


def lively(theirs: nn.Module) -> nn.Module:
    """Return the model in evaluation mode, with noise on parameters that start as 0 or 1."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.ndim == 1:
                parameter += 0.1 * torch.randn_like(parameter)
        for name, buffer in theirs.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer += torch.rand_like(buffer)
    return theirs.eval()


def tfrnet(monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """Return MMSA's TFR-Net for MOSI, without BERT and the losses of its reconstructions."""
    module = load("missingTask.TFR_NET.model")
    monkeypatch.setattr(module, "BertTextEncoder", GivenText)
    args = Args(
        use_bert_finetune=False,
        without_generator=True,
        alignmentModule="crossmodal_attn",
        fusionModule="c_gate",
        dst_feature_dim_nheads=(30, 6),
        num_temporal_head=1,  # 25 would have to divide every length
        attn_mask=True,
        nlevels=3,
        text_dropout=0.2,
        attn_dropout=0.2,
        attn_dropout_a=0.1,
        attn_dropout_v=0.0,
        relu_dropout=0.2,
        embed_dropout=0.2,
        res_dropout=0.2,
        fusion_gru_layers=3,
        fusion_drop=0.2,
        cls_hidden_dim=128,
        cls_dropout=0.0,
        feature_dims=tuple(DIMS.values()),
        seq_lens=tuple(LENGTHS.values()),
        device="cpu",
        fusion_t_hid=GRU_HIDDEN["text"],
        fusion_a_hid=GRU_HIDDEN["acoustic"],
        fusion_v_hid=GRU_HIDDEN["visual"],
        **{f"conv1d_kernel_size_{LETTERS[m]}": kernel for m, kernel in KERNELS.items()},
    )
    torch.manual_seed(0)
    return lively(module.TFR_NET(args))


def tfrnet_scores(theirs: Any, batch: Batch) -> Tensor:
    """Return what MMSA's TFR-Net predicts, (batch,)."""
    tokens = torch.ones(len(batch), 3, LENGTHS["text"])  # ids, mask, segments
    theirs.text_model.features = batch.values["text"]
    mask = {m: batch.valid[m].float() for m in MODALITIES}
    acoustic, visual = (
        (batch.values[m], batch.values[m], mask[m], mask[m]) for m in ("acoustic", "visual")
    )
    with torch.no_grad():
        return theirs((tokens, tokens, mask["text"]), acoustic, visual)[0].squeeze(-1)


def copy_encoder(theirs: Any, ours: TransformerEncoder) -> None:
    """Copy the weights of one of their transformers."""
    assert len(theirs.layers) == len(ours.layers)
    ours.norm.load_state_dict(theirs.layer_norm.state_dict())
    for source, layer in zip(theirs.layers, ours.layers, strict=True):
        layer.attention.project_in.weight.data = source.self_attn.in_proj_weight.data
        layer.attention.project_in.bias.data = source.self_attn.in_proj_bias.data
        layer.attention.project_out.load_state_dict(source.self_attn.out_proj.state_dict())
        layer.attention_norm.load_state_dict(source.layer_norms[0].state_dict())
        layer.feedforward[0].load_state_dict(source.layer_norms[1].state_dict())
        layer.feedforward[1].load_state_dict(source.fc1.state_dict())
        layer.feedforward[4].load_state_dict(source.fc2.state_dict())


def copy_crossmodal(theirs: Any, encoders: nn.ModuleDict) -> None:
    """Copy the weights of the six transformers `<source>_to_<modality>`."""
    for m in MODALITIES:
        for s in MODALITIES:
            if s != m:
                name = f"trans_{LETTERS[m]}_with_{LETTERS[s]}"
                copy_encoder(getattr(theirs, name), encoders[f"{s}_to_{m}"])


def copy_convolutions(theirs: Any, convolutions: nn.ModuleDict) -> None:
    """Copy the weights of the convolutions."""
    for m in MODALITIES:
        convolutions[m].conv.load_state_dict(getattr(theirs, f"proj_{LETTERS[m]}").state_dict())


def copy_extraction(theirs: Any, ours: Extraction) -> None:
    """Copy the weights of TFR-Net's extraction."""
    copy_convolutions(theirs, ours.convolutions)
    copy_crossmodal(theirs, ours.encoders)
    for m in MODALITIES:
        copy_encoder(getattr(theirs, f"trans_{LETTERS[m]}_mem"), ours.encoders[f"{m}_to_{m}"])


def copy_fusion(theirs: Any, ours: Fusion) -> None:
    """Copy the weights of TFR-Net's fusion."""
    for m in MODALITIES:
        source = getattr(theirs, f"{THEIR_NAMES[m]}_encoder")
        ours.encoders[m].gru.load_state_dict(source.gru.gru.state_dict())
        ours.encoders[m].gate.conv.load_state_dict(source.cnn.state_dict())
        ours.encoders[m].linear.load_state_dict(source.fc.state_dict())
    for source, layer in zip(theirs.classifier, ours.classifier, strict=True):
        layer.load_state_dict(source.state_dict())
