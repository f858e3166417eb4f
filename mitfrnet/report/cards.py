"""Write a model card for each trained cell."""

from collections.abc import Iterable
from pathlib import Path

from mitfrnet.files import replacing
from mitfrnet.report.results import Cell
from mitfrnet.trained.card import fingerprint, model_card


def write_cards(cells: Iterable[Cell], models: Path, out: Path) -> None:
    """Write `<corpus>/<model>/<rate>/<seed>.md` for each cell.

    Args:
        cells: the cells of the grid.
        models: folder of the model folders.
        out: folder of the cards.

    Raises:
        OutputError: a card cannot be written.
    """
    for cell in cells:
        card = model_card(
            cell.config,
            fingerprint=fingerprint(cell.config, models / cell.path),
            scores=cell.scores,
            corpus=cell.corpus,
        )
        with replacing(out / f"{cell.path}.md") as temporary:
            temporary.write_text(card, encoding="utf-8")
