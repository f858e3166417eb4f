"""A trained model that scores clips.

A clip goes through the functions of the pipeline (probe, extractors, tensors, model) with the
settings in the model folder, so it gets the score that stage `evaluate` gives it with nothing
hidden.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from huggingface_hub import ModelCard, ModelHubMixin

from mitfrnet.corpus.transcripts.words import Transcript
from mitfrnet.data.tensors import SplitTensors
from mitfrnet.errors import FeatureError, MediaError, MitfrnetError
from mitfrnet.features.extractor import Clip, Features
from mitfrnet.labels import ClassScale, parse_scale
from mitfrnet.media import decode
from mitfrnet.modalities import MODALITIES
from mitfrnet.predict.extraction import (
    LIMITS,
    MEDIA,
    ClipFeatures,
    FeatureSettings,
    are_words_spread,
    clip_tensors,
    described_features,
    extract_medium,
)
from mitfrnet.predict.hub import HUB_ERRORS, model_folder, upload_error
from mitfrnet.predict.transcripts import find_transcripts, foreign_share
from mitfrnet.trained.card import fingerprint, model_card, written_card
from mitfrnet.trained.folder import CARD

if TYPE_CHECKING:  # torch takes seconds to load, and meanwhile clips are decoded
    from mitfrnet.trained.model import TrainedModel

# Keys of an extractor's identity that may differ on another machine with the same settings.
_VERSIONS = re.compile(r"identity\.(libraries\..*|package|torch|transformers)")

# The device changes results by less than 1e-5, and the machine that runs the model decides it.
_DEVICE = "identity.device"

# Ignored when the text encoder is saved with the model.
_ENCODER_KEYS = ("identity.encoder", "identity.weights")

_SPREAD = (
    "the times of its words are not known, so they are spread evenly over the clip (put a file "
    "with word times beside it, or use --asr)"
)


@dataclass(frozen=True)
class Prediction:
    """What a model predicts for one clip.

    Attributes:
        clip: the media file.
        score: on the scale of the model's labels; None for a model that predicts classes.
        class_name: the predicted class; for a score `negative`, `neutral` or `positive`, by the
            scale's neutral point.
        tokens: how many tokens of the transcript the model read, without special ones.
        sound_seconds: how much sound was read.
        face_share: the share of the sampled frames in which a face was found, in [0, 1].
        missing: the reason for each modality that is missing.
        transcript: what is said; may be empty.
        transcript_source: `given`, the kind of file it is from, or `asr`; None: there is none.
        warnings: caveats.
    """

    clip: Path
    score: float | None
    class_name: str
    tokens: int
    sound_seconds: float
    face_share: float
    missing: dict[str, str]
    transcript: str
    transcript_source: str | None
    warnings: tuple[str, ...] = ()


class Predictor(ModelHubMixin, library_name="mitfrnet"):
    """A trained model that scores clips.

    Args:
        folder: the model folder.
        limits: what a clip may cost.
        other_versions: score although the libraries that make features have other versions than
            in training.

    Attributes:
        trained: the model.
        settings: of its features.
        extractors: that make the features, by modality.

    Raises:
        FeatureError: the folder lacks a file, or one is damaged or of a newer version; or the
            features that the model was trained on cannot be made here.
    """

    def __init__(
        self,
        folder: Path | str,
        *,
        limits: decode.MediaLimits = LIMITS,
        other_versions: bool = False,
    ) -> None:
        from mitfrnet.trained.model import TrainedModel

        self.folder = Path(folder)
        self.settings = FeatureSettings.of_model(self.folder, limits)
        self.trained: TrainedModel = TrainedModel.load(self.folder)
        self.extractors = self.settings.extractors()
        self._version_warnings = tuple(self._check_features(other_versions))
        self._text(Path(), "a")  # an absent text encoder is reported before clips are read

    @classmethod
    def from_pretrained(  # type: ignore[override]  # without the options that have no use here
        cls,
        name: Path | str,
        *,
        revision: str | None = None,
        token: str | None = None,
        **options: Any,
    ) -> "Predictor":
        """Return the model in a folder, or from the Hugging Face hub.

        Args:
            name: a folder, or `<owner>/<repository>` on the hub.
            revision: a branch, tag or commit there.
            token: for a private repository.
            options: those of the class.

        Raises:
            FeatureError: as for the class, or there is no such model.
        """
        return cls(model_folder(name, revision=revision, token=token), **options)

    def _check_features(self, other_versions: bool) -> Iterator[str]:
        """Yield a warning for each library of another version.

        Raises:
            FeatureError: the features here differ from those that the model was trained on.
        """
        features = described_features(self.settings, self.extractors)
        for modality, trained_on in self.trained.config["features"].items():
            here = features[modality]
            ignored = [_DEVICE, "digest"]
            if modality == "text" and self.settings.text_encoder is not None:
                ignored += _ENCODER_KEYS
            differences = [d for d in _differences(trained_on, here) if d[0] not in ignored]
            where = f"{self.folder}: {modality} features"
            for key, in_training, value in differences:
                name = key.removeprefix("identity.").removeprefix("libraries.")
                line = f"{where}: {name} is {value!s:.60} here and {in_training!s:.60} in training"
                if not _VERSIONS.fullmatch(key):
                    raise FeatureError(f"{line} (train again, or use the release it is from)")
                if not other_versions:
                    raise FeatureError(
                        f"{line} (install that version, or pass --other-versions and take scores "
                        "as approximate)"
                    )
                yield f"{line}; scores are approximate"
            same = here["identity"] == trained_on["identity"]
            if same and not differences and here["digest"] != trained_on["digest"]:
                raise FeatureError(
                    f"{where}: the fingerprint in config.json does not match the settings in it "
                    "(get the folder again, or run train again)"
                )

    def predict(
        self, clip: Path | str, text: str | None = None, *, asr: str | None = None
    ) -> Prediction:
        """Return the score of one clip, whatever parts of it are missing.

        `mitfrnet.predict.scoring.score_clips` scores many clips, and decodes them in parallel.

        Args:
            clip: the media file.
            text: what is said in it; None: what a file beside it holds, if there is one.
            asr: a Whisper-type model that transcribes a clip without a transcript.

        Raises:
            MediaError: neither its sound nor its picture can be read.
            CorpusError: the file beside it is broken, or there is no such ASR model.
        """
        path = Path(clip)
        texts = {} if text is None else {path: text}
        transcript = find_transcripts([path], texts, self.settings, asr=asr)[path]
        limits = self.settings.limits
        media = {m: extract_medium(m, self.extractors[m], path, limits) for m in MEDIA}
        prediction = self.score(path, media, transcript)
        if isinstance(prediction, MitfrnetError):
            raise prediction
        return prediction

    def score(
        self,
        path: Path,
        media: Mapping[str, ClipFeatures],
        transcript: "Transcript | MitfrnetError",
    ) -> "Prediction | MitfrnetError":
        """Return the score of a clip whose sound and face are extracted, or why it has none."""
        if isinstance(transcript, MitfrnetError):
            return transcript
        if all(m.features is None for m in media.values()):
            return _unreadable(path, media, self.settings.limits)
        text = self._text(path, transcript.text)
        clip = clip_tensors(path, media, text, transcript, self.settings, self.extractors)
        missing = {m: clip.features[m]["reason"][0].as_py() for m in MODALITIES}
        for modality in MEDIA:  # when aligned with words, it may have no step inside them
            if not missing[modality] and not len(clip.tensors.modalities[modality].detected):
                missing[modality] = "outside_words"
        sound, face = media["acoustic"].features, media["visual"].features
        score, class_name = self._named(self._predict(clip.tensors))
        return Prediction(
            clip=path,
            score=score,
            class_name=class_name,
            tokens=0 if text is None else int((~text.columns["special"]).sum()),
            sound_seconds=0.0 if sound is None else _seconds(sound, media["acoustic"].duration_s),
            face_share=0.0 if face is None else float(face.detected.mean()),
            missing={m: reason for m, reason in missing.items() if reason},
            transcript=transcript.text,
            transcript_source=transcript.source,
            warnings=tuple(self._warnings(transcript, text)),
        )

    def _text(self, path: Path, transcript: str) -> Features | None:
        if not transcript:
            return None
        with _threads_of_training(self.trained):
            return self.extractors["text"].extract(Clip(str(path), path, transcript=transcript))

    def _predict(self, tensors: SplitTensors) -> float:
        from mitfrnet.data.masked_text import FrozenText

        # Nothing is hidden, so the stored vectors are used and nothing is encoded again.
        text = FrozenText(self.trained.config["features"]["text"]["identity"])
        with _threads_of_training(self.trained):
            values = self.trained.predict(tensors, tensors.steps.detected, text, whole=False)
        return float(values[0])

    def _named(self, value: float) -> tuple[float | None, str]:
        """Return the score, None for classes, and the name of the class."""
        scale = parse_scale(self.trained.config["scale"])
        if isinstance(scale, ClassScale):
            return None, scale.classes[int(value)]
        side = int(np.sign(value - scale.neutral_point))
        return value, ("neutral", "positive", "negative")[side]

    def _warnings(self, transcript: Transcript, text: Features | None) -> Iterator[str]:
        yield from self._version_warnings
        language = self.settings.language
        if share := foreign_share(transcript.text, language):
            yield (
                f"{share:.0%} of the letters are in no script of language {language!r}, which the "
                "model was trained on"
            )
        if text is not None:
            end = int(text.columns["char_end"].max(initial=0))
            if any(c.isalnum() for c in transcript.text[end:]):
                yield f"the transcript was cut after {end} of {len(transcript.text)} characters"
        if are_words_spread(transcript, self.settings):
            yield _SPREAD

    def _save_pretrained(self, save_directory: Path) -> None:
        _ = self._written_card  # read now, because it may lie in this very folder
        (save_directory / CARD).unlink(missing_ok=True)  # of another model
        self.trained.save(save_directory)

    @cached_property
    def _written_card(self) -> ModelCard | None:
        return written_card(self.trained.config, self.folder)

    def generate_model_card(self, *args: Any, **card: Any) -> ModelCard:
        """Return the model card: a new one if `card` is given, else the one that was written.

        Args:
            args: unused; the hub passes them for its own cards.
            card: `scores` and `corpus`, as for `mitfrnet.trained.card.model_card`.

        Raises:
            FeatureError: the card that was written cannot be read.
        """
        if not card and self._written_card is not None:
            return self._written_card
        own = fingerprint(self.trained.config, self.folder)
        return ModelCard(model_card(self.trained.config, fingerprint=own, **card))

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Upload the model folder, and return its address.

        Args:
            repo_id: `<owner>/<repository>`.
            options: those of `huggingface_hub.ModelHubMixin.push_to_hub`; `model_card_kwargs`
                are those of `generate_model_card`.

        Raises:
            FeatureError: the hub cannot be reached, or refuses.
        """
        try:
            return super().push_to_hub(repo_id, **options)
        except HUB_ERRORS as error:
            raise upload_error(repo_id, error) from error


def load_model(name: Path | str, **options: Any) -> Predictor:
    """Return a trained model that scores clips: `load_model(folder).predict("clip.mp4")`.

    Args:
        name: a folder, or `<owner>/<repository>` on the Hugging Face hub.
        options: those of `Predictor.from_pretrained`.

    Raises:
        FeatureError: there is no such model, or it cannot be used here.
    """
    return Predictor.from_pretrained(name, **options)


def _differences(trained: Any, here: Any, at: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield what differs in two descriptions of features: dotted key, value in each."""
    if isinstance(trained, dict) and isinstance(here, dict):
        for key in sorted(set(trained) | set(here)):
            yield from _differences(trained.get(key), here.get(key), f"{at}.{key}".lstrip("."))
    elif trained != here:
        yield at, trained, here


@contextmanager
def _threads_of_training(trained: "TrainedModel") -> Iterator[None]:
    """Use as many threads as in training: scores depend on their number in the last bits."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(trained.config["training"]["train"]["threads"])
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _unreadable(
    path: Path, media: Mapping[str, ClipFeatures], limits: decode.MediaLimits
) -> MediaError:
    """Return the error for a clip whose sound and picture cannot be read."""
    hints = {
        "no_file": "expected a media file",
        "empty_file": "0 bytes; expected a media file",
        "not_media": "expected a video or a sound file",
        "too_long": f"expected at most {limits.max_duration_s:g} s; see --max-seconds",
        "too_large": f"expected at most {limits.max_bytes} bytes",
    }
    reasons = dict.fromkeys(m.reason or "" for m in media.values())
    line = ", ".join(r + (f" ({hints[r]})" if r in hints else "") for r in reasons)
    return MediaError(f"{path}: cannot be read: {line}")


def _seconds(sound: Features, duration_s: float) -> float:
    """Return how much sound was read: up to the end of the last step, or of the clip."""
    starts = sound.start_s.astype(float)
    if len(starts) < 2 or np.isnan(starts).any():
        return duration_s
    return min(duration_s, float(starts[-1] + starts[1] - starts[0]))
