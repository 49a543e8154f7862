"""What `mma-edge report` writes: whole pages without outside addresses, whatever a session holds or lacks."""

from __future__ import annotations

import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import av
import numpy as np
import pytest
from made_sessions import DFEW, SIZE, face_place, made_records, make, record, write_lines, write_session, write_video
from PIL import Image

from mma_edge.cli import main
from mma_edge.errors import MMAEdgeError
from mma_edge.report.page import page_of
from mma_edge.report.paper.drawing import to_svg
from mma_edge.report.paper.figure import figure_of
from mma_edge.report.pictures import strips_of
from mma_edge.report.recording import read_recording

VOID = {"meta", "link", "img", "br", "path", "line"}
EVIL = "<script>alert('1')</script>\"onload=\"x"


class Balanced(HTMLParser):
    """Refuses a page whose tags do not close in order; keeps its words and attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), (tag, attrs)
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] not in (["script"], ["style"]):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def report(session: Path, *options: str) -> tuple[Balanced, str]:
    """The page, parsed, and its text."""
    page = session.parent / "page.html"
    assert main(["report", str(session), "--output", str(page), "--overwrite", *options]) == 0
    text = page.read_text(encoding="utf-8")
    return Balanced(text), text


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line of a command that fails."""
    capsys.readouterr()
    assert main(["report", *map(str, arguments)]) != 0
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith("error: ")
    return error


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("made") / "session", minutes=1, video=SIZE)


def test_the_page_has_all_of_a_session_and_needs_nothing_else(session: Path) -> None:
    page, text = report(session)
    for word in (
        "camera:0", "Face 1", "Face 2", "Voice alone", "laughs", "no picture: cable pulled", "41 frames dropped",
        "the microphone came back", "dwell time", "Changes of the label", "mma-dfer-nano", "both 1.41",
        "Kept: numbers about faces and voices", "not what a person feels", "terms of its weights",
    ):  # fmt: skip
        assert word in page.text, word
    addresses = [value for name, value in page.attributes if name in ("src", "href", "action", "data", "poster")]
    assert len(addresses) > 20
    assert all(value.startswith(("data:", "#")) for value in addresses)
    assert not re.search(r"(?i)https?:|//\w+\.\w|@import|url\(", text)
    (policy,) = [value for _, value in page.attributes if value and value.startswith("default-src")]
    assert policy.startswith("default-src 'none'")


def test_what_a_session_says_is_text_and_never_code(tmp_path: Path) -> None:
    labels = ("happy", EVIL)
    changes = {"probabilities": {"happy": 0.2, EVIL: 0.8}, "label": EVIL, "source": EVIL}
    mark = {"time": "", "run_s": 1.0, "times_s": {EVIL: 4.2}, "key": EVIL, "text": EVIL}
    event = {"time": "", "run_s": 1.0, "kind": EVIL, "source": EVIL, "start_s": 4.0, "end_s": 5.0, "text": EVIL}
    records = [record(4 + n / 2, EVIL, **changes) for n in range(5)]
    folder = write_session(
        tmp_path / "session", records, [mark], [event, event | {"source": None}], {EVIL: {"error": EVIL}}, labels,
        name=EVIL, started=EVIL, model={"name": EVIL, "labels": list(labels)}, versions={EVIL: EVIL},
        privacy={"statement": EVIL, EVIL: EVIL}, options={EVIL: [EVIL]},
    )  # fmt: skip
    page, text = report(folder, "--svg", str(tmp_path / "ribbon.svg"))
    assert page.tags.count("script") == 2
    assert "alert" not in text.replace("&lt;script&gt;alert", "").replace("\\u003cscript>alert", "")
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert EVIL in page.text
    assert "<script" not in (tmp_path / "ribbon.svg").read_text()


def test_half_a_session_after_a_crash_is_shown_with_what_is_missing(session: Path, tmp_path: Path) -> None:
    half = write_session(
        tmp_path / "half", made_records(20), sources={"camera:0": {"video": "video-1.mp4", "video_start_s": 0.0}},
        state="running", ended=None,
    )  # fmt: skip
    whole = (session / "video-1.mp4").read_bytes()
    (half / "video-1.mp4").write_bytes(whole[: len(whole) // 2])  # its table of contents is at its end
    lines = (half / "records.jsonl").read_text()
    (half / "records.jsonl").write_text(lines + lines.splitlines()[-1][:50])
    (half / "marks.jsonl").unlink()
    page, _ = report(half)
    for problem in (
        "the session was not ended", "the last line of records.jsonl is cut off", "marks.jsonl is missing",
        "video-1.mp4, the video of camera:0, cannot be read",
    ):  # fmt: skip
        assert problem in page.text, problem
    assert "To know first" in page.text
    assert page.tags.count("figure") == 3


def test_a_video_that_is_not_there_costs_the_pictures_only(tmp_path: Path) -> None:
    folder = write_session(tmp_path / "session", made_records(20), sources={"camera:0": {"video": "video-1.mp4"}})
    page, _ = report(folder)
    assert "video-1.mp4, the video of camera:0, is missing" in page.text
    assert "img" not in page.tags


def test_a_session_in_which_nothing_was_seen_is_still_a_page(tmp_path: Path) -> None:
    folder = write_session(tmp_path / "session", [], sources={"camera:0": {"last_s": 30.0}})
    page, _ = report(folder, "--svg", str(tmp_path / "ribbon.svg"), "--png", str(tmp_path / "ribbon.png"))
    assert "there is no answer in it" in page.text
    assert "0.0 %" in page.text


@pytest.mark.parametrize("end_s", [4.0, 0.0])
def test_one_record_is_a_page_too(tmp_path: Path, end_s: float) -> None:
    file = write_lines(tmp_path / "one.jsonl", [record(end_s, "happy", start_s=0.0)])
    page, _ = report(file, "--svg", str(tmp_path / "ribbon.svg"), "--png", str(tmp_path / "ribbon.png"))
    assert "Face 1" in page.text
    assert "Records alone, without a session" in page.text


def test_records_of_the_first_version_have_fewer_fields_and_are_read(tmp_path: Path) -> None:
    new = ("voice", "source", "modalities")
    old = [{key: value for key, value in each.items() if key not in new} for each in made_records(20, faces=1)]
    page, _ = report(write_lines(tmp_path / "old.jsonl", [each for each in old if each["track_id"]]))
    assert "recording" in page.text
    assert "with a voice in it 0:00.0 0.0 %" in page.text


def test_a_csv_makes_the_same_page(tmp_path: Path) -> None:
    header = ["start_s", "end_s", "track_id", "x0", "y0", "x1", "y1", "modalities", "label", *(f"p_{c}" for c in DFEW)]
    rows = [",".join(header)]
    records = [record(4 + n / 2, "sad", source=None) for n in range(5)]
    for each in records:
        cells = [each["start_s"], each["end_s"], 1, *each["box"], "video+audio", each["label"]]
        rows.append(",".join(map(str, [*cells, *each["probabilities"].values()])))
    (tmp_path / "a.csv").write_text("\n".join(rows) + "\n")
    csv, _ = report(tmp_path / "a.csv")
    jsonl, _ = report(write_lines(tmp_path / "a.jsonl", records))
    assert csv.text.replace("a.csv", "a.jsonl") == jsonl.text


def test_many_faces_share_a_ribbon(tmp_path: Path) -> None:
    records = [
        record(4 + 2 * face + n / 2, DFEW[face % 7], track_id=face, source="hall")
        for face in range(1, 201)
        for n in range(3 + (face % 50 == 0) * 40)
    ]
    records.sort(key=lambda each: each["end_s"])
    folder = write_session(tmp_path / "session", records, sources={"hall": {}})
    page, text = report(folder, "--svg", str(tmp_path / "ribbon.svg"))
    assert "196 other faces" in page.text  # the four that stayed have a ribbon each
    assert page.tags.count("figure") == 5
    assert "All 200 faces" in page.text
    assert len(text) < 1e6


def test_each_source_has_a_time_line_of_its_own(tmp_path: Path) -> None:
    records = [record(4 + n / 2, "happy", source=name) for n in range(5) for name in ("door", "desk")]
    folder = write_session(tmp_path / "session", records, sources={"door": {}, "desk": {}, "hall": {}})
    page, _ = report(folder, "--png", str(tmp_path / "ribbon.png"))
    assert [page.text.count(f"{name} live") for name in ("door", "desk", "hall")] == [1, 1, 1]
    assert page.tags.count("figure") == 2
    assert "No answer: no face was found" in page.text


def test_other_classes_than_the_seven(tmp_path: Path) -> None:
    labels = ("bored", "engaged", "confused")
    answer = {"probabilities": dict(zip(labels, (0.2, 0.5, 0.3), strict=True))}
    records = [record(4 + n / 2, "engaged", **answer) for n in range(5)]
    page, _ = report(write_session(tmp_path / "session", records, labels=labels))
    assert all(label in page.text for label in labels)
    assert "happy" not in page.text


def test_a_face_or_a_span_alone(session: Path) -> None:
    page, _ = report(session, "--face", "2", "--from", "10", "--to", "25")
    assert "Face 2" in page.text and "Face 1" not in page.text
    assert "0:15" in page.text


def test_pictures_are_of_the_face_at_that_time(session: Path) -> None:
    recording = read_recording(session)
    (source,) = recording.sources
    notes: list[str] = []
    (strips,) = strips_of(recording, {0: source.series}, notes.append).values()
    assert notes == []
    for face in (1, 2):
        pictures = strips[face].pictures
        assert len(pictures) > 10
        for picture in pictures[:: len(pictures) // 5]:
            image = np.asarray(Image.open(io.BytesIO(picture.jpeg)).convert("RGB")).astype(int)
            middle = image[30:42, 30:42].mean(axis=(0, 1))
            assert np.abs(middle - (224, 172 + 20 * face, 130)).max() < 40, (face, picture.time_s, face_place(face, 0))
    assert strips[None].aspect > 1.5  # the voice alone has the whole picture


def test_a_session_with_blurred_faces_shows_no_close_up(session: Path) -> None:
    recording = read_recording(session)
    recording.session.privacy["faces"] = "blurred"
    (strips,) = strips_of(recording, {0: recording.sources[0].series}, [].append).values()
    assert {round(strip.aspect, 2) for strip in strips.values()} == {1.78}


def test_no_pictures_means_none(session: Path) -> None:
    page, text = report(session, "--no-pictures")
    assert "img" not in page.tags and "image/jpeg" not in text


def test_a_video_begins_where_the_manifest_says(tmp_path: Path) -> None:
    """A recording that began in mid-run: time 0 of the file is not time 0 of the source."""
    records = [record(104 + n / 2, "happy", box=[10, 10, 60, 60]) for n in range(20)]
    source = {"first_s": 100.0, "last_s": 114.0, "video": "video-1.mp4", "video_start_s": 104.0}
    folder = write_session(tmp_path / "session", records, sources={"camera:0": source})
    write_video(folder / "video-1.mp4", 10)
    recording = read_recording(folder)
    (strips,) = strips_of(recording, {0: recording.sources[0].series}, [].append).values()
    times = [picture.time_s for picture in strips[1].pictures]
    assert times[0] == pytest.approx(0.0) and max(times) <= 10.0  # as a player of the video counts
    assert recording.sources[0].from_s == -4.0  # what was seen and heard before it began
    with av.open(str(folder / "video-1.mp4")) as container:
        assert container.duration / 1e6 == pytest.approx(10, abs=0.5)


def test_what_is_no_session_is_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    assert "is no session" in refused(capsys, tmp_path / "empty")
    assert "does not exist" in refused(capsys, tmp_path / "nothing")
    assert "does not exist" in refused(capsys, tmp_path / "nothing.jsonl")
    (tmp_path / "talk.mp4").write_bytes(b"")
    assert "is a file" in refused(capsys, tmp_path / "talk.mp4")
    (tmp_path / "empty.jsonl").write_text("")
    assert "has no records" in refused(capsys, tmp_path / "empty.jsonl")
    (tmp_path / "other.jsonl").write_text('{"a": 1}\n')
    assert "none of these records" in refused(capsys, tmp_path / "other.jsonl")
    write_lines(tmp_path / "odd.jsonl", [record(4, "happy", end_s="soon"), record(5, "happy", probabilities={})])
    assert "no usable records" in refused(capsys, tmp_path / "odd.jsonl")
    later = write_session(tmp_path / "later", [record(4, "happy")], schema=2)
    assert "schema 2; expected schema 1" in refused(capsys, later)


def test_a_wrong_name_or_a_file_that_exists_is_said_before_anything_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_lines(tmp_path / "one.jsonl", [record(4, "happy")])
    assert "does not end in .svg" in refused(capsys, file, "--svg", tmp_path / "a.png")
    assert "does not end in .html" in refused(capsys, file, "--output", tmp_path / "a.pdf")
    (tmp_path / "one.html").write_text("mine")
    assert "add --overwrite" in refused(capsys, file)
    assert (tmp_path / "one.html").read_text() == "mine"
    assert "one of the faces in it: 1" in refused(capsys, file, "--face", 3, "--output", tmp_path / "b.html")
    assert not (tmp_path / "b.html").exists()


JUNK = [None, True, -1, 1e308, float("nan"), "x", "", [], {}, [None, 3], {"a": [1]}, "9" * 50]


def test_nonsense_in_any_field_is_a_page_or_one_clear_line(tmp_path: Path) -> None:
    """Files come from anywhere: never a traceback."""
    rng = np.random.default_rng(0)
    mark = {"time": "", "run_s": 1.0, "times_s": {"camera:0": 4.2}, "key": "1", "text": "laughs"}
    event = {"time": "", "run_s": 1.0, "kind": "gap", "source": "camera:0", "start_s": 4.0, "end_s": 5.0, "text": "x"}
    folder = write_session(tmp_path / "session", [record(4 + n / 2, "happy") for n in range(8)], [mark], [event])
    good = {path: path.read_text() for path in folder.iterdir()}
    pages = 0
    for turn in range(300):
        for path, text in good.items():
            path.write_text(text)
        path = list(good)[turn % len(good)]
        lines = [json.loads(line) for line in [good[path]] if path.suffix == ".json"]
        lines = lines or [json.loads(line) for line in good[path].splitlines()]
        _spoil(lines[rng.integers(len(lines))], rng)
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        try:
            recording = read_recording(folder)
            Balanced(page_of(recording, {}, recording.problems))
            to_svg(figure_of(recording, {}, 2)[0], recording.title)
            pages += 1
        except MMAEdgeError:
            pass
    assert pages > 150


def _spoil(value: dict, rng: np.random.Generator) -> None:
    """Put nonsense into one field, at any depth."""
    key = list(value)[rng.integers(len(value))]
    if isinstance(value[key], dict) and value[key] and rng.random() < 0.7:
        _spoil(value[key], rng)
    else:
        value[key] = JUNK[rng.integers(len(JUNK))]


def test_damaged_records_are_left_out_and_counted(tmp_path: Path) -> None:
    good = [record(4 + n / 2, "happy") for n in range(4)]
    bad = [record(5, "happy", end_s=None), record(5, "happy", box="here"), record(5, "happy", track_id="x")]
    nan = json.loads('{"v": NaN}')["v"]
    page, _ = report(write_lines(tmp_path / "odd.jsonl", [*good, *bad, record(5, "happy", start_s=nan)]))
    assert "4 record(s) without usable times or probabilities are left out" in page.text
