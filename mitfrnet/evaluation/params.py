"""Section `evaluate`."""

import math
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from mitfrnet.params import StageParams


class EvaluateParams(StageParams):
    """Section `evaluate`: rates and seeds of the test masks."""

    rates: Literal["matched"] | list[float]  # matched: as trained
    protocol_rates: list[float] = Field(min_length=1)  # for models trained under a protocol
    mask_seeds: Literal["matched"] | list[int]  # matched: as trained

    @field_validator("rates", "mask_seeds", mode="before")
    @classmethod
    def _matched_or_listed(cls, values: Any, info: ValidationInfo) -> Any:
        kind = int if info.field_name == "mask_seeds" else int | float
        listed = isinstance(values, list) and all(
            isinstance(v, kind) and not isinstance(v, bool) and math.isfinite(v) for v in values
        )
        if values != "matched" and not (listed and values):
            what = "whole numbers" if kind is int else "numbers"
            raise ValueError(f"expected 'matched' or a list of {what}")
        return values

    @field_validator("rates", "protocol_rates")
    @classmethod
    def _known_rates(cls, rates: Any) -> Any:
        for rate in () if rates == "matched" else rates:
            if not 0 <= rate <= 1:
                raise ValueError(f"{rate} is not a missing rate (expected a number in [0, 1])")
        return rates

    @field_validator("rates", "protocol_rates", "mask_seeds")
    @classmethod
    def _each_once(cls, values: Any) -> Any:
        if values != "matched" and len(set(values)) < len(values):
            raise ValueError("a value is listed twice")
        return values

    @field_validator("mask_seeds")
    @classmethod
    def _known_seeds(cls, seeds: Any) -> Any:
        if seeds != "matched" and min(seeds) < 0:
            raise ValueError(f"{min(seeds)} is not a seed (expected a whole number, 0 or more)")
        return seeds
