"""The page of a report in a real browser: it draws what Python drew, zooms, reads values out; an hour takes seconds."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from chromium import EXECUTABLE, Chromium
from made_sessions import SIZE, make

from mma_edge.cli import main

pytestmark = [pytest.mark.live, pytest.mark.skipif(EXECUTABLE is None, reason="chromium is not installed")]
WIDTH = 1400
PLOT = "document.querySelectorAll('.plot[role=slider]')"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    session = make(folder / "session", minutes=10, video=SIZE)
    assert main(["report", str(session), "--output", str(folder / "page.html")]) == 0
    return folder / "page.html"


@pytest.fixture(scope="module")
def browser(page: Path) -> Iterator[Chromium]:
    with Chromium(page.as_uri(), flags=(f"--window-size={WIDTH},900",)) as opened:
        opened.until("document.documentElement.classList.contains('live')")
        yield opened


def test_the_script_draws_what_python_drew(browser: Chromium, page: Path) -> None:
    """Python's drawing has 500 columns: the script is asked for as many."""
    areas = re.findall(r'<svg class="area".*?</svg>', page.read_text(), re.S)
    for number, area in enumerate(areas):
        drawn = re.findall(r' d="([^"]*)"', area)
        script = f"""(() => {{
            const series = values.sources[0].series[{number}];
            return areaPaths(series, forScreen(series, 0, values.sources[0].span, 500), 0);
        }})()"""
        assert browser.run(script) == drawn
        assert all(len(path) > 100 for path in drawn)


def test_zooming_shows_all_answers_of_a_shorter_time(browser: Chromium) -> None:
    browser.run("timelines[0].look(60000, 20000)")
    output = browser.run("document.querySelector('.toolbar output').textContent")
    assert output == "1:00 to 1:20"
    path = browser.run(f"{PLOT}[0].querySelector('.area path').getAttribute('d')")
    ends = [int(x) for x in re.findall(r"H(-?\d+)", path)]
    assert len(ends) == pytest.approx(41, abs=3)  # one each half second, and what is beside the edges
    assert set(np.diff(sorted(set(ends)))) == {500}
    assert browser.run(f"{PLOT}[0].querySelector('.area').getAttribute('viewBox')") == "0 0 20000 1000"
    shown = browser.run("[...document.querySelectorAll('.pictures')[0].children].filter((i) => !i.hidden).length")
    assert 1 <= shown <= 6
    browser.run("document.querySelector('[data-zoom=all]').click()")
    assert browser.run("document.querySelector('.toolbar output').textContent") == "0:00 to 10:00, all of it"


def test_the_values_are_read_out_to_a_keyboard(browser: Chromium) -> None:
    told = browser.run(
        f"""(() => {{
            const plot = {PLOT}[0];
            plot.focus();
            plot.dispatchEvent(new KeyboardEvent('keydown', {{ key: 'End' }}));
            plot.dispatchEvent(new KeyboardEvent('keydown', {{ key: 'ArrowLeft' }}));
            return [plot.getAttribute('aria-valuetext'), plot.getAttribute('aria-valuenow'),
                    document.getElementById('readout').innerText];
        }})()"""
    )
    text, now, readout = told
    assert now == "597.5"  # the middle of the window from 595.5 to 599.5 s
    assert browser.run(f"{PLOT}[0].querySelector('.cursor').getBoundingClientRect().height") > 100
    assert re.fullmatch(r"9:57\.5, \w+: (\w+ \d+ percent(, )?){3}", text)
    assert readout.startswith("Face 1, 9:57.5")
    shares = [int(value) for value in re.findall(r"(\d+) %", readout)]
    assert len(shares) == 7 and 97 <= sum(shares) <= 103


def test_what_happened_is_said_where_it_happened(browser: Chromium) -> None:
    left, top, width = browser.run(
        f"(() => {{ const r = {PLOT}[0].getBoundingClientRect(); return [r.left, r.top, r.width]; }})()"
    )
    browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=left + 0.565 * width, y=top + 40)
    told = browser.run("document.getElementById('readout').innerText")
    assert "no answer" in told and "no picture: cable pulled" in told


def test_the_mouse_zooms_by_dragging(browser: Chromium) -> None:
    browser.run("document.querySelector('[data-zoom=all]').click()")
    browser.run(f"{PLOT}[0].scrollIntoView({{ block: 'center' }})")
    left, top, width = browser.run(
        f"(() => {{ const r = {PLOT}[0].getBoundingClientRect(); return [r.left, r.top, r.width]; }})()"
    )
    for kind, part in (("mousePressed", 0.25), ("mouseMoved", 0.3), ("mouseMoved", 0.5), ("mouseReleased", 0.5)):
        browser.call(
            "Input.dispatchMouseEvent", type=kind, x=left + part * width, y=top + 40, button="left", clickCount=1
        )
    assert browser.run("document.querySelector('.toolbar output').textContent") == "2:30 to 5:00"
    browser.run("document.querySelector('[data-zoom=all]').click()")


def test_it_fits_a_telephone_and_says_nothing_wrong(browser: Chromium) -> None:
    browser.call("Emulation.setDeviceMetricsOverride", width=390, height=800, deviceScaleFactor=2, mobile=True)
    browser.until("window.innerWidth === 390")
    assert browser.run("document.documentElement.scrollWidth") <= 390
    small = (
        "[...document.querySelectorAll('.toolbar button')].filter((b) => b.getBoundingClientRect().height < 40).length"
    )
    assert browser.run(small) == 0
    browser.call("Emulation.clearDeviceMetricsOverride")


def test_an_hour_of_two_faces_takes_seconds_and_megabytes(tmp_path: Path) -> None:
    session = make(tmp_path / "session", minutes=60, video=SIZE)
    start_s = time.monotonic()
    assert main(["report", str(session), "--output", str(tmp_path / "page.html")]) == 0
    assert time.monotonic() - start_s < 10
    assert (tmp_path / "page.html").stat().st_size < 10e6
