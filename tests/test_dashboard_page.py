"""Promises of the page's own files: nothing from outside, colours that can be told apart, a script that is whole."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from pathlib import Path

import numpy as np
import pytest

import mma_edge
from mma_edge.web.security import Page

ASSETS = Path(mma_edge.__file__).parent / "assets"
FOLDER = ASSETS / "dashboard"
OWN = [path for path in (*FOLDER.iterdir(), *(ASSETS / "browser").iterdir()) if path.is_file()]
STYLE = (FOLDER / "page.css").read_text()
_LIGHT, _DARK = re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)
THEMES = {
    name: dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", text)) for name, text in (("light", _LIGHT), ("dark", _DARK))
}
# How colours look without the second, and without the first kind of cones (Machado and others 2009, linear RGB).
DEFICIENT = {
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
}


def linear(colour: str) -> np.ndarray:
    values = np.array([int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)])
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    """WCAG 2's, 1 to 21."""
    light = sorted(float(linear(colour) @ [0.2126, 0.7152, 0.0722]) for colour in (one, other))
    return (light[1] + 0.05) / (light[0] + 0.05)


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIE L*a*b* of linear RGB, white D65."""
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ rgb.clip(0, 1)
    x, y, z = np.cbrt(xyz / [0.9505, 1.0, 1.089])
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("theme", THEMES)
def test_text_and_lines_stand_out_from_what_they_are_on(theme: str) -> None:
    colours = THEMES[theme]
    for text in ("ink", "soft", "good", "bad", "accent"):
        assert contrast(colours[text], colours["card"]) >= 4.5, text
    for text in ("ink", "soft"):
        assert contrast(colours[text], colours["back"]) >= 4.5, text
    assert contrast(colours["on"], colours["accent"]) >= 4.5
    for number in range(8):
        assert contrast(colours[f"c{number}"], colours["card"]) >= 3.0, f"c{number}"


@pytest.mark.parametrize("sight", DEFICIENT)
@pytest.mark.parametrize("theme", THEMES)
def test_who_sees_fewer_colours_tells_lines_of_one_dash_apart(theme: str, sight: str) -> None:
    """Those of the seven classes that are drawn through, and those that are dashed."""
    seen = {n: lab(np.array(DEFICIENT[sight]) @ linear(THEMES[theme][f"c{n}"])) for n in range(7)}
    for group in (range(4), range(4, 7)):
        for one, other in itertools.combinations(group, 2):
            assert np.linalg.norm(seen[one] - seen[other]) > 12, (one, other)


def test_the_page_asks_nothing_of_other_machines() -> None:
    for path in OWN:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"https?://(?!127\.0\.0\.1|www\.w3\.org/2000/svg)\w", text), path.name
        assert "@import" not in text and "eval(" not in text and "innerHTML" not in text, path.name


@pytest.mark.parametrize("name", ["dashboard", "browser"])
def test_what_is_served_is_one_document_with_all_of_its_parts(name: str) -> None:
    page = Page(ASSETS / name / "page.html")
    assert " src=" not in page._text and "stylesheet" not in page._text
    parts = len(re.findall(r"<script", (ASSETS / name / "page.html").read_text()))
    assert page._policy.partition("script-src")[2].partition("style-src")[0].count("sha256-") == parts
    assert len(page._text) < 200_000


def test_the_library_in_the_page_is_the_one_that_its_note_names() -> None:
    source = json.loads((FOLDER / "uplot" / "SOURCE.json").read_text())
    assert source["licence"] == "MIT" and "MIT License" in (FOLDER / "uplot" / "LICENSE").read_text()
    for name, digest in source["files"].items():
        assert hashlib.sha256((FOLDER / "uplot" / name).read_bytes()).hexdigest() == digest
    assert source["version"] in (FOLDER / "uplot" / "uPlot.iife.min.js").read_text()[:200]


def test_every_label_names_a_control_and_every_id_that_the_script_looks_for_is_there() -> None:
    html = (FOLDER / "page.html").read_text()
    ids = set(re.findall(r'id="([\w-]+)"', html))
    scripts = "".join((FOLDER / name).read_text() for name in re.findall(r'src="(\w+\.js)"', html))
    assert set(re.findall(r'find\("([\w-]+)"\)', scripts)) <= ids
    assert set(re.findall(r'aria-labelledby="([\w-]+)"', html)) <= ids
