"""A drawing in millimetres, and its SVG.

Not matplotlib: a figure of rectangles, areas and words needs no more than this, Pillow is there anyway, and whoever
edits the SVG finds words as words and one path for each class.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Literal

import numpy as np

MM_PER_POINT = 25.4 / 72
FONTS = "Helvetica, Arial, 'Liberation Sans', 'DejaVu Sans', sans-serif"
INK = "#1F2328"
SOFT = "#59636E"


@dataclass(frozen=True, eq=False)
class Area:
    """Polygons, each float (n, 2) of x and y."""

    polygons: Sequence[np.ndarray]
    colour: str


@dataclass(frozen=True)
class Line:
    x0: float
    y0: float
    x1: float
    y1: float
    colour: str = INK
    width: float = 0.2
    dashes: tuple[float, float] | None = None  # length of a dash, of the gap after it


@dataclass(frozen=True)
class Words:
    """A line of text; y is its baseline."""

    x: float
    y: float
    text: str
    points: float = 7.0
    anchor: Literal["start", "middle", "end"] = "start"
    colour: str = INK


@dataclass(frozen=True)
class Picture:
    """A JPEG."""

    x: float
    y: float
    width: float
    height: float
    jpeg: bytes


@dataclass
class Drawing:
    """Shapes in the order in which they are drawn; y runs down."""

    width_mm: float
    height_mm: float = 0.0
    shapes: list[Area | Line | Words | Picture] = field(default_factory=list)

    def add(self, *shapes: Area | Line | Words | Picture) -> None:
        self.shapes += shapes

    def rectangles(self, boxes: Sequence[tuple[float, float, float, float]], colour: str) -> None:
        """Each (x0, y0, x1, y1); none is thinner than 0.1 mm, so that nothing short is lost in print."""
        corners = []
        for x0, y0, x1, y1 in boxes:
            right = max(x1, x0 + 0.1)
            corners.append(np.array([(x0, y0), (right, y0), (right, y1), (x0, y1)]))
        if corners:
            self.add(Area(corners, colour))


def to_svg(drawing: Drawing, title: str) -> str:
    """A file of its own; `title` is what a screen reader says."""
    width, height = _number(drawing.width_mm), _number(drawing.height_mm)
    shapes = "\n".join(map(_svg, drawing.shapes))
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<svg xmlns="http://www.w3.org/2000/svg" width="{width}mm" '
        f'height="{height}mm" viewBox="0 0 {width} {height}" font-family="{FONTS}" role="img">\n'
        f"<title>{_text(title)}</title>\n{shapes}\n</svg>\n"
    )


def _svg(shape: Area | Line | Words | Picture) -> str:
    n = _number
    if isinstance(shape, Area):
        polygons = ("M" + "L".join(f"{x:.2f},{y:.2f}" for x, y in polygon.tolist()) + "Z" for polygon in shape.polygons)
        return f'<path fill="{shape.colour}" d="{"".join(polygons)}"/>'
    if isinstance(shape, Line):
        dashes = f' stroke-dasharray="{n(shape.dashes[0])} {n(shape.dashes[1])}"' if shape.dashes else ""
        ends = f'x1="{n(shape.x0)}" y1="{n(shape.y0)}" x2="{n(shape.x1)}" y2="{n(shape.y1)}"'
        return f'<line {ends} stroke="{shape.colour}" stroke-width="{n(shape.width)}"{dashes}/>'
    if isinstance(shape, Words):
        place = f'x="{n(shape.x)}" y="{n(shape.y)}" font-size="{n(shape.points * MM_PER_POINT)}"'
        return f'<text {place} text-anchor="{shape.anchor}" fill="{shape.colour}">{_text(shape.text)}</text>'
    place = f'x="{n(shape.x)}" y="{n(shape.y)}" width="{n(shape.width)}" height="{n(shape.height)}"'
    return f'<image {place} href="data:image/jpeg;base64,{base64.b64encode(shape.jpeg).decode()}"/>'


def _text(text: str) -> str:
    """For XML, which has no place for control characters."""
    return escape("".join(letter for letter in text if letter.isprintable()))


def _number(value: float) -> str:
    return f"{value:.3f}".rstrip("0").rstrip(".")
