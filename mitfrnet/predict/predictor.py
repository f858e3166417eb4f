"""A trained model that scores clips; what it was trained on is made again from their media.

A clip goes through the same functions as a corpus does in the pipeline (probe, extractors,
tensors, model), with the settings that the model folder holds, so that it gets the score that
the `evaluate` stage gives it with nothing hidden.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from huggingface_hub import ModelCard, ModelHubMixin, snapshot_download
from huggingface_hub.errors import HTTPError

from mitfrnet.corpus.manifest import input_digest
from mitfrnet.corpus.transcripts.words import Transcript, place_words, spread
from mitfrnet.data.tensors import SplitTensors
from mitfrnet.errors import FeatureError, MediaError, MitfrnetError
from mitfrnet.features.extractor import Clip, Features
from mitfrnet.features.shards import FeatureRow
from mitfrnet.labels import ClassScale, parse_scale
from mitfrnet.media import decode
from mitfrnet.modalities import MODALITIES
from mitfrnet.predict.clips import ClipFeatures, manifest_row, observe
from mitfrnet.predict.extraction import LIMITS, MEDIA, FeatureSettings
from mitfrnet.predict.transcripts import find_transcripts, foreign_share
from mitfrnet.trained.card import fingerprint, model_card, written_card
from mitfrnet.trained.folder import CARD, ENCODER, FILES, REQUIRED

if TYPE_CHECKING:  # torch takes seconds to load, in which clips are already decoded
    from mitfrnet.trained.model import TrainedModel


# What the hub's client raises: beside errors of its own those of the HTTP library it uses, for
# answers that make no sense, and for parts of an upload.
_HUB_ERRORS = (OSError, HTTPError, ValueError, RuntimeError)

# Of a repository on the hub: no code and no pickle is among it.
_FETCHED = [*FILES, *(f"{ENCODER}/*.{ending}" for ending in ("json", "safetensors", "txt"))]

_CHECK = "check the name, the network and `hf auth login`"


# Of an extractor's identity: what may differ on another machine without another setting.
_VERSIONS = re.compile(r"identity\.(libraries\..*|package|torch|transformers)")


# It changes results by less than 1e-5, and is where the model runs that decides.
_DEVICE = "identity.device"


# Of text, where the encoder is part of the model.
_ENCODER_KEYS = ("identity.encoder", "identity.weights")


_SPREAD = (
    "nobody says when its words are spoken; they are taken as spread evenly over the clip (put a "
    "file that holds their times beside it, or use --asr)"
)


@dataclass(frozen=True)
class Prediction:
    """What a model makes of one clip.

    Attributes:
        clip: the media file.
        score: on the scale of the model's labels; None of a model that predicts classes.
        class_name: the predicted class; of a score `negative`, `neutral` or `positive`, by the
            scale's neutral point.
        tokens: of the transcript, without special ones, as far as the model read it.
        sound_seconds: how much sound was read.
        face_share: the share of the sampled frames in which a face was found, in [0, 1].
        missing: which modalities are missing, and why.
        transcript: what was taken as said; may be empty.
        transcript_source: `given`, the kind of file it is from, or `asr`; None: there is none.
        warnings: what the score should be taken with.
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
        folder: of the model.
        limits: what a clip may cost.
        other_versions: score although the libraries that make features have other versions than
            in training.

    Raises:
        FeatureError: the folder lacks a file, or one is damaged or of a newer version; or
            features cannot be made as those that the model was trained on.
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
        self._recipe = FeatureSettings(self.folder, limits)
        self.trained: TrainedModel = TrainedModel.load(self.folder)
        self._cautions: list[str] = []
        self._extractors = {m: self._recipe.extractor(m) for m in MODALITIES}
        self._check_features(other_versions)
        # Now, so that an encoder that is not to be had is missed before clips are read.
        self._text(Path(), "a")

    @classmethod
    def from_pretrained(  # type: ignore[override]  # what else the hub's takes has no place here
        cls,
        name: Path | str,
        *,
        revision: str | None = None,
        token: str | None = None,
        **options: Any,
    ) -> "Predictor":
        """Return the model in a folder, or of the Hugging Face hub.

        Args:
            name: a folder, or `<owner>/<repository>` on the hub.
            revision: a branch, tag or commit there.
            token: for a private repository.
            options: as of the class.

        Raises:
            FeatureError: as for the class, or nothing of that name is to be had.
        """
        return cls(model_folder(name, revision=revision, token=token), **options)

    def _check_features(self, other_versions: bool) -> None:
        """Refuse what cannot give the features that the model was trained on."""
        # Of no utterance: tensors know best what describes their features.
        empty = self._recipe.tensors([], {m: [] for m in MODALITIES}, self._extractors)
        for modality, trained_on in self._recipe.config["features"].items():
            here = empty.metadata["features"][modality]
            allowed = [_DEVICE, "digest"]
            if modality == "text" and self._recipe.fine_tuned:
                allowed += _ENCODER_KEYS
            found = [d for d in _differences(trained_on, here) if d[0] not in allowed]
            where = f"{self.folder}: {modality} features"
            for key, there, this in found:
                name = key.removeprefix("identity.").removeprefix("libraries.")
                what = f"{where}: {name} is {this!s:.60} here and {there!s:.60} in training"
                if not _VERSIONS.fullmatch(key):
                    raise FeatureError(f"{what} (train again, or use the release it is from)")
                if not other_versions:
                    raise FeatureError(
                        f"{what} (install that version, or pass --other-versions and take scores "
                        "as approximate)"
                    )
                self._cautions.append(f"{what}; scores are approximate")
            same = here["identity"] == trained_on["identity"]
            if same and not found and here["digest"] != trained_on["digest"]:
                raise FeatureError(
                    f"{where}: the fingerprint in config.json is not that of the settings in it "
                    "(take the folder anew, or run train again)"
                )

    def predict(
        self, clip: Path | str, text: str | None = None, *, asr: str | None = None
    ) -> Prediction:
        """Return the score of one clip, whatever parts of it are missing.

        Args:
            clip: the media file.
            text: what is said in it; None: what a file beside it holds, if there is one.
            asr: a Whisper-type model that transcribes it where there is none.

        Raises:
            MediaError: neither sound nor picture of it can be read.
            CorpusError: the file beside it is broken, or there is no such ASR model.
        """
        texts = None if text is None else {Path(clip): text}
        _, prediction = next(iter(self.predict_many([clip], texts, asr=asr)))
        if isinstance(prediction, MitfrnetError):
            raise prediction
        return prediction

    def predict_many(
        self,
        clips: Sequence[Path | str],
        texts: Mapping[Path, str] | None = None,
        *,
        asr: str | None = None,
    ) -> Iterator[tuple[Path, "Prediction | MitfrnetError"]]:
        """Yield each clip with its score, or with why it has none.

        Args:
            clips: media files.
            texts: what is said in some of them.
            asr: as of `predict`.
        """
        paths = [Path(clip) for clip in clips]
        transcripts = find_transcripts(paths, texts or {}, self._recipe, asr=asr)
        for path in paths:
            observed = {
                m: observe(self._extractors[m], self._recipe.limits, m, path) for m in MEDIA
            }
            yield path, self.score(path, observed, transcripts[path])

    def score(
        self, path: Path, observed: Mapping[str, ClipFeatures], said: "Transcript | MitfrnetError"
    ) -> "Prediction | MitfrnetError":
        """Return the score of a clip whose sound and face are there, or why it has none."""
        if isinstance(said, MitfrnetError):
            return said
        if all(o.features is None for o in observed.values()) and (
            unreadable := _unreadable(path, observed, self._recipe.limits)
        ):
            return unreadable
        row = manifest_row(path, observed, said)
        unplaced = self._recipe.tensor_params.align == "words" and said.text and not row["words"]
        if unplaced:  # as an utterance of a corpus without word times
            evenly = spread(said.text, 0.0, row["duration_s"])
            row["words"] = [asdict(word) for word in place_words(said.text, evenly)]
        features = {m: observed[m].features for m in MEDIA}
        missing = {m: o.reason for m, o in observed.items() if o.reason}
        text = self._text(path, said.text)
        features["text"] = text
        if text is None or text.reason:
            missing["text"] = "empty_transcript"
        rows = {
            m: [
                FeatureRow(
                    row["utterance_id"], features[m], missing.get(m), input_digest(row, m), ""
                )
            ]
            for m in MODALITIES
        }
        split = self._recipe.tensors([row], rows, self._extractors)
        # They differ in versions alone, which was allowed.
        split = replace(
            split, metadata=split.metadata | {"features": self.trained.config["features"]}
        )
        for modality in MEDIA:  # aligned to the words, of which none may be where it is
            if modality not in missing and not len(split.modalities[modality].detected):
                missing[modality] = "outside_words"
        value = self._predict(split)
        sound, face = features["acoustic"], features["visual"]
        score, class_name = self._named(value)
        return Prediction(
            clip=path,
            score=score,
            class_name=class_name,
            tokens=0 if text is None else int((~text.columns["special"]).sum()),
            sound_seconds=0.0 if sound is None else _seconds(sound, observed["acoustic"]),
            face_share=0.0 if face is None else float(face.detected.mean()),
            missing={m: missing[m] for m in MODALITIES if m in missing},
            transcript=said.text,
            transcript_source=said.source,
            warnings=(*self._warnings(said.text, text), *[_SPREAD] * bool(unplaced)),
        )

    def _text(self, path: Path, transcript: str) -> Features | None:
        if not transcript:
            return None
        with _threads_of_training(self.trained):
            return self._extractors["text"].extract(Clip(str(path), path, transcript=transcript))

    def _predict(self, split: SplitTensors) -> float:
        from mitfrnet.data.masked_text import FrozenText

        # Nothing is hidden, so the stored vectors serve and nothing is encoded anew.
        text = FrozenText(self.trained.config["features"]["text"]["identity"])
        with _threads_of_training(self.trained):
            return float(self.trained.predict(split, split.steps.detected, text, whole=False)[0])

    def _named(self, value: float) -> tuple[float | None, str]:
        scale = parse_scale(self.trained.config["scale"])
        if isinstance(scale, ClassScale):
            return None, scale.classes[int(value)]
        side = int(np.sign(value - scale.neutral_point))
        return value, ("neutral", "positive", "negative")[side]

    def _warnings(self, transcript: str, text: Features | None) -> Iterator[str]:
        yield from self._cautions
        language = self._recipe.language
        if share := foreign_share(transcript, language):
            yield (
                f"{share:.0%} of the letters are of no script of language {language!r}, which the "
                "model was trained on"
            )
        if text is not None:
            end = int(text.columns["char_end"].max(initial=0))
            if any(c.isalnum() for c in transcript[end:]):
                yield f"the transcript was cut after {end} of {len(transcript)} characters"

    def _save_pretrained(self, save_directory: Path) -> None:
        _ = self._written_card  # read before it goes: it may lie in this very folder
        (save_directory / CARD).unlink(missing_ok=True)  # one of another model
        self.trained.save(save_directory)

    @cached_property
    def _written_card(self) -> ModelCard | None:
        return written_card(self.trained.config, self.folder)

    def generate_model_card(self, *args: Any, **card: Any) -> ModelCard:
        """Return the model card: the one that was written, unless `card` says what stands in it.

        Args:
            args: of the hub's own cards; unused.
            card: `scores` and `corpus`, as of `mitfrnet.trained.card.model_card`.

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
            FeatureError: the hub is not reachable, or refuses.
        """
        try:
            return super().push_to_hub(repo_id, **options)
        except _HUB_ERRORS as error:
            raise FeatureError(
                f"{repo_id}: cannot be written to the Hugging Face hub ({_reason(error)}); {_CHECK}"
            ) from error


def _differences(trained: Any, here: Any, at: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield what differs in two descriptions of features: dotted key, value there, value here."""
    if isinstance(trained, dict) and isinstance(here, dict):
        for key in sorted(set(trained) | set(here)):
            yield from _differences(trained.get(key), here.get(key), f"{at}.{key}".lstrip("."))
    elif trained != here:
        yield at, trained, here


def load_model(name: Path | str, **options: Any) -> Predictor:
    """Return a trained model that scores clips: `load_model(folder).predict("clip.mp4")`.

    Args:
        name: a folder, or `<owner>/<repository>` on the Hugging Face hub.
        options: as of `Predictor.from_pretrained`.

    Raises:
        FeatureError: there is no such model, or it cannot be used here.
    """
    return Predictor.from_pretrained(name, **options)


def model_folder(
    name: Path | str, *, revision: str | None = None, token: str | None = None
) -> Path:
    """Return the folder of a model, fetched from the Hugging Face hub if need be.

    Only the files that make up a model are fetched.

    Args:
        name: a folder, or `<owner>/<repository>` on the hub.
        revision: a branch, tag or commit there.
        token: for a private repository.

    Raises:
        FeatureError: there is no such folder, and no such model to be had from the hub.
    """
    folder = Path(name)
    if folder.is_dir():
        return folder
    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", str(name)):
        raise FeatureError(
            f"{name}: no such folder (expected one with {', '.join(REQUIRED)}, or "
            "<owner>/<repository> on the Hugging Face hub)"
        )
    try:
        fetched = Path(
            snapshot_download(str(name), revision=revision, token=token, allow_patterns=_FETCHED)
        )
    except _HUB_ERRORS as error:
        raise FeatureError(
            f"{name}: no such folder, and not to be had from the Hugging Face hub "
            f"({_reason(error)}); {_CHECK}"
        ) from error
    for file in REQUIRED:
        if not (fetched / file).is_file():
            raise FeatureError(
                f"{name}: no {file} in this repository of the Hugging Face hub (expected a model "
                f"that was pushed by mitfrnet, with {', '.join(REQUIRED)})"
            )
    return fetched


def _reason(error: BaseException) -> str:
    """Return in one line what the hub answered, or else what first went wrong."""
    while True:
        response = getattr(error, "response", None)
        if response is not None:
            return f"{response.url.host} answers {response.status_code} {response.reason_phrase}"
        if error.__cause__ is None:
            return " ".join(str(error).split()) or repr(error)
        error = error.__cause__


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
    path: Path, observed: Mapping[str, ClipFeatures], limits: decode.MediaLimits
) -> MediaError | None:
    """Return the line for a clip of which nothing can be read."""
    reasons = list(dict.fromkeys(o.reason or "" for o in observed.values()))
    hints = {
        "no_file": "expected a media file",
        "empty_file": "0 bytes; expected a media file",
        "not_media": "expected a video or a sound file",
        "too_long": f"expected at most {limits.max_duration_s:g} s; see --max-seconds",
        "too_large": f"expected at most {limits.max_bytes} bytes",
    }
    said = ", ".join(r + (f" ({hints[r]})" if r in hints else "") for r in reasons)
    return MediaError(f"{path}: cannot be read: {said}")


def _seconds(sound: Features, observed: ClipFeatures) -> float:
    """Return how much sound was read: up to the end of the last step, or of the clip."""
    starts = sound.start_s.astype(float)
    if len(starts) < 2 or np.isnan(starts).any():
        return observed.duration_s
    return min(observed.duration_s, float(starts[-1] + starts[1] - starts[0]))
