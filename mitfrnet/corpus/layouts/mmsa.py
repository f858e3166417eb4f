"""Layout `mmsa`, that of MMSA-FET: `label.csv` and `Raw/<video_id>/<clip_id>.<any container>`."""

from pathlib import Path

from mitfrnet.corpus.clip_files import ClipFiles
from mitfrnet.corpus.clips import LabelledClip, Problems, identifier, label_of, split_of
from mitfrnet.corpus.params import CorpusParams
from mitfrnet.corpus.tables import read_table

_MODALITY_LABELS = {"text": "label_T", "acoustic": "label_A", "visual": "label_V"}


def read_mmsa(folder: Path, corpus: CorpusParams, problems: Problems) -> list[LabelledClip]:
    """Return the rows of `label.csv`.

    `video_id, clip_id, text, label` are required; `label_T, label_A, label_V` and `mode` are
    optional, as the older tables of 7 columns lack some. `annotation` is ignored: in published
    files it contradicts the labels.

    Raises:
        CorpusError: the table cannot be used at all.
    """
    scale = corpus.resolved_scale
    assert scale is not None  # the layout has labels
    files = ClipFiles(folder, corpus.media)
    clips = []
    rows = read_table(
        files.table("label.csv"),
        problems,
        required=["video_id", "clip_id", "text", "label"],
        optional=[*_MODALITY_LABELS.values(), "mode"],
        encoding=corpus.encoding,
    )
    for where, row in rows:
        with problems.collecting():
            video_id = identifier(row["video_id"], "video_id", where)
            clip_id = identifier(row["clip_id"], "clip_id", where)
            stem = f"Raw/{video_id}/{clip_id}"
            transcript = row["text"].strip()
            clips.append(
                LabelledClip(
                    where=where,
                    video_id=video_id,
                    clip_id=clip_id,
                    path=files.by_stem(stem, where),
                    stem=stem,
                    transcript=transcript,
                    transcript_source="table" if transcript else None,
                    label=label_of(row["label"], "label", scale, where),
                    modality_labels={
                        modality: label_of(row[column], column, scale, where)
                        for modality, column in _MODALITY_LABELS.items()
                        if row.get(column, "").strip()
                    },
                    split=split_of(row["mode"], "mode", where) if "mode" in row else None,
                )
            )
    return clips
