"""Transcripts of clips outside a corpus."""

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from mitfrnet.corpus.clips import LabelledClip, Problems
from mitfrnet.corpus.params import CorpusParams
from mitfrnet.corpus.transcripts.sidecars import complete
from mitfrnet.corpus.transcripts.words import Transcript
from mitfrnet.corpus.transcripts.writing_systems import script_of_letter, scripts_of
from mitfrnet.errors import CorpusError, MitfrnetError
from mitfrnet.files import sha256_of
from mitfrnet.predict.extraction import TIMEOUT_S, FeatureSettings
from mitfrnet.workers.params import RunParams, available_cores


def find_transcripts(
    clips: Sequence[Path],
    texts: Mapping[Path, str],
    settings: FeatureSettings,
    *,
    asr: str | None = None,
) -> dict[Path, "Transcript | MitfrnetError"]:
    """Return the transcript of each clip, or the error in a file that should hold it.

    Args:
        clips: media files.
        texts: what is said in some of them; files beside those are ignored.
        settings: of the model's features.
        asr: a Whisper-type model that transcribes clips without a transcript.

    Raises:
        CorpusError: there is no such model, or it does not know the language.
    """
    transcripts: dict[Path, Transcript | MitfrnetError] = {
        clip: Transcript(texts[clip], source="given")
        if clip in texts
        else transcript_beside(clip, settings.language)
        for clip in clips
    }
    if asr is not None:
        without = [c for c, t in transcripts.items() if isinstance(t, Transcript) and not t.text]
        transcripts |= _transcribed(without, asr, settings)
    return transcripts


def transcript_beside(clip: Path, language: str) -> Transcript | MitfrnetError:
    """Return the transcript in files beside a clip, or the error in one of them."""
    labelled = _labelled(clip, clip.parent)
    corpus = CorpusParams(layout="media_only", language=language)
    problems = Problems()
    completed = complete(clip.parent, [labelled], corpus, problems)[0]
    if problems.errors:
        return CorpusError(problems.errors[0])
    return Transcript(completed.transcript, completed.words, completed.transcript_source)


def _labelled(clip: Path, folder: Path) -> LabelledClip:
    path = clip.relative_to(folder).as_posix()
    return LabelledClip(
        where=str(clip),
        video_id=clip.parent.name,
        clip_id=clip.name,
        path=path,
        stem=os.path.splitext(path)[0],
    )


def _transcribed(
    clips: Sequence[Path], asr: str, settings: FeatureSettings
) -> dict[Path, Transcript]:
    """Return what an ASR model hears in the clips whose sound can be read."""
    from mitfrnet.corpus.transcripts.asr import transcribe  # loads torch

    readable = {clip: clip.absolute() for clip in clips if clip.is_file()}
    root = Path(Path.cwd().anchor)
    # Names may occur twice, and ids must differ.
    labelled = {
        clip: replace(_labelled(path, root), clip_id=str(i))
        for i, (clip, path) in enumerate(readable.items())
    }
    with tempfile.TemporaryDirectory() as folder:
        transcripts = transcribe(
            root,
            [(labelled[clip], sha256_of(path)) for clip, path in readable.items()],
            model=asr,
            language=settings.language,
            limits=settings.limits,
            store=Path(folder, "asr.parquet"),
            run=RunParams(workers=len(available_cores()), timeout_seconds=TIMEOUT_S),
        )
    return {
        clip: replace(transcript, source="asr")
        for clip in readable
        if (transcript := transcripts.get(labelled[clip].utterance_id))
    }


def foreign_share(transcript: str, language: str) -> float:
    """Return the share of letters that are in no script of a language, if most are; else 0.

    Also 0 for a language whose scripts are not known here.
    """
    scripts = scripts_of(language)
    letters = [c for c in transcript if c.isalpha()]
    if not scripts or not letters:
        return 0.0
    share = sum(script_of_letter(c) not in scripts for c in letters) / len(letters)
    return share if share > 0.5 else 0.0
