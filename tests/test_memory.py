"""Promises of flat memory: threads share heaps, and what a gone visitor leaves is freed while the run goes on."""

from __future__ import annotations

import gc
import platform
import time
from collections import Counter
from pathlib import Path

import pytest
from conftest import run_python
from dashboard_viewer import FACES, Viewer, dashboard, emotion, frame, view

from mma_edge.cli import main
from mma_edge.errors import DeviceError
from mma_edge.service import swept

VISITS = 20
HEAPS = """
import ctypes, re, sys, threading
from pathlib import Path
from mma_edge.service import share_heaps

c = ctypes.CDLL(None)
c.malloc.restype, c.fopen.restype = ctypes.c_void_p, ctypes.c_void_p
c.malloc_info.argtypes, c.fclose.argtypes = (ctypes.c_int, ctypes.c_void_p), (ctypes.c_void_p,)
share_heaps()
meet = threading.Barrier(8)

def work():
    meet.wait()
    c.malloc(1000)
    meet.wait()

threads = [threading.Thread(target=work) for _ in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
file = c.fopen(sys.argv[1].encode(), b"w")
c.malloc_info(0, file)
c.fclose(file)
print(len(re.findall("<heap nr=", Path(sys.argv[1]).read_text())))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="heaps as glibc has them")
def test_threads_share_two_heaps_unless_the_user_wants_others(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.delenv("MALLOC_ARENA_MAX", raising=False)
    done = run_python("-c", HEAPS, tmp_path / "heaps")
    assert int(done.stdout) <= 2, done.stderr
    monkeypatch.setenv("MALLOC_ARENA_MAX", "5")
    assert int(run_python("-c", HEAPS, tmp_path / "heaps").stdout) == 5


@pytest.mark.parametrize(("source", "shared"), [("sample", []), ("camera", ["heaps"])])
def test_a_live_run_shares_heaps_before_its_model_is_opened(
    source: str, shared: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []

    def opened(args: object, options: object) -> None:
        told.append("model")
        raise DeviceError("far enough")

    monkeypatch.setattr("mma_edge.service.share_heaps", lambda: told.append("heaps"))
    monkeypatch.setattr("mma_edge.commands.run.open_recognizer", opened)
    assert main(["run", source]) == DeviceError.exit_code
    assert told == [*shared, "model"]


def test_what_gone_viewers_leave_is_freed_while_the_run_goes_on(tmp_path: Path) -> None:
    async def look(viewer: Viewer) -> None:
        await viewer.take()

    async def leave(viewer: Viewer) -> None:
        await viewer.take()
        viewer.socket._response.connection.transport.abort()

    with dashboard(tmp_path, []) as page, swept(0.1):
        page.frame("cam", frame(0.0), FACES)
        page.write(emotion(4.0))
        gc.disable()  # by itself the collector comes at some time
        try:
            for _ in range(VISITS // 2):
                view(page, look, leave)
            until_s = time.monotonic() + 10
            while (left := connections()) and time.monotonic() < until_s:
                time.sleep(0.1)
        finally:
            gc.enable()
    assert left == Counter()


def connections() -> Counter[str]:
    """Server's sides of connections that are in memory, open or not."""
    names = Counter(type(each).__name__ for each in gc.get_objects())
    return Counter({name: names[name] for name in ("RequestHandler", "WebSocketResponse") if names[name]})
