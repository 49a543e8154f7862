"""What of a corpus is done already, and what has to be done."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from mma_edge.batch.corpus import Corpus
from mma_edge.batch.files import digest_of
from mma_edge.batch.folder import BatchFolder, Done, Failed, failed_of, unseen
from mma_edge.batch.tasks import Failure, Task
from mma_edge.errors import SourceError
from mma_edge.sources.file import checked_path


@dataclass
class Plan:
    """Every file of a corpus is in one of them, but `failed` and `todo` may share those that are tried again."""

    todo: list[Task] = field(default_factory=list)  # the largest first, so that no core waits at the end for a long one
    done: list[str] = field(default_factory=list)
    moved: list[tuple[Done, Task]] = field(default_factory=list)  # done under another name, or at another time
    duplicates: dict[str, str] = field(default_factory=dict)  # name -> the file with the same content that counts
    failed: list[Failed] = field(default_factory=list)  # and not to be tried again


def make_plan(
    corpus: Corpus, folder: BatchFolder, retry_failed: bool = False, advance: Callable[[], None] = lambda: None
) -> Plan:
    """Compare a corpus with what is in the folder; `advance` is called for each file.

    A file of the same name, size and time as before is the same. The content of others is read where it may be known:
    where another file of the corpus, or one that is done, has the same size.
    """
    plan, tasks = Plan(), []
    for name, path in corpus.files.items():
        try:
            checked_path(path)
            stat = path.stat()
        except SourceError as error:
            plan.failed.append(unseen(name, path, error))
        except OSError as error:  # gone since
            plan.failed.append(unseen(name, path, SourceError(f"{path} cannot be read ({error.strerror})")))
        else:
            tasks.append(Task(name, str(path), stat.st_size, stat.st_mtime_ns))
    for place, why in corpus.unreadable.items():
        error = SourceError(f"the folder {place} cannot be read ({why})", hint="nothing in it was recognised")
        plan.failed.append(unseen(place, Path(place), error))
    known = folder.done
    by_path = {entry.path: entry for entry in known.values()}
    unknown = []
    for task in tasks:
        own, namesake = by_path.get(task.path), known.get(task.name)
        if _same(task, own) or _same(task, namesake):
            plan.done.append((own if _same(task, own) else namesake).file)
        elif namesake is not None and namesake.path != task.path and _still_there(namesake):
            unknown.append(dataclasses.replace(task, name=_free_name(task.name, {*known, *corpus.files})))
        else:
            unknown.append(task)
    _sort_out(plan, unknown, known, advance)
    if not retry_failed:
        plan.failed += [folder.failed[task.name] for task in plan.todo if _same(task, folder.failed.get(task.name))]
        again = {entry.file for entry in plan.failed}
        plan.todo = [task for task in plan.todo if task.name not in again]
    plan.todo.sort(key=lambda task: (-task.size, task.name))
    return plan


def _sort_out(plan: Plan, tasks: list[Task], known: dict[str, Done], advance: Callable[[], None]) -> None:
    """Find those whose content is that of a file that is done, or of another one."""
    sizes = Counter(task.size for task in tasks) + Counter(entry.size for entry in known.values())
    by_digest = {entry.digest: entry for entry in known.values()}
    unchanged, seen = set(plan.done), {}
    for task in tasks:
        advance()
        if sizes[task.size] == 1:
            plan.todo.append(task)
            continue
        try:
            digest = digest_of(task.path)
        except SourceError as error:
            plan.failed.append(failed_of(task, Failure.of(error)))
            continue
        entry = by_digest.get(digest)
        if digest in seen:
            plan.duplicates[task.name] = seen[digest]
            continue
        seen[digest] = task.name
        if entry is None:
            plan.todo.append(task)
        elif entry.file in unchanged or (entry.path != task.path and _still_there(entry)):
            plan.duplicates[task.name] = entry.file
        elif entry.file == task.name or task.name not in known:
            plan.moved.append((entry, task))
        else:  # the records of another content have its name: files were swapped
            plan.todo.append(task)


def _same(task: Task, entry: Done | Failed | None) -> bool:
    return entry is not None and (entry.size, entry.mtime_ns) == (task.size, task.mtime_ns)


def _still_there(entry: Done) -> bool:
    try:
        stat = Path(entry.path).stat()
    except OSError:
        return False
    return (stat.st_size, stat.st_mtime_ns) == (entry.size, entry.mtime_ns)


def _free_name(name: str, taken: set[str]) -> str:
    """For a file whose name has the records of another one, which is still there."""
    return next(free for number in count(2) if (free := f"{name}~{number}") not in taken)
