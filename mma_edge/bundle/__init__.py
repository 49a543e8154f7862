"""A bundle: a folder with `manifest.json` (see `mma_edge.bundle.manifest`) and one ONNX graph per precision."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mma_edge.audio.logmel import MEL_MEAN, MEL_STD
from mma_edge.bundle.manifest import (
    MANIFEST,
    REEXPORT,
    check_manifest,
    read_manifest,
    read_temperatures,
    write_signed,
)
from mma_edge.bundle.streaming import Parts, find_parts
from mma_edge.clip import input_shapes
from mma_edge.errors import BackendError, BundleError, OutputError

ENGINES = "engines"
"""Folder of a bundle for the engines that were built from it on a device."""
DEFAULT_BUNDLE = Path(__file__).parents[1] / "assets" / "default"


@dataclass(frozen=True)
class Bundle:
    """A bundle whose manifest and files have been checked."""

    folder: Path
    manifest: dict

    @property
    def name(self) -> str:
        return self.manifest["name"]

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(self.manifest["labels"])

    @property
    def image_size(self) -> int:
        return self.manifest["image_size"]

    @property
    def temperatures(self) -> dict[str, float]:
        """One temperature for each of MODALITIES."""
        return read_temperatures(self.manifest["temperature"])

    @property
    def notes(self) -> tuple[str, ...]:
        """What its user should know, each in one line."""
        if "digest" in self.manifest:
            return ()
        path, hint = self.folder / MANIFEST, REEXPORT
        return (f"{path} has no digest, so a change of one character in it may go unseen; to have one, {hint}",)

    @property
    def precisions(self) -> tuple[str, ...]:
        return tuple(self.manifest["precisions"])

    def require(self, precision: str) -> None:
        """BackendError unless the bundle has this precision."""
        if precision not in self.precisions:
            expected = f"one of {', '.join(self.precisions)}"
            hint = f"export it with mma-export --precision {precision}"
            raise BackendError(f"bundle {self.folder} has no precision {precision}", expected, hint)

    def graph(self, precision: str) -> Path:
        """Path of the ONNX file of a precision that the bundle has."""
        return self.folder / self.manifest["precisions"][precision]["file"]

    def cpu_graph(self, precision: str) -> Path:
        """Path of the ONNX file that onnxruntime's CPU runs for this precision."""
        entry = self.manifest["precisions"][precision]
        return self.folder / entry.get("cpu_file", entry["file"])

    def tensorrt_graph(self, precision: str) -> Path:
        """Path of the ONNX file that TensorRT builds its plan of this precision from."""
        entry = self.manifest["precisions"][precision]
        return self.folder / entry.get("tensorrt_file", entry["file"])

    def files_of(self, graph: Path) -> list[Path]:
        """A graph of the bundle, and the files beside it that hold weights of it."""
        # Weights outside the graph: in file.onnx.data, in a file for several precisions, or in another graph.
        weights = {name for name in self.manifest["files"] if name.endswith((".data", ".bin", ".weights"))}
        entries = self.manifest["precisions"].values()
        weights |= {entry["file"] for entry in entries if entry.get("tensorrt_file") == graph.name}
        return [graph, *(self.folder / name for name in sorted(weights - {graph.name}))]

    def size_bytes(self, graph: Path) -> int:
        """Of a graph with all its weights."""
        return sum(file.stat().st_size for file in self.files_of(graph))

    def onnx_sha256(self, graph: Path) -> str:
        """SHA-256 of a graph of the bundle together with the weights beside it, if any, from the checked manifest."""
        hashes = [self.manifest["files"][file.name] for file in self.files_of(graph)]
        return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()

    def parts(self, backend: str, precision: str, mode: str) -> Parts:
        """The parts that an engine runs in a mode of `mma-edge run --streaming`; BundleError where there are none."""
        return find_parts(self.folder, self.manifest.get("streaming"), backend, precision, mode)

    def part_sha256(self, file: str) -> str:
        """SHA-256 of a part together with those of all graphs, in which its weights may be."""
        files = self.manifest["files"]
        graphs = [files[name] for name in sorted(files) if name.endswith(".onnx")]
        return hashlib.sha256("".join([files[file], *graphs]).encode()).hexdigest()

    def failed(self, precision: str, backend: str) -> str | None:
        """In words, which limit of the export gate a precision misses on a backend; None when it passed."""
        entry = self.manifest["precisions"][precision]
        return entry.get("failed") or entry.get("failed_on", {}).get(backend)

    def tolerance(self, precision: str) -> float:
        """Allowed absolute difference of a logit from the golden output at this precision."""
        return float(self.manifest["precisions"][precision].get("tolerance", self.manifest["golden"]["tolerance"]))

    @property
    def golden(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
        """For the self-test: frames, mel, expected logits (1, C), allowed absolute difference."""
        golden = self.manifest["golden"]
        frames, mel = golden_inputs(golden["seed"], self.image_size)
        return frames, mel, np.array(golden["logits"], np.float32), float(golden["tolerance"])


def golden_inputs(seed: int, image_size: int, clips: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Random inputs, the same on every machine: frames uint8 (N, 16, S, S, 3), mel float32 (N, 512, 128)."""
    rng = np.random.default_rng(seed)
    shapes = {name: (clips, *shape) for name, shape in input_shapes(image_size).items()}
    frames = rng.integers(0, 256, shapes["frames"], dtype=np.uint8)
    mel = rng.standard_normal(shapes["mel"], dtype=np.float32)
    return frames, (mel * MEL_STD + MEL_MEAN).astype(np.float32)


def read_bundle(folder: str | os.PathLike | None = None) -> Bundle:
    """Read and check a bundle, every file's SHA-256 included; None is the embedded default.

    A BundleError says what is wrong and names the command that helps.
    """
    folder = Path(DEFAULT_BUNDLE if folder is None else folder)
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        hint = "make one with mma-export --output DIR"
        raise BundleError(f"bundle {folder} {what}", f"a folder with {MANIFEST}", hint)
    manifest = read_manifest(folder)
    check_manifest(folder, manifest)
    _check_files(folder, manifest)
    return Bundle(folder, manifest)


def check_output(output: Path, overwrite: bool) -> None:
    """Refuse to replace anything but a bundle, and that only when asked."""
    if not output.exists():
        return
    if output.is_dir() and not any(output.iterdir()):
        return
    if not (output / MANIFEST).is_file():
        raise OutputError(f"{output} exists and is not a bundle", "a new folder", "choose another --output")
    if not overwrite:
        raise OutputError(f"{output} holds a bundle already", "a new folder", "add --overwrite to replace it")


def sha256(path: Path) -> str:
    """SHA-256 of a file in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_manifest(folder: Path, manifest: dict) -> Bundle:
    """Add the hashes of all files in `folder` to the manifest, write it and read it back."""
    found = (p.relative_to(folder) for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST)
    # Engines are built on a device and have their own records.
    names = sorted(p.as_posix() for p in found if p.parts[0] != ENGINES)
    write_signed(folder / MANIFEST, {**manifest, "files": {name: sha256(folder / name) for name in names}})
    return read_bundle(folder)


def write_temperatures(bundle: Bundle, temperatures: dict[str, float], calibration: dict) -> Bundle:
    """Put a calibration, with how it was found (plain values, for the provenance), into an existing bundle.

    Nothing else changes and no file is hashed again.

    Raises:
        BundleError: the bundle was changed since it was read. OSError: the manifest cannot be written.
    """
    current = read_bundle(bundle.folder)
    provenance = {**current.manifest["provenance"], "calibration": calibration}
    manifest = {**current.manifest, "temperature": read_temperatures(temperatures), "provenance": provenance}
    check_manifest(bundle.folder, manifest)
    write_signed(bundle.folder / MANIFEST, manifest)
    return read_bundle(bundle.folder)


def _check_files(folder: Path, manifest: dict) -> None:
    root = folder.resolve()
    for name, expected in manifest["files"].items():
        path = folder / name
        # resolve() follows links too: a link that leaves the folder is refused as well. It raises on a null byte, which
        # would end the name for the system.
        if "\0" in name or os.path.isabs(name) or not path.resolve().is_relative_to(root) or path.resolve() == root:
            hint = "do not use this bundle"
            raise BundleError(f"{folder / MANIFEST} names {name!r}", "a file inside the bundle's folder", hint)
        if not path.is_file():
            hint = "copy the whole folder again"
            raise BundleError(f"bundle {folder} lacks {name}", "every file of its manifest", hint)
        if sha256(path) != expected:
            hint = "copy it again, or " + REEXPORT
            raise BundleError(f"{path} was changed after export (SHA-256 differs)", "the file as exported", hint)
