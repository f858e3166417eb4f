"""How the features of a clip are made, and the tensors of one clip."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from mitfrnet.corpus.manifest import input_digest, make_manifest
from mitfrnet.corpus.transcripts.words import Transcript, place_words, spread
from mitfrnet.data.alignment import TensorParams
from mitfrnet.data.build import build_tensors
from mitfrnet.data.tensors import SplitTensors
from mitfrnet.errors import FeatureError, MediaError
from mitfrnet.features.extract import build_extractor, extractor_params
from mitfrnet.features.extractor import Clip, Extractor, Features
from mitfrnet.features.shards import FeatureRow, feature_schema, to_table
from mitfrnet.media import decode
from mitfrnet.modalities import MODALITIES
from mitfrnet.params import StageParams, parse_params
from mitfrnet.trained.folder import ENCODER, read_config

# What a clip may cost: section `ingest.limits` as shipped. Limits decide which clips are read,
# not what is read from them, so they are not stored with a model.
LIMITS = decode.MediaLimits(
    max_duration_s=600, max_pixels=33177600, max_bytes=2147483648, max_streams=32
)

# A worker that needs longer for one modality of a clip is killed.
TIMEOUT_S = 300

MEDIA: tuple[str, ...] = ("acoustic", "visual")

NOT_ALIGNED = TensorParams(align="none", segments=1)


@dataclass(frozen=True)
class FeatureSettings:
    """How the features of a clip are made.

    Attributes:
        sections: `extract.<modality>` by modality, as `params.yaml` would say it.
        where: opens the line of an error in one of them.
        language: of the transcript.
        scale: of the labels; None: there is no model.
        limits: what a clip may cost.
        text_encoder: folder of a fine-tuned one; None: the one that `extract.text` names.
        tensor_params: how acoustic and visual features are aligned with the text.
        trained_on: section `features` of the model's `config.json`; None: no model.
    """

    sections: Mapping[str, Any]
    where: str
    language: str
    scale: dict[str, Any] | None
    limits: decode.MediaLimits
    text_encoder: str | None = None
    tensor_params: TensorParams = NOT_ALIGNED
    trained_on: Mapping[str, Any] | None = None

    @classmethod
    def of_model(cls, folder: Path, limits: decode.MediaLimits = LIMITS) -> "FeatureSettings":
        """Return the settings that a model was trained with.

        Raises:
            FeatureError: the folder holds no model of this version, or its features were imported.
            ParamsError: a setting in it is unknown or out of range.
        """
        config = read_config(folder)
        where = f"{folder}/config.json: features"
        language, sections = config["language"], {}
        for modality in MODALITIES:
            try:
                identity = config["features"][modality]["identity"]
                sections[modality] = _section(modality, identity, language)
            except (KeyError, TypeError) as error:
                raise FeatureError(
                    f"{where}.{modality}: no {error} (expected the settings of an extractor; "
                    "features that were imported cannot be made from clips)"
                ) from error
        identity = config["features"]["acoustic"]["identity"]
        aligned = identity.get("tensors", NOT_ALIGNED.model_dump())
        return cls(
            sections=sections,
            where=where,
            language=language,
            scale=config["scale"],
            limits=limits,
            text_encoder=str(folder / ENCODER) if config["text"] == "finetuned" else None,
            tensor_params=parse_params(
                TensorParams, aligned, where=f"{where}.acoustic.identity.tensors"
            ),
            trained_on=config["features"],
        )

    def params(self, modality: str) -> StageParams:
        """Return the settings of one modality's extractor.

        Raises:
            FeatureError: an installed extractor cannot be loaded.
            ParamsError: a setting is unknown or out of range.
        """
        section = self.sections[modality]
        if modality == "text" and section["device"] == "cuda":
            import torch

            section = section | {"device": "cuda" if torch.cuda.is_available() else "cpu"}
        return extractor_params(modality, section, where=f"{self.where}.{modality}")

    @property
    def corpus_settings(self) -> dict[str, Any]:
        """Return what `build_extractor` asks of a corpus."""
        return {
            "language": self.language,
            "text_encoder": self.text_encoder,
            "limits": self.limits.model_dump(),
        }

    def extractors(self) -> dict[str, Extractor]:
        """Return the extractor of each modality.

        Raises:
            FeatureError: as for `params`, or a model that an extractor needs is not there.
            ParamsError: as for `params`.
        """
        settings = self.corpus_settings
        return {m: build_extractor(m, self.params(m), settings) for m in MODALITIES}


def _section(modality: str, identity: dict[str, Any], language: str) -> dict[str, Any]:
    """Return the section `extract.<modality>` that gives an extractor of that identity."""
    if modality != "text":
        name = {"extractor": identity["extractor"]} if "extractor" in identity else {}
        return name | identity["settings"]
    return {
        "encoders": {language: identity["encoder"]},
        "max_tokens": identity["max_tokens"],
        "batch_size": identity["batch_size"],
        "device": identity["device"],
    }


@dataclass(frozen=True)
class ClipFeatures:
    """One modality of one clip.

    Attributes:
        duration_s: of the clip, in seconds.
        features: None where the clip has nothing of the modality.
        reason: why the modality is missing; None where it is there.
    """

    duration_s: float
    features: Features | None
    reason: str | None


def extract_medium(
    modality: str, extractor: Extractor, path: Path, limits: decode.MediaLimits
) -> ClipFeatures:
    """Return the sound or the face of a clip, or the reason why it is missing."""
    probe = decode.probe(path, limits)
    reason = probe.audio_reason if modality == "acoustic" else probe.video_reason
    if reason is not None:
        return ClipFeatures(probe.duration_s, None, reason)
    try:
        features = extractor.extract(Clip(str(path), path))
    except MediaError as error:
        return ClipFeatures(probe.duration_s, None, str(error))
    return ClipFeatures(probe.duration_s, features, features.reason)


class ClipTensors(NamedTuple):
    """A clip in the form of an utterance of a corpus.

    Attributes:
        row: of the manifest.
        features: a table of one row per modality, as the extract stage stores it.
        tensors: a split of this one utterance; its label has no meaning.
    """

    row: dict[str, Any]
    features: dict[str, pa.Table]
    tensors: SplitTensors


def clip_tensors(
    path: Path,
    media: Mapping[str, ClipFeatures],
    text: Features | None,
    transcript: Transcript,
    settings: FeatureSettings,
    extractors: Mapping[str, Extractor],
) -> ClipTensors:
    """Return the tensors of a clip, by the functions that make those of a corpus.

    Args:
        path: the file.
        media: its sound and its face.
        text: features of the transcript; None where it is empty.
        transcript: what is said in the clip.
        settings: of the features.
        extractors: that made the features, by modality.
    """
    row = _manifest_row(path, media, transcript)
    no_text = text is None or text.reason
    features_of = {m: media[m].features for m in MEDIA} | {"text": text}
    reasons = {m: media[m].reason for m in MEDIA} | {
        "text": "empty_transcript" if no_text else None
    }
    features = {
        m: to_table(
            [FeatureRow(str(path), features_of[m], reasons[m], input_digest(row, m), "")],
            feature_schema(extractors[m]),
        )
        for m in MODALITIES
    }
    aligned = row
    if are_words_spread(transcript, settings):
        evenly = spread(transcript.text, 0.0, row["duration_s"])
        aligned = row | {"words": [asdict(w) for w in place_words(transcript.text, evenly)]}
    tensors = _tensors([aligned], features, settings)
    if settings.trained_on is not None:
        # Only versions may differ, and the predictor has checked them.
        tensors = replace(tensors, metadata=tensors.metadata | {"features": settings.trained_on})
    return ClipTensors(row, features, tensors)


def are_words_spread(transcript: Transcript, settings: FeatureSettings) -> bool:
    """Return whether sound and face are aligned with words whose times are not known."""
    aligned = settings.tensor_params.align == "words"
    return aligned and bool(transcript.text) and not transcript.words


def described_features(
    settings: FeatureSettings, extractors: Mapping[str, Extractor]
) -> dict[str, Any]:
    """Return what the metadata of tensors would say of each modality's features."""
    features = {m: to_table([], feature_schema(extractors[m])) for m in MODALITIES}
    return _tensors([], features, settings).metadata["features"]


def _tensors(
    rows: list[dict[str, Any]], features: dict[str, pa.Table], settings: FeatureSettings
) -> SplitTensors:
    manifest = make_manifest(rows, {"language": settings.language, "scale": settings.scale})
    return build_tensors(manifest, features, settings.tensor_params)["test"]


def _manifest_row(
    path: Path, media: Mapping[str, ClipFeatures], transcript: Transcript
) -> dict[str, Any]:
    """Return the clip's row in the manifest of a corpus."""
    return {
        "utterance_id": str(path),
        "video_id": path.parent.name,
        "clip_id": path.stem,
        "split": "test",
        "path": str(path),
        "digest": None,
        "start_s": None,
        "end_s": None,
        "transcript": transcript.text,
        "transcript_source": transcript.source,
        "words": None if transcript.words is None else [asdict(w) for w in transcript.words],
        "label": 0.0,  # models compute their task loss in any case, and it takes no NaN
        "duration_s": max(m.duration_s for m in media.values()),
        "text_reason": None if transcript.text else "empty_transcript",
        **{f"{m}_reason": features.reason for m, features in media.items()},
    }
