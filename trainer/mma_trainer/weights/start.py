"""The model that fine-tuning starts from: the default one or any checkpoint, with the classes that are wanted now."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from mma_edge.bundle.manifest import MODALITIES, read_temperatures
from mma_trainer.labels import canonical
from mma_trainer.weights.checkpoint import Checkpoint, read_checkpoint

ASSETS = Path(__file__).parents[1] / "assets" / "nano"
DEFAULT, DEFAULT_CHECKPOINT = "default", ASSETS / "nano.pt"
"""The default model's name in --init, and its file."""
DEFAULT_TERMS = "research only, CC-BY-NC-SA-4.0"
TERMS = "license"
"""Key of a provenance: {"name", "text"} of the terms that a model has from the one that it was tuned from."""
HANDED_DOWN = "Tuned from weights with these terms, which hold for the tuned weights, too."


def parse_init(text: str) -> Path:
    """The file that --init names."""
    return DEFAULT_CHECKPOINT if text == DEFAULT else Path(text)


def read_start(path: Path) -> Checkpoint:
    """A checkpoint with its terms in the provenance, where they are known; errors as of `read_checkpoint`."""
    start = read_checkpoint(path)
    if path.resolve() != DEFAULT_CHECKPOINT.resolve():
        return start
    terms = {"name": DEFAULT_TERMS, "text": (ASSETS / "LICENSE").read_text(encoding="utf-8")}
    return dataclasses.replace(start, provenance={**start.provenance, TERMS: terms})


def origin_of(start: Checkpoint, labels: Sequence[str]) -> dict:
    """What a model tuned from `start` says of it in its provenance. The terms of the weights are handed down."""
    terms = {}
    if inherited := terms_of(start.provenance):
        name, text = inherited
        terms[TERMS] = {"name": name, "text": text if text.startswith(HANDED_DOWN) else f"{HANDED_DOWN}\n\n{text}"}
    before = {key: value for key, value in start.provenance.items() if key != TERMS}
    known = known_rows(start.config.labels, labels)
    fresh = [name for row, name in enumerate(labels) if row not in known]
    return {"init": before, **({"new_classes": fresh} if fresh else {}), **terms}


def temperatures_of(start: Checkpoint) -> dict[str, float]:
    """Those of its calibration; 1 where there is none."""
    try:
        return read_temperatures(start.provenance.get("calibration", {}).get("temperature", 1.0))
    except (ValueError, AttributeError):
        return dict.fromkeys(MODALITIES, 1.0)


def known_rows(before: Sequence[str], now: Sequence[str]) -> dict[int, int]:
    """Of each class in `now` that `before` has too, its numbers now and before."""
    places = {canonical(name): place for place, name in enumerate(before)}
    return {row: places[canonical(name)] for row, name in enumerate(now) if canonical(name) in places}


def with_labels(start: Checkpoint, labels: Sequence[str]) -> Checkpoint:
    """The model with other classes: all but the classifier, and of that the rows of the names that stay.

    The rows of new names are drawn from torch's generator as those of any new layer.
    """
    if tuple(labels) == start.config.labels:
        return start
    prefix = next((key for key in start.state_dict if key.endswith("classifier.weight")), "").removesuffix("weight")
    found = {name: start.state_dict.get(prefix + name) for name in ("weight", "bias")}
    config = start.config.replace(labels=tuple(labels))
    if any(tensor is None for tensor in found.values()):
        return dataclasses.replace(start, config=config)  # `build_model` names what is missing
    fresh = nn.Linear(found["weight"].shape[1], len(labels))
    with torch.no_grad():
        for row, place in known_rows(start.config.labels, labels).items():
            fresh.weight[row], fresh.bias[row] = found["weight"][place], found["bias"][place]
    changed = {prefix + name: tensor.detach() for name, tensor in fresh.named_parameters()}
    return dataclasses.replace(start, config=config, state_dict={**start.state_dict, **changed})


def terms_of(provenance: Mapping) -> tuple[str, str] | None:
    """Name and text of the terms that a provenance hands down; None where it has none."""
    terms = provenance.get(TERMS)
    if not isinstance(terms, Mapping) or not all(isinstance(terms.get(key), str) for key in ("name", "text")):
        return None
    return terms["name"], terms["text"]
