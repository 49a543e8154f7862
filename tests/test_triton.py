"""Promises of `mma-export --triton`: what Triton's own schema reads, all or nothing, and nobody's files lost."""

from __future__ import annotations

import json
import os
import shutil
from argparse import Namespace
from pathlib import Path

import fake_gpu
import numpy as np
import onnx
import pytest
from conftest import one_line
from rich.console import Console
from streaming_bundle import SEEN

from mma_edge.bundle import golden_inputs, read_bundle, write_manifest
from mma_edge.engines.cpu import OnnxCpuEngine
from mma_edge.engines.tensorrt.plan import Plan
from mma_edge.errors import BackendError, BundleError, OutputError, UsageError
from mma_export import triton
from mma_export.cli import _write_triton
from mma_export.triton import MARK, TritonOptions, write_repository

SIZE, LABELS = 16, ("happy", "sad", "angry")


def parse(folder: Path):
    """config.pbtxt by Triton's own protobuf schema: unknown fields and wrong types are errors."""
    schema = pytest.importorskip("tritonclient.grpc.model_config_pb2", reason="tritonclient[grpc] is not installed")
    from google.protobuf import text_format

    return schema, text_format.Parse((folder / "config.pbtxt").read_text(), schema.ModelConfig())


def fake_plan(monkeypatch: pytest.MonkeyPatch, max_batch: int) -> None:
    plan = Plan(None, Path("fp32.plan"), b"serialised engine", max_batch, {})
    monkeypatch.setattr(triton, "import_tensorrt", lambda: None)
    monkeypatch.setattr(triton, "this_machine", lambda trt: None)
    monkeypatch.setattr(triton, "check_plan", lambda target, machine: plan)


def test_the_configuration_is_what_tritons_schema_reads(tiny_bundle: Path, tmp_path: Path) -> None:
    (folder,) = write_repository(read_bundle(tiny_bundle), tmp_path / "models", ["fp32"])
    schema, config = parse(folder)
    assert (config.name, folder.name) == ("tiny-fp32", "tiny-fp32")
    assert (config.platform, config.max_batch_size) == ("onnxruntime_onnx", 16)
    inputs = {value.name: (value.data_type, list(value.dims)) for value in config.input}
    assert inputs == {
        "frames": (schema.TYPE_UINT8, [16, SIZE, SIZE, 3]),
        "mel": (schema.TYPE_FP32, [512, 128]),
    }
    (output,) = config.output
    assert (output.name, output.data_type, list(output.dims)) == ("logits", schema.TYPE_FP32, [len(LABELS)])
    assert (folder / output.label_filename).read_text().splitlines() == list(LABELS)
    assert list(config.dynamic_batching.preferred_batch_size) == [2, 4, 8, 16]
    assert config.dynamic_batching.max_queue_delay_microseconds == 2000
    (group,) = config.instance_group
    assert (group.count, group.kind) == (1, schema.ModelInstanceGroup.KIND_AUTO)
    # A batch size that was not warmed up would cost a client its first call.
    assert [warmup.batch_size for warmup in config.model_warmup] == [1, 2, 4, 8, 16]
    for warmup in config.model_warmup:
        assert {name: list(value.dims) for name, value in warmup.inputs.items()} == {
            name: dims for name, (_, dims) in inputs.items()
        }
    assert not config.HasField("optimization")


@pytest.mark.parametrize(("max_batch", "preferred"), [(1, []), (2, [2]), (6, [2, 4, 6])])
def test_batching_follows_the_options(tiny_bundle: Path, tmp_path: Path, max_batch: int, preferred: list) -> None:
    options = TritonOptions(max_batch, queue_delay_us=0, device="gpu", instances=2)
    (folder,) = write_repository(read_bundle(tiny_bundle), tmp_path / "models", options=options)
    schema, config = parse(folder)
    assert config.max_batch_size == max_batch and config.HasField("dynamic_batching")
    assert [warmup.batch_size for warmup in config.model_warmup] == [1, *preferred]
    assert list(config.dynamic_batching.preferred_batch_size) == preferred
    (group,) = config.instance_group
    assert (group.count, group.kind) == (2, schema.ModelInstanceGroup.KIND_GPU)


def test_a_name_with_quotes_and_slashes_stays_one_folder(tiny_bundle: Path, tmp_path: Path, edit_manifest) -> None:
    copy = edit_manifest(lambda manifest: manifest.update(name='../a "b"/ü'))
    (folder,) = write_repository(read_bundle(copy), tmp_path / "models")
    assert folder == tmp_path / "models" / "a-b-fp32" and parse(folder)[1].name == folder.name


def test_the_model_is_the_bundles_graph_with_all_that_belongs_to_it(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = read_bundle(tiny_bundle)
    (folder,) = write_repository(bundle, tmp_path / "models")
    assert (folder / "1" / "model.onnx").read_bytes() == bundle.graph("fp32").read_bytes()
    assert (folder / "LICENSE").read_text() == (tiny_bundle / "LICENSE").read_text()
    assert json.loads((folder / "manifest.json").read_text()) == bundle.manifest
    assert (folder / "config.pbtxt").read_text().startswith(MARK)
    assert not [path for path in tmp_path.iterdir() if path.name != "models"]  # no temporary folder stays
    assert folder.stat().st_mode & 0o055 == 0o055  # a server of another user can read it


def test_weights_beside_the_graph_come_along(bundle_copy: Path, tmp_path: Path) -> None:
    graph = bundle_copy / "model.fp32.onnx"
    proto = onnx.load(str(graph))
    onnx.save(proto, str(graph), save_as_external_data=True, location="weights.data", size_threshold=4096)
    manifest = json.loads((bundle_copy / "manifest.json").read_text())
    bundle = write_manifest(bundle_copy, manifest)
    (folder,) = write_repository(bundle, tmp_path / "models")
    frames, mel = golden_inputs(0, SIZE, 2)
    served = OnnxCpuEngine(folder / "1" / "model.onnx", "fp32")(frames, mel)
    np.testing.assert_array_equal(served, OnnxCpuEngine(graph, "fp32")(frames, mel))


def test_a_plan_is_the_one_built_and_checked_here(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_plan(monkeypatch, max_batch=4)
    (folder,) = write_repository(read_bundle(tiny_bundle), tmp_path / "models", ["fp32"], plan=True)
    _, config = parse(folder)
    assert (folder / "1" / "model.plan").read_bytes() == b"serialised engine"
    assert (config.name, config.platform) == ("tiny-fp32-plan", "tensorrt_plan")
    assert config.max_batch_size == 4  # what it was built for, not the 16 of the options
    assert [warmup.batch_size for warmup in config.model_warmup] == [1, 2, 4]
    assert config.optimization.cuda.graphs
    assert not (folder / "1" / "model.onnx").exists()


def test_the_command_builds_the_plan_that_it_serves(
    bundle_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_gpu.into(monkeypatch)
    monkeypatch.setattr("mma_edge.commands.setup.build.gate_clips", lambda bundle: SEEN)
    asked = Namespace(triton=tmp_path / "models", triton_plan=True, overwrite=False)
    _write_triton(read_bundle(bundle_copy), asked, TritonOptions(max_batch=1), Console(quiet=True))
    (served,) = (tmp_path / "models").glob("*/1/model.plan")
    assert served.read_bytes() == (bundle_copy / "engines" / "fp32.plan").read_bytes()


def test_without_a_plan_of_this_device_nothing_is_written(tiny_bundle: Path, tmp_path: Path, monkeypatch) -> None:
    fake_plan(monkeypatch, max_batch=4)
    error = BackendError("no TensorRT engine", "one built on this device", "build it here with: mma-edge build b")

    def refuse(*args: object) -> None:
        raise error

    monkeypatch.setattr(triton, "check_plan", refuse)
    with pytest.raises(BackendError) as raised:
        write_repository(read_bundle(tiny_bundle), tmp_path / "models", plan=True)
    assert "mma-edge build" in one_line(raised.value) and not list(tmp_path.iterdir())


def test_for_the_cpu_the_graph_that_is_faster_there_is_served(bundle_copy: Path, tmp_path: Path) -> None:
    proto = onnx.load(str(bundle_copy / "model.fp32.onnx"))
    proto.producer_name = "another"
    onnx.save(proto, str(bundle_copy / "model.cpu.onnx"))
    manifest = json.loads((bundle_copy / "manifest.json").read_text())
    manifest["precisions"]["fp32"]["cpu_file"] = "model.cpu.onnx"
    bundle = write_manifest(bundle_copy, manifest)
    (cpu,) = write_repository(bundle, tmp_path / "a", options=TritonOptions(device="cpu"))
    (gpu,) = write_repository(bundle, tmp_path / "b", options=TritonOptions(device="gpu"))
    assert (cpu / "1" / "model.onnx").read_bytes() == (bundle_copy / "model.cpu.onnx").read_bytes()
    assert (gpu / "1" / "model.onnx").read_bytes() == (bundle_copy / "model.fp32.onnx").read_bytes()


def test_what_others_put_there_stays(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle, models = read_bundle(tiny_bundle), tmp_path / "models"
    theirs = models / "resnet" / "config.pbtxt"
    theirs.parent.mkdir(parents=True)
    theirs.write_text('name: "resnet"')
    (folder,) = write_repository(bundle, models)
    assert theirs.read_text() == 'name: "resnet"'
    with pytest.raises(OutputError, match="--overwrite"):
        write_repository(bundle, models)
    (folder / "1" / "model.onnx").write_bytes(b"old")
    write_repository(bundle, models, overwrite=True)
    assert (folder / "1" / "model.onnx").read_bytes() == bundle.graph("fp32").read_bytes()
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "config.pbtxt").write_text('name: "tiny-fp32"')
    with pytest.raises(OutputError, match="not written by mma-export"):
        write_repository(bundle, models, overwrite=True)
    assert [path.name for path in folder.iterdir()] == ["config.pbtxt"]


def test_a_full_disk_leaves_the_old_model_and_no_half_of_a_new_one(tiny_bundle: Path, tmp_path: Path, monkeypatch):
    bundle, models = read_bundle(tiny_bundle), tmp_path / "models"
    (folder,) = write_repository(bundle, models)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    replace = os.replace

    def fail_on_the_new(source: Path, target: Path) -> None:
        if Path(target) == folder and ".replaced" not in str(source):
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail_on_the_new)
    with pytest.raises(OutputError, match="No space left"):
        write_repository(bundle, models, overwrite=True)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    with pytest.raises(OutputError, match="cannot write"):
        write_repository(bundle, folder / "labels.txt" / "models")
    assert [path.name for path in tmp_path.iterdir()] == ["models"]


def test_precisions_that_cannot_be_served_are_refused(tiny_bundle: Path, tmp_path: Path, edit_manifest) -> None:
    with pytest.raises(BackendError) as error:
        write_repository(read_bundle(tiny_bundle), tmp_path / "m", ["int8"])
    assert "mma-export --precision int8" in one_line(error.value)
    failed = read_bundle(edit_manifest(lambda m: m["precisions"]["fp32"].update(failed="top-1 agreement 90 %")))
    for precisions in (["fp32"], None):
        with pytest.raises(BundleError, match="gate"):
            write_repository(failed, tmp_path / "m", precisions)
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    "options", [{"max_batch": 0}, {"max_batch": 2000}, {"queue_delay_us": -1}, {"instances": 0}, {"device": "tpu"}]
)
def test_options_that_make_no_sense_are_refused(options: dict) -> None:
    with pytest.raises(UsageError):
        TritonOptions(**options)
