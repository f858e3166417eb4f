"""Values in words, as the report shows them."""

from collections.abc import Iterable, Mapping
from typing import Any

from mitfrnet.labels import ClassScale, LabelScale

_LONGEST = 160  # characters of a transcript in a table


def labels_in_words(label: Mapping[str, Any]) -> str:
    """Return in words how many clips have each kind of label."""
    counts = label.get("classes") or {
        "negative": label["negative"],
        "neutral": label["zero"],
        "positive": label["positive"],
    }
    shown = ", ".join(f"{n} {name}" for name, n in counts.items())
    return f"{shown}; mean {label['mean']:.3f}" if "mean" in label else shown


def scale_in_words(scale: LabelScale) -> str:
    """Return the range of the labels, or the number of classes, in words."""
    if isinstance(scale, ClassScale):
        return f"{len(scale.classes)} classes"
    family = f" ({scale.family})" if scale.family else f", neutral at {scale.neutral_point:g}"
    return f"{scale.low:g} to {scale.high:g}{family}"


def percent(share: float | None) -> str:
    """Return a share in percent, or a dash for None."""
    return "\N{EN DASH}" if share is None else f"{100 * share:.1f} %"


def in_words(key: object) -> str:
    """Return a key of a file as words."""
    return str(key).replace("_", " ")


def shortened(text: str) -> str:
    """Return a transcript on one line of a table, cut short if it is long."""
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else line[: _LONGEST - 1].rstrip() + "…"


def listed(things: Iterable[object], conjunction: str = "and") -> str:
    """Return `a`, `a and b`, or `a, b and c`."""
    *firsts, last = map(str, things)
    return f"{', '.join(firsts)} {conjunction} {last}" if firsts else last


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return nested values as text under dotted keys, with true and false as in YAML."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        elif isinstance(value, list):
            flat[prefix + key] = ", ".join(map(str, value))
        else:
            is_constant = value is None or isinstance(value, bool)
            flat[prefix + key] = str(value).lower() if is_constant else str(value)
    return flat
