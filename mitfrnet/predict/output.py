"""Predictions as rows, as a table on the terminal, and what went wrong with them."""

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
        OutputError: nothing can be written there.
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
