"""Section `mask`, and the entries of `grid.missing_rates`."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import Field, ValidationInfo, field_validator

from mitfrnet.errors import ParamsError
from mitfrnet.missing.patterns import Floats, Pattern, Rates, check_rate
from mitfrnet.modalities import MODALITIES
from mitfrnet.params import StageParams

ProtocolName = Literal["matched", "complete_train", "fixed_train", "random_train"]

# Under these, one model is tested at all rates.
PROTOCOLS: tuple[ProtocolName, ...] = ("complete_train", "fixed_train", "random_train")


class ScaleFactors(StageParams):
    """Section `mask.scale_factors`: factors of the missing rate."""

    text: float = Field(ge=0)
    acoustic: float = Field(ge=0)
    visual: float = Field(ge=0)


class LegacySeeds(StageParams):
    """Section `mask.legacy_seeds`: seeds of NumPy's legacy generator."""

    text: int = Field(ge=0, lt=2**32)
    acoustic: int = Field(ge=0, lt=2**32)
    visual: int = Field(ge=0, lt=2**32)


class MaskParams(StageParams):
    """Section `mask`; `draw_masks` describes the patterns."""

    pattern: Pattern
    seed: int = Field(ge=0)  # of the masks, not of training
    scale_factors: ScaleFactors
    modalities: tuple[Literal["text", "acoustic", "visual"], ...]  # hidden by `modality`
    cell_seconds: float = Field(ge=0.001)  # of `structured`
    legacy_seeds: LegacySeeds
    fixed_rate: float = Field(ge=0, le=1)  # of protocol fixed_train

    @field_validator("modalities")
    @classmethod
    def _some_to_hide(cls, names: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if info.data.get("pattern") == "modality" and not names:
            raise ValueError(
                f"pattern modality hides none (expected some of {', '.join(MODALITIES)})"
            )
        return names

    def effective(self, rate: Rates) -> dict[str, Floats]:
        """Return the rate of each modality: `rate` times its scale factor, at most 1.

        A modality that pattern `modality` does not hide has the rate 0.
        """
        factors = self.scale_factors.model_dump()
        if self.pattern == "modality":
            factors |= {m: 0.0 for m in MODALITIES if m not in self.modalities}
        return {m: np.minimum(1, np.asarray(rate, dtype=float) * factors[m]) for m in MODALITIES}

    def used(self, protocol: ProtocolName) -> "MaskParams":
        """Return the parameters with unused settings reset, so that they do not change the file."""
        unused: dict[str, Any] = {}
        if self.pattern != "modality":
            unused["modalities"] = ()
        if self.pattern != "structured":
            unused["cell_seconds"] = 1.0
        if self.pattern == "legacy":
            unused["seed"] = 0
        else:
            unused["legacy_seeds"] = LegacySeeds(text=0, acoustic=0, visual=0)
        if protocol != "fixed_train":
            unused["fixed_rate"] = 0.0
        return self.model_copy(update=unused)


@dataclass(frozen=True)
class Protocol:
    """How rates are chosen for training and test; an entry of `grid.missing_rates`.

    Attributes:
        name: `matched`: train, valid and test use `rate`. Under the other protocols one model
            is tested at all rates. `complete_train`: training hides nothing. `fixed_train`:
            training uses `mask.fixed_rate`. `random_train`: each clip has a rate from U(0, 1),
            which the training split draws anew each epoch.
        rate: for `matched`; otherwise None.
    """

    name: ProtocolName
    rate: float | None = None

    def rate_of(self, split: str, fixed_rate: float) -> float | None:
        """Return the rate of one split in the mask file; None: a rate per clip from U(0, 1).

        It is 0 where masks are drawn later: in the test split, whose rates evaluation chooses,
        and in the training split of `random_train`.
        """
        if self.rate is not None:
            return self.rate
        if self.drawn_later(split) or self.name == "complete_train":
            return 0.0
        if self.name == "fixed_train":
            return fixed_rate
        return None

    def drawn_later(self, split: str) -> bool:
        """Return whether masks of a split are drawn where they are used, instead of stored."""
        if self.name == "matched":
            return False
        return split == "test" or (split == "train" and self.name == "random_train")


def parse_protocol(entry: float | str) -> Protocol:
    """Return the protocol of an entry of `grid.missing_rates`, a rate or the name of a protocol.

    Raises:
        ParamsError: the entry is neither.
    """
    for protocol in PROTOCOLS:
        if entry == protocol:
            return Protocol(protocol)
    try:
        return Protocol("matched", check_rate(entry))
    except ParamsError as error:
        expected = f"a number in [0, 1], or {', '.join(PROTOCOLS)}"
        raise ParamsError(f"missing rate is {entry} (expected {expected})") from error
