"""A drawing as a PNG, by Pillow."""

from __future__ import annotations

import io
from functools import lru_cache

from PIL import Image, ImageDraw, ImageFont

from mma_edge.report.paper.drawing import MM_PER_POINT, Area, Drawing, Line, Words

DPI = 300
"""What journals ask for pictures."""
SMOOTH = 2
"""It is drawn so many times larger first: Pillow's edges have steps."""
_FONTS = ("LiberationSans-Regular.ttf", "Arial.ttf", "arial.ttf", "Helvetica.ttc", "DejaVuSans.ttf")
_NO_LETTER = "\U0010ffff"


def to_png(drawing: Drawing) -> tuple[bytes, int]:
    """The file, and how many of its letters no font of this machine has (they are drawn as boxes)."""
    scale = SMOOTH * DPI / 25.4
    size = (SMOOTH * round(drawing.width_mm * DPI / 25.4), SMOOTH * round(drawing.height_mm * DPI / 25.4))
    image = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(image)
    missing = 0
    for shape in drawing.shapes:
        if isinstance(shape, Area):
            for polygon in shape.polygons:
                pen.polygon([(x * scale, y * scale) for x, y in polygon.tolist()], fill=shape.colour)
        elif isinstance(shape, Line):
            for x0, y0, x1, y1 in _dashes(shape):
                width = max(1, round(shape.width * scale))
                pen.line([x0 * scale, y0 * scale, x1 * scale, y1 * scale], fill=shape.colour, width=width)
        elif isinstance(shape, Words):
            font, lacks = _font(round(shape.points * MM_PER_POINT * scale), shape.text)
            missing += lacks
            anchor = {"start": "ls", "middle": "ms", "end": "rs"}[shape.anchor]
            pen.text((shape.x * scale, shape.y * scale), shape.text, fill=shape.colour, font=font, anchor=anchor)
        else:
            place = (round(shape.x * scale), round(shape.y * scale))
            picture = Image.open(io.BytesIO(shape.jpeg)).convert("RGB")
            image.paste(picture.resize((round(shape.width * scale), round(shape.height * scale))), place)
    buffer = io.BytesIO()
    image.reduce(SMOOTH).save(buffer, "PNG", dpi=(DPI, DPI), optimize=True)
    return buffer.getvalue(), missing


def text_width_mm(text: str, points: float) -> float:
    """As wide as it is drawn; in an SVG with another font a little more or less."""
    font, _ = _font(100, text)
    return font.getlength(text) / 100 * points * MM_PER_POINT


def _dashes(line: Line) -> list[tuple[float, float, float, float]]:
    if line.dashes is None:
        return [(line.x0, line.y0, line.x1, line.y1)]
    length = ((line.x1 - line.x0) ** 2 + (line.y1 - line.y0) ** 2) ** 0.5
    step = sum(line.dashes)
    found = []
    for number in range(int(length / step) + 1):
        start, stop = number * step / length, min(1.0, (number * step + line.dashes[0]) / length)
        edges = (line.x0, line.x1 - line.x0), (line.y0, line.y1 - line.y0)
        found.append(tuple(base + part * way for part in (start, stop) for base, way in edges))
    return found


def _font(pixels: int, text: str) -> tuple[ImageFont.FreeTypeFont, int]:
    """The first font that has all letters, or the one that lacks fewest, and how many it lacks."""
    fonts = [font for name in _FONTS if (font := _loaded(name, pixels))] or [ImageFont.load_default(pixels)]
    letters = set(text) - {" "}
    lacks = [sum(_lacks(font, letter) for letter in letters) for font in fonts]
    least = min(lacks)
    return fonts[lacks.index(least)], least


@lru_cache(maxsize=64)
def _loaded(name: str, pixels: int) -> ImageFont.FreeTypeFont | None:
    try:
        return ImageFont.truetype(name, pixels)
    except OSError:
        return None


@lru_cache(maxsize=4096)
def _lacks(font: ImageFont.FreeTypeFont, letter: str) -> bool:
    return bytes(font.getmask(letter)) == bytes(font.getmask(_NO_LETTER))
