"""Checkpoint files: ours and the authors', loaded without ever running code from them.

Ours is a torch file holding {"format", "version", "config", "state_dict", "provenance", "training"}, and "variants",
their revision, where the config has one of those that were once made otherwise;
the authors' is {"epoch", "state_dict", "best_acc", "optimizer", "recorder"} with every key of the
state dict prefixed `module.` and `recorder` a pickled instance of a class of their script.
"""

from __future__ import annotations

import os
import pickle
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mma_edge.errors import CheckpointError
from mma_edge.files import replaced
from mma_trainer.model import MMADFER, MMADFERConfig
from mma_trainer.model.config import REVISION
from mma_trainer.weights import official

FORMAT = "mma-edge-checkpoint"
VERSION = 1


class _InertRecorder:
    """Takes the place of the authors' `__main__.RecorderMeter`: holds its numbers and does nothing."""


def _numpy_constructors() -> list:
    multiarray = np._core.multiarray if hasattr(np, "_core") else np.core.multiarray
    allowed = [np.ndarray, np.dtype, *(type(np.dtype(kind)) for kind in ("f4", "f8", "i4", "i8"))]
    for package in ("numpy.core", "numpy._core"):  # numpy 1 and numpy 2 wrote different names
        allowed += [(getattr(multiarray, name), f"{package}.multiarray.{name}") for name in ("_reconstruct", "scalar")]
    return allowed


@dataclass
class Checkpoint:
    """What a file holds."""

    config: MMADFERConfig
    state_dict: dict[str, Tensor]  # float32 tensors under our names
    provenance: dict = field(default_factory=dict)  # where it comes from, plain values
    training: dict = field(default_factory=dict)  # optimiser state and counters to resume with; empty when released


def load_checkpoint(path: str | os.PathLike) -> MMADFER:
    """The model in a checkpoint, ours or the authors', in eval mode on the CPU.

    Image size, class count and widths come from the file.

    Raises:
        CheckpointError: no such file, not a checkpoint, code inside it, or tensors that do not
            make an MMA-DFER (with a list of what is missing or misshapen).
    """
    return build_model(read_checkpoint(path), path)


def build_model(checkpoint: Checkpoint, path: str | os.PathLike) -> MMADFER:
    """The model of a checkpoint already read, in eval mode; `path` is for the error's text."""
    state = checkpoint.state_dict
    if state and all(key.startswith("model.") for key in state):  # a run's last.pt
        state = {key.removeprefix("model."): value for key, value in state.items()}
    if any(key.startswith("encoder.") for key in state):
        hint = "give it to --image-encoder or --audio-encoder"
        raise CheckpointError(f"{path} is a single pre-trained encoder", "a whole MMA-DFER", hint)
    with torch.device("meta"):  # takes no time to draw random weights that the file replaces
        model = MMADFER(checkpoint.config)
    check_fit(state, model.state_dict(), path)
    model.load_state_dict(state, assign=True)
    return model.eval()


def read_checkpoint(path: str | os.PathLike) -> Checkpoint:
    """Read and recognise a file; see `load_checkpoint` for the errors."""
    content = load_safely(Path(path), [(_InertRecorder, "__main__.RecorderMeter")])
    if not isinstance(content, dict):
        raise _not_a_checkpoint(path, f"it holds a {type(content).__name__}")
    if content.get("format") == FORMAT:
        checkpoint = parse_ours(content, path)
        if (revised := checkpoint.config.revised) and content.get("variants") != REVISION:
            what = f"{path} holds {' and '.join(revised)} as another version of mma-edge made it"
            raise CheckpointError(what, f"revision {REVISION} of the variants", "train it again with this version")
        return checkpoint
    state = {key.removeprefix("module."): value for key, value in state_of(content, "state_dict").items()}
    if not state:
        raise _not_a_checkpoint(path, "it holds no state dict of tensors")
    if not official.looks_official(state):
        raise _not_a_checkpoint(path, f"its keys are not MMA-DFER's (first: {next(iter(state))})")
    renamed, unknown = official.rename(state)
    if unknown:
        what = f"{path}: unknown tensors {some(unknown)}"
        raise CheckpointError(what, "the published MMA-DFER layout", "check which variant this is")
    provenance = {"origin": "MMA-DFER authors' layout", "file": Path(path).name}
    return Checkpoint(official.read_config(renamed), renamed, provenance)


def parse_ours(content: dict, path: str | os.PathLike) -> Checkpoint:
    """Check and unpack the contents of a file of ours."""
    if (version := content.get("version")) != VERSION:
        raise CheckpointError(f"{path}: checkpoint version {version}", f"version {VERSION}", "upgrade mma-edge")
    try:
        config, state = MMADFERConfig.from_dict(content["config"]), content["state_dict"]
        state = {str(key): as_float(value) for key, value in state.items()}
        provenance, training = (dict(content.get(key, {})) for key in ("provenance", "training"))
    except (KeyError, TypeError, AttributeError) as error:
        raise _not_a_checkpoint(path, f"its contents are incomplete ({error})") from error
    return Checkpoint(config, state, provenance, training)


def save_checkpoint(path: str | os.PathLike, checkpoint: Checkpoint, half: bool = False) -> None:
    """Write a file of ours, all or nothing. `half` stores float16: half the size, for released models."""
    path = Path(path)
    state = {
        key: value.detach().cpu().half() if half and value.is_floating_point() else value.detach().cpu()
        for key, value in checkpoint.state_dict.items()
    }
    content = {
        "format": FORMAT,
        "version": VERSION,
        "config": checkpoint.config.to_dict(),
        "state_dict": state,
        "provenance": checkpoint.provenance,
        "training": checkpoint.training,
        **({"variants": REVISION} if checkpoint.config.revised else {}),
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # An open file: from a path, torch would write its name, which is another in every process, into the archive.
        with replaced(path) as aside, aside.open("wb") as file:
            torch.save(content, file)
    except (OSError, RuntimeError) as error:
        what = f"cannot write {path}: {getattr(error, 'strerror', None) or error}"
        raise CheckpointError(what, hint="free disk space or choose another folder") from error


def check_fit(found: dict[str, Tensor], wanted: dict[str, Tensor], path: str | os.PathLike) -> None:
    """Raise CheckpointError listing what is missing, unexpected or misshapen."""
    misshapen = [
        f"{key} is {tuple(found[key].shape)}, expected {tuple(wanted[key].shape)}"
        for key in sorted(set(found) & set(wanted))
        if found[key].shape != wanted[key].shape
    ]
    missing, unexpected = sorted(set(wanted) - set(found)), sorted(set(found) - set(wanted))
    kinds = {"missing": missing, "unexpected": unexpected, "misshapen:": misshapen}
    if problems := [f"{kind} {some(names)}" for kind, names in kinds.items() if names]:
        what = f"{path} does not fit the model: " + "; ".join(problems)
        raise CheckpointError(what, hint="check which model it is of")


def some(names: list[str]) -> str:
    """The first eight names, and how many more there are."""
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def state_of(content: object, *keys: str) -> dict[str, Tensor]:
    """The state dict under the first of `keys` that holds a dict, or in `content` itself; {} where there is none."""
    if not isinstance(content, dict):
        return {}
    state = next((content[key] for key in keys if isinstance(content.get(key), dict)), content)
    if not all(isinstance(value, Tensor) for value in state.values()):
        return {}
    return {str(key): as_float(value) for key, value in state.items()}


def as_float(value: Tensor) -> Tensor:
    return value.float() if value.is_floating_point() else value


def _not_a_checkpoint(path: str | os.PathLike, why: str) -> CheckpointError:
    return CheckpointError(
        f"{path} is not a checkpoint: {why}", "a file by mma-train or a published MMA-DFER .pth", "check the path"
    )


def load_safely(path: Path, stand_ins: Sequence[tuple[type, str]] = ()) -> object:
    """A torch file's contents: tensors, numbers and plain containers, nothing that runs.

    `stand_ins`: (inert class, name of the class whose place it takes), of objects that this kind of file may hold.
    """
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise CheckpointError(f"checkpoint {path} {what}", "a .pt or .pth file", "check the path")
    allowed = [*_numpy_constructors(), *stand_ins]
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(allowed):
            warnings.simplefilter("ignore")  # about odd pickle protocols, where the file is not a pickle at all
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "Unsupported global" in str(error) or "GLOBAL" in str(error):
            name = str(error).partition("GLOBAL ")[2].split(" ")[0] or "unknown"
            what = f"{path} holds code or objects that are not tensors ({name}) and was not loaded"
            hint = "load it only where you trust it, and save its state_dict alone"
            if name == "argparse.Namespace":  # the options of the script that pre-trained an encoder
                hint = "MAE-Face's and AudioMAE's files go to --image-encoder and --audio-encoder"
            raise CheckpointError(what, "tensors and numbers only", hint) from error
        raise _not_a_checkpoint(path, "it cannot be read as a torch file") from error
    except Exception as error:  # damaged bytes can raise anything inside the unpickler
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise _not_a_checkpoint(path, f"it cannot be read as a torch file ({reason[:120]})") from error
