"""Colours of the classes, the same wherever the project shows emotions over time.

The seven of DFEW were searched for: under normal vision and the three kinds of colour blindness (Machado, Oliveira and
Fernandes 2009) each two differ by at least 24 in CIELAB, and printed in grey by at least 9 % of black to white. The
others of MAFW, and classes of your own, only differ in their hue. tests/test_report_numbers.py holds both.
"""

from __future__ import annotations

from collections.abc import Sequence

from mma_edge.types import UNCERTAIN

CLASS_COLOURS = {
    "angry": "#892212",
    "disgust": "#2E9364",
    "fear": "#2D1C45",
    "sad": "#2E56CE",
    "neutral": "#B3BABD",
    "surprise": "#ED7E37",
    "happy": "#F8E183",
    "contempt": "#7D5A3C",
    "anxiety": "#D98BB8",
    "helplessness": "#5FB3C9",
    "disappointment": "#6E7480",
}
"""In the order in which they are stacked, from below: what is light lies beside what is dark."""
SAME = {
    "anger": "angry",
    "disgusted": "disgust",
    "fearful": "fear",
    "afraid": "fear",
    "sadness": "sad",
    "calm": "neutral",
    "surprised": "surprise",
    "happiness": "happy",
    "joy": "happy",
}
"""Names that other corpora have for the same."""
UNCERTAIN_COLOUR = "#767C84"
"""Drawn thinner than the classes, so that it is none in grey either."""
BASIS_COLOURS = {"both": "#2B6F77", "face": "#79B8BF", "voice": "#C98A2B"}
"""What an answer rests on."""
MARK_COLOUR, LOSS_COLOUR = "#C2185B", "#D93025"


def stacked(labels: Sequence[str]) -> tuple[str, ...]:
    """The classes in the order in which they are stacked, from below: known ones first, others as they come."""
    known, order = _known(labels), list(CLASS_COLOURS)
    return tuple(sorted(labels, key=lambda label: order.index(known[label]) if label in known else len(order)))


def colours(labels: Sequence[str]) -> dict[str, str]:
    """A colour "#RRGGBB" for each class, and for UNCERTAIN."""
    known = _known(labels)
    free = [colour for name, colour in CLASS_COLOURS.items() if name not in known.values()]
    free = free or list(CLASS_COLOURS.values())
    strangers = [label for label in labels if label not in known]
    chosen = {label: CLASS_COLOURS[name] for label, name in known.items()}
    chosen |= {label: free[number % len(free)] for number, label in enumerate(strangers)}
    return chosen | {UNCERTAIN: UNCERTAIN_COLOUR}


def _known(labels: Sequence[str]) -> dict[str, str]:
    """Those labels that have a colour of their own -> its name; each name once."""
    known: dict[str, str] = {}
    for label in labels:
        name = label.strip().lower()
        name = SAME.get(name, name)
        if name in CLASS_COLOURS and name not in known.values():
            known[label] = name
    return known
