"""Records as rows: `mma_edge.records`, CSV and Parquet hold the same values, whatever they were read from; and what is
refused before a file is written."""

from __future__ import annotations

import csv
import json
import time
from pathlib import Path

import numpy as np
import pandas
import polars
import pyarrow.parquet
import pytest
from conftest import failure_line, one_line, run_python
from recorded import LABELS, make_session, make_video, record, run_of, write_jsonl

import mma_edge
from mma_edge.cli import main
from mma_edge.convert import ConvertOptions, convert
from mma_edge.convert.table import TableWriter
from mma_edge.errors import OutputError, SourceError, UsageError
from mma_edge.sinks import CsvSink, JsonlSink
from mma_edge.sinks.records import columns
from mma_edge.types import Emotion

pytestmark = pytest.mark.wall_clock

RECORDS = [*run_of("hhss"), record(2.5, "angry", track=None), record(2.5, speaking=0.25, smoothed_s=2.0)]
HIDDEN = "import sys; sys.modules['pyarrow'] = None\nfrom mma_edge.cli import main\nsys.exit(main(sys.argv[1:]))"


@pytest.fixture
def talk(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "talk.jsonl", RECORDS)


def emotion(number: int) -> Emotion:
    values = np.random.default_rng(number).dirichlet((1, 1, 1)).astype(np.float32)
    box, source = (1.25, 2.0, 30.0, 40.04), 'the "door", left'
    return Emotion(number / 2, number / 2 + 4, 3, box, ("video",), LABELS, values, 12.34, source=source)


def test_a_data_frame_has_the_columns_of_the_csv_and_the_values_of_the_records(talk: Path) -> None:
    frame = pandas.DataFrame(mma_edge.records(talk))
    assert list(frame.columns) == columns(LABELS)
    assert list(frame["p_sad"]) == [each["probabilities"]["sad"] for each in RECORDS]
    assert list(frame["label"]) == [each["label"] for each in RECORDS]
    assert list(frame["x1"])[:4] == [110.5] * 4 and pandas.isna(frame["x1"][4]) and pandas.isna(frame["track_id"][4])
    assert list(frame["modalities"]) == ["video+audio"] * 4 + ["audio", "video+audio"]
    assert list(frame["speaking"].dropna()) == [0.25]
    many = [*run_of("h" * 150), record(75.5, speaking=0.25)]
    rows = mma_edge.records(write_jsonl(talk.with_name("many.jsonl"), many))
    assert polars.from_dicts(rows, infer_schema_length=None)["speaking"].drop_nulls().to_list() == [0.25]


def test_pandas_and_polars_read_the_same_from_csv_and_parquet(talk: Path) -> None:
    rows = mma_edge.records(talk)
    (table,), (text,) = convert(talk, "parquet"), convert(talk, "csv")
    assert polars.read_parquet(table).to_dicts() == polars.read_csv(text).to_dicts() == rows
    wanted = pandas.DataFrame(rows)
    for frame in (pandas.read_parquet(table), pandas.read_csv(text)):
        pandas.testing.assert_frame_equal(frame, wanted, check_dtype=False)


def test_parquet_has_types_and_says_of_which_version_and_classes_it_is(talk: Path) -> None:
    schema = pyarrow.parquet.read_schema(convert(talk, "parquet")[0])
    types = {field.name: str(field.type) for field in schema}
    assert (types["track_id"], types["p_angry"], types["source"]) == ("int32", "double", "string")
    about = {key.decode(): value.decode() for key, value in schema.metadata.items()}
    assert about["mma_edge.version"] == mma_edge.__version__ and about["mma_edge.schema"] == "1"
    assert json.loads(about["mma_edge.labels"]) == list(LABELS)


def test_a_converted_csv_is_the_one_that_a_run_writes(tmp_path: Path) -> None:
    with JsonlSink(tmp_path / "a.jsonl", LABELS) as lines, CsvSink(tmp_path / "b.csv", LABELS) as table:
        for number in range(20):
            lines.write(emotion(number))
            table.write(emotion(number))
    (path,) = convert(tmp_path / "a.jsonl", "csv")
    assert path.read_bytes() == (tmp_path / "b.csv").read_bytes()


def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path, talk: Path) -> None:
    rows = mma_edge.records(talk)
    for to in ("csv", "parquet"):
        assert mma_edge.records(convert(talk, to)[0]) == rows
    assert mma_edge.records(make_session(tmp_path / "day", RECORDS, {"talk.mp4": {}})) == rows
    # And so what is made of a table is what is made of the records themselves.
    (first,), (second,) = convert(talk, "vtt"), convert(talk.with_suffix(".parquet"), "srt")
    assert first.read_text().count("-->") == second.read_text().count("-->") > 1


def test_records_of_the_first_version_have_all_columns(tmp_path: Path) -> None:
    old = [{key: value for key, value in record(1.0).items() if key not in ("voice", "source")}]
    (row,) = mma_edge.records(write_jsonl(tmp_path / "old.jsonl", old))
    assert list(row) == columns(LABELS) and row["voice"] is row["source"] is None and row["p_happy"] == 0.8
    (path,) = convert(tmp_path / "old.jsonl", "elan")
    assert 'TIER_ID="old face 1"' in path.read_text()


def test_probabilities_in_another_order_stay_with_their_class(tmp_path: Path) -> None:
    turned = record(1.0, "sad") | {"probabilities": {"sad": 0.8, "angry": 0.1, "happy": 0.1}}
    path = write_jsonl(tmp_path / "talk.jsonl", [record(0.5), turned])
    assert [row["p_sad"] for row in csv.DictReader(convert(path, "csv")[0].open())] == ["0.1", "0.8"]


def test_half_a_line_at_the_end_is_said_and_the_rest_is_converted(
    tmp_path: Path, talk: Path, capsys: pytest.CaptureFixture
) -> None:
    half = "".join(json.dumps(each) + "\n" for each in RECORDS)[:-40]
    talk.write_text(half)
    folder = make_session(tmp_path / "day", RECORDS, {"talk.mp4": {}}, state="running")
    (folder / "records.jsonl").write_text(half)
    for path in (talk, folder):
        assert main(["convert", str(path), "--to", "csv"]) == 0
        said = capsys.readouterr().out
        assert said.count("note: the last line of ") == 1
        table = (path / "records.csv") if path.is_dir() else path.with_suffix(".csv")
        assert len(mma_edge.records(table)) == len(RECORDS) - 1
    assert "note: the session was not ended" in said
    with pytest.warns(UserWarning, match="is cut off and left out") as caught:
        mma_edge.records(talk)
    assert caught[0].filename == __file__


@pytest.mark.parametrize(
    ("arguments", "code", "what"),
    [
        (["--to", "word"], 2, "--to word; expected one of elan, textgrid, boris, vtt, srt, csv, parquet"),
        (["--to", "elan", "--output", "talk.xml"], 2, "--output talk.xml; expected a name that ends in .eaf"),
        (["--to", "csv", "--min-s", "1"], 2, "--min-s, --hysteresis or --as-of with --to csv"),
        (["--to", "csv", "--media", "talk.mp4"], 2, "--media with --to csv"),
        (["--to", "csv", "--face", "7"], 2, "--face 7; expected one of 1"),
        (["--to", "csv", "--source", "door"], 2, "--source door; expected one of talk.mp4"),
        (["--to", "vtt", "--media", "away.mp4"], 3, "away.mp4 does not exist"),
        (["--to", "vtt", "--media", "talk.jsonl"], 3, "talk.jsonl cannot be read"),
        (["--to", "vtt", "--as-of", "now"], 2, "--as-of now; expected middle or end"),
    ],
)
def test_what_cannot_be_converted_is_one_line(
    talk: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    what: str,
) -> None:
    monkeypatch.chdir(talk.parent)
    assert main(["convert", "talk.jsonl", *arguments]) == code
    assert what in failure_line(capsys)
    assert list(talk.parent.iterdir()) == [talk]


@pytest.mark.parametrize("to", ["elan", "boris", "csv", "parquet"])
@pytest.mark.parametrize(
    ("records", "what"),
    [
        ([], "has no records"),
        ([record(1.0), record(2.0, start_s=None)], "record 2 of .* is damaged"),
        ([record(1.0), record(2.0, probabilities={"happy": "much"})], "record 2 of .* is damaged"),
        ([record(1.0), record(2.0, box=[1, 2])], "record 2 of .* is damaged"),
        ([record(1.0), record(2.0, track="1")], "record 2 of .* is damaged"),
        ([record(1.0), record(2.0, voice="some")], "record 2 of .* is damaged"),
        ([record(float("inf"))], "record 1 of .* is damaged"),
        ([record(1.0), record(2.0, probabilities={"calm": 1.0})], "has other classes than the first"),
    ],
)
def test_records_that_are_none_are_refused_and_nothing_is_written(
    tmp_path: Path, to: str, records: list, what: str
) -> None:
    path = write_jsonl(tmp_path / "talk.jsonl", records)
    with pytest.raises(SourceError, match=what) as caught:
        convert(path, to)
    assert one_line(caught.value) and list(tmp_path.iterdir()) == [path]


def test_a_file_is_replaced_only_if_asked_and_the_records_never(talk: Path) -> None:
    (path,) = convert(talk, "csv")
    before = path.read_bytes()
    with pytest.raises(OutputError, match="exists") as caught:
        convert(talk, "csv")
    assert "--overwrite" in one_line(caught.value)
    assert convert(talk, "csv", ConvertOptions(overwrite=True)) == [path]
    (there,) = convert(talk, "parquet", ConvertOptions(output=talk.parent / "new" / "folder" / "all.parquet"))
    assert mma_edge.records(there) == mma_edge.records(talk)
    with pytest.raises(UsageError, match="would replace the records"):
        convert(path, "csv", ConvertOptions(overwrite=True))
    assert path.read_bytes() == before


def test_of_several_sources_none_is_written_where_one_exists(tmp_path: Path) -> None:
    records = run_of("hh", source="rtsp://door/a b") + run_of("ss", source="desk")
    path = write_jsonl(tmp_path / "both.jsonl", records)
    taken = tmp_path / "both-desk.vtt"
    taken.write_text("mine")
    with pytest.raises(OutputError, match=r"both-desk\.vtt exists"):
        convert(path, "vtt")
    assert sorted(tmp_path.iterdir()) == [taken, path] and taken.read_text() == "mine"
    names = [each.name for each in convert(path, "vtt", ConvertOptions(overwrite=True))]
    assert names == ["both-rtsp_door_a_b.vtt", "both-desk.vtt"]
    video = make_video(tmp_path / "talk.mp4")
    with pytest.raises(UsageError, match="for 2 sources"):
        convert(path, "vtt", ConvertOptions(media=video, overwrite=True))
    (table,) = convert(path, "csv")
    assert [row["source"] for row in csv.DictReader(table.open())] == ["rtsp://door/a b"] * 2 + ["desk"] * 2


def test_a_live_source_of_a_session_takes_no_other_video(tmp_path: Path) -> None:
    folder = make_session(tmp_path / "day", run_of("hh"), {"talk.mp4": {"live": True}})
    with pytest.raises(UsageError, match="for the live source talk"):
        convert(folder, "vtt", ConvertOptions(media=make_video(tmp_path / "talk.mp4")))


def test_marks_that_a_table_cannot_hold_are_said(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = make_session(tmp_path / "day", RECORDS, {"talk.mp4": {}}, [({"talk.mp4": 1.0}, "smile")])
    assert main(["convert", str(folder), "--to", "parquet"]) == 0
    assert "note: 1 mark(s) are left out" in capsys.readouterr().out


def test_without_pyarrow_parquet_says_what_to_install_and_the_rest_works(talk: Path) -> None:
    done = run_python("-c", HIDDEN, "convert", talk, "--to", "parquet")
    assert done.returncode == 11
    assert done.stderr == 'error: pyarrow is not installed; pip install "mma-edge[table]".\n'
    assert run_python("-c", HIDDEN, "convert", talk, "--to", "csv").returncode == 0


def test_a_table_that_was_not_finished_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "all.parquet"
    with pytest.raises(ZeroDivisionError), TableWriter(path, LABELS) as table:
        table.write([{"start_s": 0.5, "p_happy": 1.0}])
        raise ZeroDivisionError
    with pytest.raises(OutputError, match="a row has p_calm"), TableWriter(path, LABELS) as table:
        table.write([{"p_calm": 1.0}])
    assert list(tmp_path.iterdir()) == []
    with TableWriter(path, LABELS) as table:
        table.write([{"start_s": 0.5}])
        table.write([{"start_s": 1.5}, {"start_s": 2.5}])
    assert table.count == 3 and list(pandas.read_parquet(path)["start_s"]) == [0.5, 1.5, 2.5]
    other = tmp_path / "other.parquet"
    polars.DataFrame({"a": [1]}).write_parquet(other)
    with pytest.raises(SourceError, match="has no column start_s"):
        mma_edge.records(other)
    other.write_text("no table")
    with pytest.raises(SourceError, match="cannot be read"):
        mma_edge.records(other)


def test_a_hundred_thousand_records_take_seconds(tmp_path: Path) -> None:
    records = run_of("hhhhhhsssaa" * 9091)
    path = write_jsonl(tmp_path / "day.jsonl", records)
    start_s = time.process_time()
    convert(path, "elan")
    assert time.process_time() - start_s < 20
