"""Transcribes clips without a transcript by a Whisper-type model, once, and keeps the results.

PyTorch and transformers are loaded only when a model is used: most corpora need none.
"""

import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mitfrnet.corpus.clips import LabelledClip
from mitfrnet.corpus.manifest import WORD
from mitfrnet.corpus.transcripts.words import TimedWord, Transcript, Word, place_words, spread
from mitfrnet.errors import CorpusError, MediaError, printable
from mitfrnet.files import replacing, sha256_of
from mitfrnet.media.decode import MediaLimits, read_waveform
from mitfrnet.media.storage import ClipStore
from mitfrnet.workers.cluster import spread_map
from mitfrnet.workers.local import WorkerFailure, track
from mitfrnet.workers.params import RunParams

VERSION = "1"

# A killed run loses this much work at most.
_SAVE_EVERY_S = 60

# Sound that never exceeds this level (-60 dB) is not given to the model: Whisper invents words for
# silence.
_SILENCE = 1e-3

SCHEMA = pa.schema(
    [
        pa.field("utterance_id", pa.string(), nullable=False),
        pa.field("transcript", pa.string(), nullable=False),
        pa.field("words", pa.list_(pa.field("element", WORD)), nullable=False),
        pa.field("input_digest", pa.string(), nullable=False),
        pa.field("asr_digest", pa.string(), nullable=False),
    ]
)

Loaded = TypeVar("Loaded")


def transcribe(
    folder: Path,
    clips: Sequence[tuple[LabelledClip, str]],
    *,
    model: str | None,
    language: str,
    limits: MediaLimits,
    store: Path,
    run: RunParams,
    media_url: str | None = None,
) -> dict[str, Transcript]:
    """Return the transcripts of clips by utterance id, and keep them in `store`.

    A stored transcript of the same sound by the same model is reused. The others are decoded
    greedily in single precision, on the GPU if there is one. A clip is left out if its sound
    cannot be read or its worker process fails; the next run tries it again.

    Args:
        folder: the corpus.
        clips: clips to transcribe, each with the digest of its file.
        model: a Whisper-type model by its name on the Hugging Face hub, or its folder; None:
            nothing is transcribed, and the store keeps its rows.
        language: of the corpus, an ISO 639 code.
        limits: what a clip may cost.
        store: a Parquet file, sorted by utterance id.
        run: workers and timeout.
        media_url: URL of the clips in object storage; None: they lie in `folder`.

    Raises:
        CorpusError: there is no such model, or it does not know the language; or a clip in object
            storage no longer matches its digest.
        StorageError: the server cannot be reached, or refuses access.
    """
    if model is None or not clips:
        _write(_stored(store), store)  # transcripts stay for a later run with the model
        return {}
    digest = _asr_digest(model, language)
    wanted = {c.utterance_id: (c, _input_digest(c, file), digest) for c, file in clips}
    rows = {
        row["utterance_id"]: row
        for row in _stored(store)
        if (row["input_digest"], row["asr_digest"]) == wanted.get(row["utterance_id"], ())[1:]
    }
    to_do = [replace(clip, digest=file) for clip, file in clips if clip.utterance_id not in rows]
    folder = folder.absolute()  # workers may run elsewhere
    files = ClipStore(folder, media_url, limits.max_bytes, run.timeout_seconds)
    import torch

    # On a GPU the processes would only share it.
    workers = 1 if torch.cuda.is_available() else run.slots
    results = spread_map(
        partial(_transcriber, model, language, files, limits),
        to_do,
        run,
        local_workers=workers,
        files=[folder / (clip.path or "") for clip in to_do],
    )
    if to_do:
        results = track(results, total=len(to_do), size=lambda _: 1, description="transcribe")
    failed = []
    saved = time.monotonic()
    for clip, result in results:
        if isinstance(result, WorkerFailure):
            failed.append(f"{clip.utterance_id}: {result.reason}")
        elif result is not None:
            _, sound, asr = wanted[clip.utterance_id]
            rows[clip.utterance_id] = {
                "utterance_id": clip.utterance_id,
                "transcript": result.text,
                "words": [asdict(word) for word in result.words or ()],
                "input_digest": sound,
                "asr_digest": asr,
            }
        if time.monotonic() - saved > _SAVE_EVERY_S:
            _write(rows.values(), store)
            saved = time.monotonic()
    _write(rows.values(), store)
    if failed:
        shown = "; ".join(sorted(failed)[:20]) + f"; and {len(failed) - 20} more" * (
            len(failed) > 20
        )
        print(
            f"warning: not transcribed, the next run tries again: {printable(shown)}",
            file=sys.stderr,
        )
    return {
        utterance_id: Transcript(row["transcript"], tuple(Word(**word) for word in row["words"]))
        for utterance_id, row in sorted(rows.items())
    }


def _stored(store: Path) -> list[dict[str, Any]]:
    """Return the rows of a store; none if it is absent, damaged, or of another version."""
    try:
        table = pq.read_table(store)
    except (OSError, pa.ArrowInvalid):
        return []
    return table.to_pylist() if table.schema.equals(SCHEMA) else []


def _write(rows: Iterable[dict[str, Any]], store: Path) -> None:
    ordered = sorted(rows, key=lambda row: row["utterance_id"])
    with replacing(store) as temporary:
        pq.write_table(pa.Table.from_pylist(ordered, SCHEMA), temporary, compression="zstd")


def _input_digest(clip: LabelledClip, file: str) -> str:
    text = json.dumps([file, clip.start_s, clip.end_s])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _asr_digest(name: str, language: str) -> str:
    """Return the digest of everything but the sound that determines a transcript.

    The device is not part of it: transcripts made on a GPU are reused without one.
    """
    import torch
    import transformers
    from transformers.utils import cached_file

    generation = _generation_config(name, language)
    weights = sha256_of(Path(_load(cached_file, name, "model.safetensors") or ""))
    identity = {
        "version": VERSION,
        "model": name,
        "weights": weights,
        "generation": generation.to_dict(),
        "language": language,
        "torch": torch.__version__.split("+")[0],
        "transformers": transformers.__version__,
    }
    text = json.dumps(identity, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _load(loader: Callable[..., Loaded], name: str, *args: Any, **options: Any) -> Loaded:
    """Return what a loader of transformers returns for `name`.

    Raises:
        CorpusError: the model cannot be loaded.
    """
    import huggingface_hub
    import transformers
    from safetensors import SafetensorError

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    huggingface_hub.logging.set_verbosity_error()
    try:
        return loader(name, *args, **options)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise CorpusError(
            f"asr model {name!r}: no complete Whisper model in safetensors in a folder of this "
            "name, in the Hugging Face cache or on the hub (give a folder, or run once with "
            "network access)"
        ) from error


def _generation_config(name: str, language: str) -> Any:
    """Return the generation config of a model that can transcribe `language` with times.

    Raises:
        CorpusError: the model cannot.
    """
    import transformers

    config = _load(transformers.AutoConfig.from_pretrained, name, trust_remote_code=False)
    if config.model_type != "whisper":
        raise CorpusError(
            f"asr model {name!r}: a model of type {config.model_type} (expected a Whisper type)"
        )
    generation: Any = _load(transformers.GenerationConfig.from_pretrained, name)
    if not hasattr(generation, "no_timestamps_token_id"):
        raise CorpusError(
            f"asr model {name!r}: its generation_config.json has no no_timestamps_token_id, so it "
            "gives no times (expected a current Whisper model)"
        )
    languages = ["en"]
    if _is_multilingual(generation):
        languages = sorted(token.strip("<|>") for token in generation.lang_to_id)
    if language not in languages:
        raise CorpusError(
            f"asr model {name!r}: does not know language {language!r} "
            f"(expected one of {', '.join(languages)})"
        )
    return generation


def _is_multilingual(generation: Any) -> bool:
    return getattr(generation, "is_multilingual", False) and hasattr(generation, "lang_to_id")


def _transcriber(
    name: str, language: str, files: ClipStore, limits: MediaLimits
) -> Callable[[LabelledClip], Transcript | None]:
    """Load the model in a worker process and return a function that transcribes a clip."""
    import torch
    import transformers

    generation = _generation_config(name, language)
    model = _load(
        transformers.WhisperForConditionalGeneration.from_pretrained,
        name,
        use_safetensors=True,  # never read pickled weights
        dtype=torch.float32,
        attn_implementation="eager",  # word times come from the attention weights
    )
    recogniser: Any = transformers.pipeline(
        "automatic-speech-recognition",
        model=model.eval(),
        tokenizer=_load(transformers.AutoTokenizer.from_pretrained, name),
        feature_extractor=_load(transformers.AutoFeatureExtractor.from_pretrained, name),
        device="cuda" if torch.cuda.is_available() else "cpu",
    )
    options: dict[str, Any] = {"do_sample": False, "num_beams": 1}
    if _is_multilingual(generation):
        options |= {"language": language, "task": "transcribe"}
    # Without alignment heads only whole phrases have times.
    timed = "word" if getattr(generation, "alignment_heads", None) else True
    return partial(
        _transcribe_one,
        partial(recogniser, return_timestamps=timed, generate_kwargs=options),
        recogniser.feature_extractor.sampling_rate,
        files,
        limits,
    )


def _transcribe_one(
    recognise: Callable[[dict[str, Any]], dict[str, Any]],
    sample_rate_hz: int,
    files: ClipStore,
    limits: MediaLimits,
    clip: LabelledClip,
) -> Transcript | None:
    """Return the transcript of a clip; None if its sound cannot be read."""
    try:
        with files.at_hand(files.folder / (clip.path or ""), clip.digest) as path:
            waveform = read_waveform(
                path,
                sample_rate_hz=sample_rate_hz,
                start_s=clip.start_s,
                end_s=clip.end_s,
                limits=limits,
            )
    except MediaError:
        return None
    if np.abs(waveform).max() < _SILENCE:
        return Transcript("", ())
    duration_s = len(waveform) / sample_rate_hz
    result = recognise({"raw": waveform, "sampling_rate": sample_rate_hz})
    timed: list[TimedWord] = []
    for chunk in result["chunks"]:
        # A time is None if the model stopped inside a phrase, and may lie beyond the sound, which
        # is padded to 30 seconds.
        times = (duration_s if t is None else t for t in chunk["timestamp"])
        start, end = (min(max(t, 0.0), duration_s) for t in times)
        timed += spread(chunk["text"], start, max(start, end))
    text = result["text"].strip()
    return Transcript(text, place_words(text, timed))
