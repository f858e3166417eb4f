"""Whether the first model differs from each other one on the same test clips."""

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import Field

from mitfrnet.errors import ParamsError
from mitfrnet.evaluation.significance import PairedTest, paired_test
from mitfrnet.labels import ClassScale
from mitfrnet.params import PARAMS_FILE, StageParams
from mitfrnet.report.tables.averages import Block
from mitfrnet.report.tables.columns import Column
from mitfrnet.report.tables.scores import BootstrapParams


class PairedParams(StageParams):
    """Section `report.paired_test`: the score by which two models are compared."""

    scores: str  # where labels are scores
    classes: str  # where they are classes
    exchanges: int = Field(ge=1)  # of clips between two models; with few, no small p can come out


@dataclass(frozen=True)
class Comparison:
    """The first model against another at one test rate.

    Attributes:
        other: key of the other model.
        tested: missing rate.
        test: None where the score is not defined.
        adjusted: p value after Holm's correction for all tests of the block.
    """

    other: str
    tested: float
    test: PairedTest | None
    adjusted: float | None


def paired_column(block: Block, params: PairedParams) -> Column:
    """Return the score by which the models of a block are compared.

    Raises:
        ParamsError: the scale of the corpus has no such score.
    """
    axis = "classes" if isinstance(block.scale, ClassScale) else "scores"
    metric = getattr(params, axis)
    columns = {column.key: column for column in block.groups[0].columns}
    if metric not in columns:
        raise ParamsError(
            f"{PARAMS_FILE}: report.paired_test.{axis}: {metric!r} is no score of corpus "
            f"{block.corpus} (expected {', '.join(columns)})"
        )
    return columns[metric]


def comparisons(
    block: Block, metric: str, exchanges: int, params: BootstrapParams
) -> list[Comparison]:
    """Return the first model of a block against each other one, at every rate."""
    first, *others = (row.key for row in block.models)
    tests = {
        (other, group.tested): paired_test(
            group.row(first).predictions,
            group.row(other).predictions,
            group.label,
            group.scale,
            metric=metric,
            seed=params.seed,
            resamples=exchanges,
            level=params.level,
        )
        for other in others
        for group in block.groups
    }
    defined = {place: test.p_value for place, test in tests.items() if test}
    adjusted = dict(zip(defined, holm(list(defined.values())), strict=True))
    return [
        Comparison(*place, test=test, adjusted=adjusted.get(place)) for place, test in tests.items()
    ]


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values such that the chance of one false finding among all is kept (Holm 1979)."""
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = highest
    return adjusted
