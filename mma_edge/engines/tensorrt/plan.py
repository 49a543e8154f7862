"""TensorRT plans of a bundle: where they lie, what is written beside each, and which may be loaded.

    BUNDLE/engines/fp16.plan     what TensorRT serialised, nothing before or after it
    BUNDLE/engines/fp16.json     the sidecar: from which graph, by which version and on which device it was built
    BUNDLE/engines/fp16.layers.json  what TensorRT says of the plan's layers, for `mma-edge build --inspect`
    BUNDLE/engines/fp16.rolling.stem.plan, fp16.rolling.rest.plan, ...  the same of the parts for `--streaming`
    CACHE/tensorrt/...           kernel timings of each TensorRT, device and power mode, which make the next build of
                                 any bundle short; in BUNDLE/engines/ where the user wants no cache (engines/cache.py)

A plan is code of one TensorRT version for one kind of GPU. TensorRT only ever gets a plan whose sidecar matches this
machine, this bundle and the plan's own SHA-256; the error names everything that differs, and the command that helps.
The plans of a mode were judged together, so each sidecar names all of them.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import re
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from mma_edge.bundle import ENGINES, Bundle, sha256
from mma_edge.engines.cache import cache_root
from mma_edge.engines.machine import (
    cuda_devices,
    dotted,
    driver_cuda_version,
    first_gpu,
    install_command,
    is_jetson,
    platform_name,
)
from mma_edge.engines.power import power_difference, power_mode, read_power, stored_power
from mma_edge.engines.tensorrt.target import BuildOptions, Target, targets_of
from mma_edge.errors import BackendError, BundleError, DependencyError, first_line
from mma_edge.files import replaced, write_text

if TYPE_CHECKING:
    import tensorrt as trt

SIDECAR_VERSION = 2
MIN_TENSORRT = (10, 3)
BUILD_RULES = {"strongly_typed": True, "tf32": False}
"""How this version builds every plan; a plan built by other rules must be built again."""
KEPT_LINES = 20
"""How many of TensorRT's last errors are kept, so that our error can say why."""


@dataclass(frozen=True)
class Machine:
    """Where a plan is built or run. All but `cuda` must be equal: a driver runs what an older or newer one built."""

    tensorrt: str
    gpu: str
    compute_capability: str
    cuda: str  # the newest version that the driver can run
    platform: str


@dataclass(frozen=True)
class Plan:
    """A plan that was checked against its sidecar, this machine and the bundle."""

    target: Target
    path: Path
    data: bytes  # for TensorRT; read once, so that the bytes that were hashed are the ones that are loaded
    max_batch: int  # largest N of its profile
    sidecar: dict[str, Any]  # as written
    notes: tuple[str, ...] = ()  # what the user should know before trusting it


def import_tensorrt() -> ModuleType:
    """The installed TensorRT, if it is new enough. The import does not touch the GPU.

    Raises:
        DependencyError: it or its libraries are not installed. BackendError: it is too old.
    """
    try:
        trt = importlib.import_module("tensorrt")
        version = trt.__version__
    except ModuleNotFoundError as error:
        raise DependencyError("TensorRT's Python package is not installed", hint=_install()) from error
    except Exception as error:  # half an installation: the loader's OSError, or an AttributeError of an empty package
        raise DependencyError(f"TensorRT cannot be imported: {first_line(error)}", hint=_install()) from error
    if version_of(version) < MIN_TENSORRT:
        raise BackendError(
            f"TensorRT {version} is too old: its networks cannot be strongly typed as these graphs need",
            f"{dotted(MIN_TENSORRT)} or newer",
            "upgrade TensorRT (Jetson: JetPack 6.1 or newer), or use --backend cuda or cpu",
        )
    return trt


def _install() -> str:
    if is_jetson():
        return "sudo apt-get install python3-libnvinfer, and a venv made with --system-site-packages"
    return install_command("tensorrt")


def version_of(text: str) -> tuple[int, int]:
    """(major, minor) of a version such as "10.13.3.9.post1"."""
    parts = [*text.split("."), "0"][:2]
    return tuple(int("".join(c for c in part if c.isdigit()) or 0) for part in parts)


def this_machine(trt: ModuleType) -> Machine:
    """Raises BackendError when the driver reports no GPU."""
    cuda = driver_cuda_version()
    gpu = first_gpu(cuda_devices() if cuda else [])
    return Machine(trt.__version__, gpu.name, gpu.capability, dotted(cuda), platform_name())


def timings_path(bundle: Bundle, machine: Machine) -> Path:
    """The file of kernel timings of a TensorRT on a device in a power mode; its folder need not exist."""
    root = cache_root()
    folder = root / "tensorrt" / machine.tensorrt if root else bundle.folder / ENGINES
    parts = (machine.gpu, machine.compute_capability, power_mode() or "")
    return folder / f"{'-'.join(re.sub(r'[^0-9A-Za-z.]+', '-', part) for part in parts if part)}.timings"


def make_sidecar(target: Target, machine: Machine, plan: Path, options: BuildOptions, gate: dict) -> dict:
    """The record beside a plan, as JSON gives it back; `check_sidecar` shows what each line must match, `power` may
    differ.
    """
    power = read_power()
    sidecar = {
        "sidecar_version": SIDECAR_VERSION,
        "precision": target.precision,
        "plan_sha256": sha256(plan),
        "onnx_sha256": target.sha256,
        **asdict(machine),
        "builder": {**BUILD_RULES, **asdict(options)},
        "profiles": target.profiles(options.max_batch),
        "power": asdict(power) if power else None,
        "gate": gate,
    }
    return json.loads(json.dumps(sidecar))  # tuples as lists


def write_plan(target: Target, partial: Path, sidecar: dict, layers: str) -> Path:
    """Move a finished plan to its place, then its sidecar; between the two the old SHA-256 prevents the plan's use.

    `layers` is TensorRT's information on them, JSON.
    """
    write_text(target.layers, layers)
    with replaced(target.sidecar) as aside:
        aside.write_text(json.dumps(sidecar, indent=2) + "\n", encoding="utf-8")
        os.replace(partial, target.plan)
    return target.plan


def usable(bundle: Bundle, mode: str | None = None) -> tuple[str, ...]:
    """Precisions with plans whose sidecars match this machine, of the whole model or of a mode of `--streaming`, in the
    manifest's order. Never raises.
    """
    try:
        machine = this_machine(import_tensorrt())
    except (BackendError, DependencyError):
        return ()
    found = []
    for precision in bundle.precisions:
        try:
            check_sidecars(targets_of(bundle, precision, mode), machine)
        except (BackendError, BundleError):
            continue
        found.append(precision)
    return tuple(found)


def check_plan(target: Target, machine: Machine) -> Plan:
    """A target's plan, if it may be loaded here.

    Raises:
        BackendError: there is none, or it was built elsewhere or from something else: the message names what differs.
        BundleError: the plan or its sidecar is damaged.
    """
    sidecar, path = check_sidecar(target, machine), target.plan
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != sidecar["plan_sha256"]:
        expected, hint = "the plan as it was built", f"build it here with: {target.command}"
        raise BundleError(f"{path} is not the plan that its sidecar describes (SHA-256 differs)", expected, hint)
    notes, again = (), f"{target.command} --overwrite"
    if sidecar["cuda"] != machine.cuda:
        note = f"the plan was built with a driver for CUDA {sidecar['cuda']} and runs with one for {machine.cuda}"
        notes = (f"{note}; should it misbehave: {again}",)
    if differing := power_difference(stored_power(sidecar.get("power")), read_power()):
        # It computes the same; with other clocks other kernels may be the fastest.
        notes += (f"the plan was built with {differing}; to choose its kernels again: {again}",)
    return Plan(target, path, data, sidecar["builder"]["max_batch"], sidecar, notes)


def check_sidecars(targets: Sequence[Target], machine: Machine) -> list[dict[str, Any]]:
    """The sidecars of plans that were judged together, see `check_sidecar`; BackendError also where they were not."""
    sidecars = [check_sidecar(target, machine) for target in targets]
    plans = [sidecar["plan_sha256"] for sidecar in sidecars]
    if len(plans) > 1 and any(sidecar["gate"].get("plans") != plans for sidecar in sidecars):
        target = targets[0]
        what = f"the plans of --streaming {target.mode} in {target.precision} at {target.plan.parent} are of two builds"
        raise BackendError(what, "plans that were judged together", f"build them here with: {target.command}")
    return sidecars


def check_sidecar(target: Target, machine: Machine) -> dict[str, Any]:
    """The sidecar of an existing plan, if all of it fits here; does not read the plan. Raises as `check_plan` does."""
    remedy = f"build it here with: {target.command}"
    if not target.plan.is_file():
        wanted = target.precision + (f" in --streaming {target.mode}" if target.mode else "")
        what = f"bundle {target.bundle.folder} has no TensorRT engine for {wanted}"
        raise BackendError(what, "one built on this device", remedy)
    sidecar = _read_sidecar(target.sidecar, remedy)
    profiles = json.loads(json.dumps(target.profiles(sidecar["builder"]["max_batch"])))  # tuples as lists
    # Name of what may differ -> (the sidecar's value, the value here).
    pairs = {
        "TensorRT": (sidecar["tensorrt"], machine.tensorrt),
        "GPU": (sidecar["gpu"], machine.gpu),
        "compute capability": (sidecar["compute_capability"], machine.compute_capability),
        "platform": (sidecar["platform"], machine.platform),
        "precision": (sidecar["precision"], target.precision),
        "the ONNX graph": (sidecar["onnx_sha256"][:12], target.sha256[:12]),
        **{f"option {key}": (sidecar["builder"].get(key), value) for key, value in BUILD_RULES.items()},
        "profiles": (sidecar["profiles"], profiles),
    }
    differing = [f"{name} {then}, here {now}" for name, (then, now) in pairs.items() if then != now]
    if differing:
        what = f"{target.plan} was built for something else: {'; '.join(differing)}"
        raise BackendError(what, "a plan of this device and bundle", remedy)
    return sidecar


_TEXTS = ("precision", "plan_sha256", "onnx_sha256", *Machine.__dataclass_fields__)


def _read_sidecar(path: Path, remedy: str) -> dict[str, Any]:
    if not path.is_file():
        raise BundleError(f"{path} is missing, so the origin of the plan beside it is unknown", hint=remedy)
    try:
        sidecar = json.loads(path.read_text(encoding="utf-8"))
        sound = (
            type(sidecar["sidecar_version"]) is int
            and all(isinstance(sidecar[key], str) for key in _TEXTS)
            and type(sidecar["builder"]["max_batch"]) is int
            and sidecar["builder"]["max_batch"] >= 1
            and isinstance(sidecar["profiles"], list)
            and isinstance(sidecar["gate"], dict)
        )
        stored_power(sidecar.get("power"))
    except (ValueError, OSError, KeyError, TypeError, RecursionError) as error:
        raise BundleError(f"{path} cannot be read ({type(error).__name__})", "a sidecar", remedy) from error
    if not sound or sidecar["sidecar_version"] != SIDECAR_VERSION:
        raise BundleError(f"{path} is not a sidecar of version {SIDECAR_VERSION}", hint=remedy)
    return sidecar


def make_logger(trt) -> trt.ILogger:
    """A logger that keeps the last errors and prints nothing.

    Its `because()` is ": <the first error that is kept>" or "", for the end of a message.
    """

    class KeepingLogger(trt.ILogger):
        # Defined here because the base class exists only where TensorRT is installed.
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self._errors: deque[str] = deque(maxlen=KEPT_LINES)
            self._lock = threading.Lock()

        def log(self, severity, msg) -> None:
            if severity in (trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR):
                with self._lock:  # TensorRT logs from its own threads
                    self._errors.append(" ".join(str(msg).split()))

        def because(self) -> str:
            # The first error of a chain says most: the later ones are its consequences.
            return f": {self._errors[0][:300]}" if self._errors else ""

    return KeepingLogger()
