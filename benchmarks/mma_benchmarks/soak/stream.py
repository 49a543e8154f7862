"""What a soak's run sees: GStreamer's RTSP server with the sample clip, behind a link that can be cut."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from contextlib import AbstractContextManager
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from mma_edge.child import Program
from mma_edge.errors import DependencyError
from mma_edge.sources import sample_path
from mma_edge.sources.file import FileSource
from mma_edge.types import Frame

PYTHON, SCRIPT = "/usr/bin/python3", Path(__file__).with_name("gst_rtsp_server.py")
"""The system's own: GStreamer's bindings are in no virtual environment."""
_INSTALL = (
    "sudo apt-get install gir1.2-gst-rtsp-server-1.0 python3-gi gstreamer1.0-plugins-good gstreamer1.0-plugins-bad"
)
_START_S = 20.0
FPS = 25


def write_clip(path: Path, side_px: int) -> None:
    """The sample clip as an MPEG transport stream with square pictures of this side, its sound as AAC."""
    with FileSource(sample_path()) as source, av.open(str(path), "w", format="mpegts") as container:
        video = container.add_stream("libx264", rate=FPS, options={"preset": "veryfast", "g": str(FPS), "bf": "0"})
        video.width = video.height = side_px
        video.pix_fmt = "yuv420p"
        audio, heard = None, 0
        for event in source.events():
            if isinstance(event, Frame):
                image = cv2.resize(event.image, (side_px, side_px), interpolation=cv2.INTER_AREA)
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
                frame.pts, frame.time_base = round(event.time_s * 90000), Fraction(1, 90000)
                container.mux(video.encode(frame))
                continue
            rate_hz = event.sample_rate_hz
            audio = audio or container.add_stream("aac", rate=rate_hz, layout="mono")
            block = av.AudioFrame.from_ndarray(np.ascontiguousarray(event.samples[:1]), format="fltp", layout="mono")
            block.sample_rate, block.pts, block.time_base = rate_hz, heard, Fraction(1, rate_hz)
            heard += event.samples.shape[1]
            container.mux(audio.encode(block))
        for stream in filter(None, (video, audio)):
            container.mux(stream.encode(None))


class Server(AbstractContextManager):
    """A running server; rtsp://127.0.0.1:PORT/clip loops the clip at its own pace."""

    def __init__(self, clip: Path) -> None:
        """DependencyError where it does not start."""
        self._program = Program(lambda pipe: [PYTHON, str(SCRIPT), str(clip)])
        deadline_s = time.monotonic() + _START_S
        while not (ports := [line for line in self._program.last_words() if line.isdigit()]):
            # It holds the pipe, and writes nothing into it: the end of the data is its end.
            ended = self._program.read_into(memoryview(bytearray(1)), 0.05) == 0
            if ended or time.monotonic() > deadline_s:
                why = " ".join(self._program.last_words()[-1:])[:200] or "no message"
                self._program.close()
                raise DependencyError(f"GStreamer's RTSP server does not start ({why})", hint=_INSTALL)
        self.port = int(ports[0])

    def __exit__(self, *exc_info: object) -> None:
        self._program.close()


class Link(AbstractContextManager):
    """A port of this machine that leads to a server, as long as nobody cuts it."""

    def __init__(self, target: int) -> None:
        self.target = target  # port of the server
        self.up = True  # False: who connects is sent away
        self.flows = threading.Event()  # cleared: everything stays connected, and nothing comes through
        self.flows.set()
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, name="link", daemon=True).start()

    def cut(self) -> None:
        """End all connections, as a cable that is pulled out and put in again."""
        connected, self._sockets = self._sockets, []
        for each in connected:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    server = socket.create_connection(("127.0.0.1", self.target)) if self.up else None
                except OSError:
                    server = None
                if server is None:
                    client.close()
                    continue
                self._sockets += [client, server]
                for one, other in ((client, server), (server, client)):
                    threading.Thread(target=self._pump, args=(one, other), name="link", daemon=True).start()

    def _pump(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(65536):
                self.flows.wait()
                other.sendall(data)
        for each in (one, other):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def __exit__(self, *exc_info: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.flows.set()
        self.cut()
