"""Text in any alphabet as small pictures that are laid over a video frame."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

_FONTS = (
    "DejaVuSans.ttf", "NotoSans-Regular.ttf", "LiberationSans-Regular.ttf", "Arial.ttf", "arial.ttf", "Helvetica.ttc",
    "NotoSansCJK-Regular.ttc", "msyh.ttc", "YuGothM.ttc", "PingFang.ttc", "AppleGothic.ttf", "Arial Unicode.ttf",
)  # fmt: skip
"""Fonts of the usual systems, for what Pillow's own lacks: it has little more than ASCII."""
_NO_GLYPH = "\U0010ffff"
"""Is in no font: what is drawn for it is drawn for every sign that a font lacks."""
Colour = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Patch:
    """A small picture with transparency."""

    light: np.ndarray  # uint8 (h, w, 3) RGB, what it adds
    keep: np.ndarray  # uint8 (h, w, 3), which share of what is below stays, of 255

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.light.shape[1], self.light.shape[0]

    @classmethod
    def of(cls, image: Image.Image) -> Patch:
        """Of an RGBA picture."""
        rgba = np.asarray(image, np.uint8)
        alpha = rgba[..., 3:].astype(np.uint16)
        light = (rgba[..., :3] * alpha // 255).astype(np.uint8)
        return cls(light, np.repeat(255 - rgba[..., 3:], 3, axis=2))

    def put(self, image: np.ndarray, x: int, y: int) -> None:
        """Lay it over a picture uint8 (H, W, 3) with its corner at x, y; what is outside is cut off."""
        left, top = max(0, -x), max(0, -y)
        below = image[max(0, y) : y + self.size[1], max(0, x) : x + self.size[0]]
        height, width = below.shape[:2]
        if height and width:
            part = slice(top, top + height), slice(left, left + width)
            cv2.add(cv2.multiply(below, self.keep[part], scale=1 / 255), self.light[part], dst=below)


@lru_cache(maxsize=32)
def _system_font(name: str, size: int) -> ImageFont.FreeTypeFont | None:
    try:
        return ImageFont.truetype(name, size)
    except OSError:
        return None


@lru_cache(maxsize=8)
def own_font(size: int) -> ImageFont.FreeTypeFont:
    """Pillow's own, which looks the same everywhere."""
    return ImageFont.load_default(size)


@lru_cache(maxsize=256)
def _has(name: str, sign: str) -> bool:
    """Whether a font of the system has a sign."""
    font = _system_font(name, 16)
    return font is not None and bytes(font.getmask(sign)) != bytes(font.getmask(_NO_GLYPH))


@lru_cache(maxsize=256)
def fitting(text: str, size: int) -> tuple[ImageFont.FreeTypeFont, str]:
    """A font, and the text with what that font has: signs that no font here has lose their accents or become "?"."""
    if text.isascii():
        return own_font(size), text
    signs = {sign for sign in text if not sign.isascii()}
    counts = {name: sum(_has(name, sign) for sign in signs) for name in _FONTS if _system_font(name, 16)}
    best = max(counts, key=counts.get, default=None)
    has = {sign for sign in signs if best and _has(best, sign)}
    shown = "".join(sign if sign.isascii() or sign in has else _plain(sign) for sign in text)
    return (own_font(size) if shown.isascii() else _system_font(best, size)), shown


def _plain(sign: str) -> str:
    return unicodedata.normalize("NFKD", sign).encode("ascii", "ignore").decode() or "?"


def width_of(text: str, size: int) -> int:
    """In pixels."""
    font, text = fitting(text, size)
    return round(font.getlength(text))


def write(draw: ImageDraw.ImageDraw, x: float, middle_y: float, text: str, size: int, colour: Colour) -> None:
    """Write a line of text from x on, its letters' middle at `middle_y`."""
    font, text = fitting(text, size)
    # Anchored at the line without descenders, so that all lines of a size stand alike.
    draw.text((x, middle_y + 0.36 * size), text, font=font, fill=(*colour, 255), anchor="ls")
