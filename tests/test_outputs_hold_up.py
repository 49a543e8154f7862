"""Live outputs whose other ends hang hold up neither the records nor the answers."""

from __future__ import annotations

import json
import socket
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest
from live_sources import PacedSource, SlowModel, threads_left
from lsl_consumer import CONFIG
from mosquitto import Mosquitto, needs_mosquitto, wait_for

from mma_edge.commands.outputs import followed
from mma_edge.live import LivePipeline
from mma_edge.outputs.mqtt import Broker, MqttPublisher
from mma_edge.outputs.prometheus import Metrics
from mma_edge.outputs.websocket import PATH, RecordsSocket
from mma_edge.pipeline import StreamOptions
from mma_edge.sinks import Follower, JsonlSink
from mma_edge.web.binding import Binding
from mma_edge.web.security import Access
from mma_edge.web.server import WebServer

pytestmark = pytest.mark.live
SECONDS, HOP_S = 6.0, 0.1


def run(path: Path, followers: list[Follower]) -> tuple[int, int, int]:
    """Windows that fell due, those replaced by newer ones, and records on the disk."""
    options = StreamOptions(window_s=1.0, hop_s=HOP_S, voice_gate=None, centre_fallback=True)
    options, group = followed(options, followers)
    with group, LivePipeline(SlowModel(0.01), {"one": PacedSource(seconds=SECONDS)}, options) as live:
        group.begin(live)
        with JsonlSink(path, SlowModel.labels) as records:
            for emotion in live:
                records.write(emotion)
                group.write(emotion)
        (source,) = live.sources
    return source.windows, source.replaced, len(path.read_text().splitlines())


@needs_mosquitto
def test_a_frozen_broker_a_viewer_that_never_reads_and_a_lab_without_listeners_hold_up_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lsl_api.cfg").write_text(CONFIG)
    monkeypatch.setenv("LSLAPICFG", str(tmp_path / "lsl_api.cfg"))
    pytest.importorskip("pylsl", reason="pylsl is not installed")
    from mma_edge.outputs.lsl import LslStreams

    alone = run(tmp_path / "alone.jsonl", [])
    with ExitStack() as stack:
        broker = stack.enter_context(Mosquitto(tmp_path)).start()
        mqtt, web = MqttPublisher(Broker.of(f"mqtt://127.0.0.1:{broker.port}"), qos=1), RecordsSocket()
        metrics = Metrics([mqtt])
        server = WebServer(Access(Binding(port=0)), web.set_up)
        stack.callback(server.close)
        viewer = stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
        viewer.sendall(
            f"GET {PATH} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
        )
        wait_for(lambda: web.clients == 1)
        over = threading.Event()

        def freeze_and_ask() -> None:
            wait_for(lambda: mqtt.sent > 5)
            broker.freeze()
            while not over.wait(0.05):
                metrics.text()

        asker = threading.Thread(target=freeze_and_ask)
        asker.start()
        together = run(tmp_path / "together.jsonl", [mqtt, web, metrics, LslStreams("test hold up")])
        over.set()
        asker.join()
        assert mqtt.sent < 60  # the broker was frozen, indeed
    for windows, replaced, records in (alone, together):
        assert records == windows - replaced
    records = [json.loads(line) for line in (tmp_path / "together.jsonl").read_text().splitlines()]
    ends_s = [each["end_s"] for each in records]
    assert ends_s == sorted(ends_s) and ends_s[-1] > SECONDS - 2 * HOP_S
    # As many answers as without, less what a busy machine leaves out in either run.
    assert together[2] >= 0.8 * alone[2] > 0.4 * SECONDS / HOP_S
    assert threads_left() == []
