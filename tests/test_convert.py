"""What `mma-edge convert` writes is what other programs read: ELAN, Praat, BORIS' tables, players."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from xml.etree import ElementTree

import av
import pandas
import pympi
import pytest
from praatio import textgrid
from recorded import LABELS, make_session, make_video, record, run_of, write_jsonl

from mma_edge.cli import main
from mma_edge.convert import Choice, ConvertOptions, SegmentOptions, convert

Spans = list[tuple[int, int, str]]

RECORDS = (
    run_of("hhhhhhhhhhhhssssshhhh") + run_of("sssssss", first_s=20.0, track=2) + run_of("aaaa", 0.5, 30.0, track=None)
)
HAPPY_SAD_HAPPY = [(0, 4250, "happy"), (4250, 6750, "sad"), (6750, 10_500, "happy")]  # the last window ends at 10.5 s
TIERS: dict[str, Spans] = {
    "face 1": HAPPY_SAD_HAPPY,
    "face 2": [(20_000, 23_500, "sad")],
    "voice": [(30_000, 32_000, "angry")],
}
NASTY = 'say "<b>", {x} & -->'


@pytest.fixture
def talk(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "talk.jsonl", RECORDS)


@pytest.fixture
def session(tmp_path: Path) -> Path:
    """Two live sources, one with a video that begins 2 s after its first answer; marks, two of them at once."""
    door = run_of("hhhhhhhhhhhhssssshhhh", source="door")
    desk = run_of("aaaaaaaaaaaa", source="desk")
    marks = [({"door": 1.0, "desk": 1.0}, "early"), ({"door": 5.0, "desk": 5.0}, NASTY), ({"door": 5.0}, "again")]
    sources = {"door": {"video": "video-1.mp4", "video_start_s": 2.0}, "desk": {}}
    folder = make_session(tmp_path / "day", door + desk, sources, marks)
    make_video(folder / "video-1.mp4", 9.0)
    return folder


def elan_tiers(path: Path) -> dict[str, Spans]:
    read = pympi.Elan.Eaf(str(path))
    return {
        name: [tuple(each[:3]) for each in read.get_annotation_data_for_tier(name)] for name in read.get_tier_names()
    }


def test_pympi_reads_the_tiers_of_elan(talk: Path) -> None:
    (path,) = convert(talk, "elan")
    assert path.name == "talk.eaf"
    assert elan_tiers(path) == {f"talk.mp4 {name}": spans for name, spans in TIERS.items()}
    words = pympi.Elan.Eaf(str(path)).controlled_vocabularies["emotions"][1]
    assert [values[0][0] for values, _ in words.values()] == [*LABELS, "uncertain"]


def test_an_elan_file_keeps_the_rules_of_its_schema(session: Path) -> None:
    for path in convert(session, "elan"):
        document = ElementTree.parse(path).getroot()
        order = ["HEADER", "TIME_ORDER", "TIER", "LINGUISTIC_TYPE", "LANGUAGE", "CONTROLLED_VOCABULARY"]
        assert [name for name, _ in itertools.groupby(each.tag for each in document)] == order
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d", document.get("DATE"))
        names = [each.get(key) for each in document.iter() for key in ("TIME_SLOT_ID", "ANNOTATION_ID", "CVE_ID")]
        ids = [name for name in names if name]
        assert len(ids) == len(set(ids)) and all(re.fullmatch(r"[A-Za-z_][\w.-]*", name) for name in ids)
        slots = {each.get("TIME_SLOT_ID"): int(each.get("TIME_VALUE")) for each in document.iter("TIME_SLOT")}
        assert list(slots.values()) == sorted(slots.values()) and min(slots.values()) >= 0
        used = [each.get(f"TIME_SLOT_REF{end}") for each in document.iter("ALIGNABLE_ANNOTATION") for end in (1, 2)]
        assert sorted(used) == sorted(slots)  # each slot belongs to one annotation
        words = {each.get("CVE_ID"): each[0].text for each in document.iter("CV_ENTRY_ML")}
        types = {each.get("LINGUISTIC_TYPE_ID"): each for each in document.iter("LINGUISTIC_TYPE")}
        for tier in document.iter("TIER"):
            assert tier.get("LINGUISTIC_TYPE_REF") in types
            end_ms = 0
            for each in tier.iter("ALIGNABLE_ANNOTATION"):
                start_ms, next_ms = (slots[each.get(f"TIME_SLOT_REF{end}")] for end in (1, 2))
                assert end_ms <= start_ms < next_ms
                end_ms = next_ms
                if tier.get("LINGUISTIC_TYPE_REF") == "emotion":
                    assert words[each.get("CVE_REF")] == each[0].text


def test_a_session_gives_elan_its_video_and_marks_on_the_videos_clock(
    session: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(["convert", str(session), "--to", "elan"]) == 0
    said = capsys.readouterr().out
    assert "door: 1 segment(s) and marks before the video begins are left out" in said
    door, desk = session / "records-door.eaf", session / "records-desk.eaf"
    tiers = elan_tiers(door)
    # The video began 2 s later than the source's clock.
    assert tiers["door face 1"] == [(0, 2250, "happy"), (2250, 4750, "sad"), (4750, 8500, "happy")]
    assert [(start, text) for start, _, text in tiers["door marks"]] == [(3000, NASTY), (3001, "again")]
    assert elan_tiers(desk)["desk face 1"][0][0] == 0
    (media,) = pympi.Elan.Eaf(str(door)).media_descriptors
    assert media["RELATIVE_MEDIA_URL"] == "./video-1.mp4" and media["MIME_TYPE"] == "video/mp4"
    assert media["MEDIA_URL"] == (session / "video-1.mp4").resolve().as_uri()
    assert pympi.Elan.Eaf(str(desk)).media_descriptors == []


@pytest.mark.parametrize("left", [b"", None])
def test_of_a_video_that_a_crash_spoilt_the_times_stay(
    session: Path, left: bytes | None, capsys: pytest.CaptureFixture
) -> None:
    video = session / "video-1.mp4"
    video.unlink()
    if left is not None:
        video.write_bytes(left)
    assert main(["convert", str(session), "--to", "elan", "--source", "door"]) == 0
    assert "video-1.mp4" in capsys.readouterr().out
    assert elan_tiers(session / "records.eaf")["door face 1"][0] == (0, 2250, "happy")
    assert pympi.Elan.Eaf(str(session / "records.eaf")).media_descriptors == []


def test_praatio_reads_the_intervals_and_points_of_a_textgrid(talk: Path, session: Path) -> None:
    (path,) = convert(talk, "textgrid")
    grid = textgrid.openTextgrid(str(path), includeEmptyIntervals=False)
    assert path.name == "talk.TextGrid" and grid.tierNames == tuple(TIERS)
    for name, spans in TIERS.items():
        entries = [
            (round(1000 * each.start), round(1000 * each.end), each.label) for each in grid.getTier(name).entries
        ]
        assert entries == spans
    door, _ = convert(session, "textgrid")
    points = textgrid.openTextgrid(str(door), False).getTier("marks").entries
    # praatio leaves doubled quotes as they are in points, and undoes them in intervals.
    assert [(each.time, each.label.replace('""', '"')) for each in points] == [(3.0, NASTY), (3.001, "again")]


def test_the_intervals_of_a_textgrid_leave_no_time_out(talk: Path, session: Path) -> None:
    """Praat opens nothing else; other readers forgive it."""
    for path in (*convert(talk, "textgrid"), *convert(session, "textgrid")):
        head, *tiers = re.split(r"^    item \[\d+\]:\n", path.read_text(encoding="utf-8"), flags=re.M)
        assert head.startswith('File type = "ooTextFile"\nObject class = "TextGrid"\n\nxmin = 0\nxmax = ')
        end = re.search(r"xmax = (\S+)", head)[1]
        assert f"size = {len(tiers)}\nitem []:\n" in head
        for tier in tiers:
            assert re.search(r"xmin = 0\n +xmax = (\S+)\n", tier)[1] == end
            if '"TextTier"' in tier:
                times = [float(time) for time in re.findall(r"number = (\S+)", tier)]
                assert times == sorted(set(times)) and times[-1] <= float(end)
                continue
            spans = re.findall(r"intervals \[(\d+)\]:\n +xmin = (\S+)\n +xmax = (\S+)\n +text = \"", tier)
            assert f"intervals: size = {len(spans)}" in tier
            assert [int(number) for number, *_ in spans] == list(range(1, len(spans) + 1))
            assert spans[0][1] == "0" and spans[-1][2] == end
            assert all(before[2] == after[1] for before, after in itertools.pairwise(spans))
            assert all(float(start) < float(stop) for _, start, stop in spans)


@pytest.mark.parametrize(("name", "separator"), [("talk.tsv", "\t"), ("talk-boris.csv", ",")])
def test_pandas_reads_states_that_start_and_stop_as_boris_exports_them(talk: Path, name: str, separator: str) -> None:
    (path,) = convert(talk, "boris", ConvertOptions(output=talk.with_name(name)))
    table = pandas.read_csv(path, sep=separator)
    assert list(table.columns) == [
        *("Observation id", "Observation date", "Description", "Observation duration", "Observation type", "Source"),
        *("Time offset (s)", "Media duration (s)", "FPS", "Subject", "Behavior", "Behavioral category"),
        *("Behavior type", "Time", "Media file name", "Image index", "Image file path", "Comment"),
    ]
    assert list(table["Time"]) == sorted(table["Time"]) and set(table["Observation id"]) == {"talk.mp4"}
    for subject, spans in TIERS.items():
        events = table[table["Subject"] == subject]
        assert list(events["Behavior type"]) == ["START", "STOP"] * len(spans)
        assert list(events["Behavior"]) == [label for *_, label in spans for _ in range(2)]
        times = [round(1000 * time) for time in events["Time"]]
        assert times == [time for start, end, _ in spans for time in (start, end)]


def test_a_table_for_boris_holds_all_sources_with_their_video_and_marks(session: Path) -> None:
    (path,) = convert(session, "boris")
    table = pandas.read_csv(path, sep="\t", keep_default_na=False)
    assert list(dict.fromkeys(table["Observation id"])) == ["door", "desk"]
    door = table[table["Observation id"] == "door"]
    assert set(door["Source"]) == {"player #1:video-1.mp4"} and set(door["Media file name"]) == {"video-1.mp4"}
    assert set(door["FPS"]) == {"10.000"} and set(door["Media duration (s)"]) == {"9.000"}
    marks = door[door["Behavior type"] == "POINT"]
    assert list(marks["Behavior"]) == [NASTY, "again"] and list(marks["Time"]) == [3.0, 3.001]
    assert set(marks["Image index"].astype(str)) == {"30"}


def cues(path: Path, decimal: str, numbered: bool) -> Spans:
    """What a strict reader of WebVTT or SRT gets: nothing but cues, in order and apart."""
    text = path.read_text(encoding="utf-8")
    blocks = text.rstrip("\n").split("\n\n")
    if not numbered:
        assert blocks.pop(0) == "WEBVTT"
    found = []
    clock = rf"(\d\d+):([0-5]\d):([0-5]\d)\{decimal}(\d\d\d)"
    for number, block in enumerate(blocks, 1):
        lines = block.split("\n")
        if numbered:
            assert lines.pop(0) == str(number)
        match = re.fullmatch(f"{clock} --> {clock}", lines.pop(0))
        hours = [int(part) for part in match.groups()]
        start, end = (((h * 60 + m) * 60 + s) * 1000 + ms for h, m, s, ms in (hours[:4], hours[4:]))
        assert lines and all(line.strip() and "-->" not in line for line in lines)
        assert start < end and (not found or found[-1][1] <= start)
        found.append((start, end, "\n".join(lines)))
    return found


@pytest.mark.parametrize(("to", "decimal"), [("vtt", "."), ("srt", ",")])
def test_subtitles_show_one_cue_at_a_time_and_ffmpeg_reads_the_same(
    tmp_path: Path, session: Path, to: str, decimal: str
) -> None:
    records = run_of("hhhhhhhhhhhhssssshhhh") + run_of("aaaaaaaa", first_s=3.0, track=2)
    talk = write_jsonl(tmp_path / "two.jsonl", sorted(records, key=lambda record: record["end_s"]))
    (path,) = convert(talk, to)
    read = cues(path, decimal, to == "srt")
    assert read == [
        (0, 3000, "face 1: happy"),
        (3000, 4250, "face 1: happy\nface 2: angry"),
        (4250, 6750, "face 1: sad\nface 2: angry"),
        (6750, 7000, "face 1: happy\nface 2: angry"),
        (7000, 10_500, "face 1: happy"),
    ]
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux() if packet.size]
        ffmpeg = [
            (round(1000 * p.pts * p.time_base), round(1000 * (p.pts + p.duration) * p.time_base)) for p in packets
        ]
        texts = [bytes(packet).decode().strip() for packet in packets]
    assert ffmpeg == [span[:2] for span in read] and texts == [text for *_, text in read]
    door, _ = convert(session, to)
    text = "\n".join(text for *_, text in cues(door, decimal, to == "srt"))
    shown = 'say "&lt;b&gt;", {x} &amp; --&gt;' if to == "vtt" else 'say "<\u2060b>", {\u2060x} & --\u2060>'
    assert f"mark: {shown}" in text


def test_of_one_face_alone_subtitles_have_the_label_only(tmp_path: Path) -> None:
    (path,) = convert(write_jsonl(tmp_path / "talk.jsonl", run_of("hh")), "vtt")
    assert path.read_text() == "WEBVTT\n\n00:00:00.000 --> 00:00:01.000\nhappy\n"


def test_names_that_a_format_has_signs_for_stay_what_they_are(tmp_path: Path) -> None:
    strange = ['"happy" & <b>', "sad\x00\n\ud800ly", "日本語 😀", " \n "]
    records = []
    for number, label in enumerate(strange):
        probabilities = {name: 0.8 if name == label else 0.1 for name in strange}
        for hop in range(4):
            more = {"label": label, "probabilities": probabilities, "source": '<"a" & b>'}
            records.append(record(2.0 * number + 0.5 * hop + 0.5, window_s=0.5) | more)
    talk = write_jsonl(tmp_path / "talk.jsonl", records)
    expected = ['"happy" & <b>', "sad ly", "日本語 😀", "-"]
    (eaf,), (grid,), (table,) = (convert(talk, to) for to in ("elan", "textgrid", "boris"))
    ((name, spans),) = elan_tiers(eaf).items()
    assert name == '<"a" & b> face 1' and [label for *_, label in spans] == expected
    assert [each.label for each in textgrid.openTextgrid(str(grid), False).getTier("face 1").entries] == expected
    assert list(dict.fromkeys(pandas.read_csv(table, sep="\t")["Behavior"])) == expected
    assert [text for *_, text in cues(convert(talk, "vtt")[0], ".", False)][1:] == expected[1:]


def test_one_face_or_one_source_can_be_chosen_and_how_segments_are_made(session: Path, talk: Path) -> None:
    (path,) = convert(talk, "elan", ConvertOptions(choice=Choice(face=2)))
    assert list(elan_tiers(path)) == ["talk.mp4 face 2"]
    (path,) = convert(session, "elan", ConvertOptions(choice=Choice(source="desk"), output=session / "desk.eaf"))
    assert path.name == "desk.eaf" and "desk face 1" in elan_tiers(path)
    options = ConvertOptions(choice=Choice(face=1), overwrite=True, segments=SegmentOptions(min_s=3.0, as_of="end"))
    assert elan_tiers(convert(talk, "elan", options)[0]) == {"talk.mp4 face 1": [(500, 11_000, "happy")]}


def test_a_given_video_counts_from_its_first_picture(tmp_path: Path, talk: Path) -> None:
    video = make_video(tmp_path / "my talk.mkv", first_s=3.0)
    (path,) = convert(talk, "elan", ConvertOptions(media=video))
    assert elan_tiers(path)["talk.mp4 face 2"] == [(17_000, 20_500, "sad")]
    (media,) = pympi.Elan.Eaf(str(path)).media_descriptors
    assert media["RELATIVE_MEDIA_URL"] == "./my talk.mkv"
