"""A bundle as an NVIDIA Triton model repository.

    DIR/<name>-<precision>/config.pbtxt    inputs, output, batching, warm-up
    DIR/<name>-<precision>/labels.txt      class names, for Triton's classification extension
    DIR/<name>-<precision>/1/model.onnx    or model.plan: the TensorRT engine that `mma-edge build` made on this device
    DIR/<name>-<precision>/manifest.json   the bundle's, for the client: temperatures, licence, hashes
    DIR/<name>-<precision>/LICENSE         and the model card, where the bundle has one

The tests check the configuration against Triton's own schema.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mma_edge.audio.logmel import NUM_MEL_BINS, NUM_MEL_FRAMES
from mma_edge.bundle import Bundle
from mma_edge.bundle.manifest import MANIFEST
from mma_edge.clip import NUM_FRAMES
from mma_edge.engines.tensorrt.plan import check_plan, import_tensorrt, this_machine
from mma_edge.engines.tensorrt.target import Target
from mma_edge.errors import BackendError, BundleError, OutputError, UsageError
from mma_edge.files import replaced_folders
from mma_export.weights import weight_files

CONFIG, LABELS, VERSION = "config.pbtxt", "labels.txt", "1"
MARK = "# Written by mma-export --triton."
PLAN = "tensorrt_plan"
DEVICES = {"auto": "KIND_AUTO", "gpu": "KIND_GPU", "cpu": "KIND_CPU"}
LARGEST_BATCH = 1024
"""The largest batch of the exported graphs."""


@dataclass(frozen=True)
class TritonOptions:
    """How Triton serves the model.

    Attributes:
        max_batch: clips in one call of the engine; of a plan at most what it was built for.
        queue_delay_us: how long a request may wait for others to be computed with it.
        device: "auto" takes a GPU where there is one.
        instances: copies of the model per device.
    """

    max_batch: int = 16
    queue_delay_us: int = 2000
    device: str = "auto"
    instances: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.max_batch <= LARGEST_BATCH:
            raise UsageError(f"max batch {self.max_batch} for Triton", f"1 to {LARGEST_BATCH}")
        if self.queue_delay_us < 0 or self.instances < 1:
            raise UsageError(
                f"queue delay {self.queue_delay_us} us and {self.instances} instances for Triton",
                "a delay of 0 or more, 1 instance or more",
            )
        if self.device not in DEVICES:
            raise UsageError(f"device {self.device!r} for Triton", f"one of {', '.join(DEVICES)}")


def write_repository(
    bundle: Bundle,
    folder: Path,
    precisions: Sequence[str] | None = None,
    plan: bool = False,
    options: TritonOptions | None = None,
    overwrite: bool = False,
) -> list[Path]:
    """Add the bundle's models to a Triton repository, all of them or none.

    The models are made beside `folder`, not in it: a server that polls its repository must not see half a model.

    Args:
        folder: the repository; other models in it stay as they are.
        precisions: None takes all that passed their gate.
        plan: serve the TensorRT engines of this device instead of the ONNX graphs.
        overwrite: replace models that were written by this function before.

    Returns:
        The models' folders; the last part of each is the name that clients ask for.

    Raises:
        BackendError: a precision that the bundle lacks, or no plan that fits this device.
        BundleError: a precision that failed its gate. OutputError: a folder that is not ours, or cannot be written.
    """
    options = options or TritonOptions()
    chosen = choose_precisions(bundle, precisions)
    targets = [folder / model_name(bundle, precision, plan) for precision in chosen]
    for target in targets:
        _check_target(target, overwrite)
    with replaced_folders(targets, folder, "free disk space or choose another folder") as places:
        for precision, place in zip(chosen, places, strict=True):
            _write_model(bundle, precision, plan, options, place)
    return targets


def choose_precisions(bundle: Bundle, precisions: Sequence[str] | None) -> list[str]:
    """The given precisions, or all that passed their gate; see `write_repository` for the errors."""
    entries = bundle.manifest["precisions"]
    if precisions is None:
        precisions = [name for name in bundle.precisions if "failed" not in entries[name]]
    if not precisions:
        raise BundleError(f"no precision of {bundle.folder} passed its gate", hint="export the bundle again")
    for name in precisions:
        if name not in entries:
            raise BackendError(
                f"bundle {bundle.folder} has no precision {name}",
                f"one of {', '.join(bundle.precisions)}",
                f"export it with mma-export --precision {name}",
            )
        if reason := entries[name].get("failed"):
            raise BundleError(f"{name} of {bundle.folder} failed its gate ({reason})", hint="serve another precision")
    return list(dict.fromkeys(precisions))


def model_name(bundle: Bundle, precision: str, plan: bool) -> str:
    """What clients ask for, and the folder's name: letters, digits, dots, dashes and underscores."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", bundle.name).strip("-.") or "mma-dfer"
    return f"{name}-{precision}" + ("-plan" if plan else "")


def config_text(bundle: Bundle, name: str, platform: str, max_batch: int, options: TritonOptions) -> str:
    """config.pbtxt: Triton's `ModelConfig` in protobuf's text format."""
    S = bundle.image_size
    frames, mel = f"[ {NUM_FRAMES}, {S}, {S}, 3 ]", f"[ {NUM_MEL_FRAMES}, {NUM_MEL_BINS} ]"
    # 2, 4, 8 ... and the largest: a batch of such a size is computed at once, without waiting for more clips.
    preferred = [2**power for power in range(1, 11) if 2**power < max_batch]
    preferred += [max_batch] if max_batch > 1 else []
    batching = "" if max_batch == 1 else f"  preferred_batch_size: {preferred}\n"
    warmups = ",\n".join(
        f"""  {{ name: "{size} clips" batch_size: {size}
    inputs {{ key: "frames" value {{ data_type: TYPE_UINT8 dims: {frames} zero_data: true }} }}
    inputs {{ key: "mel" value {{ data_type: TYPE_FP32 dims: {mel} zero_data: true }} }}
  }}"""
        for size in (1, *preferred)
    )
    # Triton captures one for a single clip and one for each preferred batch size.
    graphs = "optimization { cuda { graphs: true } }\n" if platform == PLAN else ""
    return f"""{MARK}
name: {json.dumps(name)}
platform: "{platform}"
max_batch_size: {max_batch}
input [
  {{ name: "frames" data_type: TYPE_UINT8 dims: {frames} }},
  {{ name: "mel" data_type: TYPE_FP32 dims: {mel} }}
]
output [
  {{ name: "logits" data_type: TYPE_FP32 dims: [ {len(bundle.labels)} ] label_filename: "{LABELS}" }}
]
dynamic_batching {{
{batching}  max_queue_delay_microseconds: {options.queue_delay_us}
}}
instance_group [ {{ count: {options.instances} kind: {DEVICES[options.device]} }} ]
{graphs}# The first call of a batch size chooses kernels and takes its memory; no client should have to wait for that.
model_warmup [
{warmups}
]
"""


def _write_model(bundle: Bundle, precision: str, plan: bool, options: TritonOptions, folder: Path) -> None:
    version = folder / VERSION
    version.mkdir()
    max_batch = options.max_batch
    if plan:
        if options.device == "cpu":
            raise UsageError("a TensorRT engine on the CPU", "device gpu or auto", "leave the plan out")
        # The bytes that were checked against the sidecar are the ones that are written.
        checked = check_plan(Target(bundle, precision), this_machine(import_tensorrt()))
        (version / "model.plan").write_bytes(checked.data)
        max_batch = min(max_batch, checked.max_batch)
    else:
        whole = bundle.cpu_graph(precision) if options.device == "cpu" else bundle.graph(precision)
        graph, *others = weight_files(whole)
        shutil.copyfile(graph, version / "model.onnx")
        for path in others:
            copy = version / path.relative_to(whole.parent)  # the graph names it so
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
    platform = PLAN if plan else "onnxruntime_onnx"
    (folder / CONFIG).write_text(config_text(bundle, folder.name, platform, max_batch, options), encoding="utf-8")
    (folder / LABELS).write_text("".join(f"{label}\n" for label in bundle.labels), encoding="utf-8")
    for name in (MANIFEST, bundle.manifest["license"]["file"], *_cards(bundle)):
        shutil.copyfile(bundle.folder / name, folder / Path(name).name)


def _cards(bundle: Bundle) -> list[str]:
    return [name for name in bundle.manifest["files"] if Path(name).suffix == ".md"]


def _check_target(target: Path, overwrite: bool) -> None:
    """Refuse to replace anything but a model that mma-export wrote, and that only when asked."""
    if not target.exists():
        return
    config = target / CONFIG
    ours = config.is_file() and config.read_text(encoding="utf-8", errors="replace").startswith(MARK)
    if not ours:
        raise OutputError(
            f"{target} exists and was not written by mma-export", "a new folder", "choose another folder for --triton"
        )
    if not overwrite:
        raise OutputError(f"{target} is there already", "a new model", "add --overwrite to replace it")
