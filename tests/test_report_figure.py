"""The ribbon as a figure: real millimetres, words as words, the same in SVG and PNG."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from made_sessions import DFEW, make, record, write_lines
from PIL import Image

from mma_edge.cli import main
from mma_edge.report.palette import CLASS_COLOURS
from mma_edge.report.paper.drawing import Drawing, Words
from mma_edge.report.paper.png import DPI, to_png

NAME = "{http://www.w3.org/2000/svg}"


def figure(source: Path, folder: Path, *options: str) -> tuple[ElementTree.Element, Image.Image]:
    paths = [folder / name for name in ("page.html", "ribbon.svg", "ribbon.png")]
    names = [each for pair in zip(("--output", "--svg", "--png"), map(str, paths), strict=True) for each in pair]
    assert main(["report", str(source), *names, "--overwrite", *options]) == 0
    return ElementTree.parse(paths[1]).getroot(), Image.open(paths[2]).convert("RGB")


@pytest.mark.parametrize(("columns", "width_mm"), [("1", 88), ("2", 180)])
def test_it_is_as_wide_as_its_columns(tmp_path: Path, columns: str, width_mm: int) -> None:
    session = make(tmp_path / "session", minutes=1)
    svg, png = figure(session, tmp_path, "--columns", columns)
    height_mm = float(svg.get("height").removesuffix("mm"))
    assert svg.get("width") == f"{width_mm}mm"
    assert svg.get("viewBox") == f"0 0 {width_mm} {svg.get('height').removesuffix('mm')}"
    assert 30 < height_mm < 240
    assert png.size == (round(width_mm * DPI / 25.4), round(height_mm * DPI / 25.4))
    words = {element.text for element in svg.iter(f"{NAME}text")}
    assert {"Face 1", "Face 2", "Voice alone", "laughs", *DFEW, "uncertain", "0:00"} <= words
    inside = [float(each.get("x")) for each in svg.iter(f"{NAME}text")]
    assert min(inside) >= 0 and max(inside) <= width_mm


def test_both_files_show_the_same_colours_at_the_same_places(tmp_path: Path) -> None:
    """Two seconds happy, then two seconds sad: the strip of labels, in millimetres."""
    records = [record(4 + n / 2, "happy" if n < 4 else "sad", start_s=3.5 + n / 2) for n in range(8)]
    svg, png = figure(write_lines(tmp_path / "a.jsonl", records), tmp_path)
    strips = {}
    for path in svg.iter(f"{NAME}path"):
        points = np.array([pair.split(",") for pair in path.get("d").strip("MZ").split("Z")[0].split("L")], float)
        if len(points) == 4 and points[:, 1].max() - points[:, 1].min() == pytest.approx(2.0):
            strips[path.get("fill")] = points
    assert set(strips) == {CLASS_COLOURS["happy"], CLASS_COLOURS["sad"]}
    # 3.5 to 7.5 s over 170 mm from 9 mm on.
    assert strips[CLASS_COLOURS["happy"]][:2, 0] == pytest.approx([9, 94])
    assert strips[CLASS_COLOURS["sad"]][:2, 0] == pytest.approx([94, 179])
    for colour, points in strips.items():
        x, y = (round(value * DPI / 25.4) for value in points.mean(axis=0))
        assert png.getpixel((x, y)) == tuple(bytes.fromhex(colour[1:]))


def test_letters_that_no_font_has_are_counted() -> None:
    drawing = Drawing(40, 10)
    drawing.add(Words(1, 5, "Face 1"))
    assert to_png(drawing)[1] == 0
    drawing.add(Words(1, 9, "\U000e0100\U0010fffd"))
    assert to_png(drawing)[1] > 0


@pytest.mark.parametrize("sources", [1, 2, 7])
def test_many_faces_stay_on_one_page(tmp_path: Path, sources: int, capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"camera:{number}" for number in range(sources)]
    records = [
        record(4 + n / 2, "fear", track_id=face, source=name)
        for n in range(10)
        for name in names
        for face in range(1, 12)
    ]
    svg, _ = figure(write_lines(tmp_path / "a.jsonl", records), tmp_path, "--columns", "1")
    assert float(svg.get("height").removesuffix("mm")) < 240
    left_out = 11 * sources - {1: 8, 2: 8, 7: 8}[sources]
    assert f"no room for {left_out} of the faces" in capsys.readouterr().out
