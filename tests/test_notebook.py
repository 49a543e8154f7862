"""The example notebook runs from end to end, with a live picture of what the stream saw."""

from __future__ import annotations

import base64
import json
import re
import time
from pathlib import Path
from types import SimpleNamespace

import cv2
import nbformat
import numpy as np
import pytest
from conftest import run_python
from IPython.display import HTML
from nbclient import NotebookClient

import mma_edge
from mma_edge.sinks.notebook import NotebookView
from mma_edge.types import Face, Frame

pytestmark = pytest.mark.wall_clock

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
START = "from mma_edge.sinks.notebook import NotebookView\n"
TERMINAL = "from IPython.core.interactiveshell import InteractiveShell\nInteractiveShell.instance()\n"


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[nbformat.NotebookNode, Path]:
    """The notebook after all its cells ran without an error, and the folder in which it ran."""
    folder = tmp_path_factory.mktemp("notebook")
    notebook = nbformat.read(NOTEBOOKS / "quickstart.ipynb", as_version=4)
    client = NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(folder)}})
    return client.execute(), folder


def outputs(notebook: nbformat.NotebookNode, part: str) -> list[nbformat.NotebookNode]:
    """What the cell with this text showed."""
    (cell,) = [cell for cell in notebook.cells if cell.cell_type == "code" and part in cell.source]
    return cell.outputs


def test_the_committed_notebook_has_no_outputs() -> None:
    notebook = json.loads((NOTEBOOKS / "quickstart.ipynb").read_text(encoding="utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert code and all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)


def test_a_stream_shows_its_newest_picture_and_answer_in_its_cell(
    ran: tuple[nbformat.NotebookNode, Path],
) -> None:
    notebook, folder = ran
    (shown,) = outputs(notebook, "NotebookView()")  # one output that was replaced, not one for each picture
    page = shown.data["text/html"]
    jpeg = base64.b64decode(re.search(r"base64,([^\"]+)", page)[1])
    image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert image.shape == (480, 480, 3) and 30 < image.mean() < 220
    green = (image[..., 1] > 130) & (image[..., 2] < 60)  # the box of the face
    assert green.sum() > 500
    last = mma_edge.records(folder / "talk.jsonl")[-1]
    assert f"face 1: {last['label']}" in page
    bars = re.findall(r"<td style=\"text-align:left\">(\w+)</td>.*?<td>(\d+) %</td>", page)
    shares = {name: int(share) / 100 for name, share in bars}
    assert shares == pytest.approx({name[2:]: value for name, value in last.items() if name[:2] == "p_"}, abs=0.006)


def test_the_notebook_shows_a_table_a_plot_and_subtitles(ran: tuple[nbformat.NotebookNode, Path]) -> None:
    notebook, folder = ran
    assert "<table" in outputs(notebook, "frame[[")[0].data["text/html"]
    (picture,) = [each for each in outputs(notebook, "plot.area") if "image/png" in each.get("data", {})]
    assert len(base64.b64decode(picture.data["image/png"])) > 5000
    assert "WEBVTT" in outputs(notebook, "convert(")[0].text
    assert {path.suffix for path in folder.iterdir()} == {".jsonl", ".eaf", ".TextGrid", ".vtt"}


def test_the_picture_follows_a_few_times_a_second_and_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[tuple[float, str]] = []

    class Handle:
        def update(self, content: HTML) -> None:
            shown.append((time.monotonic(), content.data))

    monkeypatch.setattr("IPython.get_ipython", lambda: SimpleNamespace(kernel=None))
    monkeypatch.setattr("IPython.display.display", lambda content, display_id: Handle())
    image = np.full((720, 1280, 3), 200, np.uint8)
    with NotebookView(width=320, rate_hz=10) as view:
        for number in range(60):
            start_s = time.process_time()
            view.frame("left & right", Frame(image, number / 50, 0.0), [Face(3, (100.0, 100.0, 400.0, 500.0), 0.9)])
            assert time.process_time() - start_s < 0.1
            time.sleep(0.02)
    assert 4 <= len(shown) <= 14
    assert "left &amp; right at 0.0 s" in shown[0][1] and "left &amp; right at 1." in shown[-1][1]


@pytest.mark.parametrize("before", ["", TERMINAL])
def test_outside_a_notebook_one_line_says_so(before: str) -> None:
    done = run_python("-c", f"{before}{START}NotebookView()")
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1 and "UsageError: NotebookView outside a notebook; expected a cell" in last
