"""Which steps of every utterance are missing: patterns, rates, seeds and protocols."""

from mitfrnet.missing.conditions import PROTOCOLS, Condition, MaskParams, Protocol, parse_condition
from mitfrnet.missing.masks import (
    Masks,
    Steps,
    mask_corpus,
    mask_steps,
    reachable_rate,
    read_masks,
    realised_rates,
    write_masks,
)
from mitfrnet.missing.patterns import (
    WHOLE_PATTERNS,
    Bools,
    Pattern,
    Rates,
    check_rate,
    draw_masks,
    draw_rates,
    legacy_masks,
)
from mitfrnet.missing.rows import Rows

__all__ = [
    "PROTOCOLS",
    "WHOLE_PATTERNS",
    "Bools",
    "Condition",
    "MaskParams",
    "Masks",
    "Pattern",
    "Protocol",
    "Rates",
    "Rows",
    "Steps",
    "check_rate",
    "draw_masks",
    "draw_rates",
    "legacy_masks",
    "mask_corpus",
    "mask_steps",
    "parse_condition",
    "reachable_rate",
    "read_masks",
    "realised_rates",
    "write_masks",
]
