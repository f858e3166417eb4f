"""What there is to show of one clip: its media, words, features, and what is missing by nature."""

import difflib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mitfrnet.corpus.manifest import (
    input_digest,
    make_manifest,
    manifest_settings,
    read_manifest,
)
from mitfrnet.corpus.transcripts.words import Transcript
from mitfrnet.data.alignment import TensorParams
from mitfrnet.data.build import build_tensors
from mitfrnet.data.tensors import ModalityTensors, SplitTensors, read_tensors
from mitfrnet.errors import CorpusError, FeatureError, MediaError
from mitfrnet.features.extract import build_extractor, extractor_params
from mitfrnet.features.extractor import Clip, Extractor
from mitfrnet.features.shards import FeatureRow, feature_schema, to_table
from mitfrnet.features.text import TextParams
from mitfrnet.media.decode import MediaLimits, Probe, probe
from mitfrnet.media.storage import ClipStore
from mitfrnet.modalities import MODALITIES
from mitfrnet.params import PARAMS_FILE, StageParams, check_name, load_params, read_section
from mitfrnet.predict.clips import ClipFeatures, manifest_row
from mitfrnet.predict.extraction import LIMITS, FeatureSettings
from mitfrnet.workers.params import RunParams

_DATA, _RAW = Path("data"), Path("raw")


@dataclass(frozen=True)
class Token:
    """A step of the text.

    Attributes:
        text: its part of the transcript; of a special token, its name.
        start_s, end_s: when it is spoken; both 0 of a special token.
        special: whether it stands for no part of the transcript.
    """

    text: str
    start_s: float
    end_s: float
    special: bool


@dataclass(frozen=True)
class Subject:
    """The clip that is looked at.

    Attributes:
        name: utterance id, or the file's name.
        corpus: where it is from; None for a clip of its own.
        part: the split it is in; `test` for a clip of its own.
        file: the name of its file; empty: there is none.
        clip: its media; of an utterance only at hand while it is gathered.
        limits: what reading them may cost.
        probe: what is in the file.
        duration_s: of the utterance.
        tensors: the features, a split of this one utterance.
        tokens: the steps of the text.
        timed: whether somebody says when the words are spoken; else they are spread over the
            utterance by their characters.
        label: None where there is none.
        reasons: why a modality is missing by nature; None: it is there.
    """

    name: str
    corpus: str | None
    part: str
    file: str
    clip: Clip
    limits: MediaLimits
    probe: Probe
    duration_s: float
    tensors: SplitTensors
    tokens: Sequence[Token]
    timed: bool
    label: float | None
    reasons: dict[str, str | None]


def find(target: str, corpus: str | None, root: Path = Path()) -> tuple[str | None, str]:
    """Return the corpus and the utterance that `target` names; None and a path for a clip.

    Args:
        target: a file, `<corpus>/<utterance id>`, or, with `corpus`, an utterance id.
        corpus: named apart.
        root: the folder of the project.

    Raises:
        CorpusError: it is neither.
        ParamsError: `corpus` is no name of a corpus.
    """
    if corpus is not None:
        return check_name(corpus, "--corpus"), target
    if Path(target).is_file():
        return None, target
    first, _, rest = target.partition("/")
    known = sorted(path.parent.name for path in (root / _DATA).glob("*/manifest.parquet"))
    if rest and (first in known or (root / _RAW / first).is_dir()):
        return check_name(first, target), rest
    raise CorpusError(
        f"{target}: neither a file nor an utterance of a corpus (expected a clip, or "
        f"<corpus>/<video_id>/<clip_id>; corpora with a manifest: {', '.join(known) or 'none'})"
    )


@contextmanager
def gather_utterance(corpus: str, utterance_id: str, root: Path = Path()) -> Iterator[Subject]:
    """Give an utterance of a corpus as the pipeline made it, with its clip at hand.

    Args:
        corpus: its name.
        utterance_id: `<video_id>/<clip_id>`.
        root: the folder of the project.

    Raises:
        CorpusError: the corpus has no such utterance, or its clip is no longer that of the
            manifest.
        FeatureError: a stage has not run, or its files cannot be used.
        StorageError: its clip cannot be fetched.
    """
    folder = root / _DATA / corpus
    manifest = read_manifest(folder / "manifest.parquet")
    row = _row_of(manifest, corpus, utterance_id)
    features = {m: _stored(folder / "features" / m, utterance_id) for m in MODALITIES}
    part = row["split"]
    split = read_tensors(folder / "tensors", [part])[part]
    if utterance_id not in split.ids:
        raise FeatureError(f"{folder / 'tensors'}: no {utterance_id} (run the tensors stage)")
    settings = manifest_settings(manifest)
    limits = MediaLimits(**settings["limits"])
    raw, media_url = root / _RAW / corpus, settings.get("media")
    if row["digest"] is None:  # nothing to fetch; the probe gives the reason
        media_url = None
    path = raw / (row["path"] or "")
    run = load_params(RunParams, section="run", path=root / PARAMS_FILE)
    store = ClipStore(raw, media_url, limits.max_bytes, run.timeout_seconds)
    with store.at_hand(path, row["digest"]) as file:
        clip = Clip(utterance_id, file, row["start_s"], row["end_s"], row["transcript"])
        yield _subject(
            name=utterance_id,
            corpus=corpus,
            part=part,
            file=path.name if row["path"] else "",
            clip=clip,
            limits=limits,
            row=row,
            features=features,
            tensors=only(split, split.ids.index(utterance_id)),
        )


def _row_of(manifest: pa.Table, corpus: str, utterance_id: str) -> dict[str, Any]:
    ids = manifest["utterance_id"].to_pylist()
    if utterance_id not in ids:
        close = difflib.get_close_matches(utterance_id, ids, n=3, cutoff=0.5) or ids[:3]
        raise CorpusError(
            f"{corpus}: no utterance {utterance_id!r} (close ones: {', '.join(close)})"
        )
    return manifest.slice(ids.index(utterance_id), 1).to_pylist()[0]


def _stored(folder: Path, utterance_id: str) -> pa.Table:
    """Return the row of one utterance, of whichever shard has it."""
    for path in sorted(folder.glob("*-of-*.parquet")):
        try:
            table = pq.read_table(path, filters=[("utterance_id", "=", utterance_id)])
        except (OSError, pa.ArrowInvalid) as error:
            raise FeatureError(
                f"{path}: cannot be read ({error}); run the extract stage"
            ) from error
        if len(table):
            return table.combine_chunks()
    raise FeatureError(f"{folder}: no features of {utterance_id} (run the extract stage)")


def only(split: SplitTensors, index: int) -> SplitTensors:
    """Return the split of one utterance of `split`."""
    modalities, cuts = {}, {}
    for modality, ragged in split.modalities.items():
        cut = cuts[modality] = slice(*ragged.offsets[index : index + 2])
        modalities[modality] = ModalityTensors(
            values=ragged.values[cut],
            detected=ragged.detected[cut],
            time_s=ragged.time_s[cut],
            offsets=np.array([0, cut.stop - cut.start], dtype=np.int64),
        )
    return replace(
        split,
        ids=[split.ids[index]],
        label=split.label[index : index + 1],
        modalities=modalities,
        token_ids=split.token_ids[cuts["text"]],
        special=split.special[cuts["text"]],
    )


def gather_clip(path: Path, said: Transcript, recipe: FeatureSettings | None) -> Subject:
    """Return a clip that is in no corpus, its features extracted now.

    Args:
        path: the file.
        said: in it.
        recipe: of the model that shall score it; None: features are extracted as `params.yaml`
            says, text by the first of its encoders.

    Raises:
        MediaError: neither picture nor sound can be read, or one of them is too long.
        ParamsError: `params.yaml` is needed and is not there, or is wrong.
        FeatureError: a model that the features need is not there.
    """
    limits = LIMITS if recipe is None else recipe.limits
    found = probe(path, limits)
    reasons = (found.video_reason, found.audio_reason)
    if all(reasons) or "too_long" in reasons:
        raise MediaError(f"{path}: {_unusable(found, limits)}")
    settings: dict[str, Any] = {"scale": None, "limits": limits.model_dump()}
    if recipe is not None:
        settings |= {**recipe.settings, "scale": recipe.config["scale"]}
    else:
        settings |= {"language": first_language(), "text_encoder": None}
    reason_of = {"acoustic": found.audio_reason, "visual": found.video_reason}
    observed = {m: ClipFeatures(found.duration_s, None, reason) for m, reason in reason_of.items()}
    row = manifest_row(path, observed, said) | {"label": math.nan}
    clip = Clip(row["utterance_id"], path, transcript=said.text)
    features = {}
    for modality in MODALITIES:
        if recipe is not None:
            extractor = recipe.extractor(modality)
        else:
            extractor = build_extractor(modality, _params(modality), settings)
        features[modality] = _extracted(modality, clip, row, extractor)
    alignment = TensorParams(align="none", segments=1)
    if recipe is not None:
        alignment = recipe.tensor_params
    tensors = build_tensors(make_manifest([row], settings), features, alignment)["test"]
    if recipe is not None:  # whose predictor has compared the settings
        described = {"features": recipe.config["features"]}
        tensors = replace(tensors, metadata=tensors.metadata | described)
    return _subject(
        name=path.name,
        corpus=None,
        part="test",
        file=path.name,
        clip=clip,
        limits=limits,
        row=row,
        features=features,
        tensors=tensors,
    )


def first_language() -> str:
    """Return the language of a clip of which nobody says it: the first with a text encoder.

    Raises:
        ParamsError: `params.yaml` is needed and is not there, or is wrong.
    """
    return next(iter(cast(TextParams, _params("text")).encoders))


def _params(modality: str) -> StageParams:
    section = f"extract.{modality}"
    return extractor_params(modality, read_section(section), where=f"{PARAMS_FILE}: {section}")


def _unusable(found: Probe, limits: MediaLimits) -> str:
    reasons = (found.video_reason, found.audio_reason)
    if "too_long" in reasons:
        return (
            f"too long, {found.duration_s:.0f} s (expected at most {limits.max_duration_s:g} s; "
            "cut out what is to be seen)"
        )
    said = " and ".join(dict.fromkeys(str(r).replace("_", " ") for r in reasons))
    return f"nothing of it can be read: {said} (expected a clip with picture or sound)"


def _extracted(modality: str, clip: Clip, row: dict[str, Any], extractor: Extractor) -> pa.Table:
    """Return one modality of a clip as the extract stage would store it."""
    features, reason = None, row[f"{modality}_reason"]
    if reason is None:
        try:
            features = extractor.extract(clip)
            reason = features.reason
        except MediaError as error:
            reason = str(error)
    stored = FeatureRow(clip.utterance_id, features, reason, input_digest(row, modality), "")
    return to_table([stored], feature_schema(extractor))


def _subject(
    *,
    name: str,
    corpus: str | None,
    part: str,
    file: str,
    clip: Clip,
    limits: MediaLimits,
    row: dict[str, Any],
    features: dict[str, pa.Table],
    tensors: SplitTensors,
) -> Subject:
    duration_s = _duration_s(row, tensors)
    words = row.get("words") or []
    label = float(tensors.label[0])
    return Subject(
        name=name,
        corpus=corpus,
        part=part,
        file=file,
        clip=clip,
        limits=limits,
        probe=probe(clip.path, limits, start_s=clip.start_s, end_s=clip.end_s),
        duration_s=duration_s,
        tensors=tensors,
        tokens=_tokens(features["text"].to_pylist()[0], clip.transcript, words, duration_s),
        timed=bool(words),
        label=None if math.isnan(label) else label,
        reasons={m: features[m]["reason"].to_pylist()[0] for m in MODALITIES},
    )


def _duration_s(row: dict[str, Any], tensors: SplitTensors) -> float:
    """Return how long the utterance is, in seconds; where no row says it, its last step does."""
    ends = [end for end in (row["end_s"], row["duration_s"] or None) if end is not None]
    known = min(ends, default=0.0) - (row["start_s"] or 0.0)
    if known > 0:
        return known
    return max([1.0, *(float(r.time_s.max(initial=0)) for r in tensors.modalities.values())])


def _tokens(
    stored: dict[str, Any], transcript: str, words: list[dict[str, Any]], duration_s: float
) -> list[Token]:
    """Return the steps of the text; none where it is missing by nature."""
    if stored["reason"] is not None:
        return []
    tokens = []
    places = (stored[c] for c in ("char_start", "char_end", "special"))
    last = len(stored["special"]) - 1
    for i, (start, end, special) in enumerate(zip(*places, strict=True)):
        if special:
            name = {0: "[CLS]", last: "[SEP]"}.get(i, "[special]")
            tokens.append(Token(name, 0.0, 0.0, special=True))
        else:
            times = _spoken(start, end, len(transcript), words, duration_s)
            tokens.append(Token(transcript[start:end], *times, special=False))
    return tokens


def _spoken(
    start: int, end: int, characters: int, words: list[dict[str, Any]], duration_s: float
) -> tuple[float, float]:
    """Return when the characters from `start` to `end` are spoken, in seconds.

    Within a word of known time, or the whole transcript, all characters take equally long.
    """
    for word in words:
        if min(end, word["char_end"]) > max(start, word["char_start"]):
            at, length = word["char_start"], word["char_end"] - word["char_start"]
            from_s, lasts_s = word["start_s"], word["end_s"] - word["start_s"]
            break
    else:
        at, length, from_s, lasts_s = 0, characters, 0.0, duration_s
    first, second = (
        min(max((c - at) / max(length, 1), 0), 1) * lasts_s + from_s for c in (start, end)
    )
    return min(max(first, 0.0), duration_s), min(max(second, 0.0), duration_s)


def settings_of(subject: Subject, modality: str) -> dict[str, Any]:
    """Return the settings that a modality's features were extracted with, as far as stated."""
    identity = subject.tensors.metadata["features"][modality]["identity"]
    return identity.get("settings", {})
