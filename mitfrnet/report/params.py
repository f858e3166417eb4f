"""Section `report`."""

from pydantic import Field

from mitfrnet.params import StageParams


class BootstrapParams(StageParams):
    """Section `report.bootstrap`: resampling of test clips for intervals and paired tests."""

    resamples: int = Field(ge=1)
    seed: int = Field(ge=0)
    level: float = Field(gt=0, lt=1)  # share of the resamples within an interval


class PairedParams(StageParams):
    """Section `report.paired_test`: the score by which two models are compared."""

    scores: str  # if labels are scores
    classes: str  # if labels are classes
    exchanges: int = Field(ge=1)  # of clips between two models; few allow no small p


class WorstParams(StageParams):
    """Section `report.worst`."""

    clips: int = Field(ge=0, le=100)  # per corpus
    pages: bool  # whether each of them has a page with its frames and sound


class ReportParams(StageParams):
    """Section `report`."""

    title: str
    bootstrap: BootstrapParams
    paired_test: PairedParams
    worst: WorstParams  # for stage inspect
