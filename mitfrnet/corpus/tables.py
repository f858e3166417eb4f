"""Reads untrusted tables (CSV, TSV, Parquet, JSON Lines) as rows of text."""

import codecs
import csv
import json
import math
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mitfrnet.corpus.clips import Problems
from mitfrnet.errors import CorpusError

# A table of a million clips is smaller.
_MAX_BYTES = 512 * 2**20
_MAX_ROWS = 2_000_000  # a few KiB of Parquet can claim billions

TableRow = tuple[str, dict[str, str]]


def read_table(
    path: Path,
    problems: Problems,
    *,
    required: Sequence[str],
    optional: Sequence[str] = (),
    ids: Sequence[str] = (),
    encoding: str = "utf-8",
) -> Iterator[TableRow]:
    """Yield the rows of a table, each with its place, e.g. `raw/mine/label.csv:12`.

    Values are text: numbers and dates are written out, null and NaN are empty. The place is the
    line on which a row starts; in Parquet, the number of the row from 1. A row that cannot be
    read is skipped and becomes an error in `problems`.

    Args:
        path: the table, of a kind in `TABLE_ENDINGS`.
        problems: collects what is wrong with single rows.
        required: columns that the table must have.
        optional: columns to return if the table has them; all others are ignored.
        ids: columns in which a number with a decimal point is an error: 7.0 was once 7, or 007.
        encoding: of text; a byte order mark is ignored.

    Raises:
        CorpusError: the file is absent, too large, of another kind or damaged, or lacks a column.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise CorpusError(f"{path}: unknown kind of table (expected {', '.join(TABLE_ENDINGS)})")
    check_file(path, "the table of labels", _MAX_BYTES)
    columns = _Columns(path, list(dict.fromkeys(required)), list(optional), frozenset(ids))
    number = 0
    try:
        for number, (where, values) in enumerate(reader(path, columns, encoding), start=1):
            if number > _MAX_ROWS:
                raise CorpusError(f"{path}: more than {_MAX_ROWS:,} rows (expected one per clip)")
            try:
                row = columns.texts(where, values)
            except CorpusError as error:
                problems.errors.append(str(error))
            else:
                yield where, row
    except OSError as error:
        raise CorpusError(f"{path}: {error.strerror} (expected the table of labels)") from error
    if not number:
        raise CorpusError(f"{path}: no rows (expected one per clip)")


def check_file(path: Path, expected: str, max_bytes: int) -> None:
    """Refuse a file that is too large or not regular; a pipe would be read forever.

    Args:
        path: the file.
        expected: what it should be, for the message.
        max_bytes: the limit.

    Raises:
        CorpusError: it is absent, too large or not a regular file.
    """
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise CorpusError(f"{path}: {reason} (expected {expected})") from error
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
        raise CorpusError(f"{path}: {kind} (expected {expected})")
    if status.st_size > max_bytes:
        raise CorpusError(
            f"{path}: {status.st_size / 2**20:.0f} MiB (expected {expected}, "
            f"at most {max_bytes / 2**20:.0f} MiB)"
        )


def read_lines(path: Path, encoding: str) -> Iterator[str]:
    r"""Yield the lines of a text file with their ends unchanged: `\n`, `\r\n` or `\r`.

    Raises:
        CorpusError: a byte is not valid in the encoding; names its line.
    """
    utf8 = codecs.lookup(encoding).name == "utf-8"
    try:
        with path.open(encoding="utf-8-sig" if utf8 else encoding, newline="") as file:
            yield from file
    except UnicodeError as error:
        line, byte = _first_undecodable(path, encoding)
        raise CorpusError(
            f"{path}:{line}: byte {byte} is not {encoding} "
            "(save the file as UTF-8, or set `encoding` of the corpus, e.g. cp1252)"
        ) from error


def _first_undecodable(path: Path, encoding: str) -> tuple[int, str]:
    """Return the line of the first byte that is not valid in the encoding, and the byte."""
    decoder = codecs.getincrementaldecoder(encoding)()
    number = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                decoder.decode(line)
            except UnicodeDecodeError as error:
                return number, f"{error.object[error.start]:#04x}"
            except UnicodeError:  # this codec does not say which byte
                break
    return number, "at the end"


class _Columns:
    """Selects the wanted columns of a table and turns their values into text."""

    def __init__(
        self, path: Path, required: list[str], optional: list[str], ids: frozenset[str]
    ) -> None:
        self._path, self._required, self._ids = path, required, ids
        self._wanted = dict.fromkeys([*required, *optional])

    def among(self, names: Sequence[str], where: str | None = None) -> list[str]:
        """Return the wanted columns among `names`.

        Raises:
            CorpusError: a required one is absent, or a wanted one appears twice.
        """
        absent = [name for name in self._required if name not in names]
        if absent:
            shown = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
            raise CorpusError(
                f"{where or self._path}: missing column {', '.join(absent)} "
                f"(found: {shown or 'none'}; required: {', '.join(self._required)})"
            )
        wanted = [name for name in self._wanted if name in names]
        for name in wanted:
            if names.count(name) > 1:
                raise CorpusError(
                    f"{where or self._path}: column {name!r} appears twice (expected once)"
                )
        return wanted

    def texts(self, where: str, values: "dict[str, Any] | CorpusError") -> dict[str, str]:
        """Return the values of a row as text.

        Raises:
            CorpusError: the row is an error, or a value cannot be text.
        """
        if isinstance(values, CorpusError):
            raise values
        return {name: self._text(where, name, value) for name, value in values.items()}

    def _text(self, where: str, name: str, value: Any) -> str:
        if isinstance(value, str):
            if len(value) > csv.field_size_limit():
                raise CorpusError(
                    f"{where}: {name} has {len(value):,} characters "
                    f"(expected at most {csv.field_size_limit():,})"
                )
            try:
                value.encode()
            except UnicodeEncodeError:
                raise CorpusError(
                    f"{where}: {name} holds half a character (expected text; an escape such as "
                    "\\ud83d has lost its second half)"
                ) from None
            return value
        if value is None:
            return ""
        if isinstance(value, float):
            if math.isnan(value):
                return ""
            if name in self._ids:
                raise CorpusError(
                    f"{where}: {name} is the number {value!r} (expected text or a whole number; "
                    "tools that turn 7 into 7.0 also lose leading zeros)"
                )
        if isinstance(value, (list, tuple, dict, bytes)):
            raise CorpusError(f"{where}: {name} is not a single value (expected text or a number)")
        return str(value)


Values = Iterable[tuple[str, "dict[str, Any] | CorpusError"]]


def _csv_rows(path: Path, columns: _Columns, encoding: str) -> Values:
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    reader = csv.reader(read_lines(path, encoding), delimiter=delimiter, strict=True)
    start = 1
    try:
        header = next(reader, [])
        wanted = [(name, header.index(name)) for name in columns.among(header)]
        while True:
            start = reader.line_num + 1
            row = next(reader, None)
            if row is None:
                return
            if not row:  # an empty line
                continue
            where = f"{path}:{start}"
            if len(row) < len(header) or any(value.strip() for value in row[len(header) :]):
                yield (
                    where,
                    CorpusError(
                        f"{where}: {len(row)} values (expected {len(header)}, as in the header; a "
                        "value that contains the delimiter needs quotes)"
                    ),
                )
            else:
                yield where, {name: row[at] for name, at in wanted}
    except csv.Error as error:
        raise CorpusError(
            f"{path}:{start}: not a CSV row ({error}; is a quote never closed?)"
        ) from error


def _json_rows(path: Path, columns: _Columns, encoding: str) -> Values:
    for number, line in enumerate(read_lines(path, encoding), start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            # As tuples of pairs, objects differ from lists and show keys that appear twice.
            row = json.loads(line, object_pairs_hook=tuple)
        except (ValueError, RecursionError) as error:
            yield where, CorpusError(f"{where}: cannot be read as JSON ({error})")
            continue
        if not isinstance(row, tuple):
            yield where, CorpusError(f"{where}: not an object (expected one per line)")
            continue
        try:
            wanted = columns.among([name for name, _ in row], where)
        except CorpusError as error:
            yield where, error
            continue
        values = dict(row)
        yield where, {name: values[name] for name in wanted}


def _parquet_rows(path: Path, columns: _Columns, encoding: str) -> Values:
    try:
        with pq.ParquetFile(path) as file:
            if file.metadata.num_rows > _MAX_ROWS:
                raise CorpusError(
                    f"{path}: {file.metadata.num_rows:,} rows (expected one per clip, "
                    f"at most {_MAX_ROWS:,})"
                )
            wanted = columns.among(file.schema_arrow.names)
        # Dictionaries keep a long text that every row repeats from being copied.
        with pq.ParquetFile(path, read_dictionary=wanted) as file:
            number = 0
            for batch in file.iter_batches(batch_size=1024, columns=wanted):
                _check_texts(path, batch)
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}:{number}", row
    except (OSError, pa.ArrowException, ValueError) as error:
        reason = " ".join(str(error).split())
        raise CorpusError(f"{path}: not a valid Parquet file ({reason:.200})") from error


def _check_texts(path: Path, batch: pa.RecordBatch) -> None:
    limit = csv.field_size_limit()
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if pa.types.is_dictionary(column.type):
            longest = pc.max(pc.binary_length(column.dictionary)).as_py() or 0
            if longest > limit:
                raise CorpusError(
                    f"{path}: {name} has a text of {longest:,} bytes (expected at most {limit:,})"
                )


_READERS = {
    ".csv": _csv_rows,
    ".tsv": _csv_rows,
    ".parquet": _parquet_rows,
    ".jsonl": _json_rows,
    ".ndjson": _json_rows,
}
TABLE_ENDINGS = tuple(_READERS)
