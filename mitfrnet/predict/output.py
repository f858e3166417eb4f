"""Predictions as rows, as a table on the terminal, and as lines for warnings and errors."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from mitfrnet.errors import MitfrnetError
from mitfrnet.files import replacing
from mitfrnet.labels import ClassScale, parse_scale
from mitfrnet.modalities import MODALITIES
from mitfrnet.predict.predictor import Prediction


def record(clip: Path, prediction: Prediction | MitfrnetError) -> dict[str, Any]:
    """Return a prediction, or the error in its place, as one JSON-ready row of a table."""
    row: dict[str, Any]
    if isinstance(prediction, MitfrnetError):
        row = dict.fromkeys(f.name for f in fields(Prediction))
        row |= {"error": str(prediction), "warnings": [], "missing": {}}
    else:
        row = {f.name: getattr(prediction, f.name) for f in fields(Prediction)}
        row |= {"error": None, "warnings": list(prediction.warnings)}
    missing = row.pop("missing")
    return row | {"clip": str(clip)} | {f"{m}_reason": missing.get(m) for m in MODALITIES}


def write_predictions(records: list[dict[str, Any]], path: Path) -> None:
    """Write predictions as a Parquet table, one row per clip.

    Raises:
        OutputError: the file cannot be written.
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
    with replacing(path) as temporary:
        pq.write_table(pa.Table.from_pylist(records, schema), temporary, compression="zstd")


def render(scored: Sequence[tuple[Path, Prediction | MitfrnetError]], scale: Any) -> Any:
    """Return predictions as a table for the terminal, one row per clip that has a score.

    Args:
        scored: the result of `score_clips`.
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
    for clip, result in scored:
        if isinstance(result, MitfrnetError):
            continue
        missing = "; ".join(f"{m}: {r.replace('_', ' ')}" for m, r in result.missing.items())
        table.add_row(
            escape(str(clip)),
            *([] if result.score is None else [f"{result.score:+.2f}"]),
            escape(result.class_name),
            str(result.tokens),
            f"{result.sound_seconds:.1f} s",
            f"{result.face_share:.0%}",
            missing or "-",
        )
    return table


def remarks(scored: Sequence[tuple[Path, Prediction | MitfrnetError]]) -> list[str]:
    """Return a line for each warning, with its clips, and then one for each clip's error."""
    errors, clips_by_warning = [], defaultdict[str, list[Path]](list)
    for clip, result in scored:
        if isinstance(result, MitfrnetError):
            errors.append(f"error: {result}")
        else:
            for warning in result.warnings:
                clips_by_warning[warning].append(clip)
    warnings = [
        f"warning: {clips[0] if len(clips) == 1 else f'{len(clips)} clips'}: {warning}"
        for warning, clips in clips_by_warning.items()
    ]
    return warnings + errors
