"""The model cards of trained cells."""

from collections.abc import Iterable
from pathlib import Path

from mitfrnet.files import replacing
from mitfrnet.report.results import Cell
from mitfrnet.trained.card import fingerprint, model_card


def write_cards(cells: Iterable[Cell], models: Path, out: Path) -> None:
    """Write `<corpus>/<model>/<rate>/<seed>.md` for each cell.

    Args:
        cells: of the grid.
        models: the folder that holds the model folders of the cells.
        out: the folder to write to.

    Raises:
        OutputError: a card cannot be written.
    """
    for cell in cells:
        own = fingerprint(cell.config, models / cell.path)
        card = model_card(cell.config, fingerprint=own, scores=cell.scores, corpus=cell.corpus)
        with replacing(out / f"{cell.path}.md") as temporary:
            temporary.write_text(card, encoding="utf-8")
