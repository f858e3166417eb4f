"""The axes of the study: section `grid` of `params.yaml`."""

from typing import Any

from pydantic import Field, field_validator

from mitfrnet.params import StageParams

Condition = int | float | str  # an entry of `grid.missing_rates`


class GridParams(StageParams):
    """Section `grid`: the axes of the study."""

    corpora: list[str] = Field(min_length=1)
    models: list[str] = Field(min_length=1)  # the others are compared with the first
    missing_rates: list[Condition] = Field(min_length=1)  # 1 and 1.0 name two folders
    seeds: list[int] = Field(min_length=1)

    @field_validator("corpora", "models", "missing_rates", "seeds")
    @classmethod
    def _each_once(cls, values: list[Any]) -> list[Any]:
        if len(set(values)) < len(values):
            raise ValueError("a value is listed twice")
        return values
