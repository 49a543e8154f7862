"""The manifest of a bundle: the contract between export and run time, and its checks (schema version 1).

schema_version   1
name             the model's name, e.g. "mma-dfer-nano"
labels           class names in the order of the logits
image_size       side S of a face crop in pixels
num_frames       frames per clip
audio            log-mel parameters: num_mel_frames, num_mel_bins, frame_length_ms, frame_shift_ms
face_crop        "square-longer-side"
color            "rgb" or "grey": the faces in training; the graph itself converts
missing_modality "trained": whether training ever hid a modality
temperature      the logits are divided by it before the softmax: a number, or an object with a number for clips with
                 "both" modalities, one for "video" alone and one for "audio" alone
opset            ONNX opset of the graphs
precisions       fp32, fp16, bf16, int8 or fp8 -> an entry with
                     file       the ONNX graph
                     parity     figures of the export gate
                     cpu_file   optional: the graph that onnxruntime's CPU runs instead, for speed
                     tensorrt_file  optional: the graph that TensorRT builds its plan from instead, for speed
                     tolerance  optional: of the self-test at this precision (default: golden.tolerance)
                     failed     optional: in words, which limit of the gate was missed (--keep-going)
                     failed_on  optional: backend -> the same, for a backend that rounds more than others do
files            every other file of the bundle -> SHA-256 in hex
license          {"name", "file"} of the weights
provenance       where the weights come from
golden           {"seed", "logits", "tolerance"}: the load-time self-test (see `golden_inputs`)
streaming        optional: the model in parts (see `mma_edge.streaming`): a precision, or "int8-cpu" or "int8-tensorrt"
                 for what that backend runs instead of int8 -> an object with
                     stem       the ONNX graph that a frame goes through once
                     exact, rolling  per mode, an entry with
                         file       the ONNX graph of the rest, or
                         refused    in words, which gate the mode failed; there is no graph then
                         parity     figures of the export gate
                         max_age_s  optional, rolling: a frame that is older is computed again; default never
                         curve      optional, rolling: agreement with full recomputation per max_age_s
                         sound      optional, rolling: what is kept of the sound, an object with
                             file       the ONNX graph that runs instead while the sound's summary is kept, or
                             refused    in words, which gate that failed; there is no graph then
                             max_age_s  the sound of an answer may be that old
                             curve      agreement with full recomputation per max_age_s, over full windows
                             failed_on  optional: as below
                         tolerance  optional: of the self-test (default: golden.tolerance)
                         failed     optional: as `refused`, but the graph is there (--keep-going)
                         failed_on  optional: backend -> which gate the mode failed there
                 bundles from before other precisions had parts hold that object itself, with "precision": "fp32"
digest           SHA-256 in hex of all other keys (see `digest_of`); bundles from before it was introduced lack it
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

from mma_edge.audio.logmel import FRAME_LENGTH_MS, FRAME_SHIFT_MS, NUM_MEL_BINS, NUM_MEL_FRAMES
from mma_edge.bundle.streaming import MODES, STEM, entries_of, precision_of
from mma_edge.clip import NUM_FRAMES
from mma_edge.errors import BundleError
from mma_edge.files import replaced
from mma_edge.precisions import PRECISIONS

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
MODALITIES = ("both", "video", "audio")
"""Which modalities a clip has; a model's confidence may need another temperature for each."""
FACE_CROP = "square-longer-side"
AUDIO = {
    "num_mel_frames": NUM_MEL_FRAMES,
    "num_mel_bins": NUM_MEL_BINS,
    "frame_length_ms": FRAME_LENGTH_MS,
    "frame_shift_ms": FRAME_SHIFT_MS,
}

# Key -> (type, keys of an object or None). Others are refused: an unknown key could change what the numbers mean.
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
# Keys that may be absent.
_OPTIONAL: dict[str, tuple[type | tuple[type, ...], set[str] | None]] = {
    "streaming": (dict, None),
    "digest": (str, None),
}
# Keys of an entry -> type; float stands for any positive number.
GRAPHS = ("file", "cpu_file", "tensorrt_file")
"""Keys of an entry that name a graph."""
_ENTRY = {"file": str, "parity": dict}
_ENTRY_OPTIONAL = {"cpu_file": str, "tensorrt_file": str, "tolerance": float, "failed": str, "failed_on": dict}
_MODE = {"parity": dict}
_MODE_OPTIONAL = {
    "file": str,
    "refused": str,
    "failed": str,
    "max_age_s": float,
    "curve": list,
    "sound": dict,
    "tolerance": float,
    "failed_on": dict,
}
_SOUND = {"curve": list}
_SOUND_OPTIONAL = {"file": str, "refused": str, "max_age_s": float, "failed_on": dict}
REEXPORT = "export it again with mma-export"


def read_temperatures(value: object) -> dict[str, float]:
    """The temperature of each of MODALITIES, from a number or an object with all of them; ValueError for others."""
    values = value if isinstance(value, dict) else dict.fromkeys(MODALITIES, value)
    if set(values) != set(MODALITIES) or not all(map(_is_positive, values.values())):
        raise ValueError(f"temperature {value!r} is neither a positive number nor one for each of {MODALITIES}")
    return {name: float(values[name]) for name in MODALITIES}


def digest_of(manifest: dict) -> str:
    """SHA-256 over all keys but "digest", as JSON without spaces, keys sorted, other letters than ASCII escaped."""
    content = {key: value for key, value in manifest.items() if key != "digest"}
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def write_signed(path: Path, manifest: dict) -> None:
    """Write a manifest with its digest; everything that writes or changes one does it here."""
    with replaced(path) as aside:
        aside.write_text(json.dumps({**manifest, "digest": digest_of(manifest)}, indent=2) + "\n")


def read_manifest(folder: Path) -> dict:
    """The manifest of a bundle: a JSON object that is what was written; BundleError for others."""
    path = folder / MANIFEST
    if not path.is_file():
        raise BundleError(f"{folder} has no {MANIFEST}", "a bundle", "make one with mma-export --output DIR")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise BundleError(f"{path} cannot be read ({error})", "JSON", REEXPORT) from error
    if not isinstance(manifest, dict):
        raise BundleError(f"{path} holds a {type(manifest).__name__}", "a JSON object", REEXPORT)
    if "digest" in manifest and manifest["digest"] != digest_of(manifest):
        hint = "copy it again, or " + REEXPORT
        raise BundleError(f"{path} was changed after it was written (its digest differs)", "the file as written", hint)
    return manifest


def check_manifest(folder: Path, manifest: dict) -> None:
    path = folder / MANIFEST
    version = manifest.get("schema_version")
    if type(version) is not int or version != SCHEMA_VERSION:
        newer = isinstance(version, int) and version > SCHEMA_VERSION
        hint = "upgrade mma-edge: pip install -U mma-edge" if newer else REEXPORT
        raise BundleError(f"{path} has schema version {version!r}", f"version {SCHEMA_VERSION}", hint)
    if unknown := sorted(set(manifest) - set(_SCHEMA) - set(_OPTIONAL)):
        raise BundleError(f"{path} has unknown keys {unknown}", "schema version 1", "upgrade mma-edge or " + REEXPORT)
    if missing := sorted(set(_SCHEMA) - set(manifest)):
        raise BundleError(f"{path} lacks {missing}", "schema version 1", REEXPORT)
    for key, value in manifest.items():
        kind, inner = {**_SCHEMA, **_OPTIONAL}[key]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise BundleError(f"{path}: {key} is a {type(value).__name__}", "the type of schema version 1", REEXPORT)
        if inner is not None and set(value) != inner:
            raise BundleError(f"{path}: {key} has keys {sorted(value)}", f"{sorted(inner)}", REEXPORT)
    _check_values(path, manifest)


def _check_values(path: Path, manifest: dict) -> None:
    labels, golden, files = manifest["labels"], manifest["golden"], manifest["files"]
    logits = np.array(golden["logits"], dtype=object)
    checks = [
        (not labels or len({x for x in labels if isinstance(x, str)}) != len(labels), "labels"),
        (manifest["image_size"] < 1, "image_size"),
        (manifest["num_frames"] != NUM_FRAMES, f"num_frames (this version samples {NUM_FRAMES})"),
        (manifest["audio"] != AUDIO, f"audio (this version computes {AUDIO})"),
        (manifest["face_crop"] != FACE_CROP, f"face_crop (this version cuts {FACE_CROP})"),
        (manifest["color"] not in ("rgb", "grey"), "color"),
        (not _is_temperature(manifest["temperature"]), "temperature"),
        (logits.shape != (1, len(labels)) or not all(map(_is_finite, logits.flat)), "golden.logits"),
        (type(golden["seed"]) is not int or golden["seed"] < 0, "golden.seed"),
        (not _is_positive(golden["tolerance"]), "golden.tolerance"),
        (manifest["license"]["file"] not in files, "license.file (it has no SHA-256)"),
        (not manifest["precisions"], "precisions"),
    ]
    wrong = [name for bad, name in checks if bad]
    for name, entry in manifest["precisions"].items():
        unknown = [] if name in PRECISIONS else [f"precisions.{name}"]
        wrong += unknown or _entry_problems(f"precisions.{name}", entry, _ENTRY, _ENTRY_OPTIONAL, files)
    for name, entry in entries_of(manifest.get("streaming", {})).items():
        precision, place = precision_of(name), f"streaming.{name}"
        if precision not in PRECISIONS or not isinstance(entry, dict) or set(entry) != {STEM, *MODES}:
            wrong.append(place)
            continue
        if entry[STEM] not in files:
            wrong.append(f"{place}.{STEM} (no SHA-256)")
        for mode in MODES:
            # A mode has a graph, or the reason why it has none.
            problems = _entry_problems(f"{place}.{mode}", entry[mode], _MODE, _MODE_OPTIONAL, files)
            wrong += problems or ([f"{place}.{mode}"] if ("file" in entry[mode]) == ("refused" in entry[mode]) else [])
            if not problems and (sound := entry[mode].get("sound")) is not None:
                found = _entry_problems(f"{place}.{mode}.sound", sound, _SOUND, _SOUND_OPTIONAL, files)
                is_whole = ("file" in sound, "max_age_s" in sound) == (("refused" not in sound),) * 2
                wrong += found or ([] if is_whole else [f"{place}.{mode}.sound"])
    if wrong:
        raise BundleError(f"{path}: unusable value of {', '.join(wrong)}", "schema version 1", REEXPORT)


def graphs_of(entry: dict) -> list[str]:
    """Names of the graphs in a precision's entry."""
    return [entry[key] for key in GRAPHS if key in entry]


def _entry_problems(name: str, entry: object, required: dict, optional: dict, hashed: dict) -> list[str]:
    """What is wrong with an entry: a missing or unknown key, a wrong type or number, a file without a hash."""
    types = required | optional
    if not isinstance(entry, dict) or not set(required) <= set(entry) <= set(types):
        return [name]
    if not all(_is_positive(v) if types[key] is float else isinstance(v, types[key]) for key, v in entry.items()):
        return [name]
    return [f"{name}: {file} (no SHA-256)" for file in graphs_of(entry) if file not in hashed]


def _is_positive(value: object) -> bool:
    return _is_finite(value) and value > 0


def _is_temperature(value: object) -> bool:
    try:
        read_temperatures(value)
    except ValueError:
        return False
    return True


def _is_finite(value: object) -> bool:
    return type(value) in (int, float) and abs(value) < float("inf")
