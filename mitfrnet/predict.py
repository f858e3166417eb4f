"""Score clips with a trained model; what it was trained on is made again from their media.

A clip goes through the same functions as a corpus does in the pipeline (probe, extractors,
tensors, model), with the settings that the model folder holds, so that it gets the score that
the `evaluate` stage gives it with nothing hidden.
"""

import glob
import os
import re
import sys
import tempfile
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from huggingface_hub import ModelCard, ModelHubMixin, snapshot_download
from huggingface_hub.errors import HFValidationError, HTTPError

from mitfrnet import media
from mitfrnet.alignment import TensorParams
from mitfrnet.assembly import build_tensors
from mitfrnet.corpus.clips import LabelledClip, Problems
from mitfrnet.corpus.manifest import input_digest, make_manifest
from mitfrnet.corpus.params import CorpusParams
from mitfrnet.corpus.sidecars import complete
from mitfrnet.corpus.words import Word, place_words, spread
from mitfrnet.data.tensors import SplitTensors
from mitfrnet.errors import CorpusError, FeatureError, MediaError, MitfrnetError
from mitfrnet.features.extractor import Clip, Extractor, Features
from mitfrnet.features.run import build_extractor, extractor_params
from mitfrnet.features.store import Row, feature_schema, to_table
from mitfrnet.files import replacing, sha256_of
from mitfrnet.metrics import ClassScale, parse_scale
from mitfrnet.modalities import MODALITIES
from mitfrnet.model_card import model_card
from mitfrnet.model_folder import CARD, ENCODER, FILES, read_config
from mitfrnet.params import StageParams, parse_params
from mitfrnet.workers import RunParams, WorkerFailure, available_cores, supervised_map, track

if TYPE_CHECKING:  # torch takes seconds to load, in which clips are already decoded
    from mitfrnet.trained import TrainedModel

# What a clip may cost: section `ingest.limits` as shipped. Limits decide which clips are read,
# not what is read from them, so they are no part of a model.
LIMITS = media.MediaLimits(
    max_duration_s=600, max_pixels=33177600, max_bytes=2147483648, max_streams=32
)

# What the hub's client lets through of the HTTP library it uses, beside its own.
_HUB_ERRORS = (OSError, HTTPError, HFValidationError)

# By name alone: in a folder nothing else says what is meant to be a clip.
_ENDINGS = frozenset(
    """
    .3gp .aac .asf .avi .flac .flv .m2ts .m4a .m4v .mkv .mov .mp3 .mp4 .mpeg .mpg .mts .oga .ogg
    .ogv .ts .wav .webm .wma .wmv
    """.split()  # noqa: SIM905
)

# A worker that needs longer for one modality of a clip is killed.
_TIMEOUT_S = 300

_MEDIA: tuple[str, ...] = ("acoustic", "visual")

# Of an extractor's identity: what may differ on another machine without another setting.
_VERSIONS = re.compile(r"identity\.(libraries\..*|package|torch|transformers)")
# It changes results by less than 1e-5, and is where the model runs that decides.
_DEVICE = "identity.device"
# Of text, where the encoder is part of the model.
_ENCODER_KEYS = ("identity.encoder", "identity.weights")

# Scripts of languages, as the names of their letters begin in Unicode; others go unchecked.
_SCRIPTS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        "cs da de en es et fi fr hr hu id it lt lv ms nl no pl pt ro sk sl sv sw tr vi".split(),  # noqa: SIM905
        ("LATIN",),
    ),
    **dict.fromkeys(["be", "bg", "mk", "ru", "uk"], ("CYRILLIC",)),
    **dict.fromkeys(["ar", "fa", "ur"], ("ARABIC",)),
    "el": ("GREEK",),
    "he": ("HEBREW",),
    "hi": ("DEVANAGARI",),
    "ja": ("CJK", "HIRAGANA", "KATAKANA", "HALFWIDTH KATAKANA"),
    "ko": ("HANGUL", "CJK"),
    "th": ("THAI",),
    "zh": ("CJK",),
}


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


@dataclass(frozen=True)
class Transcript:
    """What is said in a clip.

    Attributes:
        text: may be empty.
        source: `given`, a kind of file, or `asr`; None: there is no transcript.
        words: when each word is spoken; None: nobody says.
    """

    text: str = ""
    source: str | None = None
    words: tuple[Word, ...] | None = None


@dataclass(frozen=True)
class Observed:
    """Sound or face of one clip.

    Attributes:
        duration_s: of the clip.
        features: None where there are none.
        reason: why the modality is missing; None where it is there.
    """

    duration_s: float
    features: Features | None
    reason: str | None


class Recipe:
    """How the features of a model are made, as its folder says.

    Args:
        folder: the model's.
        limits: what a clip may cost.

    Attributes:
        settings: of the corpus, as `build_extractor` takes them.

    Raises:
        FeatureError: the folder holds no model of this version, or not how features are made.
    """

    def __init__(self, folder: Path, limits: media.MediaLimits) -> None:
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
        self, rows: list[dict[str, Any]], features: Mapping[str, list[Row]], extractors: Any
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


def _differences(trained: Any, here: Any, at: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield what differs in two descriptions of features: dotted key, value there, value here."""
    if isinstance(trained, dict) and isinstance(here, dict):
        for key in sorted(set(trained) | set(here)):
            yield from _differences(trained.get(key), here.get(key), f"{at}.{key}".lstrip("."))
    elif trained != here:
        yield at, trained, here


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
        limits: media.MediaLimits = LIMITS,
        other_versions: bool = False,
    ) -> None:
        from mitfrnet.trained import TrainedModel

        self.folder = Path(folder)
        self._recipe = Recipe(self.folder, limits)
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
                m: observe(self._extractors[m], self._recipe.limits, m, path) for m in _MEDIA
            }
            yield path, self.score(path, observed, transcripts[path])

    def score(
        self, path: Path, observed: Mapping[str, Observed], said: "Transcript | MitfrnetError"
    ) -> "Prediction | MitfrnetError":
        """Return the score of a clip whose sound and face are there, or why it has none."""
        if isinstance(said, MitfrnetError):
            return said
        if all(o.features is None for o in observed.values()) and (
            unreadable := _unreadable(path, observed, self._recipe.limits)
        ):
            return unreadable
        row = _manifest_row(path, observed, said)
        unplaced = self._recipe.tensor_params.align == "words" and said.text and not row["words"]
        if unplaced:  # as an utterance of a corpus without word times
            evenly = spread(said.text, 0.0, row["duration_s"])
            row["words"] = [asdict(word) for word in place_words(said.text, evenly)]
        features = {m: observed[m].features for m in _MEDIA}
        missing = {m: o.reason for m, o in observed.items() if o.reason}
        text = self._text(path, said.text)
        features["text"] = text
        if text is None or text.reason:
            missing["text"] = "empty_transcript"
        rows = {
            m: [Row(row["utterance_id"], features[m], missing.get(m), input_digest(row, m), "")]
            for m in MODALITIES
        }
        split = self._recipe.tensors([row], rows, self._extractors)
        # They differ in versions alone, which was allowed.
        split = replace(
            split, metadata=split.metadata | {"features": self.trained.config["features"]}
        )
        for modality in _MEDIA:  # aligned to the words, of which none may be where it is
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
        from mitfrnet.data.utterances import FrozenText

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
        (save_directory / CARD).unlink(missing_ok=True)  # one of another model
        self.trained.save(save_directory)

    def generate_model_card(self, *args: Any, **card: Any) -> ModelCard:
        """Return the model card: that of the folder, unless `card` says what stands in it.

        Args:
            args: of the hub's own cards; unused.
            card: `scores`, as the evaluate stage writes them, and `corpus`, its name.
        """
        written = self.folder / CARD
        if not card and written.is_file():
            return ModelCard(written.read_text(encoding="utf-8"))
        return ModelCard(model_card(self.trained.config, **card))

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
                f"{repo_id}: cannot be written to the Hugging Face hub ({_line(error)}); check "
                "the name, the network and `hf auth login`"
            ) from error


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
        FeatureError: there is no such folder, and nothing of that name on the hub.
    """
    folder = Path(name)
    if folder.is_dir():
        return folder
    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", str(name)):
        raise FeatureError(
            f"{name}: no such folder (expected one with {', '.join(FILES[:3])}, or "
            "<owner>/<repository> on the Hugging Face hub)"
        )
    try:
        return Path(
            snapshot_download(
                str(name), revision=revision, token=token, allow_patterns=[*FILES, f"{ENCODER}/*"]
            )
        )
    except _HUB_ERRORS as error:
        raise FeatureError(
            f"{name}: no such folder, and not to be had from the Hugging Face hub ({_line(error)})"
        ) from error


def _line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), repr(error))


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


def find_clips(arguments: Iterable[str]) -> list[Path]:
    """Return the clips that arguments of the command name, each once.

    Args:
        arguments: files; folders, of which media files are taken, also from folders in them,
            hidden ones left out; or patterns such as `talks/*.mp4`.

    Raises:
        CorpusError: a folder has no clip in it, or a pattern matches nothing.
    """
    found: dict[str, Path] = {}
    for argument in arguments:
        path = Path(argument)
        if path.is_dir():
            paths = _clips_in(path)
            if not paths:
                raise CorpusError(
                    f"{path}: no clips in this folder (expected media files, such as .mp4)"
                )
        elif glob.has_magic(argument) and not path.exists():
            paths = [Path(p) for p in sorted(glob.glob(argument, recursive=True))]
            paths = [p for p in paths if p.is_file()]
            if not paths:
                raise CorpusError(f"{argument}: no file matches (expected one or more clips)")
        else:
            paths = [path]  # which need not exist: that is said of it as of any unreadable clip
        for clip in paths:
            found.setdefault(os.path.realpath(clip), clip)
    return list(found.values())


def _clips_in(folder: Path) -> list[Path]:
    clips = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        clips += [Path(parent, name) for name in names if not name.startswith(".")]
    return sorted(c for c in clips if c.suffix.lower() in _ENDINGS)


def find_transcripts(
    clips: Sequence[Path], texts: Mapping[Path, str], recipe: Recipe, *, asr: str | None = None
) -> dict[Path, "Transcript | MitfrnetError"]:
    """Return what is said in each clip, or what is wrong with the file that should say it.

    Args:
        clips: media files.
        texts: what is said in some of them, which goes before all else.
        recipe: of the model.
        asr: a Whisper-type model that transcribes those without.

    Raises:
        CorpusError: there is no such model, or it does not know the language.
    """
    found: dict[Path, Transcript | MitfrnetError] = {
        clip: Transcript(texts[clip], "given") if clip in texts else _beside(clip, recipe)
        for clip in clips
    }
    silent = [c for c, t in found.items() if isinstance(t, Transcript) and not t.text]
    return {**found, **_transcribed(silent, asr, recipe)} if asr is not None else found


def _beside(clip: Path, recipe: Recipe) -> Transcript | MitfrnetError:
    """Return what files beside a clip say, or the error of one that is broken."""
    labelled = _labelled(clip, clip.parent)
    corpus = CorpusParams(layout="media_only", language=recipe.language)
    problems = Problems()
    completed = complete(clip.parent, [labelled], corpus, problems)[0]
    if problems.errors:
        return CorpusError(problems.errors[0])
    return Transcript(completed.transcript, completed.transcript_source, completed.words)


def _labelled(clip: Path, folder: Path) -> LabelledClip:
    path = clip.relative_to(folder).as_posix()
    return LabelledClip(
        where=str(clip),
        video_id=clip.parent.name,
        clip_id=clip.name,
        path=path,
        stem=os.path.splitext(path)[0],
    )


def _transcribed(clips: Sequence[Path], asr: str, recipe: Recipe) -> dict[Path, Transcript]:
    """Return what a model hears in the clips whose sound can be read."""
    from mitfrnet.corpus.asr import transcribe  # loads torch

    readable = {clip: clip.absolute() for clip in clips if clip.is_file()}
    root = Path(Path.cwd().anchor)
    # Its ids have to be told apart, and names may occur twice.
    labelled = {
        clip: replace(_labelled(path, root), clip_id=str(i))
        for i, (clip, path) in enumerate(readable.items())
    }
    with tempfile.TemporaryDirectory() as folder:
        heard = transcribe(
            root,
            [(labelled[clip], sha256_of(path)) for clip, path in readable.items()],
            model=asr,
            language=recipe.language,
            limits=recipe.limits,
            store=Path(folder, "asr.parquet"),
            run=RunParams(workers=len(available_cores()), timeout_seconds=_TIMEOUT_S),
        )
    found = {clip: heard.get(labelled[clip].utterance_id) for clip in readable}
    return {clip: Transcript(t.text, "asr", t.words) for clip, t in found.items() if t}


def observe(extractor: Extractor, limits: media.MediaLimits, modality: str, path: Path) -> Observed:
    """Return the sound or the face of a clip; bad media give a reason, never an error."""
    probe = media.probe(path, limits)
    reason = probe.audio_reason if modality == "acoustic" else probe.video_reason
    if reason is not None:
        return Observed(probe.duration_s, None, reason)
    try:
        features = extractor.extract(Clip(str(path), path))
    except MediaError as error:
        return Observed(probe.duration_s, None, str(error))
    return Observed(probe.duration_s, features, features.reason)


class _Observer:
    """Observes clips in a worker process; an extractor is built when its modality comes first."""

    def __init__(
        self,
        params: Mapping[str, StageParams],
        settings: dict[str, Any],
        limits: media.MediaLimits,
    ) -> None:
        self._params, self._settings, self._limits = params, settings, limits
        self._extractors: dict[str, Extractor] = {}

    def __call__(self, task: tuple[Path, str]) -> Observed:
        path, modality = task
        if modality not in self._extractors:
            self._extractors[modality] = build_extractor(
                modality, self._params[modality], self._settings
            )
        return observe(self._extractors[modality], self._limits, modality, path)


def score_clips(
    model: Path,
    clips: Sequence[Path],
    texts: Mapping[Path, str],
    *,
    asr: str | None = None,
    limits: media.MediaLimits = LIMITS,
    other_versions: bool = False,
    workers: int,
) -> list[tuple[Path, Prediction | MitfrnetError]]:
    """Return each clip with its score, or with why it has none; in the order given.

    Unlike `Predictor.predict_many` it decodes in worker processes: sound and face of a clip side
    by side, and beside the loading of the model; and a decoder that crashes or hangs costs one
    modality of one clip.

    Args:
        model: its folder.
        clips: media files, each once.
        texts: what is said in some of them.
        asr: as of `Predictor.predict`.
        limits: what a clip may cost.
        other_versions: as of `Predictor`.
        workers: how many processes.

    Raises:
        FeatureError: as for `Predictor`.
        CorpusError: there is no such ASR model.
    """
    recipe = Recipe(model, limits)
    transcripts = find_transcripts(clips, texts, recipe, asr=asr)
    tasks = [(clip, modality) for clip in clips for modality in _MEDIA]
    # Without those of text, whose module loads torch.
    setup = partial(_Observer, {m: recipe.params(m) for m in _MEDIA}, recipe.settings, limits)
    observing = supervised_map(setup, tasks, workers=workers, timeout_s=_TIMEOUT_S)
    if len(clips) > 1 and sys.stderr.isatty():
        observing = track(observing, total=len(tasks), size=lambda _: 1, description="read clips")
    observed: dict[Path, dict[str, Observed]] = {clip: {} for clip in clips}
    scored: dict[Path, Prediction | MitfrnetError] = {}
    with ThreadPoolExecutor(1) as background:
        loading = background.submit(Predictor, model, limits=limits, other_versions=other_versions)
        for (clip, modality), result in observing:
            if isinstance(result, WorkerFailure):
                result = Observed(0.0, None, result.reason)
            observed[clip][modality] = result
            if len(observed[clip]) == len(_MEDIA):
                scored[clip] = loading.result().score(clip, observed.pop(clip), transcripts[clip])
    return [(clip, scored[clip]) for clip in clips]


def _unreadable(
    path: Path, observed: Mapping[str, Observed], limits: media.MediaLimits
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


def _manifest_row(path: Path, observed: Mapping[str, Observed], said: Transcript) -> dict[str, Any]:
    """Return the clip as the manifest of a corpus would have it."""
    return {
        "utterance_id": str(path),
        "video_id": path.parent.name,
        "clip_id": path.stem,
        "split": "test",
        "path": str(path),
        "digest": None,
        "start_s": None,
        "end_s": None,
        "transcript": said.text,
        "transcript_source": said.source,
        "words": None if said.words is None else [asdict(word) for word in said.words],
        "label": 0.0,  # some losses take no NaN, though nothing asks for them
        "duration_s": max(o.duration_s for o in observed.values()),
        "text_reason": None if said.text else "empty_transcript",
        **{f"{m}_reason": o.reason for m, o in observed.items()},
    }


def _seconds(sound: Features, observed: Observed) -> float:
    """Return how much sound was read: up to the end of the last step, or of the clip."""
    starts = sound.start_s.astype(float)
    if len(starts) < 2 or np.isnan(starts).any():
        return observed.duration_s
    return min(observed.duration_s, float(starts[-1] + starts[1] - starts[0]))


def foreign_share(transcript: str, language: str) -> float:
    """Return the share of letters that are of no script of a language, if most are; else 0.

    Of a language whose scripts are not known here, 0.
    """
    scripts = _SCRIPTS.get(language)
    letters = [c for c in transcript if c.isalpha()]
    if scripts is None or not letters:
        return 0.0
    share = sum(not unicodedata.name(c, "").startswith(scripts) for c in letters) / len(letters)
    return share if share > 0.5 else 0.0


def record(clip: Path, prediction: Prediction | MitfrnetError) -> dict[str, Any]:
    """Return a prediction as one row of a table, JSON-ready; of a clip without one, the error."""
    if isinstance(prediction, MitfrnetError):
        row: dict[str, Any] = dict.fromkeys(f.name for f in fields(Prediction))
        missing: dict[str, str] = {}
        row["error"], row["warnings"] = str(prediction), []
    else:
        row = {f.name: getattr(prediction, f.name) for f in fields(Prediction)}
        missing = prediction.missing
        row["error"], row["warnings"] = None, list(prediction.warnings)
    del row["missing"]
    return row | {"clip": str(clip)} | {f"{m}_reason": missing.get(m) for m in MODALITIES}


def write_predictions(records: list[dict[str, Any]], path: Path) -> None:
    """Write predictions as a Parquet table, one row per clip.

    Raises:
        FeatureError: nothing can be written there.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(
        [
            ("clip", pa.string()),
            ("score", pa.float64()),
            ("class_name", pa.string()),
            ("tokens", pa.int64()),
            ("sound_seconds", pa.float64()),
            ("face_share", pa.float64()),
            *((f"{m}_reason", pa.string()) for m in MODALITIES),
            ("transcript", pa.string()),
            ("transcript_source", pa.string()),
            ("warnings", pa.list_(pa.string())),
            ("error", pa.string()),
        ]
    )
    try:
        with replacing(path) as temporary:
            pq.write_table(pa.Table.from_pylist(records, schema), temporary, compression="zstd")
    except OSError as error:
        raise FeatureError(f"{path}: cannot be written ({error.strerror or error})") from error


def render(scored: Sequence[tuple[Path, Prediction | MitfrnetError]], scale: Any) -> Any:
    """Return predictions as a table for the terminal, one row per clip that has a score.

    Args:
        scored: of `score_clips`.
        scale: of the model's labels.
    """
    from rich.markup import escape
    from rich.table import Table

    parsed = parse_scale(scale)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("clip", overflow="fold")
    if not isinstance(parsed, ClassScale):
        table.add_column(f"score in [{parsed.low:g}, {parsed.high:g}]", justify="right")
    table.add_column("class", no_wrap=True)
    for name in ("tokens", "sound", "face"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("missing", overflow="fold")
    for clip, found in scored:
        if isinstance(found, MitfrnetError):
            continue
        missing = "; ".join(f"{m}: {r.replace('_', ' ')}" for m, r in found.missing.items())
        table.add_row(
            escape(str(clip)),
            *([] if found.score is None else [f"{found.score:+.2f}"]),
            escape(found.class_name),
            str(found.tokens),
            f"{found.sound_seconds:.1f} s",
            f"{found.face_share:.0%}",
            missing or "-",
        )
    return table


def remarks(scored: Sequence[tuple[Path, Prediction | MitfrnetError]]) -> list[str]:
    """Return the lines for what went wrong: an error per clip, a warning per kind of trouble."""
    errors, warned = [], defaultdict[str, list[Path]](list)
    for clip, found in scored:
        if isinstance(found, MitfrnetError):
            errors.append(f"error: {found}")
        else:
            for warning in found.warnings:
                warned[warning].append(clip)
    warnings = [
        f"warning: {f'{clips[0]}: ' if len(clips) == 1 else f'{len(clips)} clips: '}{warning}"
        for warning, clips in warned.items()
    ]
    return warnings + errors
