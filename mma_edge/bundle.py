"""A bundle: a folder with `manifest.json` and one ONNX graph per precision.

The manifest is the contract between export and run time (schema version 1):

    schema_version   1
    name             of the model, e.g. "mma-dfer-nano"
    labels           class names in the order of the logits
    image_size       side S of a face crop in pixels
    num_frames       frames per clip
    audio            log-mel parameters: num_mel_frames, num_mel_bins, frame_length_ms, frame_shift_ms
    face_crop        "square-longer-side"
    color            "rgb" or "grey": what the faces it was trained on were; the graph itself converts
    missing_modality "trained": whether training ever hid a modality
    temperature      the logits are divided by it before the softmax: a number, or an object with one each for clips
                     with "both" modalities, with the "video" alone and with the "audio" alone
    opset            ONNX opset of the graphs
    precisions       name -> {"file", "parity"}; parity holds the figures of the export gate
    files            every other file of the bundle -> SHA-256 in hex
    license          {"name", "file"} of the weights
    provenance       where the weights come from
    golden           {"seed", "logits", "tolerance"}: the load-time self-test (see `golden_inputs`)
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mma_edge.audio.logmel import FRAME_LENGTH_MS, FRAME_SHIFT_MS, MEL_MEAN, MEL_STD, NUM_MEL_BINS, NUM_MEL_FRAMES
from mma_edge.clip import NUM_FRAMES
from mma_edge.errors import BundleError

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
MODALITIES = ("both", "video", "audio")
"""What there is of a clip; a model can be sure of itself in another way for each."""
DEFAULT_BUNDLE = Path(__file__).parent / "assets" / "default"
FACE_CROP = "square-longer-side"
AUDIO = {
    "num_mel_frames": NUM_MEL_FRAMES,
    "num_mel_bins": NUM_MEL_BINS,
    "frame_length_ms": FRAME_LENGTH_MS,
    "frame_shift_ms": FRAME_SHIFT_MS,
}

# Key -> (type, keys of an object or None). Nothing else is admitted: a key this version does not
# know could change what the numbers mean.
_SCHEMA: dict[str, tuple[type | tuple[type, ...], set[str] | None]] = {
    "schema_version": (int, None),
    "name": (str, None),
    "labels": (list, None),
    "image_size": (int, None),
    "num_frames": (int, None),
    "audio": (dict, set(AUDIO)),
    "face_crop": (str, None),
    "color": (str, None),
    "missing_modality": (dict, {"trained"}),
    "temperature": ((int, float, dict), None),
    "opset": (int, None),
    "precisions": (dict, None),
    "files": (dict, None),
    "license": (dict, {"name", "file"}),
    "provenance": (dict, None),
    "golden": (dict, {"seed", "logits", "tolerance"}),
}
_REEXPORT = "export it again with mma-export"


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
        """One for each of MODALITIES."""
        return read_temperatures(self.manifest["temperature"])

    @property
    def precisions(self) -> tuple[str, ...]:
        return tuple(self.manifest["precisions"])

    def graph(self, precision: str) -> Path:
        """Path of the ONNX file of a precision that the bundle has."""
        return self.folder / self.manifest["precisions"][precision]["file"]

    @property
    def golden(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
        """Self-test: frames, mel, expected logits (1, C), allowed absolute difference."""
        golden = self.manifest["golden"]
        frames, mel = golden_inputs(golden["seed"], self.image_size)
        return frames, mel, np.array(golden["logits"], np.float32), float(golden["tolerance"])


def read_temperatures(value: object) -> dict[str, float]:
    """The temperature of each of MODALITIES, from a number or an object with all of them; ValueError for others."""
    values = value if isinstance(value, dict) else dict.fromkeys(MODALITIES, value)
    if set(values) != set(MODALITIES) or not all(_is_finite(number) and number > 0 for number in values.values()):
        raise ValueError(f"temperature {value!r} is neither a positive number nor one for each of {MODALITIES}")
    return {name: float(values[name]) for name in MODALITIES}


def golden_inputs(seed: int, image_size: int, clips: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Random inputs that can be rebuilt anywhere: frames uint8 (N, 16, S, S, 3), mel float32 (N, 512, 128)."""
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 256, (clips, NUM_FRAMES, image_size, image_size, 3), dtype=np.uint8)
    mel = rng.standard_normal((clips, NUM_MEL_FRAMES, NUM_MEL_BINS), dtype=np.float32)
    return frames, (mel * MEL_STD + MEL_MEAN).astype(np.float32)


def read_bundle(folder: str | os.PathLike | None = None) -> Bundle:
    """Read and check a bundle, every file's SHA-256 included; None is the embedded default.

    Raises:
        BundleError: with what is wrong and the command that mends it.
    """
    folder = Path(DEFAULT_BUNDLE if folder is None else folder)
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise BundleError(
            f"bundle {folder} {what}", f"a folder with {MANIFEST}", "make one with mma-export --output DIR"
        )
    manifest = _read_manifest(folder)
    _check_manifest(folder, manifest)
    _check_files(folder, manifest)
    return Bundle(folder, manifest)


def sha256(path: Path) -> str:
    """SHA-256 of a file in hex."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_manifest(folder: Path, manifest: dict) -> Bundle:
    """Complete the manifest with the hashes of all files in `folder`, write it and read it back."""
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST)
    _replace_manifest(folder, {**manifest, "files": {name: sha256(folder / name) for name in names}})
    return read_bundle(folder)


def write_temperatures(bundle: Bundle, temperatures: dict[str, float], calibration: dict) -> Bundle:
    """Put a calibration into a bundle that is there; nothing else of it changes, no file is hashed anew.

    Args:
        bundle: as read.
        temperatures: one for each of MODALITIES.
        calibration: how they were found, for the provenance: a dict of plain values.

    Raises:
        BundleError: the bundle is not what it was any more. OSError: the manifest cannot be written.
    """
    current = read_bundle(bundle.folder)
    provenance = {**current.manifest["provenance"], "calibration": calibration}
    manifest = {**current.manifest, "temperature": read_temperatures(temperatures), "provenance": provenance}
    _check_manifest(bundle.folder, manifest)
    _replace_manifest(bundle.folder, manifest)
    return read_bundle(bundle.folder)


def _replace_manifest(folder: Path, manifest: dict) -> None:
    """All or nothing: a reader, or a full disk, never sees half a manifest."""
    temporary = folder / f".{MANIFEST}.partial"
    try:
        temporary.write_text(json.dumps(manifest, indent=2) + "\n")
        os.replace(temporary, folder / MANIFEST)
    finally:
        temporary.unlink(missing_ok=True)


def _read_manifest(folder: Path) -> dict:
    path = folder / MANIFEST
    if not path.is_file():
        raise BundleError(f"{folder} has no {MANIFEST}", "a bundle", "make one with mma-export --output DIR")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise BundleError(f"{path} cannot be read ({error})", "JSON", _REEXPORT) from error
    if not isinstance(manifest, dict):
        raise BundleError(f"{path} holds a {type(manifest).__name__}", "a JSON object", _REEXPORT)
    return manifest


def _check_manifest(folder: Path, manifest: dict) -> None:
    path = folder / MANIFEST
    version = manifest.get("schema_version")
    if type(version) is not int or version != SCHEMA_VERSION:
        newer = isinstance(version, int) and version > SCHEMA_VERSION
        hint = "upgrade mma-edge: pip install -U mma-edge" if newer else _REEXPORT
        raise BundleError(f"{path} has schema version {version!r}", f"version {SCHEMA_VERSION}", hint)
    if unknown := sorted(set(manifest) - set(_SCHEMA)):
        raise BundleError(f"{path} has unknown keys {unknown}", "schema version 1", "upgrade mma-edge or " + _REEXPORT)
    if missing := sorted(set(_SCHEMA) - set(manifest)):
        raise BundleError(f"{path} lacks {missing}", "schema version 1", _REEXPORT)
    for key, (kind, inner) in _SCHEMA.items():
        value = manifest[key]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise BundleError(f"{path}: {key} is a {type(value).__name__}", "the type of schema version 1", _REEXPORT)
        if inner is not None and set(value) != inner:
            raise BundleError(f"{path}: {key} has keys {sorted(value)}", f"{sorted(inner)}", _REEXPORT)
    _check_values(path, manifest)


def _check_values(path: Path, manifest: dict) -> None:
    labels, golden = manifest["labels"], manifest["golden"]
    logits = np.array(golden["logits"], dtype=object)
    problems = [
        (
            not labels or len(set(map(str, labels))) != len(labels) or not all(isinstance(x, str) for x in labels),
            "labels",
        ),
        (manifest["image_size"] < 1, "image_size"),
        (manifest["num_frames"] != NUM_FRAMES, f"num_frames (this version samples {NUM_FRAMES})"),
        (manifest["audio"] != AUDIO, f"audio (this version computes {AUDIO})"),
        (manifest["face_crop"] != FACE_CROP, f"face_crop (this version cuts {FACE_CROP})"),
        (manifest["color"] not in ("rgb", "grey"), "color"),
        (not _is_temperature(manifest["temperature"]), "temperature"),
        (logits.shape != (1, len(labels)) or not all(map(_is_finite, logits.flat)), "golden.logits"),
        (type(golden["seed"]) is not int or golden["seed"] < 0, "golden.seed"),
        (not _is_finite(golden["tolerance"]) or golden["tolerance"] <= 0, "golden.tolerance"),
        (manifest["license"]["file"] not in manifest["files"], "license.file (it has no SHA-256)"),
        (not manifest["precisions"], "precisions"),
    ]
    for name, entry in manifest["precisions"].items():
        bad = not isinstance(entry, dict) or set(entry) != {"file", "parity"} or not isinstance(entry["file"], str)
        problems.append((bad, f"precisions.{name}"))
        problems.append(
            (not bad and entry["file"] not in manifest["files"], f"precisions.{name}.file (it has no SHA-256)")
        )
    if wrong := [name for bad, name in problems if bad]:
        raise BundleError(f"{path}: unusable value of {', '.join(wrong)}", "schema version 1", _REEXPORT)


def _is_temperature(value: object) -> bool:
    try:
        read_temperatures(value)
    except ValueError:
        return False
    return True


def _is_finite(value: object) -> bool:
    return type(value) in (int, float) and abs(value) < float("inf")


def _check_files(folder: Path, manifest: dict) -> None:
    root = folder.resolve()
    for name, expected in manifest["files"].items():
        path = folder / name
        # resolve() follows links too: a link out of the folder is a path out of the folder.
        # A null byte ends the name for the system; resolve() raises on it.
        if "\0" in name or os.path.isabs(name) or not path.resolve().is_relative_to(root) or path.resolve() == root:
            raise BundleError(
                f"{folder / MANIFEST} names {name!r}", "a file inside the bundle's folder", "do not use this bundle"
            )
        if not path.is_file():
            raise BundleError(
                f"bundle {folder} lacks {name}", "every file of its manifest", "copy the whole folder again"
            )
        if sha256(path) != expected:
            raise BundleError(
                f"{path} was changed after export (SHA-256 differs)",
                "the file as exported",
                "copy it again, or " + _REEXPORT,
            )
