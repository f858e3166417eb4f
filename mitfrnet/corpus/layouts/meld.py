"""Layout `meld`: MELD as its authors distribute it.

Names of files and columns, the label classes and the defects below were taken from the tables in
the authors' repository (https://github.com/declare-lab/MELD, its commits 76e4ed2 and ca3e126) and
from code that reads the archive `MELD.Raw.tar.gz`; the archive itself was not at hand.

Emotions: anger, disgust, fear, joy, neutral, sadness, surprise. Sentiments: negative, neutral,
positive. Known defects, none of which stops a run: `dia110_utt7` of dev has no clip,
`dia125_utt3` of train cannot be decoded, and some clips have no row in the tables.
"""

from pathlib import Path

from mitfrnet.corpus.clip_files import ClipFiles
from mitfrnet.corpus.clips import (
    LabelledClip,
    Problems,
    identifier,
    label_of,
    unique,
)
from mitfrnet.corpus.params import CorpusParams
from mitfrnet.corpus.tables import read_table

_SPLITS = {"train": "train", "dev": "valid", "test": "test"}
_CLIPS = {
    "train": "train_splits",
    "dev": "dev_splits_complete",
    "test": "output_repeated_splits_test",
}
_LABELS = {"sentiment": "Sentiment", "emotion": "Emotion"}

# Where the archive was unpacked into the corpus folder with its own top folder, or without it.
_TOP = ("", "MELD.Raw/")

# The tables of train and dev have typographic marks of cp1252 as control characters of the same
# number, which a tokenizer would drop: `I\x92m` would become `Im`.
_MARKS = {
    code: bytes([code]).decode("cp1252")
    for code in range(0x80, 0xA0)
    if code not in {0x81, 0x8D, 0x8F, 0x90, 0x9D}  # without a meaning there
}


def read_meld(folder: Path, corpus: CorpusParams, problems: Problems) -> list[LabelledClip]:
    """Return the rows of `train_sent_emo.csv`, `dev_sent_emo.csv` and `test_sent_emo.csv`.

    The tables lie at the top or in `train`, `dev` and `test`, and so do the folders of clips,
    `train_splits`, `dev_splits_complete` and `output_repeated_splits_test`. Dialogues are
    numbered anew in each split, so that `train_dia0` is the `video_id` and `utt0` the `clip_id`.

    In the test split some clips are there twice, and `final_videos_testdia0_utt0` has the sound
    that the table describes, so it is preferred to `dia0_utt0`.

    Raises:
        CorpusError: a table is absent or cannot be used at all.
    """
    scale = corpus.resolved_scale
    assert scale is not None  # the layout has labels
    assert corpus.label is not None  # the block is checked
    column = _LABELS[corpus.label]
    tables, files = ClipFiles(folder), ClipFiles(folder, corpus.media)
    clips = []
    for published, split in _SPLITS.items():
        rows = read_table(
            _table(folder, tables, published),
            problems,
            required=["Utterance", "Dialogue_ID", "Utterance_ID", column],
            encoding=corpus.encoding,
        )
        for where, row in rows:
            with problems.collecting():
                dialogue = identifier(row["Dialogue_ID"], "Dialogue_ID", where)
                utterance = identifier(row["Utterance_ID"], "Utterance_ID", where)
                path, stem = _find(files, published, f"dia{dialogue}_utt{utterance}", where)
                transcript = row["Utterance"].translate(_MARKS).strip()
                clips.append(
                    LabelledClip(
                        where=where,
                        video_id=f"{published}_dia{dialogue}",
                        clip_id=f"utt{utterance}",
                        path=path,
                        stem=stem,
                        transcript=transcript,
                        transcript_source="table" if transcript else None,
                        label=label_of(row[column], column, scale, where),
                        split=split,
                    )
                )
    return unique(clips, problems)


def _places(published: str, name: str) -> list[str]:
    """Return where a file or folder of a split may lie."""
    return [f"{top}{inner}{name}" for top in _TOP for inner in ("", f"{published}/")]


def _table(folder: Path, files: ClipFiles, published: str) -> Path:
    """Return the table of a split; if there is none, where it should be."""
    places = _places(published, f"{published}_sent_emo.csv")
    found = [place for place in places if files.at(place, str(folder)) is not None]
    return folder / (found or places)[0]


def _find(files: ClipFiles, published: str, name: str, where: str) -> tuple[str | None, str]:
    """Return the file of a clip, None if there is none, and its path without ending."""
    folders = _places(published, _CLIPS[published])
    names = [f"final_videos_test{name}", name] if published == "test" else [name]
    for stem in (f"{folder}/{n}" for n in names for folder in folders):
        path = files.by_stem(stem, where)
        if path is not None:
            return path, stem
    return None, f"{folders[0]}/{name}"
