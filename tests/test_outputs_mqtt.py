"""MQTT with a real broker: states, events, discovery, passwords, TLS; one that is away, dies, hangs, comes back."""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from conftest import failure_line, one_line
from mosquitto import Listener, Mosquitto, free_port, needs_mosquitto, wait_for

from mma_edge.cli import main
from mma_edge.errors import UsageError
from mma_edge.outputs import mqtt, states
from mma_edge.outputs.mqtt import Broker, MqttPublisher
from mma_edge.outputs.states import NOBODY, Places
from mma_edge.pipeline import StreamOptions
from mma_edge.sources.network.reader import Backoff
from mma_edge.types import Emotion

pytestmark = pytest.mark.wall_clock

live = pytest.mark.live
LABELS = ("happy", "sad")


def answer(start_s: float, track: int | None = 1, source: str = "camera:0", first: float = 0.9) -> Emotion:
    box = None if track is None else (0, 0, 9, 9)
    odds = np.array([first, 1 - first])
    return Emotion(start_s, start_s + 4.0, track, box, ("video",), LABELS, odds, 12.0, source=source)


class Running:
    """What a publisher sees of a run."""

    labels = LABELS

    def __init__(self, said: list[str], *names: str) -> None:
        self.names, self.options = names or ("camera:0",), StreamOptions(notify=said.append)


@contextmanager
def publishing(url: str, said: list[str], names: tuple[str, ...] = (), **options: object) -> Iterator[MqttPublisher]:
    threads, files = set(threading.enumerate()), len(os.listdir("/proc/self/fd"))
    broker = Broker.of(url, {"SECRET": "hush hush"})
    with MqttPublisher(broker, backoff=Backoff(0.05, 0.1), **options) as publisher:
        publisher.begin(Running(said, *names))
        yield publisher
    # What earlier tests had left may be gone by now.
    assert set(threading.enumerate()) <= threads and len(os.listdir("/proc/self/fd")) <= files
    assert "hush" not in " ".join(said)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path) as process:
        yield process


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("broker.local", "without mqtt"),
        ("http://host", "not understood"),
        ("mqtt:/host", "without mqtt"),
        ("mqtt://", "names no host"),
        ("mqtt://me:hush@host:port", "cannot be read"),
        ("mqtt://host/a+b", "no place"),
        ("mqtt://host/a//b", "no place"),
        ("mqtt://host/a?b", "no place"),
        ("mqtt://me:${NOT_SET}@host", "NOT_SET"),
    ],
)
def test_what_is_no_broker_is_one_line_before_any_work(text: str, part: str, capsys: pytest.CaptureFixture) -> None:
    assert main(["run", "sample", "--mqtt", text, "--bundle", "none"]) == 2
    error = capsys.readouterr().err
    assert part in error and "hush" not in error and error.count("\n") == 1


def test_a_broker_takes_its_password_from_a_variable_and_shows_it_nowhere() -> None:
    broker = Broker.of("mqtts://me:${SECRET}@host/a/b", {"SECRET": "hush@/ü"})
    assert (broker.user, broker.password, broker.prefix, broker.address.port) == ("me", "hush@/ü", "a/b", 8883)
    assert "hush" not in repr(broker) and broker.address.shown == "mqtts://me:${SECRET}@host/a/b"
    assert Broker.of("mqtt://host").prefix == "mma-edge"


def test_a_face_keeps_its_place_and_the_next_one_takes_the_first_that_is_free() -> None:
    places = Places(places=2, stale_s=2.0)
    assert [places.of(answer(0, track)) for track in (7, 8, 7, None)] == ["face_1", "face_2", "face_1", "voice"]
    assert places.of(answer(1, 9)) is None  # both are taken
    assert places.of(answer(2, 8)) == "face_2"
    assert places.of(answer(3, 9)) == "face_1"  # 7 has left
    assert places.of(answer(3, 8)) == "face_2"
    assert places.of(answer(-500, 10)) == "face_1"  # the source was opened again and begins anew
    assert {places.of(answer(3 * track, track)) for track in range(100, 1100)} == {"face_1"}  # weeks of visitors


def test_where_nobody_listens_losses_are_said_in_steps_and_the_end_is_quick() -> None:
    said: list[str] = []
    with publishing(f"mqtt://127.0.0.1:{free_port()}", said) as publisher:
        for number in range(256 + 150):
            publisher.write(answer(number))
        wait_for(lambda: any("cannot be reached" in line for line in said))
        start_s = time.monotonic()
    assert time.monotonic() - start_s < 1
    losses = [line for line in said if "left out" in line]
    assert [line.split(": ")[2].split()[0] for line in losses[:-1]] == ["1", "10", "100"]
    assert losses[-1] == "--mqtt: 0 sent, 406 messages were left out"
    assert len(said) == 5


@live
@needs_mosquitto
def test_the_broker_keeps_the_newest_of_each_place_and_hears_every_record(broker: Mosquitto) -> None:
    said: list[str] = []
    with Listener(broker.start().port) as listener:
        with publishing(f"mqtt://127.0.0.1:{broker.port}/home", said, ("camera:0", "camera/0")) as publisher:
            for number in range(10):
                publisher.write(answer(number, 5))
                publisher.write(answer(number, 6, first=0.2))
                publisher.write(answer(number, None, "camera/0"))
            wait_for(lambda: sum(topic.endswith("/records") for topic, _ in listener.heard) == 30)
            wait_for(lambda: json.loads(listener.kept().get("home/camera_0/face_2", "{}")).get("label") == "sad")
            kept = listener.kept()
            assert kept["home/status"] == "online"
            state = json.loads(kept["home/camera_0/face_1"])
            assert (state["label"], state["confidence"], state["track_id"]) == ("happy", 0.9, 5)
            assert json.loads(kept["home/camera_0_2/voice"])["label"] == "happy"
            assert json.loads(kept["home/camera_0_2/face_1"]) == {"label": None, "confidence": None}
            records = [json.loads(text) for topic, text in listener.heard if topic == "home/camera_0/records"]
            assert [each["start_s"] for each in records] == [n for n in range(10) for _ in range(2)]
            # Few states, whatever the rate of the answers: the label never changed.
            assert sum(topic == "home/camera_0/face_1" for topic, _ in listener.heard) <= 3
        wait_for(lambda: listener.kept()["home/status"] == "offline")
    assert said == [f"--mqtt: publishes to mqtt://127.0.0.1:{broker.port}/home"]
    with Listener(broker.port) as later:  # what the broker has kept
        expected = {
            "home/status",
            *(f"home/camera_0/{place}" for place in ("face_1", "face_2", "voice")),
            *(f"home/camera_0_2/{place}" for place in ("face_1", "voice")),
        }
        wait_for(lambda: {topic for topic, _ in later.heard if topic.startswith("home/")} == expected)


@live
@needs_mosquitto
def test_a_face_that_left_is_nobody_and_a_new_one_takes_its_place(
    broker: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(states, "EVERY_S", 0.2)
    monkeypatch.setattr(states, "HEARTBEAT_S", 0.5)
    said: list[str] = []
    topic = "mma-edge/camera_0/face_1"

    def label(listener: Listener) -> str | None:
        return json.loads(listener.kept().get(topic, '{"label": ""}'))["label"]

    url = f"mqtt://127.0.0.1:{broker.start().port}"
    with Listener(broker.port) as listener, publishing(url, said) as publisher:
        publisher._states.stale_s = 0.3
        publisher.write(answer(0, 5))
        wait_for(lambda: label(listener) == "happy")
        wait_for(lambda: label(listener) is None)
        publisher.write(answer(10, 77, first=0.1))
        wait_for(lambda: label(listener) == "sad")
        wait_for(lambda: label(listener) is None)
        publisher.frame("camera:0", None, ())
        quiet = len(listener.heard)
        wait_for(lambda: (topic, NOBODY) in listener.heard[quiet:])


@live
@needs_mosquitto
def test_home_assistant_is_told_what_there_is_and_again_when_it_starts(broker: Mosquitto) -> None:
    config = "homeassistant/sensor/mma-edge_camera_0/{}/config"
    with Listener(broker.start().port) as listener, publishing(f"mqtt://127.0.0.1:{broker.port}", []) as publisher:
        wait_for(lambda: config.format("voice_confidence") in listener.kept())
        emotion = json.loads(listener.kept()[config.format("face_1_emotion")])
        assert emotion["device_class"] == "enum" and emotion["options"] == ["happy", "sad", "uncertain"]
        # Home Assistant refuses an enum with either of these.
        assert not {"state_class", "unit_of_measurement"} & set(emotion)
        assert emotion["state_topic"] == "mma-edge/camera_0/face_1" and emotion["expire_after"] > 60
        assert emotion["availability_topic"] == "mma-edge/status"
        assert emotion["device"]["identifiers"] == ["mma-edge_camera_0"] and emotion["origin"]["name"]
        confidence = json.loads(listener.kept()[config.format("face_1_confidence")])
        assert confidence["unit_of_measurement"] == "%" and "device_class" not in confidence
        assert not any("face_2" in topic for topic, _ in listener.heard)
        publisher.write(answer(0, 1))
        publisher.write(answer(0, 2))
        wait_for(lambda: config.format("face_2_confidence") in listener.kept())
        uniques = [json.loads(text)["unique_id"] for topic, text in listener.heard if topic.endswith("/config")]
        assert len(uniques) == len(set(uniques)) == 6
        before = len(listener.heard)
        listener.client.publish("homeassistant/status", "online")
        wait_for(lambda: sum(topic.endswith("/config") for topic, _ in listener.heard[before:]) == 6)


def test_home_assistants_templates_say_none_for_nobody() -> None:
    jinja = pytest.importorskip("jinja2", reason="jinja2 is not installed")
    from mma_edge.outputs.homeassistant import entities

    (_, emotion), (_, confidence) = entities("homeassistant", "home", "cam", "cam", "face_1", LABELS)

    def shown(entity: dict, state: dict) -> str:
        return jinja.Environment().from_string(entity["value_template"]).render(value_json=state)

    nobody, somebody = json.loads(NOBODY), {"label": "sad", "confidence": 0.8426}
    assert (shown(emotion, nobody), shown(confidence, nobody)) == ("None", "None")
    assert (shown(emotion, somebody), shown(confidence, somebody)) == ("sad", "84.0")


@live
@needs_mosquitto
def test_discovery_can_be_turned_off(broker: Mosquitto) -> None:
    with Listener(broker.start().port) as listener:
        with publishing(f"mqtt://127.0.0.1:{broker.port}", [], discovery=None) as publisher:
            publisher.write(answer(0))
            wait_for(lambda: "mma-edge/camera_0/records" in listener.kept())
        assert not any(topic.startswith("homeassistant") for topic, _ in listener.heard)


@live
@needs_mosquitto
def test_a_password_is_shown_to_the_broker_alone_and_a_wrong_one_is_said_once(tmp_path: Path) -> None:
    with Mosquitto(tmp_path, password="hush hush") as broker:
        broker.start()
        said: list[str] = []
        with publishing(f"mqtt://me:wrong@127.0.0.1:{broker.port}", said):
            wait_for(lambda: bool(said))
            time.sleep(0.5)
        assert len(said) == 1 and "Not authorized" in said[0] and "wrong" not in said[0]
        said.clear()
        with publishing(f"mqtt://me:${{SECRET}}@127.0.0.1:{broker.port}", said) as publisher:
            wait_for(lambda: publisher.sent > 0)
        assert said == [f"--mqtt: publishes to mqtt://me:${{SECRET}}@127.0.0.1:{broker.port}"]


@live
@needs_mosquitto
def test_tls_is_checked_and_a_certificate_of_ones_own_can_be_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mma_edge.web.binding import Binding
    from mma_edge.web.certificate import made

    monkeypatch.setenv("MMA_EDGE_STATE", str(tmp_path))
    made(Binding())
    pem = tmp_path / "certificate.pem"  # with its key
    with Mosquitto(tmp_path, f"certfile {pem}", f"keyfile {pem}") as broker:
        broker.start()
        said: list[str] = []
        with publishing(f"mqtts://127.0.0.1:{broker.port}", said):
            wait_for(lambda: bool(said))
        assert "is not trusted" in said[0] and "SSL_CERT_FILE" in said[0]
        monkeypatch.setenv("SSL_CERT_FILE", str(pem))

        def trusting(client: object) -> None:
            client.tls_set_context(ssl.create_default_context(cafile=str(pem)))

        with Listener(broker.port, trusting) as listener, publishing(f"mqtts://127.0.0.1:{broker.port}", []) as own:
            own.write(answer(0))
            wait_for(lambda: "mma-edge/camera_0/records" in listener.kept())


@live
@needs_mosquitto
def test_a_broker_that_comes_late_dies_and_comes_back_has_the_right_states(broker: Mosquitto) -> None:
    said: list[str] = []
    url = f"mqtt://127.0.0.1:{broker.port}"
    with publishing(url, said) as publisher:
        wait_for(lambda: bool(said))
        assert "cannot be reached" in said[0] and "refused" in said[0] and len(said) == 1
        for number in range(400):
            publisher.write(answer(number))
        assert publisher.backlog.dropped == 400 - 256
        broker.start()
        wait_for(lambda: "is back after" in said[-1])
        with Listener(broker.port) as listener:
            wait_for(lambda: "mma-edge/status" in listener.kept())
        broker.kill()
        wait_for(lambda: "was lost" in said[-1] or "cannot be reached" in said[-1])
        publisher.write(answer(500, first=0.2))  # nobody hears that
        broker.start()
        with Listener(broker.port) as listener:
            wait_for(lambda: listener.kept().get("mma-edge/status") == "online")
            wait_for(lambda: json.loads(listener.kept().get("mma-edge/camera_0/face_1", "{}")).get("label") == "sad")
            publisher.write(answer(501))
            wait_for(lambda: any('"start_s": 501' in text for _, text in listener.heard))
    assert any("1 message was left out so far" in line for line in said)
    assert said[-1].startswith("--mqtt: ") and "144 messages were left out" in said[-1]


@live
@needs_mosquitto
@pytest.mark.parametrize("qos", [0, 1])
def test_a_frozen_broker_holds_nothing_up_and_what_waits_is_bounded(
    broker: Mosquitto, qos: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mqtt, "KEEPALIVE_S", 1)
    said: list[str] = []
    with publishing(f"mqtt://127.0.0.1:{broker.start().port}", said, qos=qos) as publisher:
        wait_for(lambda: publisher.sent > 3)
        broker.freeze()
        start_s = time.monotonic()
        for number in range(20_000):
            publisher.write(answer(number))
        assert time.monotonic() - start_s < 10
        assert len(publisher.backlog) <= 256 and len(publisher._client._out_packet) < 50
        assert len(publisher._client._out_messages) <= mqtt.IN_FLIGHT
        wait_for(lambda: any("was lost" in line for line in said))
        broker.thaw()
        wait_for(lambda: "is back" in said[-1])
        with Listener(broker.port) as listener:
            publisher.write(answer(30_000))
            wait_for(lambda: any('"start_s": 30000' in text for _, text in listener.heard))
        broker.freeze()
        start_s = time.monotonic()
    assert time.monotonic() - start_s < 3  # the end does not wait for it either


@live
@needs_mosquitto
def test_the_broker_says_offline_of_a_run_that_was_killed(broker: Mosquitto) -> None:
    broker.start()
    program = f"""
import sys, time
sys.path[:] = {sys.path!r}
from test_outputs_mqtt import Broker, MqttPublisher, Running
publisher = MqttPublisher(Broker.of("mqtt://127.0.0.1:{broker.port}"))
publisher.begin(Running([]))
time.sleep(60)
"""
    with Listener(broker.port) as listener:
        child = subprocess.Popen([sys.executable, "-c", program])
        wait_for(lambda: listener.kept().get("mma-edge/status") == "online", 30)
        child.send_signal(signal.SIGKILL)
        child.wait()
        wait_for(lambda: listener.kept()["mma-edge/status"] == "offline")


@live
@needs_mosquitto
def test_the_late_last_will_of_an_earlier_run_does_not_make_this_one_offline(broker: Mosquitto) -> None:
    with Listener(broker.start().port) as listener:
        with publishing(f"mqtt://127.0.0.1:{broker.port}", []):
            wait_for(lambda: listener.kept().get("mma-edge/status") == "online")
            listener.client.publish("mma-edge/status", "offline", 1, True)
            wait_for(
                lambda: [t for topic, t in listener.heard if topic.endswith("/status")][-2:] == ["offline", "online"]
            )
        wait_for(lambda: listener.kept()["mma-edge/status"] == "offline")


@live
@needs_mosquitto
def test_a_hundred_reconnects_leave_no_thread_and_no_descriptor(broker: Mosquitto) -> None:
    said: list[str] = []
    with publishing(f"mqtt://127.0.0.1:{broker.start().port}", said) as publisher:
        wait_for(lambda: publisher.sent > 3)
        files = len(os.listdir("/proc/self/fd"))
        for number in range(100):
            publisher._client.socket().shutdown(2)
            wait_for(lambda number=number: publisher.connections == number + 2)
            publisher.write(answer(number))
        wait_for(lambda: len(os.listdir("/proc/self/fd")) == files)
        assert len(publisher._client._out_messages) <= mqtt.IN_FLIGHT
    assert len(said) <= 12  # they do not fill the log


def test_a_broker_that_is_none_is_a_usage_error_with_advice() -> None:
    with pytest.raises(UsageError, match="--mqtt-discovery"):
        MqttPublisher(Broker.of("mqtt://host"), discovery="a/#")
    for text in ("host", "mqtt://host/#", "ftp://host"):
        with pytest.raises(UsageError) as caught:
            Broker.of(text)
        one_line(caught.value)


def test_without_the_package_there_is_one_line(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "mma_edge.outputs.mqtt")
    monkeypatch.setitem(sys.modules, "paho.mqtt.client", None)
    assert main(["run", "sample", "--mqtt", "mqtt://host"]) == 11
    assert 'pip install "mma-edge[mqtt]"' in failure_line(capsys)
