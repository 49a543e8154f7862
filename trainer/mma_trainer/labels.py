"""Class names of the data sets, in the order of their class numbers, and which names mean the same."""

from __future__ import annotations

from collections.abc import Iterable

DFEW_LABELS = ("happy", "sad", "neutral", "angry", "surprise", "disgust", "fear")
MAFW_LABELS = (*DFEW_LABELS, "contempt", "anxiety", "helplessness", "disappointment")
# MAFW's own words for the classes that MAFW_LABELS names otherwise.
SYNONYMS = {"happiness": "happy", "sadness": "sad", "anger": "angry"}


def canonical(name: str) -> str:
    """The name that a class of this name is known by here: "Happiness" is happy."""
    return SYNONYMS.get(name.lower(), name.lower())


def in_our_order(names: Iterable[str]) -> tuple[str, ...]:
    """The known classes in the order of MAFW_LABELS, which begins as the default model's, then the others by name."""
    place = {name: index for index, name in enumerate(MAFW_LABELS)}
    return tuple(sorted(names, key=lambda name: (place.get(canonical(name), len(place)), name)))
