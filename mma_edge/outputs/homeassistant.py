"""How Home Assistant learns of a source over MQTT: one message for each entity, kept by the broker.

https://www.home-assistant.io/integrations/mqtt/#mqtt-discovery: the form with one message per entity, which every
version understands, openHAB and ioBroker too; not the newer one per device.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from mma_edge import __version__
from mma_edge.types import UNCERTAIN

EXPIRE_S = 120
"""A state that nobody has repeated for so long counts as unavailable."""
ONLINE, OFFLINE = "online", "offline"
BIRTH = "homeassistant/status"
"""There Home Assistant says ONLINE when it has started, under whatever topic it looks for devices."""
_NO_TOPIC = re.compile(r"[^A-Za-z0-9_-]+")


def plain(text: str) -> str:
    """What may stand for a name in topics and entities: letters, digits, _ and -."""
    return _NO_TOPIC.sub("_", text).strip("_")


def entities(
    discovery: str, prefix: str, source: str, source_id: str, place: str, labels: Sequence[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Topic and content of the messages that announce one place of a source: its emotion and its confidence.

    Args:
        discovery: the topic under which Home Assistant looks.
        prefix: the topic under which everything is published.
        source_id: what stands for the source in topics.
    """
    node = plain(f"{prefix}_{source_id}")
    spoken = place.replace("_", " ").capitalize()
    common = {
        "state_topic": f"{prefix}/{source_id}/{place}",
        "availability_topic": f"{prefix}/status",
        "payload_available": ONLINE,
        "payload_not_available": OFFLINE,
        "expire_after": EXPIRE_S,
        "device": {
            "identifiers": [node],
            "name": f"{prefix} {source}",
            "manufacturer": "mma-edge",
            "model": "MMA-DFER",
            "sw_version": __version__,
        },
        "origin": {"name": "mma-edge", "sw_version": __version__},
    }
    # A place that is empty has null, which both templates make None: "unknown" to Home Assistant.
    yield (
        f"{discovery}/sensor/{node}/{place}_emotion/config",
        {
            **common,
            "name": f"{spoken} emotion",
            "unique_id": f"{node}_{place}_emotion",
            "device_class": "enum",
            "options": [*labels, *([] if UNCERTAIN in labels else [UNCERTAIN])],
            "value_template": "{{ value_json.label }}",
            "json_attributes_topic": common["state_topic"],
            "icon": "mdi:account-voice" if place == "voice" else "mdi:emoticon-outline",
        },
    )
    percent = "(100 * value_json.confidence) | round(0)"
    yield (
        f"{discovery}/sensor/{node}/{place}_confidence/config",
        {
            **common,
            "name": f"{spoken} confidence",
            "unique_id": f"{node}_{place}_confidence",
            "unit_of_measurement": "%",
            "state_class": "measurement",
            "value_template": f"{{{{ {percent} if value_json.confidence is number else None }}}}",
            "icon": "mdi:percent-outline",
        },
    )
