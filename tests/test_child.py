"""The one protocol between a process and its children: answers and errors arrive, whatever else happens."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

import pytest
from conftest import run_python

from mma_edge.child import Child, ChildDiedError, ChildTimeoutError
from mma_edge.errors import BackendError

pytestmark = pytest.mark.wall_clock

PRELUDE = "import os, sys, time\nfrom mma_edge.child import orders, serve\nfrom mma_edge.errors import BackendError\n"


def program(tmp_path: Path, work: str) -> Path:
    """A child's program whose work is these lines, which see `request` and `tell`."""
    body = "".join(f"    {line}\n" for line in work.splitlines())
    path = tmp_path / "program.py"
    path.write_text(f"{PRELUDE}def work(request, tell):\n{body}sys.exit(serve(work))\n")
    return path


def child(tmp_path: Path, work: str, request: dict | None = None, **environment: str | None) -> Child:
    """A running child with such a program."""
    return Child((str(program(tmp_path, work)),), request or {}, environment)


def test_messages_arrive_in_order_and_what_libraries_print_is_not_among_them(tmp_path: Path) -> None:
    said = []
    work = "print('noise')\nos.write(1, b'noise')\ntell({'step': request['n']})\nreturn {'sum': request['n'] + 1}"
    with child(tmp_path, work, {"n": 1}) as running:
        assert running.result(said.append) == {"sum": 2}
    assert said == [{"step": 1}]


def test_orders_are_answered_until_the_parent_closes(tmp_path: Path) -> None:
    work = "tell({'ready': os.getpid()})\nfor order in orders():\n    tell({'square': order['n'] ** 2})"
    with child(tmp_path, work) as running:
        assert running.message()["ready"] == running.pid
        assert [running.ask({"n": n})["square"] for n in (2, 3)] == [4, 9]
    running.close()  # twice is fine


def test_an_error_of_ours_arrives_as_it_was_raised(tmp_path: Path) -> None:
    running = child(tmp_path, "raise BackendError('no room', 'room', 'make some')")
    with running, pytest.raises(BackendError, match="no room; expected room; make some") as caught:
        running.result()
    assert (caught.value.what, caught.value.expected, caught.value.hint) == ("no room", "room", "make some")


@pytest.mark.parametrize(
    ("work", "status", "said"),
    [
        ("raise ValueError('odd')", 1, "exit code 1 (ValueError: odd)"),
        ("os._exit(3)", 3, "exit code 3 (no message)"),
        ("os.kill(os.getpid(), 9)", -signal.SIGKILL, "ended by SIGKILL, most likely for want of memory"),
    ],
)
def test_a_child_that_ends_without_an_answer_says_how(tmp_path: Path, work: str, status: int, said: str) -> None:
    with child(tmp_path, work) as running:
        for _ in range(2):  # asked again it says the same
            with pytest.raises(ChildDiedError) as caught:
                running.ask({"n": 1})
            assert caught.value.status == status and said in str(caught.value)


def test_a_child_that_hangs_is_killed(tmp_path: Path) -> None:
    with (
        child(tmp_path, "time.sleep(600)") as running,
        pytest.raises(ChildTimeoutError, match="no answer within 1 s"),
    ):
        running.message(timeout_s=1)


def test_variables_are_set_and_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    with child(tmp_path, "return [os.environ.get('RANK'), os.environ['ONE']]", RANK=None, ONE="1") as running:
        assert running.result() == [None, "1"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("work", ["time.sleep(600)", "sum(1 for n in iter(int, 1))", "list(orders())"])
def test_no_child_outlives_a_parent_that_is_killed(tmp_path: Path, work: str) -> None:
    """Also one that computes and reads no orders."""
    path = program(tmp_path, f"tell({{}})\n{work}")
    parent = f"""
import os, sys
from mma_edge.child import Child
running = Child((sys.argv[1],), {{}})
running.message()
print(running.pid, flush=True)
os.kill(os.getpid(), {int(signal.SIGKILL)})
"""
    done = run_python("-c", parent, path)
    assert done.returncode == -signal.SIGKILL, done.stderr
    left, deadline_s = Path(f"/proc/{int(done.stdout)}"), time.monotonic() + 5.0
    # An ended process that its new parent has not reaped yet is no orphan that works.
    while left.exists() and "(zombie)" not in (left / "status").read_text():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def test_a_child_that_ended_leaves_no_zombie(tmp_path: Path) -> None:
    with child(tmp_path, "os.kill(os.getpid(), 9)") as running, pytest.raises(ChildDiedError):
        running.result()
    assert not Path(f"/proc/{running.pid}").exists()
