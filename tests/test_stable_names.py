"""Names that other tools call: they stay where they are, whatever moves behind them."""

from __future__ import annotations

import importlib
import inspect

import pytest
from shown import SCRIPTS

PARAMETERS = {
    "mma_edge.load": ["bundle", "backend", "precision"],
    "mma_edge.records": ["path"],
    "mma_edge.audio.log_mel": ["waveform", "sample_rate"],
    "mma_edge.clip.frame_indices": ["num_frames", "count"],
    "mma_edge.faces.resize": ["crop", "size"],
    "mma_edge.recognizer.Recognizer.predict": ["self", "frames", "mel"],
    "mma_trainer.checkpoint.load_checkpoint": ["path"],
    "mma_trainer.model.MMADFER": ["config"],
    "mma_trainer.model.MMADFER.forward": ["self", "frames", "mel"],
}
COMMANDS = {"mma-edge", "mma-export", "mma-train", "mma-eval", "mma-bench"}


def found(name: str) -> object:
    """What a program gets that imports the longest part of the name that is a module."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            thing = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for part in parts[end:]:
            thing = getattr(thing, part)
        return thing
    raise AssertionError(f"{name} cannot be imported")


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_name_and_its_parameters_stay(name: str) -> None:
    assert list(inspect.signature(found(name)).parameters) == PARAMETERS[name]


def test_the_commands_stay_and_each_leads_to_a_function() -> None:
    assert set(SCRIPTS) == COMMANDS
    for entry in SCRIPTS.values():
        assert callable(found(entry.replace(":", ".")))
