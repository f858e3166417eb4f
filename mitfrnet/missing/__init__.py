"""Which steps of every utterance are missing: patterns, rates, seeds and protocols."""

from mitfrnet.missing.masks import (
    Masks,
    mask_corpus,
    mask_steps,
    reachable_rate,
    read_masks,
    realised_rates,
    write_masks,
)
from mitfrnet.missing.params import PROTOCOLS, MaskParams, Protocol, ProtocolName, parse_protocol
from mitfrnet.missing.patterns import (
    WHOLE_PATTERNS,
    Pattern,
    Rates,
    check_rate,
    draw_masks,
    draw_rates,
    legacy_masks,
)

__all__ = [
    "PROTOCOLS",
    "WHOLE_PATTERNS",
    "MaskParams",
    "Masks",
    "Pattern",
    "Protocol",
    "ProtocolName",
    "Rates",
    "check_rate",
    "draw_masks",
    "draw_rates",
    "legacy_masks",
    "mask_corpus",
    "mask_steps",
    "parse_protocol",
    "reachable_rate",
    "read_masks",
    "realised_rates",
    "write_masks",
]
