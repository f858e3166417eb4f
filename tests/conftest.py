import pipeline  # noqa: F401 - sets how threads wait, before any test imports torch
