"""What a faces result looks like to people."""

from __future__ import annotations

from collections.abc import Sequence

from mma_benchmarks.faces.scenes import COVERED, FACE_PX
from mma_benchmarks.faces.schema import FaceClips, Faces, People
from mma_benchmarks.latency.measure import STAGES
from mma_benchmarks.result import Result
from mma_trainer.report.page import Block, Table, Text

NOTE = (
    "Faces: reported in all pictures. The reference is the whole MTCNN cascade on every {every}. picture, each on its "
    "own. Expected: those of its faces that it is sure of (mean score over 14 shifted and mirrored crops of at least "
    "{firm:g}). Missed: expected, but no reported face overlaps it by {iou:g}; a new face is missed until the next "
    "detection. False: reported where the cascade finds nothing in this picture, which may also be a face that it "
    "misses. The last columns are milliseconds of one thread per picture: following the faces as a run does, and one "
    "full detection."
)
TIME_NOTE = (
    "Wall time and real-time factor are of mma-edge run, without loading the model and opening the clip; the median of "
    "{repeat} passes. A file's stages work at the same time; their times are of passes in which they take turns."
)

PEOPLE_NOTE = (
    "Heads of {people} people, faces {face} px high, pass each other in a composed picture of 1280 x 720, 25 per "
    "second: every two of them, each of both in front once. Hidden: more than {hidden:.0%} of a face is behind the "
    "other one; it need not be found then. Switches: how often a person's number is another than before. Many faces: "
    "the heads again, in rows; processor time in milliseconds of all faces, per picture and for the engine per window, "
    "and of the whole run per second of media (cores). Real time is by the clock, from pictures to answers with all "
    "threads of a file. Nothing is decoded."
)


def key_table(results: Sequence[Result]) -> Table:
    """One row per source of each result, and their sum where there are several."""
    rows = []
    for result in results:
        sources: list[FaceClips] = result.results.sources
        rows += [(row.name, *_counts([row])) for row in sources]
        if len(sources) > 1:
            rows.append(("all", *_counts(sources)))
    header = ("source", "pictures", "faces", "expected", "missed", "false", "ms", "full ms")
    return Table("Faces beside a full detection of every picture", header, rows)


def time_table(found: Faces) -> Table:
    """From end to end, and the stages in turns."""
    names = [name for name in STAGES if any(name in row.stages_ms for row in found.sources)]
    rows = []
    for row in found.sources:
        times = (f"{row.media_s:.1f}", f"{row.wall_s:.2f}", f"{row.real_time_factor:.1f}")
        rows.append((row.name, *times, *(f"{row.stages_ms.get(name, 0):.0f}" for name in names)))
    header = ("source", "media s", "wall s", "real time", *(f"{name} ms" for name in names))
    return Table("From end to end", header, rows)


def people_tables(found: People) -> list[Table]:
    """Changes of numbers, and the times of a crowd."""
    rows = [
        (scene.name, str(scene.scenes), str(scene.visible), str(scene.missed), str(scene.hidden), str(scene.switches))
        for scene in found.scenes
    ]
    header = ("scene", "scenes", "visible", "missed", "hidden", "switches")
    crowd, names = found.crowd, list(found.crowd.stages_ms)
    times = (f"{crowd.stages_ms[name]:.1f}" for name in names)
    row = (str(crowd.faces), f"{crowd.reported:.1f}", *times, f"{crowd.cores:.2f}", f"{crowd.real_time_factor:.1f}")
    columns = ("faces", "found", *(f"{name} ms" for name in names), "cores", "real time")
    return [Table("People who pass each other", header, rows), Table("Many faces at 720p", columns, [row])]


def console_tables(result: Result) -> list[Table]:
    found: Faces = result.results
    return [key_table([result]), time_table(found), *([] if found.people is None else people_tables(found.people))]


def blocks(result: Result) -> list[Block]:
    """The section of one result, without machine and bundle."""
    found: Faces = result.results
    own = found.settings
    people: list[Block] = []
    if found.people is not None:
        note = PEOPLE_NOTE.format(people=found.people.people, face=FACE_PX, hidden=COVERED)
        people = [Text(note), *people_tables(found.people)]
    return [
        Text(NOTE.format(every=own.every, firm=own.firm, iou=own.same_face_iou)),
        key_table([result]),
        Text(TIME_NOTE.format(repeat=own.repeat)),
        time_table(found),
        *people,
    ]


def _counts(rows: Sequence[FaceClips]) -> tuple[str, ...]:
    names = ("pictures", "reported", "expected", "missed", "false")
    find_ms = sum(row.find_ms * row.pictures for row in rows) / sum(row.pictures for row in rows)
    reference_ms = sum(row.reference_ms * row.compared for row in rows) / sum(row.compared for row in rows)
    return (*(str(sum(getattr(row, name) for row in rows)) for name in names), f"{find_ms:.1f}", f"{reference_ms:.1f}")
