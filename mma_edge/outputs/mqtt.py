"""Answers over MQTT: the newest of each face kept by the broker, each record as an event, Home Assistant's discovery.

PREFIX/status            online or offline (kept; the broker says offline when the run is killed)
PREFIX/SOURCE/face_1     the newest answer of the face at place 1, "label": null for nobody (kept); face_2, ..., voice
PREFIX/SOURCE/records    each record
"""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import select
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from os import environ
from typing import Any
from urllib.parse import unquote, urlsplit

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from mma_edge.errors import UsageError
from mma_edge.outputs.follower import CLOSE_S, QueuedFollower
from mma_edge.outputs.homeassistant import BIRTH, OFFLINE, ONLINE, entities
from mma_edge.outputs.places import STALE_S, VOICE, Places, place_name
from mma_edge.sources.network.address import Address
from mma_edge.sources.network.reader import Backoff
from mma_edge.types import AudioChunk, Emotion, Frame

PORTS = {"mqtt": 1883, "mqtts": 8883}
PREFIX = "mma-edge"
EVERY_S = 5.0
"""Least time between two states of a place with the same label: Home Assistant keeps every change for days."""
HEARTBEAT_S = 30.0
"""A state that does not change is repeated, as long as the source delivers."""
CONNECT_S, KEEPALIVE_S = 5, 15
"""Longest time for a broker to answer; a dead connection is seen after up to twice the second."""
IN_FLIGHT = 20
"""Records that the broker has not confirmed yet, with QoS 1."""
_TICK_S = 0.5
_EXPECTED = "an address such as 'mqtt://user:${MQTT_PASSWORD}@192.168.1.2/mma-edge'"
_NO_TOPIC = re.compile(r"[^A-Za-z0-9_-]+")


@dataclass(frozen=True)
class Broker:
    """Where to publish. No `repr` shows the password."""

    address: Address
    prefix: str
    user: str | None = None
    password: str | None = field(default=None, repr=False)

    @classmethod
    def of(cls, text: str, environment: Mapping[str, str] = environ) -> Broker:
        """Read mqtt[s]://[USER:${VARIABLE}@]HOST[:PORT][/PREFIX]; UsageError for others."""
        if "://" not in text:
            raise UsageError("--mqtt without mqtt:// or mqtts://", _EXPECTED)
        address = Address.of(text, environment, PORTS, _EXPECTED)
        parts = urlsplit(address.url)
        prefix = unquote(parts.path).strip("/") or PREFIX
        after_login = address.url.rpartition("@")[2]
        if set("?#") & set(after_login) or re.search(r"[+#\s\x00]|//|^\$", prefix):
            hint = "a prefix has no + # ? and no space"
            raise UsageError(f"{address.shown} is no place to publish", _EXPECTED, hint)
        user, password = (text and unquote(text) for text in (parts.username, parts.password))
        return cls(address, prefix, user, password)


@dataclass
class _State:
    """What the broker should keep under one topic, and what it has."""

    source: str
    place: str
    text: str = '{"label": null, "confidence": null}'
    label: str | None = None
    answered_s: float = float("-inf")
    sent: tuple[str, str | None] | None = None  # text and label; None: not since the connection was made
    sent_s: float = 0.0


class MqttPublisher(QueuedFollower[tuple[str, str]]):
    """Publishes as long as the broker takes it; connects again when it went away."""

    name = "--mqtt"

    def __init__(
        self, broker: Broker, qos: int = 0, discovery: str | None = "homeassistant", backoff: Backoff | None = None
    ) -> None:
        """`discovery`: the topic under which Home Assistant looks; None: it is not told."""
        super().__init__()
        self._broker, self._qos, self._discovery = broker, qos, discovery
        self._backoff = backoff or Backoff()
        self._status = f"{broker.prefix}/status"
        self._lock = threading.Lock()
        self._states: dict[str, _State] = {}  # by topic
        self._places: dict[str, Places] = {}
        self._seen_s: dict[str, float] = {}  # source -> when it delivered last
        self._announced: set[str] = set()  # topics of states that Home Assistant knows
        self._ids: dict[str, str] = {}
        self._labels: tuple[str, ...] = ()
        self._stale_s = STALE_S
        self._answer: Any = None  # the broker's to the newest attempt
        self._said = ""
        self._ear, self._mouth = socket.socketpair()
        for end in (self._ear, self._mouth):
            end.setblocking(False)
        self._client = self._new_client()

    def _new_client(self) -> paho.Client:
        name = f"mma-edge-{secrets.token_hex(6)}"  # two clients of one name would throw each other out
        client = paho.Client(CallbackAPIVersion.VERSION2, name, protocol=paho.MQTTv311)
        client.connect_timeout = CONNECT_S
        client.max_inflight_messages_set(IN_FLIGHT)
        client.max_queued_messages_set(IN_FLIGHT)
        client.username_pw_set(self._broker.user, self._broker.password)
        if self._broker.address.scheme == "mqtts":
            client.tls_set_context(ssl.create_default_context())
        client.will_set(self._status, OFFLINE, qos=1, retain=True)
        client.on_connect = self._connected
        client.on_message = self._birth
        return client

    def begin(self, running: Any) -> None:
        self._labels = running.labels
        self._stale_s = max(STALE_S, 3 * running.options.hop_s)
        for source in running.names:
            self._source_id(source)
            for place in (place_name(1), VOICE):
                self._state(source, place)
        super().begin(running)

    def frame(self, source: str, frame: Frame, faces: object) -> None:
        self._seen_s[source] = time.monotonic()

    def sound(self, source: str, chunk: AudioChunk) -> None:
        self._seen_s[source] = time.monotonic()

    def write(self, emotion: Emotion) -> None:
        source, now = emotion.source or "", datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        record = {"time": now, **emotion.to_dict()}
        place = self._places.setdefault(source, Places(stale_s=self._stale_s)).of(emotion)
        if place:
            text = json.dumps({**record, "place": place, "confidence": round(emotion.confidence, 4)})
            state = self._state(source, place)
            with self._lock:
                state.text, state.label, state.answered_s = text, emotion.label, time.monotonic()
        self.put((f"{self._broker.prefix}/{self._source_id(source)}/records", json.dumps(record)))

    def _source_id(self, source: str) -> str:
        """What stands for a source in topics and entities: letters, digits, _ and -; no two have the same."""
        with self._lock:
            if source not in self._ids:
                plain = base = _NO_TOPIC.sub("_", source).strip("_") or "source"
                while plain in self._ids.values():
                    plain = f"{base}_{len(self._ids) + 1}"
                self._ids[source] = plain
            return self._ids[source]

    def _state(self, source: str, place: str) -> _State:
        topic = f"{self._broker.prefix}/{self._source_id(source)}/{place}"
        with self._lock:
            return self._states.setdefault(topic, _State(source, place))

    def wake(self) -> None:
        with contextlib.suppress(OSError):  # full: it is awake; closed: it has ended
            self._mouth.send(b"\0")

    def run(self) -> None:
        lost_s: float | None = None
        try:
            while not self._closing.is_set():
                start_s, reached = time.monotonic(), False
                try:
                    self._connect()
                    reached = True
                    if lost_s is not None:
                        self.say(f"the broker is back after {time.monotonic() - lost_s:.0f} s")
                    elif not self._said:
                        self.say(f"publishes to {self._broker.address.shown}")
                    lost_s, self._said = None, "before"
                    self._exchange()
                except (OSError, ValueError) as error:
                    lost_s = lost_s or time.monotonic()
                    self._say_lost(error, reached)
                    self._cut()
                self._closing.wait(self._backoff.pause_s(time.monotonic() - start_s if reached else 0.0))
        finally:
            self._hang_up()
            self._ear.close()
            self._mouth.close()

    def _say_lost(self, error: Exception, reached: bool) -> None:
        """Once for each reason in a row."""
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        if isinstance(error, ssl.SSLCertVerificationError):
            hint = "for a broker's own certificate: export SSL_CERT_FILE=ca.pem"
            reason = f"its certificate is not trusted: {error.verify_message}; {hint}"
        what = "was lost" if reached else "cannot be reached"
        line = f"{self._broker.address.shown} {what} ({self._broker.address.hide(reason)})"
        if line != self._said:
            self._said = line
            self.say(f"{line}; it is tried again, the records go on")

    def _connect(self) -> None:
        """OSError where that fails."""
        self._answer = None
        address = self._broker.address
        self._client.connect(address.host, address.port, keepalive=KEEPALIVE_S)
        until_s = time.monotonic() + CONNECT_S
        while self._answer is None:
            if time.monotonic() > until_s or self._closing.is_set():
                raise TimeoutError("the broker does not answer")
            self._step()
        if self._answer.is_failure:
            raise ConnectionError(f"it refuses: {self._answer}")

    def _connected(self, client: object, userdata: object, flags: object, answer: Any, properties: object) -> None:
        self._answer = answer

    def _birth(self, client: object, userdata: object, message: Any) -> None:
        if message.payload == ONLINE.encode():
            self._announced.clear()

    def _step(self) -> None:
        """Read and write what can be, or wait for it; ConnectionError where the connection has ended."""
        connection = self._client.socket()
        if connection is None:
            raise ConnectionError("the connection has ended")
        # What TLS has decrypted already makes nothing readable.
        waiting = getattr(connection, "pending", lambda: 0)()
        wanted = [connection] if self._client.want_write() else []
        readable, writable, _ = select.select([connection, self._ear], wanted, [], 0 if waiting else _TICK_S)
        if self._ear in readable:
            self._ear.recv(4096)
        if connection in readable or waiting:
            self._client.loop_read()
        if connection in writable:
            self._client.loop_write()
        self._client.loop_misc()

    def _exchange(self) -> None:
        """Until the run ends; ConnectionError where the connection ends before."""
        if self._discovery:
            self._client.subscribe(f"{self._discovery}/{BIRTH}")
        self._announced.clear()
        with self._lock:
            for state in self._states.values():
                state.sent = None
        self._publish(self._status, ONLINE, 1, True)
        while not self._closing.is_set():
            self._publish_due()
            self._step()
        until_s = time.monotonic() + CLOSE_S / 2
        while time.monotonic() < until_s:
            if self._publish_due() and self._publish(self._status, OFFLINE, 1, True):
                break
            self._step()
        while self._client.want_write() and time.monotonic() < until_s:
            self._step()

    def _publish_due(self) -> bool:
        """Hand over what is due; False where the connection takes no more for now."""
        now_s = time.monotonic()
        with self._lock:
            states = list(self._states.items())
        for topic, state in states:
            if topic not in self._announced and not self._announce(topic, state):
                return False
            with self._lock:
                if state.label is not None and now_s - state.answered_s > self._stale_s:
                    state.text, state.label = _State.text, None
                content = (state.text, state.label)
            if self._is_due(state, content, now_s):
                if not self._publish(topic, content[0], self._qos, True):
                    return False
                state.sent, state.sent_s = content, now_s
        while (item := self.take(0)) is not None:
            if not self._publish(*item, self._qos, False):
                self.put_back(item)
                return False
        return True

    def _is_due(self, state: _State, content: tuple[str, str | None], now_s: float) -> bool:
        if state.sent is None or state.sent[1] != content[1]:
            return True
        if state.sent[0] != content[0]:
            return now_s - state.sent_s >= EVERY_S
        delivers = now_s - self._seen_s.get(state.source, float("-inf")) < HEARTBEAT_S
        return delivers and now_s - state.sent_s >= HEARTBEAT_S

    def _announce(self, topic: str, state: _State) -> bool:
        """Tell Home Assistant of the place, once."""
        if self._discovery:
            source_id, prefix = self._source_id(state.source), self._broker.prefix
            for each, content in entities(self._discovery, prefix, state.source, source_id, state.place, self._labels):
                if not self._publish(each, json.dumps(content), 1, True):
                    return False
        self._announced.add(topic)
        return True

    def _publish(self, topic: str, text: str, qos: int, retain: bool) -> bool:
        """False where the connection takes no more for now: nothing waits in the library, which has no limit."""
        if self._client.want_write():
            return False
        result = self._client.publish(topic, text, qos, retain).rc
        if result == paho.MQTT_ERR_QUEUE_SIZE:
            return False
        if result != paho.MQTT_ERR_SUCCESS:
            raise ConnectionError(paho.error_string(result))
        self.sent += 1
        return True

    def _hang_up(self) -> None:
        """A clean goodbye, after which the broker does not say that the run has died."""
        with contextlib.suppress(OSError, ValueError):
            if self._client.socket() is not None:
                self._client.disconnect()
        self._cut()

    def _cut(self) -> None:
        connection = self._client.socket()
        if connection is not None:
            connection.close()
