"""Promises of `FileSource`: every frame and sample by presentation time, upright, whatever the file."""

from __future__ import annotations

import gc
import io
import math
import wave
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.codec.hwaccel import HWAccel

from mma_edge.errors import SourceError, UsageError
from mma_edge.sources import open_source
from mma_edge.sources.file import FileSource
from mma_edge.sources.picture import Orientation
from mma_edge.sources.tracks import to_float
from mma_edge.types import AudioChunk, Frame

WIDTH, HEIGHT, RATE = 64, 48, 16000


def picture(level: int) -> np.ndarray:
    """A grey picture with a red corner at the top left."""
    image = np.full((HEIGHT, WIDTH, 3), level, np.uint8)
    image[: HEIGHT // 2, : WIDTH // 2] = (220, 20, 20)
    return image


def make_clip(
    path: Path,
    times_ms: list[int] | None = None,
    audio_s: float = 2.0,
    codec: str = "libx264",
    keyframe_every: int = 10,
    rotation: int | None = None,
    late_audio: bool = False,
    **options: str,
) -> Path:
    """A tiny clip: pictures at `times_ms` (50 at 25 fps when None, none when empty) and a 440 Hz tone."""
    times_ms = [40 * i for i in range(50)] if times_ms is None else times_ms
    with av.open(str(path), "w", options=options) as out:
        video = audio = None
        if times_ms:
            video = out.add_stream(codec, rate=25, options={"g": str(keyframe_every)})
            video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
            video.codec_context.time_base = Fraction(1, 1000)
            if rotation is not None:
                video.set_display_rotation(rotation)
        if audio_s:
            audio = out.add_stream("aac", rate=RATE, layout="mono")
        packets = []
        for index, time_ms in enumerate(times_ms):
            frame = av.VideoFrame.from_ndarray(picture(min(255, 40 + 4 * index)), format="rgb24")
            frame.pts, frame.time_base = time_ms, Fraction(1, 1000)
            packets += video.encode(frame)
        packets += video.encode(None) if video else []
        if audio:
            tone = 0.5 * np.sin(2 * math.pi * 440 * np.arange(round(audio_s * RATE)) / RATE)
            sound = av.AudioFrame.from_ndarray(tone.astype(np.float32)[np.newaxis], "fltp", "mono")
            sound.sample_rate, sound.pts = RATE, 0
            sounds = [*audio.encode(sound), *audio.encode(None)]
            packets = packets + sounds if late_audio else sounds + packets
        for packet in packets:
            out.mux(packet)
    return path


def read(path: Path, **arguments: bool) -> tuple[list[Frame], list[AudioChunk], FileSource, list[str]]:
    """All frames and chunks, checked for order, with the closed source and its notices."""
    said: list[str] = []
    with FileSource(path, said.append, **arguments) as source:
        events = list(source.events())
    times = [event.time_s for event in events]
    assert times == sorted(times)
    frames = [event for event in events if isinstance(event, Frame)]
    chunks = [event for event in events if isinstance(event, AudioChunk)]
    assert source.stats.frames == len(frames)
    return frames, chunks, source, said


def test_every_frame_and_sample_arrives_in_order(tmp_path: Path) -> None:
    frames, chunks, source, said = read(make_clip(tmp_path / "clip.mp4"))
    assert len(frames) == 50 and source.has_video and source.has_audio and not source.live
    assert frames[0].image.shape == (HEIGHT, WIDTH, 3) and frames[0].image.dtype == np.uint8
    assert chunks[0].samples.dtype == np.float32 and chunks[0].sample_rate_hz == RATE
    assert source.stats.audio_s == pytest.approx(2.0, abs=0.1)
    assert source.duration_s == pytest.approx(2.0, abs=0.1)
    assert source.name == "clip.mp4" and said == []


def test_colours_are_rgb(tmp_path: Path) -> None:
    frames, *_ = read(make_clip(tmp_path / "clip.mp4"))
    red, green, blue = frames[25].image[8, 8].astype(int)
    assert red > 180 and green < 60 and blue < 60


def test_variable_frame_rate_keeps_presentation_times(tmp_path: Path) -> None:
    times_ms = [0, 40, 50, 300, 310, 1000, 1900]
    frames, *_ = read(make_clip(tmp_path / "vfr.mkv", times_ms))
    assert [round(frame.time_s * 1000) for frame in frames] == times_ms


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_avi_with_reordered_frames_loses_none(tmp_path: Path, codec: str) -> None:
    frames, _, source, _ = read(make_clip(tmp_path / "clip.avi", audio_s=0, codec=codec))
    assert len(frames) == 50 and source.stats.out_of_order == 0
    levels = [int(frame.image[-4:, -4:].mean()) for frame in frames]
    assert np.diff(levels).min() > -3  # two frames swapped would step back by 4


def test_without_sound_it_is_vision_only(tmp_path: Path) -> None:
    frames, chunks, source, said = read(make_clip(tmp_path / "silent.mp4", audio_s=0))
    assert frames and not chunks and source.has_video and not source.has_audio
    assert said == ["silent.mp4: vision only, because it has no audio track"]


def test_without_picture_it_is_voice_only(tmp_path: Path) -> None:
    frames, chunks, source, said = read(make_clip(tmp_path / "voice.mp4", times_ms=[]))
    assert chunks and not frames and source.has_audio and not source.has_video
    assert said == ["voice.mp4: voice only, because it has no video track"]


def test_sound_not_asked_for_is_not_read(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "clip.mp4", audio_s=4.0)
    frames, chunks, source, said = read(path, audio=False)
    assert len(frames) == 50 and not chunks and not source.has_audio and said == []


def test_sound_shorter_than_picture_is_fine(tmp_path: Path) -> None:
    frames, chunks, _, said = read(make_clip(tmp_path / "clip.mp4", audio_s=0.5))
    assert len(frames) == 50 and chunks[-1].end_s == pytest.approx(0.5, abs=0.1) and said == []


def test_interleaving_does_not_matter(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "clip.ts", late_audio=True)
    frames, chunks, *_ = read(path)
    assert len(frames) == 50 and sum(c.samples.shape[1] for c in chunks) > 1.9 * RATE


def test_a_gap_in_the_sound_stays_visible(tmp_path: Path) -> None:
    path = tmp_path / "gap.mkv"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("pcm_s16le", rate=RATE, layout="mono")
        for start_s in (0.0, 0.1, 1.0):
            block = av.AudioFrame.from_ndarray(np.zeros((1, RATE // 10), np.int16), "s16", "mono")
            block.sample_rate, block.pts = RATE, round(start_s * RATE)
            out.mux(stream.encode(block))
        out.mux(stream.encode(None))
    _, chunks, *_ = read(path)
    assert [chunk.time_s for chunk in chunks] == pytest.approx([0.0, 0.1, 1.0], abs=2e-3)


@pytest.mark.parametrize("fmt", ["u8", "u8p", "s16", "s16p", "s32", "s32p", "flt", "fltp", "dbl", "dblp"])
@pytest.mark.parametrize("layout", ["mono", "stereo"])
def test_any_sample_format_becomes_float(fmt: str, layout: str) -> None:
    kind = {"u8": np.uint8, "s16": np.int16, "s32": np.int32, "flt": np.float32, "dbl": np.float64}[fmt.rstrip("p")]
    channels = 1 if layout == "mono" else 2
    truth = np.array([[0.0, 0.5, -0.5, -1.0], [0.25, -0.25, 0.75, 0.0]], np.float64)[:channels]
    unsigned, full = kind is np.uint8, 1.0 if np.dtype(kind).kind == "f" else 2.0 ** (8 * np.dtype(kind).itemsize - 1)
    stored = (truth * full + (128 if unsigned else 0)).astype(kind)
    array = stored if fmt.endswith("p") else stored.T.reshape(1, -1)
    samples = to_float(av.AudioFrame.from_ndarray(np.ascontiguousarray(array), fmt, layout))
    assert samples.dtype == np.float32 and samples.shape == truth.shape
    np.testing.assert_allclose(samples, truth, atol=1e-6)


def test_a_rate_that_changes_on_the_way_is_said_and_resampled(tmp_path: Path) -> None:
    data = b""
    for rate in (16000, 32000):
        buffer = io.BytesIO()
        with av.open(buffer, "w", format="adts") as out:
            stream = out.add_stream("aac", rate=rate, layout="mono")
            sound = av.AudioFrame.from_ndarray(np.zeros((1, rate), np.float32), "fltp", "mono")
            sound.sample_rate, sound.pts = rate, 0
            out.mux(stream.encode(sound))
            out.mux(stream.encode(None))
        data += buffer.getvalue()
    (tmp_path / "two.aac").write_bytes(data)
    _, chunks, source, said = read(tmp_path / "two.aac")
    assert {chunk.sample_rate_hz for chunk in chunks} == {16000}
    assert source.stats.audio_s == pytest.approx(2.0, abs=0.4)
    assert sum("from 16000 to 32000 Hz" in line for line in said) == 1


@pytest.mark.skipif(not hasattr(av.VideoStream, "set_display_rotation"), reason="this PyAV cannot write rotation flags")
@pytest.mark.parametrize(("rotation", "corner"), [(90, (-8, 8)), (-90, (8, -8)), (180, (-8, -8)), (0, (8, 8))])
def test_rotation_flags_are_applied(tmp_path: Path, rotation: int, corner: tuple[int, int]) -> None:
    frames, *_ = read(make_clip(tmp_path / "phone.mp4", audio_s=0, rotation=rotation))
    sides = (WIDTH, HEIGHT) if abs(rotation) == 90 else (HEIGHT, WIDTH)
    assert all(frame.image.shape == (*sides, 3) for frame in frames)
    assert frames[20].image[corner][0] > 180 > 60 > frames[20].image[corner][1]


def test_mirror_flags_are_applied() -> None:
    image = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    mirrored = Orientation.of(np.array([-65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30], np.int32)).upright(image)
    np.testing.assert_array_equal(mirrored, image[:, ::-1])
    transposed = Orientation.of(np.array([0, 65536, 0, 65536, 0, 0, 0, 0, 1 << 30], np.int32)).upright(image)
    np.testing.assert_array_equal(transposed, image.transpose(1, 0, 2))


def test_without_nvdec_the_processor_decodes_and_says_so(tmp_path: Path) -> None:
    said: list[str] = []
    path = make_clip(tmp_path / "clip.mp4")
    try:
        av.open(str(path), hwaccel=HWAccel("cuda")).close()
        pytest.skip("this machine has NVDEC")
    except av.FFmpegError:
        pass
    with FileSource(path, said.append, audio=False, nvdec=True) as source, FileSource(path, audio=False) as plain:
        for one, other in zip(source.events(), plain.events(), strict=True):
            np.testing.assert_array_equal(one.image, other.image)
    (line,) = said
    assert line.startswith("clip.mp4: decoded by the processor, because NVDEC cannot be opened")
    with pytest.raises(UsageError, match="--nvdec with camera:0"):
        open_source("camera:0", nvdec=True)


def test_a_truncated_file_delivers_what_is_there(tmp_path: Path) -> None:
    whole = make_clip(tmp_path / "whole.mp4", movflags="faststart").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) * 2 // 3])
    frames, _, _, said = read(tmp_path / "cut.mp4")
    assert 5 < len(frames) < 50
    assert any("cut.mp4 is cut short: it announces 2.0 s" in line for line in said)


def test_an_mp4_that_lost_its_index_is_explained(tmp_path: Path) -> None:
    whole = make_clip(tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SourceError, match=r"cut\.mp4 is an MP4 file without its index"):
        FileSource(tmp_path / "cut.mp4")


def test_damaged_packets_cost_no_more_than_themselves(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "clip.mkv", keyframe_every=5)
    with av.open(str(path)) as container:
        positions = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    data = bytearray(path.read_bytes())
    for position, size in positions[20:24]:
        # Behind the head of the block, so that the container still finds the packet.
        data[position + 12 : position + size] = np.random.default_rng(0).bytes(size - 12)
    path.write_bytes(data)
    frames, _, source, said = read(path)
    assert 35 <= len(frames) < 50 and source.stats.audio_s > 1.9
    assert source.stats.damaged_packets + source.stats.damaged_frames > 0
    assert sum("clip.mkv is damaged" in line for line in said) == 1
    assert frames[-1].time_s == pytest.approx(49 * 0.04, abs=0.01)


def test_a_file_without_presentation_times_says_remux(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no video frame of raw\.h264 has a presentation time.*ffmpeg"):
        FileSource(make_clip(tmp_path / "raw.h264", audio_s=0))


def test_times_that_run_backwards_are_left_out_and_counted(tmp_path: Path) -> None:
    for name in ("a.ts", "b.ts"):  # appended transport streams start again at the same time
        make_clip(tmp_path / name, audio_s=0)
    (tmp_path / "both.ts").write_bytes((tmp_path / "a.ts").read_bytes() + (tmp_path / "b.ts").read_bytes())
    frames, _, source, said = read(tmp_path / "both.ts")
    assert len(frames) + source.stats.out_of_order == 100 and source.stats.out_of_order > 0
    assert any("runs backwards" in line for line in said)


def test_frames_do_not_wait_for_the_cycle_collector(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "clip.mp4")
    gc.collect()
    gc.disable()  # a cycle through a decoded frame would keep every picture of a long film until a collection
    try:
        read(path)
        alive = sum(type(thing) is av.VideoFrame for thing in gc.get_objects())
    finally:
        gc.enable()
    assert alive < 5


def test_cover_art_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as out:
        art = out.add_stream("mjpeg", rate=1)
        art.width, art.height, art.pix_fmt = WIDTH, HEIGHT, "yuvj420p"
        art.disposition = av.stream.Disposition.attached_pic.value
        audio = out.add_stream("aac", rate=RATE, layout="mono")
        out.mux(art.encode(av.VideoFrame.from_ndarray(picture(99), format="rgb24")))
        out.mux(art.encode(None))
        sound = av.AudioFrame.from_ndarray(np.zeros((1, RATE), np.float32), "fltp", "mono")
        sound.sample_rate, sound.pts = RATE, 0
        out.mux(audio.encode(sound))
        out.mux(audio.encode(None))
    _, chunks, source, _ = read(path)
    assert chunks and not source.has_video


def test_wav_is_a_source_too(tmp_path: Path) -> None:
    with wave.open(str(tmp_path / "voice.wav"), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(22050)
        file.writeframes(np.full((22050, 2), (16384, -8192), "<i2").tobytes())
    _, chunks, *_ = read(tmp_path / "voice.wav")
    samples = np.concatenate([chunk.samples for chunk in chunks], axis=1)
    assert samples.shape == (2, 22050) and chunks[0].sample_rate_hz == 22050
    np.testing.assert_allclose(samples[:, 100], [0.5, -0.25])


def test_one_pass_and_closing_in_between(tmp_path: Path) -> None:
    source = open_source(make_clip(tmp_path / "clip.mp4"))
    events = source.events()
    next(events)
    with pytest.raises(UsageError, match="one pass"):
        source.events()
    source.close()
    source.close()
    assert list(events) == []
