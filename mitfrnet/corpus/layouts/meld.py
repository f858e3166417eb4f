"""Layout `meld`: MELD as its authors distribute it.

Names of files and columns, the classes and the defects below are from the tables in the authors'
repository (https://github.com/declare-lab/MELD, commits 76e4ed2 and ca3e126) and from code that
reads the archive `MELD.Raw.tar.gz`. The archive itself was not available for a check.

Emotions: anger, disgust, fear, joy, neutral, sadness, surprise. Sentiments: negative, neutral,
positive. Known defects, none of which stops a run: `dia110_utt7` of dev has no clip,
`dia125_utt3` of train cannot be decoded, and some clips are in no table.
"""

from pathlib import Path

from mitfrnet.corpus.clip_files import ClipFiles
from mitfrnet.corpus.clips import LabelledClip, Problems, identifier, label_of
from mitfrnet.corpus.params import CorpusParams
from mitfrnet.corpus.tables import read_table

_SPLITS = {"train": "train", "dev": "valid", "test": "test"}
_CLIPS = {
    "train": "train_splits",
    "dev": "dev_splits_complete",
    "test": "output_repeated_splits_test",
}
_LABELS = {"sentiment": "Sentiment", "emotion": "Emotion"}

# The archive may be unpacked with its own top folder, or without it.
_TOP = ("", "MELD.Raw/")

# In the tables of train and dev, typographic marks of cp1252 have become control characters, which
# a tokenizer would drop: `I\x92m` would become `Im`.
_MARKS = {
    code: bytes([code]).decode("cp1252")
    for code in range(0x80, 0xA0)
    if code not in {0x81, 0x8D, 0x8F, 0x90, 0x9D}  # undefined in cp1252
}


def read_meld(folder: Path, corpus: CorpusParams, problems: Problems) -> list[LabelledClip]:
    """Return the rows of `train_sent_emo.csv`, `dev_sent_emo.csv` and `test_sent_emo.csv`.

    The tables and the folders of clips (`train_splits`, `dev_splits_complete` and
    `output_repeated_splits_test`) lie at the top, or in `train`, `dev` and `test`. Each split
    numbers its dialogues from 0, so `train_dia0` is a `video_id` and `utt0` a `clip_id`.

    Some test clips exist twice. `final_videos_testdia0_utt0` has the sound that the table
    describes, so it is preferred to `dia0_utt0`.

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
    return clips


def _places(published: str, name: str) -> list[str]:
    """Return where a file or folder of a split may lie."""
    return [f"{top}{inner}{name}" for top in _TOP for inner in ("", f"{published}/")]


def _table(folder: Path, files: ClipFiles, published: str) -> Path:
    """Return the table of a split; if it is absent, where it should be."""
    places = _places(published, f"{published}_sent_emo.csv")
    present = [place for place in places if files.at(place, str(folder)) is not None]
    return folder / (present or places)[0]


def _find(files: ClipFiles, published: str, name: str, where: str) -> tuple[str | None, str]:
    """Return the path of a clip or None, and its path without ending."""
    folders = _places(published, _CLIPS[published])
    names = [f"final_videos_test{name}", name] if published == "test" else [name]
    for stem in (f"{folder}/{n}" for n in names for folder in folders):
        path = files.by_stem(stem, where)
        if path is not None:
            return path, stem
    return None, f"{folders[0]}/{name}"
