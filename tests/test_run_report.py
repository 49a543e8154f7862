"""The report of a run is one file that holds what the run did, and says what is uncertain about it."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from conftest import SEVEN, TINY, make_model, one_line

from mma_edge.errors import OutputError
from mma_trainer.commands.evaluate import main
from mma_trainer.evaluation.metrics import Metrics, recall_intervals, uar_interval, war_interval, wilson_interval
from mma_trainer.report.page import Matrix, Page, Table, to_html, to_markdown
from mma_trainer.report.run import read_log, write_run_report
from mma_trainer.weights.checkpoint import Checkpoint, save_checkpoint

LOG = """epoch,lr,train_loss,train_war,val_loss,val_uar,val_war,note
1,0.0001,1.9,0.2,1.8,0.25,0.3,
2,0.00005,1.5,0.4,1.6,0.35,0.4,slow
"""
PROVENANCE = {
    "command": "mma-train --dataset dfew --fold 1",
    "dataset": "dfew",
    "recipe": {"lr": 1e-4, "epochs": 2, "betas": [0.9, 0.999]},
    "init": {"origin": "<script>alert('x')</script>"},
}
METRICS = Metrics(np.array([[8, 2, 0], [1, 3, 0], [0, 0, 0]]), 1.25)


class Tags(HTMLParser):
    """Every tag opened, and that every one is closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict]] = []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def parsed(html: str) -> list[tuple[str, dict]]:
    tags = Tags()
    tags.feed(html)
    assert tags.open == []
    return tags.seen


def needs_nothing_else(html: str) -> None:
    for tag, attributes in parsed(html):
        assert tag not in ("script", "link", "iframe", "img")
        assert not {"src", "data"} & set(attributes)
        assert attributes.get("href", "#").startswith("#") and attributes.get("xlink:href", "#").startswith("#")
    assert "@import" not in html and not re.search(r"url\((?!#)", html)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "dfew1"
    folder.mkdir()
    (folder / "log.csv").write_text(LOG)
    write_run_report(folder, METRICS, TINY.to_dict(), PROVENANCE, {"training clips": 9364, "validation clips": 14})
    return folder


def test_the_page_holds_what_the_run_did_and_needs_nothing_else(run: Path) -> None:
    html = (run / "report.html").read_text()
    needs_nothing_else(html)
    for text in (
        "Training run dfew1", "mma-train --dataset dfew --fold 1", "9364", "0.9, 0.999", "bottleneck width",
        "WAR", "78.57 %", "77.50 %", "80.0 %", "75.0 %", "cross-entropy", "happy", "angry",
    ):  # fmt: skip
        assert text in html, text
    assert html.count("<svg") == 1 and "currentColor" in html
    assert "<script>" not in html and "&lt;script&gt;" in html  # what comes from a file stays text


def test_all_of_the_papers_table_1_stands_beside_a_run_on_its_data_sets(run: Path, tmp_path: Path) -> None:
    html = (run / "report.html").read_text()
    _, _, table = html.partition("Beside the paper")
    table = table[: table.index("</table>")]
    assert table.count("<tr>") == 1 + 30 + 1 and table.count("MMA-DFER") == 6
    cells = re.findall(r"<td[^>]*>([^<]*)</td>", table)
    rows = [tuple(cells[start : start + 5]) for start in range(0, len(cells), 5)]
    assert rows[0] == ("Wav2Vec2.0", "audio", "-", "36.15", "43.05")
    assert rows[23] == ("S2D", "video", "224", "65.45", "76.03")
    assert rows[26] == ("MMA-DFER", "video, audio", "160", "66.61", "77.15")
    assert rows[30] == ("this run, one fold", "", "", "77.50", "78.57")
    other = write_run_report(tmp_path, METRICS, TINY.to_dict(), {**PROVENANCE, "dataset": "pseudo"}).read_text()
    assert "Beside the paper" not in other


def test_the_figures_beside_the_page_are_those_of_the_metrics(run: Path) -> None:
    found = json.loads((run / "metrics.json").read_text())
    assert found["confusion"] == METRICS.confusion.tolist() and found["num_clips"] == 14
    assert found["recall"] == [0.8, 0.75, None] and found["loss"] == 1.25  # a class without clips has no recall
    assert found["war"] == pytest.approx(11 / 14) and found["uar"] == pytest.approx(0.775)
    assert found["war_interval"][0] < 11 / 14 < found["war_interval"][1]
    assert found["data"] == {"training clips": 9364, "validation clips": 14}


def test_a_run_without_a_log_still_has_a_page(tmp_path: Path) -> None:
    path = write_run_report(tmp_path, METRICS, TINY.to_dict(), {})
    html = path.read_text()
    needs_nothing_else(html)
    assert "<svg" not in html and "Recall per class" in html
    assert sorted(item.name for item in tmp_path.iterdir()) == ["metrics.json", "report.html"]


def test_columns_that_are_no_numbers_are_left_out_of_the_curves(run: Path, tmp_path: Path) -> None:
    log = read_log(run / "log.csv")
    assert log["val_uar"] == [0.25, 0.35] and "note" not in log
    (tmp_path / "log.csv").write_text("epoch\n")
    assert read_log(tmp_path / "log.csv") == {} and read_log(tmp_path / "none.csv") == {}


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError) as error:
        write_run_report(tmp_path / "file", METRICS, TINY.to_dict(), {})
    assert "cannot write" in one_line(error.value)


def test_wilsons_interval_is_the_textbooks() -> None:
    # Newcombe 1998, table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
    for right, total, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (1, 29, 0.0061, 0.1718)):
        assert wilson_interval(right, total) == pytest.approx((low, high), abs=1e-4)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)
    assert wilson_interval(0, 0) == (0.0, 1.0)
    assert war_interval(METRICS) == wilson_interval(11, 14) and recall_intervals(METRICS)[2] == (0.0, 1.0)


def test_the_bootstrap_of_uar_covers_the_truth_about_as_often_as_it_says() -> None:
    rng, recall, totals = np.random.default_rng(0), np.array([0.9, 0.6, 0.3]), np.array([80, 40, 60])
    covered = 0
    for _ in range(200):
        right = rng.binomial(totals, recall)
        counts = np.diag(right)
        counts[[0, 1, 2], [1, 2, 0]] = totals - right
        low, high = uar_interval(Metrics(counts))
        covered += low <= recall.mean() <= high
    assert 0.89 <= covered / 200 <= 0.99


def test_both_forms_of_a_page_say_the_same() -> None:
    page = Page("A | B", [Table("T", ("a", "b"), [("x", "1")]), Matrix("M", ("sad", "angry"), [[3, 1], [0, 0]])])
    html, markdown = to_html(page), to_markdown(page)
    needs_nothing_else(html)
    assert "75<small>3</small>" in html and "| sad | 3 | 1 |" in markdown and r"A \| B" in markdown
    assert "-<small>0</small>" in html  # a class without clips has no share


def test_mma_eval_writes_a_page_with_confidence_and_robustness(
    public: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    save_checkpoint(tmp_path / "model.pt", Checkpoint(SEVEN, make_model(SEVEN, 3).state_dict()))
    output = tmp_path / "new" / "report"
    words = ("--data", public, "--set", "pseudo", "--limit", 6, "--robustness", "--abstain-at", 0.3, "--output", output)
    assert main([str(word) for word in (tmp_path / "model.pt", *words)]) == 0
    out = capsys.readouterr().out
    assert "answers at confidence 0.3 and above: coverage" in out and "white noise, SNR 10 dB" in out
    html = (output / "report.html").read_text()
    needs_nothing_else(html)
    assert html.count("<svg") == 3 and "the gain from fusion is overstated" in html
    (entry,) = json.loads((output / "metrics.json").read_text())["sets"]
    conditions = {row["condition"]: row for row in entry["robustness"]}
    assert conditions["clean"]["uar_difference"] == 0 and conditions["clean"]["uar"] == entry["uar"]
    assert conditions["audio +1000 ms"]["war_difference"] == pytest.approx(
        conditions["audio +1000 ms"]["war"] - entry["war"]
    )
    for name in conditions:
        assert name in html, name
    assert entry["abstention"]["at"][0]["threshold"] == 0.3 and entry["abstention"]["curve"][-1]["coverage"] == 1.0
    assert (output / "confusion_pseudo.png").stat().st_size > 0
