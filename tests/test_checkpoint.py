"""A checkpoint, ours or the authors', is read whole or refused in one line; code inside it never runs."""

from __future__ import annotations

import errno
import io
import json
import os
import pickle
import sys
import types
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
import torch
from conftest import one_line, save_as_the_authors

from mma_edge.errors import CheckpointError
from mma_trainer.labels import DFEW_LABELS, MAFW_LABELS
from mma_trainer.model import MMADFER, MMADFERConfig
from mma_trainer.weights.checkpoint import Checkpoint, load_checkpoint, read_checkpoint, save_checkpoint

# The published sizes -> small ones; heads stay 64 wide, for no tensor tells their number.
NARROW = {768: 64, 3072: 256, 2304: 192, 512: 64, 1024: 128, 128: 8}


@pytest.fixture(scope="module")
def narrow(reference_dir: Path) -> Callable[..., dict[str, torch.Tensor]]:
    """The published layout, key for key, at a twelfth of its width."""
    layout = json.loads((reference_dir / "official_layout.json").read_text())

    def build(image_size: int = 112, classes: int = 7) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        state = {}
        for key, shape in layout.items():
            shape = [NARROW.get(size, size) for size in shape]
            if key == "image_encoder.pos_embed":
                shape[1] = 1 + (image_size // 16) ** 2 + 6
            if key.startswith("our_classifier"):
                shape[0] = classes
            state[key] = torch.randn(shape)
        return state

    return build


def refused(path: Path) -> str:
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(path)
    text = one_line(error.value)
    assert str(path) in text
    return text


class Bomb:
    """Unpickling it creates a file: proof that code ran."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple:
        return os.system, (f"touch '{self.proof}'",)


def test_our_file_makes_the_round_trip(tiny_model: MMADFER, tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "model.pt"
    provenance = {"recipe": {"lr": 1e-4}, "val": {"uar": 0.5}}
    training = {"optimizer": {"state": {0: {"step": torch.tensor(3.0)}}}, "rows": [{"epoch": 1}]}
    save_checkpoint(path, Checkpoint(tiny_model.config, tiny_model.state_dict(), provenance, training))
    read = read_checkpoint(path)
    assert read.config == tiny_model.config
    assert read.provenance == provenance and read.training == training
    model = load_checkpoint(path)
    assert not model.training
    for key, tensor in tiny_model.state_dict().items():
        torch.testing.assert_close(model.state_dict()[key], tensor, rtol=0, atol=0)
    assert [p.requires_grad for p in model.parameters()] == [p.requires_grad for p in tiny_model.parameters()]


def test_half_is_half_the_file_and_comes_back_as_float32(tiny_model: MMADFER, tmp_path: Path) -> None:
    checkpoint = Checkpoint(tiny_model.config, tiny_model.state_dict())
    save_checkpoint(tmp_path / "full.pt", checkpoint)
    save_checkpoint(tmp_path / "half.pt", checkpoint, half=True)
    numbers = sum(tensor.numel() for tensor in tiny_model.state_dict().values())
    saved = (tmp_path / "full.pt").stat().st_size - (tmp_path / "half.pt").stat().st_size
    assert saved == pytest.approx(2 * numbers, rel=0.05)
    loaded = load_checkpoint(tmp_path / "half.pt").state_dict()
    for key, tensor in tiny_model.state_dict().items():
        assert loaded[key].dtype == tensor.dtype, key  # batch counters stay whole numbers
        torch.testing.assert_close(loaded[key], tensor.half().to(tensor.dtype), rtol=0, atol=0)


@pytest.mark.parametrize(("image_size", "labels"), [(112, DFEW_LABELS), (160, MAFW_LABELS)])
def test_the_architecture_is_read_off_the_authors_tensors(
    narrow: Callable, tmp_path: Path, image_size: int, labels: tuple[str, ...]
) -> None:
    path = save_as_the_authors(tmp_path / "authors.pth", narrow(image_size, len(labels)))
    assert read_checkpoint(path).config == MMADFERConfig(
        image_size=image_size,
        labels=labels,
        width=64,
        num_heads=1,
        bottleneck_width=8,
        temporal_width=64,
        temporal_heads=1,
        temporal_mlp=128,
    )
    assert load_checkpoint(path).classifier.out_features == len(labels)


def test_a_class_count_without_known_names_gets_numbers(narrow: Callable, tmp_path: Path) -> None:
    torch.save(narrow(classes=3), tmp_path / "three.pth")
    assert read_checkpoint(tmp_path / "three.pth").config.labels == ("class 0", "class 1", "class 2")


def test_a_bare_state_dict_without_prefix_is_the_same_model(narrow: Callable, tmp_path: Path) -> None:
    state = narrow()
    torch.save(state, tmp_path / "bare.pth")
    save_as_the_authors(tmp_path / "authors.pth", state)
    bare, authors = (load_checkpoint(tmp_path / name).state_dict() for name in ("bare.pth", "authors.pth"))
    for key in bare:
        torch.testing.assert_close(bare[key], authors[key], rtol=0, atol=0)


def test_every_tensor_of_the_authors_but_the_unused_heads_has_its_place(narrow: Callable, tmp_path: Path) -> None:
    state = narrow()
    torch.save(state, tmp_path / "bare.pth")
    ours = sorted(float(t.double().sum()) for t in load_checkpoint(tmp_path / "bare.pth").state_dict().values())
    theirs = sorted(float(t.double().sum()) for key, t in state.items() if ".head." not in key)
    assert ours == theirs


def test_missing_and_misshapen_tensors_are_listed_by_name(narrow: Callable, tmp_path: Path) -> None:
    state = narrow()
    del state["image_encoder.blocks.3.attn.proj.bias"], state["audio_model.all_gate.5"]
    state["vision_proj.bias"] = torch.zeros(63)
    torch.save(state, tmp_path / "damaged.pth")
    text = refused(tmp_path / "damaged.pth")
    for said in ("missing", "image_encoder.blocks.3.attn.proj.bias", "fusion.5.audio_gate"):
        assert said in text
    assert "joint.bias is (63,), expected (64,)" in text


def test_a_long_list_of_missing_tensors_is_cut_with_its_length(tiny_model: MMADFER, tmp_path: Path) -> None:
    state = {k: v for k, v in tiny_model.state_dict().items() if not k.startswith("audio_encoder.")}
    save_checkpoint(tmp_path / "damaged.pt", Checkpoint(tiny_model.config, state))
    text = refused(tmp_path / "damaged.pt")
    missing = sum(key.startswith("audio_encoder.") for key in tiny_model.state_dict())
    assert f"and {missing - 8} more" in text and len(text) < 1000


def test_unknown_tensors_are_listed_by_name(narrow: Callable, tiny_model: MMADFER, tmp_path: Path) -> None:
    torch.save({**narrow(), "image_encoder.adapter.weight": torch.zeros(1)}, tmp_path / "variant.pth")
    assert "unknown tensors image_encoder.adapter.weight" in refused(tmp_path / "variant.pth")
    state = {**tiny_model.state_dict(), "adapter.weight": torch.zeros(1)}
    save_checkpoint(tmp_path / "ours.pt", Checkpoint(tiny_model.config, state))
    assert "unexpected adapter.weight" in refused(tmp_path / "ours.pt")


def test_a_download_that_lacks_whole_parts_is_refused_by_name(narrow: Callable, tmp_path: Path) -> None:
    state = {key: value for key, value in narrow().items() if not key.startswith("vision_proj")}
    torch.save(state, tmp_path / "part.pth")
    with pytest.raises(CheckpointError, match=r"joint\.weight"):
        load_checkpoint(tmp_path / "part.pth")


def test_a_model_of_something_else_is_refused(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "linear.pt")
    assert "keys are not MMA-DFER's (first: weight)" in refused(tmp_path / "linear.pt")


def test_a_version_from_the_future_is_refused(tmp_path: Path) -> None:
    torch.save({"format": "mma-edge-checkpoint", "version": 2}, tmp_path / "future.pt")
    assert "upgrade" in refused(tmp_path / "future.pt")


def damaged_zip(good: bytes) -> bytes:
    return good[: len(good) // 2]


def saved(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


OURS = {"format": "mma-edge-checkpoint", "version": 1}


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\x80\x02", id="two bytes"),
        pytest.param(np.random.default_rng(0).bytes(5000), id="random bytes"),
        pytest.param(damaged_zip(saved({"state_dict": {"a": torch.zeros(1000)}})), id="truncated zip"),
        pytest.param(b'{"schema_version": 1}', id="JSON"),
        pytest.param(saved([torch.zeros(1)]), id="a list"),
        pytest.param(saved({}), id="an empty dict"),
        pytest.param(saved({"state_dict": {"a": 3}}), id="numbers for tensors"),
        pytest.param(saved({1: torch.zeros(1)}), id="keys that are no names"),
        pytest.param(saved(OURS), id="ours without contents"),
        pytest.param(saved({**OURS, "config": 3, "state_dict": {}}), id="config is a number"),
        pytest.param(saved({**OURS, "config": {}, "state_dict": {"a": 3}}), id="ours, numbers for tensors"),
        pytest.param(saved({**OURS, "config": {}, "state_dict": {}, "provenance": 3}), id="provenance is a number"),
    ],
)
def test_what_is_no_checkpoint_is_said_to_be_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file.pt"
    path.write_bytes(content)
    assert "not a checkpoint" in refused(path)


def test_no_damage_of_a_file_escapes_as_another_error(tmp_path: Path) -> None:
    path, rng = tmp_path / "file.pt", np.random.default_rng(1)
    legacy = io.BytesIO()
    torch.save({"state_dict": {"a": torch.zeros(3)}, "x": [1, (2, "s")]}, legacy, _use_new_zipfile_serialization=False)
    for good in (saved({"a": torch.zeros(3), "b": np.zeros(3)}), legacy.getvalue()):
        for _ in range(60):
            damaged = np.frombuffer(good, np.uint8).copy()
            damaged[rng.integers(len(damaged), size=4)] = rng.integers(256, size=4)
            path.write_bytes(damaged.tobytes())
            with pytest.raises(CheckpointError):
                read_checkpoint(path)


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    assert "does not exist" in refused(tmp_path / "none.pt")
    assert "is a folder" in refused(tmp_path)


@pytest.mark.parametrize("legacy", [False, True])
def test_code_in_a_pickle_is_refused_and_does_not_run(tmp_path: Path, legacy: bool) -> None:
    proof, path = tmp_path / "proof", tmp_path / "bomb.pth"
    content = {"state_dict": {"module.a": torch.zeros(1)}, "recorder": Bomb(proof)}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    text = refused(path)
    assert "system" in text and "not loaded" in text
    assert not proof.exists()
    # The bomb is a real one: an unsafe load would have set it off.
    torch.load(path, weights_only=False)
    assert proof.exists()


def test_code_in_a_plain_pickle_is_refused_and_does_not_run(tmp_path: Path) -> None:
    proof, path = tmp_path / "proof", tmp_path / "bomb.pkl"
    path.write_bytes(pickle.dumps(Bomb(proof), protocol=2))
    refused(path)
    assert not proof.exists()


def test_code_that_hides_inside_the_recorder_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cls = type("RecorderMeter", (), {"__module__": "__main__"})
    monkeypatch.setattr(sys.modules["__main__"], "RecorderMeter", cls, raising=False)
    proof, path, recorder = tmp_path / "proof", tmp_path / "bomb.pth", cls()
    recorder.epoch_losses = Bomb(proof)
    torch.save({"state_dict": {"module.a": torch.zeros(1)}, "recorder": recorder}, path)
    assert "system" in refused(path)
    assert not proof.exists()


def test_no_class_but_the_authors_recorder_is_let_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_as_the_authors(tmp_path / "other.pth", {"a": torch.zeros(1)}, class_name="ProgressMeter")
    assert "__main__.ProgressMeter" in refused(path)
    # Nor one of that name from elsewhere.
    module = types.ModuleType("elsewhere")
    module.RecorderMeter = type("RecorderMeter", (), {"__module__": "elsewhere"})
    monkeypatch.setitem(sys.modules, "elsewhere", module)
    torch.save({"state_dict": {"a": torch.zeros(1)}, "recorder": module.RecorderMeter()}, path)
    assert "elsewhere.RecorderMeter" in refused(path)


def test_files_written_with_numpy_1_and_numpy_2_are_both_read(narrow: Callable, tmp_path: Path) -> None:
    path = save_as_the_authors(tmp_path / "authors.pth", narrow())
    for wanted in (b"cnumpy.core.multiarray\n", b"cnumpy._core.multiarray\n"):
        rewritten = tmp_path / "rewritten.pth"
        with zipfile.ZipFile(path) as old, zipfile.ZipFile(rewritten, "w") as new:
            for name in old.namelist():
                data = old.read(name)
                if name.endswith("data.pkl"):
                    for known in (b"cnumpy.core.multiarray\n", b"cnumpy._core.multiarray\n"):
                        data = data.replace(known, wanted)
                    assert wanted + b"_reconstruct" in data and wanted + b"scalar" in data
                new.writestr(name, data)
        assert read_checkpoint(rewritten).config.image_size == 112


def test_a_failing_write_keeps_the_old_file_and_leaves_nothing_else(
    tiny_model: MMADFER, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "last.pt"
    path.write_bytes(b"the old one")

    def full_disk(content: object, target: BinaryIO) -> None:
        target.write(b"half of i")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(CheckpointError, match="No space left"):
        save_checkpoint(path, Checkpoint(tiny_model.config, tiny_model.state_dict()))
    assert path.read_bytes() == b"the old one"
    assert [p.name for p in tmp_path.iterdir()] == ["last.pt"]
