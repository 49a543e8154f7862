"""Options of the live outputs: MQTT and LSL. The followers behind them, for every command with a live run."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from mma_edge.commands.support import missing_package
from mma_edge.errors import DependencyError

if TYPE_CHECKING:
    from mma_edge.sinks import Follower

LSL_NAME = "mma-edge"


def add_publish_options(add: Callable[..., object]) -> None:
    """Declare them; `add` is the parser's `add_argument`."""
    mqtt = "publish to a broker, with Home Assistant's discovery; for a password 'mqtt://me:${MQTT_PASSWORD}@HOST'"
    add("--mqtt", metavar="mqtt[s]://HOST[:PORT][/PREFIX]", help=f"{mqtt} (docs/outputs.md)")
    add("--mqtt-qos", type=int, choices=(0, 1), default=0, help="1: each record reaches the broker at least once")
    discovery = "topic under which Home Assistant looks for devices; off announces none"
    add("--mqtt-discovery", metavar="TOPIC|off", default="homeassistant", help=discovery)
    lsl = "send each answer of a live source to the Lab Streaming Layer, as streams of this name"
    add("--lsl", nargs="?", const=LSL_NAME, metavar="NAME", help=f"{lsl} ({LSL_NAME})")


def followers_of(args: argparse.Namespace) -> list[Follower]:
    """What these options ask for, before any work starts; nothing is connected yet.

    Raises:
        UsageError: an address that is none. DependencyError: a package is missing.
    """
    followers: list[Follower] = []
    if getattr(args, "web", None):  # a command with a page
        from mma_edge.outputs.websocket import RecordsSocket

        followers.append(RecordsSocket())
    if args.mqtt:
        try:
            from mma_edge.outputs.mqtt import Broker, MqttPublisher
        except ModuleNotFoundError as error:
            raise missing_package(error, "mqtt") from error
        discovery = None if args.mqtt_discovery == "off" else args.mqtt_discovery
        followers.append(MqttPublisher(Broker.of(args.mqtt), args.mqtt_qos, discovery))
    if args.lsl:
        try:
            from mma_edge.outputs.lsl import LslStreams
        except ModuleNotFoundError as error:
            raise missing_package(error, "lsl") from error
        except (RuntimeError, OSError) as error:  # pylsl's wheels for some machines come without it
            hint = "install it: https://labstreaminglayer.readthedocs.io, or conda install -c conda-forge liblsl"
            raise DependencyError("pylsl finds no liblsl", hint=hint) from error
        followers.append(LslStreams(args.lsl))
    return followers
