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
import time
from collections.abc import Mapping, Sequence
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
from mma_edge.outputs.states import State, States
from mma_edge.sources.network.address import Address
from mma_edge.sources.network.reader import Backoff
from mma_edge.types import AudioChunk, Emotion, Face, Frame

PORTS = {"mqtt": 1883, "mqtts": 8883}
PREFIX = "mma-edge"
CONNECT_S, KEEPALIVE_S = 5, 15
"""Longest time for a broker to answer; a dead connection is seen after up to twice the second."""
CALM_S = 60.0
"""After a connection that lasted so long its loss is news."""
IN_FLIGHT = 20
"""Records that the broker has not confirmed yet, with QoS 1."""
_TICK_S = 0.5
_EXPECTED = "an address such as 'mqtt://user:${MQTT_PASSWORD}@192.168.1.2/mma-edge'"
_NO_TOPIC = re.compile(r"[+#\s\x00]|//|^[$/]|/$|^$")


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
        if set("?#") & set(after_login) or _NO_TOPIC.search(prefix):
            hint = "a prefix has no + # ? and no space"
            raise UsageError(f"{address.shown} is no place to publish", _EXPECTED, hint)
        user, password = (text and unquote(text) for text in (parts.username, parts.password))
        return cls(address, prefix, user, password)


class MqttPublisher(QueuedFollower[tuple[str, str]]):
    """Publishes as long as the broker takes it; connects again when it went away."""

    name = "--mqtt"

    def __init__(
        self, broker: Broker, qos: int = 0, discovery: str | None = "homeassistant", backoff: Backoff | None = None
    ) -> None:
        """`discovery`: the topic under which Home Assistant looks for devices, UsageError for what is none; None: it is
        not told of any."""
        if discovery is not None and _NO_TOPIC.search(discovery):
            raise UsageError(f"--mqtt-discovery {discovery}", "a topic such as homeassistant, or off")
        super().__init__()
        self.connections = 0
        self._broker, self._qos, self._discovery = broker, qos, discovery
        self._backoff = backoff or Backoff()
        self._status = f"{broker.prefix}/status"
        self._states = States(broker.prefix)
        self._announced: set[str] = set()  # topics of states that Home Assistant knows
        self._labels: tuple[str, ...] = ()
        self._answer: Any = None  # the broker's to the newest attempt
        self._online = False  # the broker was told
        self._well = False  # there is a connection
        self._lost_s: float | None = None  # since when it was said that there is none
        self._said: set[str] = set()
        self._ear: socket.socket | None = None
        self._mouth: socket.socket | None = None
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
        client.on_message = self._heard
        return client

    def begin(self, running: Any) -> None:
        self._labels = running.labels
        self._states.begin(running.names, running.options.hop_s)
        self._ear, self._mouth = socket.socketpair()
        for end in (self._ear, self._mouth):
            end.setblocking(False)
        super().begin(running)

    def frame(self, source: str, frame: Frame, faces: Sequence[Face]) -> None:
        self._states.seen_s[source] = time.monotonic()

    def sound(self, source: str, chunk: AudioChunk) -> None:
        self._states.seen_s[source] = time.monotonic()

    def write(self, emotion: Emotion) -> None:
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        record = {"time": now, **emotion.to_dict()}
        self._states.answer(emotion, record)
        self.put((self._states.topic(emotion.source or "", "records"), json.dumps(record)))

    def wake(self) -> None:
        if self._mouth is not None:
            with contextlib.suppress(OSError):  # full: it is awake; closed: it has ended
                self._mouth.send(b"\0")

    def run(self) -> None:
        try:
            while not self._closing.is_set():
                start_s, lasted_s = time.monotonic(), 0.0
                try:
                    self._connect()
                    self._say_connected()
                    start_s = time.monotonic()
                    self._exchange()
                except (OSError, ValueError) as error:
                    lasted_s = time.monotonic() - start_s if self._well else 0.0
                    self._say_lost(error, lasted_s)
                    self._cut()
                self._closing.wait(self._backoff.pause_s(lasted_s))
        finally:
            self._hang_up()
            self._ear.close()
            self._mouth.close()

    def _say_connected(self) -> None:
        self._well, self.connections = True, self.connections + 1
        if self.connections == 1 or self._lost_s is not None:
            after = "" if self._lost_s is None else f", which is back after {time.monotonic() - self._lost_s:.0f} s"
            self.say(f"publishes to {self._broker.address.shown}{after}")
        self._lost_s = None

    def _say_lost(self, error: Exception, lasted_s: float) -> None:
        """Each reason once, until a connection has lasted: a broker that throws everybody out would fill the log."""
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        if isinstance(error, ssl.SSLCertVerificationError):
            hint = "for a broker's own certificate: export SSL_CERT_FILE=ca.pem"
            reason = f"its certificate is not trusted: {error.verify_message}; {hint}"
        what = "was lost" if self._well else "cannot be reached"
        line = f"{self._broker.address.shown} {what} ({self._broker.address.hide(reason)})"
        self._well = False
        if lasted_s >= CALM_S:
            self._said.clear()
        if line not in self._said:
            self._said.add(line)
            self._lost_s = self._lost_s or time.monotonic()
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

    def _heard(self, client: object, userdata: object, message: Any) -> None:
        if message.topic == BIRTH and message.payload == ONLINE.encode():
            self._announced.clear()
        elif message.topic == self._status and message.payload == OFFLINE.encode():
            # The last will of an earlier run, whose end the broker has only now noticed.
            self._online = False

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
        self._client.subscribe([(self._status, 0), *([(BIRTH, 0)] if self._discovery else [])])
        self._announced.clear()
        self._states.forget_sent()
        self._online = False
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
        if not self._online and not self._closing.is_set():
            if not self._publish(self._status, ONLINE, 1, True):
                return False
            self._online = True
        for topic, state in self._states:
            if topic not in self._announced and not self._announce(topic, state):
                return False
            if content := self._states.due(state):
                if not self._publish(topic, content[0], self._qos, True):
                    return False
                state.sent, state.sent_s = content, time.monotonic()
        while (item := self.backlog.take()) is not None:
            sent = False
            try:
                sent = self._publish(*item, self._qos, False)
            finally:
                if not sent:
                    self.backlog.put_back(item)
            if not sent:
                return False
        return True

    def _announce(self, topic: str, state: State) -> bool:
        """Tell Home Assistant of the place, once."""
        if self._discovery:
            source_id, prefix = self._states.id_of(state.source), self._broker.prefix
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
