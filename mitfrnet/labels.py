"""Label scales: the range of the scores, or the classes, and how scores are cut into classes."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import (
    AfterValidator,
    Discriminator,
    SerializerFunctionWrapHandler,
    Tag,
    model_serializer,
    model_validator,
)

from mitfrnet.params import StageParams


class Edges(StageParams):
    """Edges between classes.

    Attributes:
        edges: where one class ends and the next begins, rising; one fewer than classes.
        closed: the end that a class includes. With `right`, (a, b], an edge belongs to the class
            below it; with `left`, [a, b), to the class above.
    """

    edges: tuple[float, ...]
    closed: Literal["left", "right"]


def _form(cut: Any) -> str:
    return "round" if isinstance(cut, str) else "edges"


Cut = Annotated[
    Annotated[Literal["round"], Tag("round")] | Annotated[Edges, Tag("edges")],
    Discriminator(_form),
]


class Scale(StageParams):
    """The range of the labels, and how scores are cut into classes.

    Either `family` or all of `neutral`, `neutral_is`, `clip` and `cuts`.

    Attributes:
        low, high: bounds of a label.
        family: `mosi`: signs with and without zero, 5 and 7 classes by rounding, nothing
            clipped for `mae` and `corr`; `sims`: right-closed bins, everything clipped first.
        neutral: the point between negative and positive.
        neutral_is: the class of the neutral point itself; `excluded`: neutral clips are left
            out of the two classes.
        clip: whether labels and predictions are clipped to the bounds first.
        cuts: the edges, by number of classes, 3 or more; or `round`: the whole numbers around
            the neutral point, halves to even.
    """

    low: float
    high: float
    family: Literal["mosi", "sims"] | None = None
    neutral: float | None = None
    neutral_is: Literal["positive", "negative", "excluded"] | None = None
    clip: bool | None = None
    cuts: dict[int, Cut] | None = None

    @model_validator(mode="after")
    def _is_one_of_two_forms(self) -> "Scale":
        own = (self.neutral, self.neutral_is, self.clip, self.cuts)
        alone = all(value is None for value in own)
        if not (alone if self.family else all(value is not None for value in own)):
            raise ValueError(
                "expected either family (mosi or sims), or all of neutral, neutral_is, clip, cuts"
            )
        return self

    @model_validator(mode="after")
    def _bounds_in_order(self) -> "Scale":
        if not self.low < self.neutral_point < self.high:
            raise ValueError(f"low must be below {self.neutral_point:g} and high above it")
        return self

    @model_validator(mode="after")
    def _cuts_fit_the_bounds(self) -> "Scale":
        for classes, cut in (self.cuts or {}).items():
            if classes < 3:
                raise ValueError(f"cuts: {classes} classes (two are cut at neutral; expected >= 3)")
            if isinstance(cut, Edges):
                edges = np.array([self.low, *cut.edges, self.high], np.float32)
                if len(cut.edges) != classes - 1 or not (np.diff(edges) > 0).all():
                    raise ValueError(
                        f"cuts: edges {', '.join(f'{e:g}' for e in cut.edges) or 'absent'} for "
                        f"{classes} classes (expected {classes - 1}, rising, between low and high)"
                    )
            else:
                low, high = rounding_limits(classes, self.neutral_point)
                if low % 1 or low < self.low or high > self.high:
                    raise ValueError(
                        f"cuts: {classes} classes by rounding would be {low:g} to {high:g} "
                        "(expected whole numbers within the bounds)"
                    )
        return self

    @model_serializer(mode="wrap")
    def _without_absent(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in dump(self).items() if value is not None}

    @property
    def neutral_point(self) -> float:
        """Return the point between negative and positive; 0 for `mosi` and `sims`."""
        return self.neutral if self.neutral is not None else 0.0

    @property
    def clips(self) -> bool:
        """Return whether labels and predictions are clipped to the bounds before scoring."""
        return self.family == "sims" if self.clip is None else self.clip


def _check_names(classes: tuple[str, ...]) -> tuple[str, ...]:
    if len(classes) < 2:
        raise ValueError("expected at least two classes")
    if any(not name or name != name.strip() for name in classes):
        raise ValueError("a class has no name, or blanks around its name")
    if len(set(classes)) < len(classes):
        raise ValueError("a class is listed twice")
    return classes


ClassNames = Annotated[tuple[str, ...], AfterValidator(_check_names)]


class ClassScale(StageParams):
    """Labels without an order, such as emotions; a label is the index of its class.

    Attributes:
        task: tells a stored `ClassScale` from a stored `Scale`.
        classes: names, at least two.
    """

    task: Literal["classification"] = "classification"
    classes: ClassNames


LabelScale = Scale | ClassScale


SCALES = {
    "mosi": Scale(low=-3, high=3, family="mosi"),
    "sims": Scale(low=-1, high=1, family="sims"),
}


def parse_scale(scale: str | Mapping[str, Any] | LabelScale) -> LabelScale:
    """Return the scale of a name or of a stored form, a mapping.

    Raises:
        ValueError: the name is unknown, or the mapping is not a scale.
    """
    if isinstance(scale, Scale | ClassScale):
        return scale
    if isinstance(scale, str):
        if scale not in SCALES:
            raise ValueError(f"scale: {scale!r} is unknown (expected {', '.join(SCALES)})")
        return SCALES[scale]
    return ClassScale(**scale) if scale.get("task") == "classification" else Scale(**scale)


def rounding_limits(classes: int, neutral: float) -> tuple[float, float]:
    """Return the lowest and the highest class that rounding gives."""
    return neutral - (classes - 1) / 2, neutral + (classes - 1) / 2
