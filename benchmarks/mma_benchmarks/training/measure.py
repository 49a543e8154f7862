"""How fast the training loop is and how much memory it takes, against the simplest loop that does the same.

Every setting runs in a fresh process, for its own peak memory, and all settings run once per round, so
that what else the machine does falls on all of them. The clips are random numbers, already in memory:
what is measured is the model, its gradients and the optimiser, not the disk.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass

from mma_benchmarks.machine.facts import describe_machine
from mma_benchmarks.result import Advance, Model, Result, utc_now
from mma_benchmarks.schema import Summary, Training, TrainingRun, TrainingSettings, summarise
from mma_edge.child import Child, ChildDiedError, ChildTimeoutError
from mma_edge.errors import BackendError, DependencyError, MMAEdgeError, UsageError
from mma_trainer.architectures import ARCHITECTURES

PLAIN = "plain"
PRECISIONS = ("fp32", "bf16", "fp16", "int8")
CHILD_TIMEOUT_S = 3600


@dataclass(frozen=True)
class Setting:
    """One way to train: "plain", or PRECISION[+microN][+checkpoint]."""

    name: str
    precision: str  # as mma-train --precision; "plain" is a loop without any of our options
    micro_batch: int = 0  # clips per forward pass, 0 for the whole batch
    checkpoint: bool = False  # activation checkpointing

    @classmethod
    def parse(cls, name: str) -> Setting:
        precision, *extras = name.split("+")
        micro = [int(match[1]) for extra in extras if (match := re.fullmatch(r"micro([1-9]\d*)", extra))]
        checkpoint = "checkpoint" in extras
        known = precision in PRECISIONS or (precision == PLAIN and not extras)
        if not known or len(micro) > 1 or len(micro) + checkpoint != len(extras):
            expected = "plain, or fp32, bf16, fp16 or int8 with +microN and +checkpoint"
            raise UsageError(f"setting {name}", expected, "e.g. int8+micro1")
        return cls(name, precision, micro[0] if micro else 0, checkpoint)

    def describe(self) -> str:
        if self.precision == PLAIN:
            return "a plain loop in float32, the whole batch at once"
        words = [f"mma-train --precision {self.precision}"]
        words += [f"--micro-batch {self.micro_batch}"] if self.micro_batch else []
        words += ["--activation-checkpointing"] if self.checkpoint else []
        return " ".join(words)


@dataclass(frozen=True)
class TrainingOptions:
    """What to measure."""

    model: str = "vit-b"
    image_size: int | None = None  # None: the model's own, 112 for vit-b
    batch_size: int = 8  # clips per step of the optimiser
    steps: int = 3  # counted steps of each process
    warmup: int = 1  # steps before them
    rounds: int = 2  # processes per setting
    settings: tuple[str, ...] = ()  # see `Setting`; (): what suits the device; "plain" is always among them
    device: str = "auto"  # or "cpu" or a CUDA device
    threads: int = 0  # of a processor, 0 for PyTorch's choice

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 1), ("steps", 1), ("warmup", 0), ("rounds", 1), ("threads", 0)):
            if getattr(self, name) < least:
                raise UsageError(f"--{name.replace('_', '-')} {getattr(self, name)}", f"at least {least}")
        if self.model not in ARCHITECTURES:
            raise UsageError(f"--model {self.model}", " or ".join(ARCHITECTURES))


def measure_training(options: TrainingOptions, command: str, advance: Advance = lambda step: None) -> Result:
    """Run the benchmark.

    Raises:
        UsageError: a setting or device that does not exist. DependencyError: no torch.
        BackendError: a process failed, e.g. for want of memory.
    """
    try:
        import torch
    except ModuleNotFoundError as error:
        raise DependencyError("torch is not installed", hint='pip install "mma-edge[train]"') from error
    device = options.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    settings = [Setting.parse(name) for name in options.settings or default_settings(device, torch)]
    if PLAIN not in [setting.name for setting in settings]:
        settings = [Setting.parse(PLAIN), *settings]  # every ratio is to it
    machine = describe_machine()
    reports: dict[str, list[dict]] = {setting.name: [] for setting in settings}
    for number in range(options.rounds):
        for setting in settings:
            advance(f"round {number + 1} of {options.rounds}: {setting.name}")
            reports[setting.name].append(run_child(setting, options, device))
    facts = reports[PLAIN][0]
    runs = [_figures(setting, reports[setting.name], reports[PLAIN], options.batch_size) for setting in settings]
    asked = {name: getattr(options, name) for name in ("model", "batch_size", "steps", "warmup", "rounds")}
    found = {name: facts[name] for name in ("image_size", "threads", "device", "parameters", "trainable")}
    model = Model(
        name=f"{options.model} {facts['image_size']} px",
        manifest_sha256="",  # there is no bundle: the weights are random
        labels=facts["labels"],
        image_size=facts["image_size"],
        precision="see the settings",
        backend=facts["device"],
        engine=f"PyTorch {facts['torch']}",
    )
    results = Training(TrainingSettings(**asked, **found), runs)
    return Result("training", utc_now(), command, machine, model, results)


def default_settings(device: str, torch) -> tuple[str, ...]:
    """What is worth knowing on a device: its fast formats, and what saves memory."""
    if device != "cpu":
        return (PLAIN, "fp32", "bf16", "bf16+checkpoint", "fp16")
    fast = ["bf16+micro1"] if torch.cpu._is_amx_tile_supported() else []
    fast += ["int8+micro1"] if torch.cpu._is_vnni_supported() else []
    return (PLAIN, "fp32+micro1", "fp32+checkpoint", *fast)


def run_child(setting: Setting, options: TrainingOptions, device: str) -> dict:
    """What one process reports; see `mma_benchmarks.training.child`."""
    request = {"setting": asdict(setting), "options": asdict(options), "device": device}
    # It does not take part in a torchrun that this process may belong to.
    environment = dict.fromkeys(("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    try:
        with Child(("-m", "mma_benchmarks.training.child"), request, environment) as child:
            return child.result(timeout_s=CHILD_TIMEOUT_S)
    except ChildTimeoutError as error:
        raise BackendError(f"{setting.name} took over {CHILD_TIMEOUT_S} s", hint="lower --steps") from error
    except (MMAEdgeError, ChildDiedError) as error:
        hint = "too little memory? lower --batch-size, or leave this setting out with --settings"
        raise BackendError(f"{setting.name} failed ({str(error)[:200]})", hint=hint) from error


def _figures(setting: Setting, reports: list[dict], plain: list[dict], batch_size: int) -> TrainingRun:
    """All rounds of a setting together, beside those of the plain loop."""
    step_s, peak_mib = _durations(reports, "step_s"), _peak_mib(reports)
    return TrainingRun(
        name=setting.name,
        description=setting.describe(),
        step_s=step_s,
        cpu_s=_durations(reports, "cpu_s"),
        clips_per_s=batch_size / step_s.p50,
        speedup=_durations(plain, "step_s").p50 / step_s.p50,
        peak_memory_mib=peak_mib,
        memory_ratio=peak_mib / _peak_mib(plain),
        loss=reports[0]["loss"],
    )


def _durations(reports: list[dict], key: str) -> Summary:
    return summarise([value for report in reports for value in report[key]])


def _peak_mib(reports: list[dict]) -> float:
    return max(report["peak_memory_mib"] for report in reports)
