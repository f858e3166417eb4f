"""A clip outside any corpus; its features are extracted now."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from mitfrnet.corpus.transcripts.words import Transcript
from mitfrnet.errors import MediaError, MitfrnetError
from mitfrnet.features.extractor import Clip, Extractor
from mitfrnet.features.text_params import TextParams
from mitfrnet.inspection import masking
from mitfrnet.inspection.predictions import predict_all, text_encoder_of
from mitfrnet.inspection.subject import Subject, make_subject
from mitfrnet.inspection.view import View, make_view
from mitfrnet.media.decode import MediaLimits, probe
from mitfrnet.missing import MaskParams
from mitfrnet.modalities import MODALITIES
from mitfrnet.params import PARAMS_FILE, load_params, read_section
from mitfrnet.predict.extraction import (
    LIMITS,
    MEDIA,
    FeatureSettings,
    clip_tensors,
    extract_medium,
)
from mitfrnet.predict.predictor import Predictor
from mitfrnet.predict.transcripts import transcript_beside


def inspect_clip(
    path: Path, models: Sequence[Path | str], transcript: str = "", root: Path = Path()
) -> View:
    """Return what the page of a clip shows.

    Args:
        path: the file.
        models: folders of trained models, or their names on the hub. The first decides how
            features are made; without a model, `params.yaml` does.
        transcript: what is said; empty: what a file beside the clip holds.
        root: the folder of the project, with its `params.yaml`.

    Raises:
        MediaError: neither picture nor sound can be read, or one of them is too long.
        CorpusError: the file beside the clip is broken.
        FeatureError: a model cannot be used, or the features need one that is not there.
        ParamsError: `params.yaml` is needed, and is absent or wrong.
    """
    predictors = [Predictor.from_pretrained(model) for model in models]
    settings = predictors[0].settings if predictors else settings_of_project(root)
    spoken: Transcript | MitfrnetError = Transcript(transcript, source="given")
    if not transcript:
        spoken = transcript_beside(path, settings.language)
    if isinstance(spoken, MitfrnetError):
        raise spoken
    _check_readable(path, settings.limits)
    if predictors:
        extractors = predictors[0].extractors
        mask_params = MaskParams(**predictors[0].trained.config["training"]["masks"]["params"])
        remark = None
    else:
        extractors = settings.extractors()
        mask_params = load_params(MaskParams, section="mask", path=root / PARAMS_FILE)
        remark = "No model: name one with --model."
    subject = gather_clip(path, spoken, settings, extractors)
    masks = masking.draw(subject.tensors, subject.part, mask_params)
    trained = [(predictor.folder, predictor.trained) for predictor in predictors]
    text = text_encoder_of(subject.tensors)
    return make_view(subject, masks, predict_all(trained, text, subject.tensors, masks), remark)


def settings_of_project(root: Path) -> FeatureSettings:
    """Return the settings of features in `params.yaml`, for the first language of its encoders.

    Raises:
        ParamsError: `params.yaml` is absent, or lacks a section, or that of text is wrong.
    """
    path = root / PARAMS_FILE
    text = load_params(TextParams, section="extract.text", path=path)
    return FeatureSettings(
        sections={m: read_section(f"extract.{m}", path) for m in MODALITIES},
        where=f"{PARAMS_FILE}: extract",
        language=next(iter(text.encoders)),
        scale=None,
        limits=LIMITS,
    )


def gather_clip(
    path: Path,
    transcript: Transcript,
    settings: FeatureSettings,
    extractors: Mapping[str, Extractor],
) -> Subject:
    """Return a clip with the features that are extracted from it.

    Args:
        path: the file.
        transcript: what is said.
        settings: of the features.
        extractors: that make them, by modality.
    """
    media = {m: extract_medium(m, extractors[m], path, settings.limits) for m in MEDIA}
    clip = Clip(str(path), path, transcript=transcript.text)
    text = extractors["text"].extract(clip) if transcript.text else None
    row, features, tensors = clip_tensors(path, media, text, transcript, settings, extractors)
    return make_subject(
        name=path.name,
        corpus=None,
        file=path.name,
        clip=clip,
        limits=settings.limits,
        row=row,
        features=features,
        tensors=tensors,
    )


def _check_readable(path: Path, limits: MediaLimits) -> None:
    """Refuse a clip that has nothing to show.

    Raises:
        MediaError: neither picture nor sound can be read, or one of them is too long.
    """
    contents = probe(path, limits)
    reasons = (contents.video_reason, contents.audio_reason)
    if "too_long" in reasons:
        raise MediaError(
            f"{path}: too long, {contents.duration_s:.0f} s (expected at most "
            f"{limits.max_duration_s:g} s; cut out the part to inspect)"
        )
    if all(reasons):
        line = " and ".join(dict.fromkeys(str(r).replace("_", " ") for r in reasons))
        raise MediaError(f"{path}: cannot be read: {line} (expected a clip with picture or sound)")
