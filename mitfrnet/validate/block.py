"""Reads the block of params.yaml for a corpus, or guesses one from its files."""

import json
import os
from pathlib import Path

from mitfrnet.corpus.clips import Problems
from mitfrnet.corpus.params import CorpusParams
from mitfrnet.corpus.tables import TABLE_ENDINGS, read_table
from mitfrnet.errors import CorpusError, ParamsError
from mitfrnet.params import PARAMS_FILE, check_name, parse_params, read_section

_COLUMNS = ("path", "text", "split", "group", "start", "end")
_LABELLED = "language: en, scale: mosi"


def load_block(folder: Path, name: str | None = None) -> CorpusParams:
    """Return the block of params.yaml for the corpus in `folder`.

    Args:
        folder: the corpus.
        name: name of the block; None: the folder's name.

    Raises:
        CorpusError: there is no such folder, or it cannot be listed.
        ParamsError: there is no such block, or it is invalid.
    """
    try:
        if not folder.is_dir():
            raise CorpusError(f"{folder}: no such folder (expected a corpus)")
        guess = guess_block(folder)
    except OSError as error:
        raise CorpusError(f"{folder}: {error.strerror} (expected a corpus)") from error
    name = check_name(name or Path(os.path.abspath(folder)).name, f"{PARAMS_FILE}: corpora")
    section = read_section("corpora")
    blocks = section if isinstance(section, dict) else {}
    where = f"{PARAMS_FILE}: corpora.{name}"
    if name not in blocks:
        raise ParamsError(
            f"{where}: no such block (found: {', '.join(map(str, blocks)) or 'none'}; paste this "
            f"below `corpora:` and correct what was guessed wrong:  {name}: {guess})"
        )
    return parse_params(CorpusParams, blocks[name], where=where)


def guess_block(folder: Path) -> str:
    """Return a guess at the block of the corpus in `folder`, as one line of YAML.

    Raises:
        OSError: the folder cannot be listed.
    """
    files = sorted(path for path in folder.iterdir() if path.is_file())
    names = {path.name for path in files}
    tables = [path for path in files if path.suffix.lower() in TABLE_ENDINGS]
    if "label.csv" in names:
        return f"{{layout: mmsa, {_LABELLED}}}"
    if "utterances.parquet" in names:
        return f"{{layout: features, {_LABELLED}}}"
    if any(folder.rglob("train_sent_emo.csv")):
        classes = "classes: [negative, neutral, positive]"
        return f"{{layout: meld, language: en, task: classification, label: sentiment, {classes}}}"
    if any(folder.rglob("*.csd")):
        return f"{{layout: cmu, {_LABELLED}}}"
    if len(tables) == 1:
        return f"{{layout: table, {_LABELLED}, table: {{{_guess_table(tables[0])}}}}}"
    return "{layout: media_only, language: en}"


def _guess_table(path: Path) -> str:
    """Return file, path and columns of a table, assuming that it uses our names of columns."""
    try:
        _, row = next(read_table(path, Problems(), required=[], optional=_COLUMNS))
    except (CorpusError, StopIteration):  # reported once there is a block
        row = {}
    columns = ["video_id", "clip_id", "label", *(name for name in _COLUMNS if name in row)]
    pattern = "" if "path" in row else 'path: "{video_id}/{clip_id}.*", '
    named = ", ".join(f"{name}: {name}" for name in columns)
    return f"file: {json.dumps(path.name)}, {pattern}columns: {{{named}}}"
