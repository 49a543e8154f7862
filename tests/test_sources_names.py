"""The names of sources on the command line and in records, and which sources go together."""

from __future__ import annotations

from pathlib import Path

import pytest

from mma_edge.cli import main
from mma_edge.errors import MMAEdgeError, SourceError, UsageError
from mma_edge.live import check_together
from mma_edge.sources import CaptureOptions, named_sources


@pytest.mark.parametrize(
    ("spec", "name", "source"),
    [
        ("talk.mp4", "talk.mp4", "talk.mp4"),
        ("films/talk.mp4", "talk.mp4", "films/talk.mp4"),
        ("sample", "sample.mp4", "sample"),
        ("camera", "camera:0", "camera"),
        ("camera:1", "camera:1", "camera:1"),
        ("microphone", "microphone", "microphone"),
        ("left=camera:1", "left", "camera:1"),
        ("door-2=films/talk.mp4", "door-2", "films/talk.mp4"),
        ("./left=b.mp4", "left=b.mp4", "./left=b.mp4"),
        ("door=rtsp://me:secret@host/x?a=b", "door", "rtsp://me:secret@host/x?a=b"),
        ("rtsp://me:secret@host/x?a=b", "rtsp://***@host/x?***", "rtsp://me:secret@host/x?a=b"),
        ("gst:v4l2src device=/dev/video0 ! jpegdec", "gst:v4l2src", "gst:v4l2src device=/dev/video0 ! jpegdec"),
        ("door=gst:v4l2src device=/dev/video0", "door", "gst:v4l2src device=/dev/video0"),
    ],
)
def test_a_source_has_its_own_name_or_the_one_it_is_given(spec: str, name: str, source: str) -> None:
    assert named_sources([spec]) == {name: source}


def test_a_file_that_is_called_so_is_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "left=b.mp4").touch()
    assert named_sources(["left=b.mp4"]) == {"left=b.mp4": "left=b.mp4"}


def test_a_program_names_its_sources_in_a_mapping() -> None:
    assert named_sources({"left": "camera:0", "right": Path("talk.mp4")}) == {
        "left": "camera:0",
        "right": Path("talk.mp4"),
    }
    with pytest.raises(UsageError, match="source name 'a b'; expected letters"):
        named_sources({"a b": "camera"})
    with pytest.raises(UsageError, match="no source"):
        named_sources([])


@pytest.mark.parametrize(
    "specs",
    [["camera", "camera:0"], ["a=camera", "a=camera:1"], ["x/talk.mp4", "y/talk.mp4"], ["a=sample", "a=sample"]],
)
def test_two_sources_with_one_name_are_one_line(specs: list[str], capsys: pytest.CaptureFixture) -> None:
    assert main(["run", *specs]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "two sources have the name" in line and "NAME=SOURCE" in line


@pytest.mark.parametrize(
    ("arguments", "exit_code", "says"),
    [
        (["sample", "camera"], 2, "--realtime plays a file at its own pace"),
        (["a=sample", "b=no/such.mp4"], 3, "no/such.mp4 does not exist"),
        (["a=camera", "b=rtps://host/x"], 2, "rtsp"),
        (["a=camera", "b="], 2, "the source is empty"),
        (["sample", "--stats", "stats.jsonl"], 2, "--stats with the file sample.mp4"),
        (["a=sample", "b=sample", "--realtime", "--whole"], 2, "--whole"),
    ],
)
def test_sources_that_do_not_go_together_are_one_line(
    arguments: list[str], exit_code: int, says: str, capsys: pytest.CaptureFixture
) -> None:
    assert main(["run", "--backend", "cpu", *arguments]) == exit_code
    (line,) = capsys.readouterr().err.splitlines()
    assert says in line


def test_what_is_wrong_is_found_before_anything_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not check_together({"a": "sample", "b": "sample"})
    assert check_together({"a": "camera", "b": "rtsp://host/x"})
    assert check_together({"a": "camera", "b": "sample"}, CaptureOptions(realtime=True))
    for sources, error in (({"a": "sample", "b": "no.mp4"}, SourceError), ({"a": "sample", "b": "camera"}, UsageError)):
        with pytest.raises(error) as caught:
            check_together(sources)
        assert isinstance(caught.value, MMAEdgeError)
