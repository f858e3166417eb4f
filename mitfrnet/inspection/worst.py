"""The clips that a model gets most wrong, with pages for the report to link to."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from mitfrnet.corpus.manifest import manifest_settings, read_manifest
from mitfrnet.inspection.masking import Judged, ShownMasks
from mitfrnet.inspection.pages import write_pages
from mitfrnet.missing import MaskParams
from mitfrnet.report.params import WorstParams
from mitfrnet.report.results import Results
from mitfrnet.report.worst import judged_group, page_name, worst_clips, write_worst
from mitfrnet.workers.params import RunParams


def write_worst_clips(
    results: Results,
    params: WorstParams,
    out: Path,
    *,
    models: Path,
    masks: MaskParams,
    run: RunParams,
    root: Path = Path(),
) -> None:
    """Write the list of the test clips with the largest errors, and a page of each with media.

    Args:
        results: the cells of one corpus and one model.
        params: how many clips, and whether they have pages.
        out: the folder for the list and the pages.
        models: the folder of all models.
        masks: settings to draw masks with where none are stored.
        run: its timeout is how long one page may take.
        root: the folder of the project.

    Raises:
        FeatureError: a stage has not run, or its files cannot be used.
    """
    group = judged_group(results)
    corpus, model = group.corpus, results.grid.models[0]
    cells = results.select(corpus, model, group.trained)
    ids = cells[0].tested_at(group.tested)["utterance_id"].to_pylist()
    manifest = read_manifest(root / "data" / corpus / "manifest.parquet")
    columns = manifest.select(["utterance_id", "transcript", "path", "digest"]).to_pylist()
    rows = {row["utterance_id"]: row for row in columns}
    clips = [
        replace(clip, transcript=rows[clip.utterance_id]["transcript"])
        for clip in worst_clips(group, model, ids, params.clips)
    ]
    for old in out.glob("*.html"):
        old.unlink()
    inspected = []
    if params.pages:
        raw = root / "raw" / corpus
        remote = manifest_settings(manifest).get("media") is not None
        inspected = [c for c in clips if _has_media(rows[c.utterance_id], raw, remote=remote)]
        if without := len(clips) - len(inspected):
            print(
                f"warning: {corpus}: {without} of the {len(clips)} worst clips have "
                "no file under raw/, and so no page (once the files are there: "
                f"dvc repro -f inspect@{corpus})",
                file=sys.stderr,
            )
    folders = [models / cell.path for cell in cells]
    judged = Judged(group.tested, group.row(model).runs[0][1])
    shown = ShownMasks(results.grid.missing_rates, masks, judged)
    written = write_pages(
        inspected, folders, out, shown=shown, timeout_s=run.timeout_seconds, root=root
    )
    pages = {name: page_name(name) for name in written}
    write_worst([replace(clip, page=pages.get(clip.utterance_id)) for clip in clips], out)


def _has_media(row: dict[str, Any], raw: Path, *, remote: bool) -> bool:
    if remote:
        return row["digest"] is not None  # it was downloaded once
    return row["path"] is not None and (raw / row["path"]).is_file()
