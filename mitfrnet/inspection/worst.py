"""The clips that a model gets most wrong, for the report to show and to link to."""

from dataclasses import replace
from pathlib import Path

from mitfrnet.corpus.manifest import read_manifest
from mitfrnet.report.results import Results
from mitfrnet.report.worst import WorstParams, judged_group, page_name, worst_clips, write_worst


def write_worst_clips(
    results: Results, params: WorstParams, out: Path, *, models: Path, root: Path = Path()
) -> None:
    """Write which test clips the model gets most wrong, and a page of each that has its media.

    Args:
        results: the cells of one corpus and one model.
        params: how many clips, and whether they have pages.
        out: the folder.
        models: folder of models.
        root: the folder of the project.

    Raises:
        FeatureError: a stage has not run, or its files cannot be used.
    """
    group = judged_group(results)
    corpus, model = group.corpus, results.grid.all_models[0]
    cells = results.select(corpus, model, group.trained)
    ids = cells[0].tested_at(group.tested)["utterance_id"].to_pylist()
    manifest = read_manifest(root / "data" / corpus / "manifest.parquet")
    columns = manifest.select(["utterance_id", "transcript", "path"]).to_pylist()
    rows = {row["utterance_id"]: row for row in columns}
    clips = [
        replace(clip, transcript=rows[clip.utterance_id]["transcript"])
        for clip in worst_clips(group, model, ids, params.clips)
    ]
    seen = []
    if params.pages:
        seen = [c for c in clips if _has_media(rows[c.utterance_id]["path"], root / "raw" / corpus)]
    for old in out.glob("*.html"):
        old.unlink()
    if seen:
        # Only now: a machine without clips needs no decoders either.
        from mitfrnet.inspection.pages import write_pages

        folders = [models / cell.path for cell in cells]
        write_pages(seen, folders, out, rate=group.tested, root=root)
    write_worst(
        [replace(c, page=page_name(c.utterance_id)) if c in seen else c for c in clips], out
    )


def _has_media(path: str | None, raw: Path) -> bool:
    return path is not None and (raw / path).is_file()
