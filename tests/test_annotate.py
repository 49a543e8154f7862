"""`mma-edge annotate`: what is drawn is what was found, when it was there; sound and picture stay in step."""

from __future__ import annotations

import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from conftest import failure_line, one_line
from films import offsets_ms, times_s

from mma_edge.cli import main
from mma_edge.errors import OutputError, SourceError
from mma_edge.session.spans import spans_of, windows_ms
from mma_edge.session.video.annotate import AnnotateOptions, Film, draw, open_film, remember
from mma_edge.session.video.drawing import colours_of
from mma_edge.session.video.timeline import Timeline
from mma_edge.sources.file import FileSource, sample_path
from mma_edge.sources.sync.film import write_film
from mma_edge.types import Face, Frame

CPU = ("--backend", "cpu")


def record(start_s: float, end_s: float, track: int | None = 1, **given: object) -> dict:
    usual = {"start_s": start_s, "end_s": end_s, "track_id": track, "box": [10, 10, 60, 60], "modalities": ["video"],
             "label": "sad", "probabilities": {"happy": 0.2, "sad": 0.8}, "source": None, "speaking": None}  # fmt: skip
    return usual | given


def drawn(path: Path, output: Path, records: Sequence[dict] = (), **given: object) -> Film:
    """Annotate a file with records; returns it."""
    film, options = open_film(path), AnnotateOptions(output, **given)
    options.check(film.path)
    draw(film, Timeline.of(records), ("happy", "sad"), options, lambda doing, done_s: None)
    return film


@pytest.fixture(scope="module")
def flashes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("film") / "flashes.mp4"
    write_film(path, 8)
    return path


def transport_stream(path: Path, to: Path) -> Path:
    """The same film as MPEG-TS, whose time begins at 1.4 s and whose AAC has no header."""
    with av.open(str(path)) as old, av.open(str(to), "w", format="mpegts") as new:
        streams = {stream.index: new.add_stream_from_template(stream) for stream in old.streams}
        for packet in old.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                new.mux(packet)
    return to


@pytest.mark.parametrize("name", ["out.mp4", "out.webm"])
@pytest.mark.parametrize("kind", ["mp4", "ts"])
def test_sound_and_picture_stay_in_step(flashes: Path, tmp_path: Path, name: str, kind: str) -> None:
    """Copied into an MP4, encoded into a WebM; from a file whose time begins at 0, and from one whose does not."""
    source = flashes if kind == "mp4" else transport_stream(flashes, tmp_path / "in.ts")
    film = drawn(source, tmp_path / name, [record(0.0, 8.0)])
    before, after = offsets_ms(source), offsets_ms(tmp_path / name)
    print([round(ms, 1) for ms in after])
    assert len(before) == len(after) == 4
    assert max(abs(ms) for ms in after) < 1000 / 30 and np.abs(np.subtract(before, after)).max() < 5
    expected_s = [time_s - film.start_s for time_s in times_s(source)]
    assert times_s(tmp_path / name) == pytest.approx(expected_s, abs=0.001)


def test_sound_that_fits_is_copied_and_not_encoded_again(flashes: Path, tmp_path: Path) -> None:
    drawn(flashes, tmp_path / "out.mp4")

    def packets(path: Path) -> list[bytes]:
        with av.open(str(path)) as container:
            return [bytes(packet) for packet in container.demux(audio=0) if packet.size]

    assert packets(tmp_path / "out.mp4") == packets(flashes)


def film_of(path: Path, times: Sequence[float], rotation: int = 0, size: tuple[int, int] = (160, 120)) -> Path:
    """Pictures that are bright above and dark below, at these times, without sound."""
    image = np.full((size[1], size[0], 3), 30, np.uint8)
    image[: size[1] // 2] = 200
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for time_s in times:
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = round(1000 * time_s), Fraction(1, 1000)
            if rotation:
                frame.rotation = rotation
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def test_a_film_without_sound_and_of_varying_rate_keeps_its_times(tmp_path: Path) -> None:
    times = [0.0, 0.04, 0.08, 0.5, 0.51, 0.6, 2.0, 2.04]
    drawn(film_of(tmp_path / "in.mp4", times), tmp_path / "out.mp4")
    assert times_s(tmp_path / "out.mp4") == pytest.approx(times, abs=0.001)
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert not container.streams.audio


def test_what_a_rotation_flag_turns_is_upright_and_carries_no_flag(shared_dir: Path, tmp_path: Path) -> None:
    film = shared_dir / "data" / "clips" / "phone_rotated90_flag.mp4"
    if not film.is_file():
        pytest.skip("the clip is not here")
    about = drawn(film, tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as container:
        frame = next(container.decode(video=0))
        assert (frame.width, frame.height) == about.size and frame.rotation == 0
    with FileSource(film) as source:
        first = next(event for event in source.events() if isinstance(event, Frame))
    assert np.abs(frame.to_ndarray(format="rgb24", src_colorspace="ITU709").astype(int) - first.image).mean() < 6


def test_a_frame_has_the_answer_that_stands_for_its_time_as_in_report_and_convert() -> None:
    records = [record(max(0.0, n / 2 - 4), n / 2) for n in range(1, 11)]  # the middles: 0.25, 0.5 to 2, then 2.5, 3
    records += [record(1.0, 5.0, None), record(6.0, 10.0)]
    timeline = Timeline.of(records)
    assert timeline.answers_at(0.0)[1] is timeline.answers_at(0.374)[1] is records[0]
    assert timeline.answers_at(0.375)[1] is records[1]
    assert timeline.answers_at(2.7)[1] is records[8] and timeline.answers_at(2.8)[1] is records[9]
    # Up to the end of its window, and a little longer where there is none other.
    assert timeline.answers_at(5.4)[1] is records[9] and 1 not in timeline.answers_at(5.6)
    # The face came again between 9.5 and 10 s.
    assert 1 not in timeline.answers_at(8.9) and timeline.answers_at(9.1)[1] is records[-1]
    assert timeline.answers_at(4.6)[None] is records[10] and None not in timeline.answers_at(6.0)
    assert timeline.answers_at(20.0) == {}
    windows = windows_ms([(each["start_s"], each["end_s"]) for each in records if each["track_id"]])
    for (from_ms, to_ms), each in zip(spans_of(windows, 500).tolist(), records[:10] + records[11:], strict=True):
        assert timeline.answers_at(from_ms / 1000)[1] is timeline.answers_at((to_ms - 1) / 1000)[1] is each


def test_boxes_are_where_the_run_saw_them_or_on_the_way_between_records() -> None:
    seen = [(0.0, [Face(1, (1.0, 1.0, 2.0, 2.0), 0.9)]), (0.04, [])]
    assert Timeline.of([], seen).faces_at(0.0)[0].track_id == 1 and Timeline.of([], seen).faces_at(0.05) == []
    boxes = [record(0, 4, box=[0, 0, 10, 10]), record(0.5, 4.5, box=[10, 0, 20, 10]), record(5, 9, box=[0, 0, 5, 5])]
    timeline = Timeline.of(boxes)
    assert timeline.faces_at(4.25)[0].box == (5.0, 0.0, 15.0, 10.0)
    assert timeline.faces_at(3.6)[0].box == (0.0, 0.0, 10.0, 10.0)
    assert timeline.faces_at(3.0) == timeline.faces_at(6.0) == []


def test_annotate_draws_what_run_finds(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Also from records; and says how long it took."""
    out, records = tmp_path / "out.mp4", tmp_path / "r.jsonl"
    assert main(["annotate", str(sample_path()), "-o", str(out), *CPU]) == 0
    printed = capsys.readouterr()
    assert "16 answers drawn in" in printed.out and "times as fast as it plays" in printed.out
    assert main(["run", str(sample_path()), "--quiet", "--output", str(records), *CPU]) == 0
    again = tmp_path / "again.mp4"
    assert main(["annotate", str(sample_path()), "--records", str(records), "-o", str(again)]) == 0
    for path in (out, again):
        plain, marked = (_pictures(each) for each in (sample_path(), path))
        assert len(plain) == len(marked) == 195
        changed = np.abs(marked[150].astype(int) - plain[150]).max(axis=2) > 60
        # The sample's face: its box is 137 x 180 pixels, and its label is the colour of "happy".
        assert 3000 < changed.sum() < 40_000 and not changed[150:220, 195:290].any()
        happy = np.abs(marked[150].astype(int) - colours_of(("happy",))["happy"]).max(axis=2) < 30
        assert happy.sum() > 1000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again.mp4", "out.mp4", "r.jsonl"]


def _pictures(path: Path) -> list[np.ndarray]:
    with FileSource(path, audio=False) as source:
        return [event.image for event in source.events()]


def test_blurred_faces_are_blurred_from_the_first_frame_to_the_last(tmp_path: Path) -> None:
    face = record(1.0, 1.5, box=[40, 150, 100, 210])
    film = film_of(tmp_path / "in.mp4", [n / 25 for n in range(120)], size=(640, 360))
    drawn(film, tmp_path / "out.mp4", [face], blur_faces=True)
    shown = _pictures(tmp_path / "out.mp4")
    # The film's edge between bright and dark runs through the face: blurred, it is no edge any more.
    edges = [float(np.abs(np.diff(image[130:230, 30, 0].astype(int))).max()) for image in shown]
    assert edges[0] > 100 and edges[-1] > 100
    assert max(edges[round(25 * 0.7) : round(25 * 2.4)]) < 60, "from before it is found until after it is lost"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["no.mp4"], "no.mp4 does not exist"),
        (["in.mp4", "-o", "out.avi"], "-o out.avi; expected a name that ends in .mp4 or .webm"),
        (["in.mp4", "-o", "there.mp4"], "there.mp4 exists"),
        (["in.mp4", "-o", "in.mp4", "--overwrite"], "in.mp4 is the file to annotate"),
        (["in.mp4", "-o", "none/out.mp4"], "there is no folder none"),
        (["in.mp4", "-o", "out.mp4", "--webm"], "--webm with -o out.mp4"),
        (["in.mp4", "-o", "out.mp4", "--video-codec", "libnone"], "no encoder libnone"),
        (["in.mp4", "-o", "out.mp4", "--records", "none.jsonl"], "none.jsonl does not exist"),
        (["in.mp4", "-o", "out.mp4", "--records", "two.jsonl"], "two.jsonl has no records of in.mp4"),
        (["in.mp4", "-o", "out.mp4", "--records", "two.jsonl", "--voice-gate", "off"], "--voice-gate with --records"),
        (["sound.wav", "-o", "out.mp4"], "sound.wav has no picture to draw on"),
    ],
)
def test_what_cannot_be_annotated_is_one_line_before_the_model_loads(
    arguments: list[str], text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    film_of(tmp_path / "in.mp4", [0.0, 0.1])
    (tmp_path / "there.mp4").write_text("mine")
    lines = [json.dumps(record(0.0, 1.0, source=name)) + "\n" for name in ("a.mp4", "b.mp4")]
    (tmp_path / "two.jsonl").write_text("".join(lines))
    with av.open("sound.wav", "w") as container:
        stream = container.add_stream("pcm_s16le", rate=16000, layout="mono")
        block = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.int16), format="s16", layout="mono")
        block.sample_rate = 16000
        container.mux(stream.encode(block))
    before = {path.name for path in tmp_path.iterdir()}
    monkeypatch.setattr("mma_edge.recognizer.Recognizer.open", lambda *args: pytest.fail("the model was loaded"))
    assert main(["annotate", *arguments]) in (2, 3, 7, 11)
    assert text in failure_line(capsys)
    assert {path.name for path in tmp_path.iterdir()} == before and (tmp_path / "there.mp4").read_text() == "mine"


@pytest.mark.parametrize(
    ("fails", "errors"), [(KeyboardInterrupt, KeyboardInterrupt), (OSError, OutputError)], ids=["Ctrl-C", "full"]
)
def test_what_ends_in_the_middle_leaves_no_half_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: type, errors: type
) -> None:
    film = film_of(tmp_path / "in.mp4", [n / 25 for n in range(50)])
    (tmp_path / "out.mp4").write_text("the old one")

    def picture(self: object, image: np.ndarray, time_s: float) -> bool:
        if time_s > 1.0:
            raise fails(28, "No space left on device")
        return True

    monkeypatch.setattr("mma_edge.session.video.movie.Movie.picture", picture)
    with pytest.raises(errors) as caught:
        drawn(film, tmp_path / "out.mp4", overwrite=True)
    if errors is OutputError:
        assert "No space left on device" in one_line(caught.value)
    assert (tmp_path / "out.mp4").read_text() == "the old one"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4", "out.mp4"]


def test_records_of_several_sources_are_those_of_the_film(tmp_path: Path) -> None:
    film = open_film(film_of(tmp_path / "b.mp4", [0.0, 1.0]))
    path = tmp_path / "r.jsonl"
    path.write_text("".join(json.dumps(record(0.0, 1.0, source=name)) + "\n" for name in ("a.mp4", "b.mp4", "b.mp4")))
    assert remember(film, path, print).count == 2
    path.write_text(json.dumps(record(0.0, 1.0, source="renamed.mp4")) + "\n")
    assert remember(film, path, print).count == 1
    path.write_text("")
    with pytest.raises(SourceError, match="has no records"):
        remember(film, path, print)


def test_progress_goes_from_nothing_to_the_whole_film(tmp_path: Path) -> None:
    film = open_film(film_of(tmp_path / "in.mp4", [n / 10 for n in range(30)]))
    told: list[float] = []
    options, said = AnnotateOptions(tmp_path / "out.mp4"), []
    draw(film, Timeline.of([]), ("sad",), options, lambda doing, s: (told.append(s), said.append(doing)))
    assert told == sorted(told) and told[0] == 0.0 and told[-1] == pytest.approx(2.9) and set(said) == {"drawing"}
