"""How the features of a model are made, as its folder says."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mitfrnet.corpus.manifest import make_manifest
from mitfrnet.data.alignment import TensorParams
from mitfrnet.data.build import build_tensors
from mitfrnet.data.tensors import SplitTensors
from mitfrnet.errors import FeatureError
from mitfrnet.features.extract import build_extractor, extractor_params
from mitfrnet.features.extractor import Extractor
from mitfrnet.features.shards import FeatureRow, feature_schema, to_table
from mitfrnet.media import decode
from mitfrnet.modalities import MODALITIES
from mitfrnet.params import StageParams, parse_params
from mitfrnet.trained.folder import ENCODER, read_config

# What a clip may cost: section `ingest.limits` as shipped. Limits decide which clips are read,
# not what is read from them, so they are no part of a model.
LIMITS = decode.MediaLimits(
    max_duration_s=600, max_pixels=33177600, max_bytes=2147483648, max_streams=32
)

# A worker that needs longer for one modality of a clip is killed.
TIMEOUT_S = 300

MEDIA: tuple[str, ...] = ("acoustic", "visual")


class FeatureSettings:
    """How the features of a model are made, as its folder says.

    Args:
        folder: the model's.
        limits: what a clip may cost.

    Attributes:
        settings: of the corpus, as `build_extractor` takes them.

    Raises:
        FeatureError: the folder holds no model of this version, or not how features are made.
    """

    def __init__(self, folder: Path, limits: decode.MediaLimits) -> None:
        self.folder, self.limits = folder, limits
        self.config = read_config(folder)
        self.language: str = self.config["language"]
        self.fine_tuned = self.config["text"] == "finetuned"
        self.settings: dict[str, Any] = {
            "language": self.language,
            "text_encoder": str(folder / ENCODER) if self.fine_tuned else None,
            "limits": limits.model_dump(),
        }

    def params(self, modality: str) -> StageParams:
        """Return the section `extract.<modality>` of the training.

        Raises:
            FeatureError: the folder does not say how its features are made.
            ParamsError: a setting in it is unknown or out of range.
        """
        where = f"{self.folder}/config.json: features.{modality}"
        try:
            section = _section(
                modality, self.config["features"][modality]["identity"], self.language
            )
        except (KeyError, TypeError) as error:
            raise FeatureError(
                f"{where}: no {error} (expected the settings of an extractor; features that were "
                "imported cannot be made from clips)"
            ) from error
        return extractor_params(modality, section, where=where)

    @property
    def tensor_params(self) -> TensorParams:
        """Return how sound and face are aligned to the text."""
        identity = self.config["features"]["acoustic"]["identity"]
        where = f"{self.folder}/config.json: features.acoustic.identity.tensors"
        unaligned = {"align": "none", "segments": 1}
        return parse_params(TensorParams, identity.get("tensors", unaligned), where=where)

    def extractor(self, modality: str) -> Extractor:
        """Return the extractor of a modality.

        Raises:
            FeatureError: as for `params`, or a model it needs is not there.
            ParamsError: as for `params`.
        """
        return build_extractor(modality, self.params(modality), self.settings)

    def tensors(
        self, rows: list[dict[str, Any]], features: Mapping[str, list[FeatureRow]], extractors: Any
    ) -> SplitTensors:
        """Return the tensors of a manifest's rows.

        Args:
            rows: of the manifest, all of the test split.
            features: of each modality, for the same utterances.
            extractors: that they come from, by modality.
        """
        manifest = make_manifest(rows, {"language": self.language, "scale": self.config["scale"]})
        tables = {m: to_table(features[m], feature_schema(extractors[m])) for m in MODALITIES}
        return build_tensors(manifest, tables, self.tensor_params)["test"]


def _section(modality: str, identity: dict[str, Any], language: str) -> dict[str, Any]:
    """Return the section `extract.<modality>` that an extractor of that identity comes from."""
    if modality != "text":
        named = {"extractor": identity["extractor"]} if "extractor" in identity else {}
        return named | identity["settings"]
    device = identity["device"]
    if device == "cuda":
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
    return {
        "encoders": {language: identity["encoder"]},
        "max_tokens": identity["max_tokens"],
        "batch_size": identity["batch_size"],
        "device": device,
    }
