"""Model folders for tests: untrained networks behind the extractors that are shipped."""

import json

import torch

from mitfrnet.data.alignment import TensorParams
from mitfrnet.data.scaling import Scaling
from mitfrnet.features.acoustic import AcousticExtractor, AcousticParams
from mitfrnet.features.text import TextExtractor
from mitfrnet.features.text_encoder import TextEncoder
from mitfrnet.features.text_params import TextParams
from mitfrnet.features.visual import VisualExtractor
from mitfrnet.labels import SCALES
from mitfrnet.models import registry
from mitfrnet.params import load_params
from mitfrnet.predict.extraction import LIMITS, FeatureSettings, described_features
from mitfrnet.trained.model import Network, TrainedModel, task_of
from mitfrnet.training.load import load_model_params
from tests.helpers.faces import shipped_params
from tests.helpers.splits import make_mask_params


def text_extractor(encoder="embedded"):
    """Return the extractor of text that is shipped, with an encoder."""
    params = load_params(TextParams, section="extract.text")
    return TextExtractor(params, encoder)


def make_model(*, encoder="embedded", fine_tuned=False, scale=None, align="none", seed=1):
    """Return a network with random weights, and the settings that its folder would hold."""
    extractors = {
        "text": text_extractor(encoder),
        "acoustic": AcousticExtractor(
            load_params(AcousticParams, section="extract.acoustic"), LIMITS
        ),
        "visual": VisualExtractor(shipped_params(), LIMITS),
    }
    dims = {m: len(e.feature_names) for m, e in extractors.items()}
    scale = scale or SCALES["mosi"].model_dump(mode="json")
    feature_settings = FeatureSettings(
        sections={},
        where="",
        language="en",
        scale=scale,
        limits=LIMITS,
        tensor_params=TensorParams(align=align, segments=1),
    )
    settings = load_model_params("mitfrnet").network
    torch.manual_seed(seed)
    model = registry.build("mitfrnet", dims=dims, task=task_of(scale), **settings)
    network = Network(model, TextEncoder(encoder) if fine_tuned else None)
    config = {
        "model": "mitfrnet",
        "architecture": "mitfrnet",
        "settings": settings,
        "dims": dims,
        "text": "finetuned" if fine_tuned else "frozen",
        "features": described_features(feature_settings, extractors),
        "language": "en",
        "scale": scale,
        "training": {
            "seed": seed,
            "train": {"threads": 1},
            "clips": {"train": 2, "valid": 1},
            "best_epoch": 1,
            "best_valid_task_loss": 1.0,
            "parameters": sum(p.numel() for p in network.parameters()),
            "masks": {
                "rate": 0.3,
                "pattern": "random",
                "protocol": "matched",
                "params": make_mask_params(seed=1).model_dump(mode="json"),
            },
        },
        "versions": {"torch": torch.__version__},
    }
    generator = torch.Generator().manual_seed(seed)
    scaling = Scaling(
        {m: torch.randn(dims[m], generator=generator) for m in ("acoustic", "visual")},
        {m: torch.rand(dims[m], generator=generator) + 1 for m in ("acoustic", "visual")},
    )
    return TrainedModel(network.eval(), scaling, config)


def edit_features(folder, modality, **changes):
    """Change what a model folder says of one modality; `identity__x` is a key of its identity."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    for key, value in changes.items():
        *parts, last = key.split("__")
        section = config["features"][modality]
        for part in parts:
            section = section[part]
        section[last] = value
    path.write_text(json.dumps(config))
