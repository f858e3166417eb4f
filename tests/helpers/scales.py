"""A scale with bounds and cuts of its own, and classes."""

from mitfrnet.labels import ClassScale, Scale

# From 1 (bad) to 5 (good), 3 being neither; a label of 3 is left out of the two classes.
STARS = Scale(
    low=1,
    high=5,
    neutral=3,
    neutral_is="excluded",
    clip=True,
    cuts={5: "round", 3: {"edges": [2.5, 3.5], "closed": "left"}},
)
EMOTIONS = ClassScale(classes=["anger", "joy", "sadness"])
