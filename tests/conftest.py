"""What several rooms' tests share: the shared data, and a whole MMA-DFER small enough to trace in seconds."""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
import soundfile
import torch
from PIL import Image

from mma_edge.bundle import Bundle
from mma_edge.bundle.manifest import write_signed
from mma_export.bundle import UNSTATED, write_bundle
from mma_export.graph import export_graph
from mma_export.precision.clips import RealClips, logits_of, made_clips
from mma_export.precision.parts import Whole8
from mma_trainer.data.public.voices import CORPORA, RAVDESS
from mma_trainer.labels import DFEW_LABELS
from mma_trainer.model import MMADFER, MMADFERConfig
from mma_trainer.weights.checkpoint import Checkpoint, read_checkpoint, save_checkpoint

SHARED = Path(__file__).parents[2] / "shared"
TINY = MMADFERConfig(
    image_size=16,
    labels=("happy", "sad", "angry"),
    width=32,
    depth=2,
    num_heads=2,
    mlp_ratio=2,
    image_patch=8,
    audio_patch=64,
    image_stem=(4,),
    audio_stem=(4, 8),
    bottleneck_width=8,
    temporal_width=16,
    temporal_heads=2,
    temporal_head_dim=8,
    temporal_mlp=32,
)
SEVEN = TINY.replace(labels=DFEW_LABELS)
RATE_HZ = 16000
PATIENCE_S = 240
"""Given to a process of its own."""
TRIES_AGAIN = 2
"""Of a test that sets a limit of time: a machine that stands still breaks it once, a defect three times."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("wall_clock") or item.get_closest_marker("live"):
            item.add_marker(pytest.mark.flaky(reruns=TRIES_AGAIN, reruns_delay=2))


def make_model(config: MMADFERConfig, seed: int = 0) -> MMADFER:
    """A model whose every part matters: open gates, moved batch statistics, logits that differ."""
    torch.manual_seed(seed)
    model = MMADFER(config)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if "gate" in name:
                tensor.fill_(0.7)
            elif name.endswith("running_mean"):
                tensor.normal_(std=0.2)
            elif name.endswith("running_var"):
                tensor.uniform_(0.5, 2.0)
            elif name in ("classifier.weight", "joint.weight"):
                tensor.normal_()
    return model.eval()


def save_as_the_authors(path: Path, state: dict[str, torch.Tensor], class_name: str = "RecorderMeter") -> Path:
    """A file as their training script writes it, `recorder` an instance of a class of that script.

    Their script ran as `__main__`, so the class must be found there while pickling, and is gone afterwards.
    """
    cls = type(class_name, (), {"__module__": "__main__"})
    recorder = cls()
    recorder.total_epoch, recorder.current_epoch = 25, np.int64(3)
    recorder.epoch_losses = np.zeros((25, 2), np.float32)
    recorder.epoch_accuracy = np.ones((25, 2), np.float64)
    content = {
        "epoch": 25,
        "state_dict": {"module." + key: tensor for key, tensor in state.items()},
        "best_acc": torch.tensor(67.01),
        "optimizer": {"state": {}, "param_groups": [{"lr": 1e-4, "params": [0, 1]}]},
        "recorder": recorder,
    }
    main = sys.modules["__main__"]
    setattr(main, class_name, cls)
    try:
        torch.save(content, path)
    finally:
        delattr(main, class_name)
    with zipfile.ZipFile(path) as archive:
        pickled = next(archive.read(name) for name in archive.namelist() if name.endswith("data.pkl"))
    assert f"c__main__\n{class_name}\n".encode() in pickled  # the GLOBAL that makes torch.load refuse it
    return path


def export(checkpoint: Checkpoint, output: Path, precisions: str | Sequence[str] = "fp32", **options: object) -> Bundle:
    """`write_bundle` for a test that looks neither at the licence nor at what is reported, unless `options` say so."""
    given = {"source": Path("tiny.pt"), "name": "tiny", "license_": UNSTATED, "report": lambda text: None, **options}
    return write_bundle(checkpoint, output=output, precisions=precisions, **given).bundle


def tone(seconds: float, hz: float) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hz * np.arange(round(seconds * RATE_HZ)) / RATE_HZ)).astype(np.float32)


def make_frames(folder: Path, numbers: list[int], name: str = "{}.jpg") -> None:
    """JPEGs whose grey level is twice their number."""
    folder.mkdir(parents=True)
    for number in numbers:
        Image.new("RGB", (20, 24), (2 * number,) * 3).save(folder / name.format(number), quality=95)


def one_line(error: BaseException) -> str:
    """The message, which must be one line and say something beyond its first clause."""
    text = str(error)
    assert "\n" not in text
    assert "; " in text, f"no advice in {text!r}"
    return text


def python_environment(**variables: str) -> dict[str, str]:
    """For a Python of its own that imports from the same places, with these environment variables."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **variables}


def run_python(*argv: object, **variables: str) -> subprocess.CompletedProcess:
    """A Python of its own that imports from the same places, with these environment variables; its output as text."""
    command, environment = [sys.executable, *map(str, argv)], python_environment(**variables)
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False, env=environment)


def failure_line(capsys: pytest.CaptureFixture) -> str:
    """What a command that failed said on stderr, which must be one line."""
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and "Traceback" not in error
    return error


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Operators as small as those of the tiny model spend their time waiting for a second thread."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def heard_interrupts() -> None:
    """A shell that puts the tests into the background has Ctrl-C ignored, and children inherit that."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def rare_garbage_collection() -> None:
    """Tracing makes millions of objects; looking through all of torch and onnx with each few hundred costs a tenth."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Compiled engines of tests do not end in the user's cache, and no test reads the user's own settings."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MMA_EDGE_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        yield


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    if not SHARED.is_dir():
        pytest.skip("the shared data of the project is not here")
    return SHARED


@pytest.fixture(scope="session")
def reference_dir(shared_dir: Path) -> Path:
    return shared_dir / "reference"


@pytest.fixture(scope="session")
def tiny_config() -> MMADFERConfig:
    return TINY


@pytest.fixture(scope="session")
def tiny_model() -> MMADFER:
    """Shared by the session: not to be changed."""
    return make_model(TINY)


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory, tiny_model: MMADFER) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.pt"
    save_checkpoint(path, Checkpoint(TINY, tiny_model.state_dict(), {"recipe": {"modality_dropout": 0.25}}))
    return path


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> tuple[Path, onnx.ModelProto]:
    """The tiny model as a bundle, and its graph as traced on the way: tracing takes seconds."""
    output, graphs = tmp_path_factory.mktemp("bundle") / "tiny", []

    def keep(model: MMADFER, path: Path) -> onnx.ModelProto:
        graphs.append(export_graph(model, path))
        return graphs[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mma_export.bundle.export_graph", keep)
        export(read_checkpoint(tiny_checkpoint), output)
    return output, graphs[0]


@pytest.fixture(scope="session")
def tiny_bundle(exported: tuple[Path, onnx.ModelProto]) -> Path:
    """A bundle in a session's folder: to be read only; `bundle_copy` hands out copies."""
    return exported[0]


@pytest.fixture(scope="session")
def streamed(
    tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path, tiny_model: MMADFER
) -> tuple[Bundle, dict[str, onnx.ModelProto]]:
    """The tiny bundle with the parts for streaming, and these as traced: not to be changed."""
    from streaming_bundle import with_streaming

    return with_streaming(tiny_bundle, tmp_path_factory.mktemp("streaming") / "tiny", tiny_model)


@pytest.fixture(scope="session")
def streaming_bundle(streamed: tuple[Bundle, dict[str, onnx.ModelProto]]) -> Bundle:
    """The tiny bundle with the parts for streaming: to be read only."""
    return streamed[0]


@pytest.fixture(scope="session")
def whole8(proto: onnx.ModelProto) -> Whole8:
    """What a search for int8 would have found for the tiny model."""
    from eight_bits import whole_of

    return whole_of(proto)


@pytest.fixture(scope="session")
def eight_bits(
    streamed: tuple[Bundle, dict[str, onnx.ModelProto]],
    whole8: Whole8,
    tiny_model: MMADFER,
    tmp_path_factory: pytest.TempPathFactory,
) -> Bundle:
    """The tiny bundle with int8, bf16 and fp8, and its parts in all of them: to be read only."""
    from eight_bits import with_eight_bits

    return with_eight_bits(*streamed, whole8, tiny_model, tmp_path_factory.mktemp("eight") / "bundle")


@pytest.fixture(scope="session")
def proto(exported: tuple[Path, onnx.ModelProto]) -> onnx.ModelProto:
    """The tiny model as traced, weights in float32: not to be changed."""
    return exported[1]


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch, tiny_bundle: Path, proto: onnx.ModelProto) -> None:
    """An export of the tiny model takes the graph already traced from the same weights."""

    def copied(model: MMADFER, path: Path) -> onnx.ModelProto:
        shutil.copyfile(tiny_bundle / "model.fp32.onnx", path)
        return proto

    monkeypatch.setattr("mma_export.bundle.export_graph", copied)


@pytest.fixture(scope="session")
def clips() -> RealClips:
    """Clips made of the sample, at the size of the tiny model."""
    return made_clips(TINY.image_size, 24)


@pytest.fixture(scope="session")
def reference(proto: onnx.ModelProto, clips: RealClips) -> np.ndarray:
    return logits_of(proto, clips)


@pytest.fixture
def bundle_copy(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A bundle that the test may damage."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


@pytest.fixture
def edit_manifest(bundle_copy: Path) -> Callable[[Callable[[dict], object]], Path]:
    """Change the manifest of `bundle_copy` in place; the hashes of its files and its own digest stay right."""

    def edit(change: Callable[[dict], object]) -> Path:
        path = bundle_copy / "manifest.json"
        manifest = json.loads(path.read_text())
        change(manifest)
        write_signed(path, manifest)
        return bundle_copy

    return edit


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """A training run draws no curves: they take longer than the runs of most tests."""
    monkeypatch.setattr("mma_trainer.training.loop.plot_curves", lambda rows, path: None)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


@pytest.fixture
def dfew(tmp_path: Path) -> Path:
    """Nineteen clips in DFEW's naming; the wav of clip 12 is there, that of the others is not.

    train.txt has clips 1 to 12 and val.txt the others; test.txt has clips 10 to 12.
    """
    for clip in range(1, 20):
        make_frames(tmp_path / "clip_224x224" / f"{clip:05d}", list(range(1, 21)))
    (tmp_path / "raw_wav").mkdir()
    soundfile.write(tmp_path / "raw_wav" / "12.wav", tone(1.0, 440), RATE_HZ, subtype="FLOAT")
    lines = [f"clip_224x224/{clip:05d} 20 {clip % 7}" for clip in range(1, 20)]
    (tmp_path / "train.txt").write_text("\n".join(lines[:12]) + "\n\n")
    (tmp_path / "val.txt").write_text("\n".join(lines[12:]))
    (tmp_path / "test.txt").write_text("\n".join(lines[9:12]))
    return tmp_path


def save_faces(path: Path, images: np.ndarray, labels: np.ndarray) -> None:
    """Faces in a file of FER+: all ten people see the label."""
    votes = (10 * np.eye(10)[labels]).astype(np.uint8)
    np.savez(path, images=images, votes=votes, fer2013_labels=labels.astype(np.uint8))


def save_opus(path: Path, seconds: float = 0.2, rate_hz: int = RATE_HZ, hz: float = 300.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = 0.3 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate_hz)) / rate_hz)
    soundfile.write(path, wave, rate_hz, format="OGG", subtype="OPUS")
    return path


@pytest.fixture(scope="session")
def public(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made-up faces and voices in the files of FER+, FER2013 and RAVDESS, and noise."""
    root, rng = tmp_path_factory.mktemp("public"), np.random.default_rng(0)
    for split, count in (("train", 28), ("val", 14)):
        labels = (np.arange(count) % 7).astype(np.uint8)
        images = rng.integers(0, 256, (count, 48, 48), dtype=np.uint8)
        save_faces(root / f"ferplus_{split}.npz", images, labels)
    np.savez(root / "fer2013_val.npz", images=images, labels=labels)
    for actor in (1, 16, 17):
        folder = root / "ravdess_speech" / f"Actor_{actor:02d}"
        folder.mkdir(parents=True)
        for emotion in range(1, 9):
            wave = tone(0.5, 100 * emotion + actor) + 0.01 * rng.standard_normal(RATE_HZ // 2)
            soundfile.write(folder / f"03-01-{emotion:02d}-01-01-01-{actor:02d}.flac", wave, RATE_HZ)
    for number in range(4):
        save_opus(root / "noise" / f"phone_roads_{number:04d}.opus", hz=1000 + 500 * number)
    (root / "rooms").mkdir()
    soundfile.write(root / "rooms" / "hall.flac", np.exp(-np.arange(4000) / 800) * rng.standard_normal(4000), RATE_HZ)
    for name, corpus in CORPORA.items():
        for label in corpus.classes if name != RAVDESS else ():
            for speaker in ("01", "04", "05") if name == "javanese" else ("01",):  # 04 and 05 are left out by default
                path = root / "voices" / name / f"{speaker}_{DFEW_LABELS[label]}_001.opus"
                save_opus(path, 0.4, hz=200 + 100 * label)
    return root
