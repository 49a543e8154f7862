"""An export is a whole bundle that computes what PyTorch computes, or nothing and one line that says why."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from conftest import TINY, export, one_line

from mma_edge.bundle import Bundle, check_output, golden_inputs, read_bundle
from mma_edge.engines.cpu import OnnxCpuEngine
from mma_edge.errors import OutputError, ParityError, UsageError
from mma_export.bundle import WeightsLicense, license_of
from mma_export.cli import main
from mma_export.graph import check_graph
from mma_export.mtcnn import PReLU
from mma_trainer.model import MMADFER
from mma_trainer.model.inputs import ContractModel
from mma_trainer.weights.checkpoint import Checkpoint, read_checkpoint, save_checkpoint


@pytest.fixture(scope="module")
def graph(tiny_bundle: Path) -> onnx.ModelProto:
    return onnx.load(str(tiny_bundle / "model.fp32.onnx"))


def write(checkpoint: Path, output: Path, **options: object) -> Bundle:
    return export(read_checkpoint(checkpoint), output, **options)


def run(capsys: pytest.CaptureFixture, *argv: object) -> tuple[int, str, str]:
    code = main([str(word) for word in argv])
    out, err = capsys.readouterr()
    return code, out, err


def pytorch_logits(model: MMADFER, frames: np.ndarray, mel: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return ContractModel(model).eval()(torch.from_numpy(frames), torch.from_numpy(mel)).numpy()


def signature(values: list) -> dict[str, tuple[int, list[int | str]]]:
    return {
        v.name: (v.type.tensor_type.elem_type, [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim])
        for v in values
    }


def test_the_graph_has_the_contracts_inputs_and_output(graph: onnx.ModelProto) -> None:
    n = graph.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    assert n
    assert signature(graph.graph.input) == {
        "frames": (onnx.TensorProto.UINT8, [n, 16, 16, 16, 3]),
        "mel": (onnx.TensorProto.FLOAT, [n, 512, 128]),
    }
    assert signature(graph.graph.output) == {"logits": (onnx.TensorProto.FLOAT, [n, 3])}


def test_the_graph_is_plain_opset_18_with_whole_layer_norms_and_decomposed_attention(graph: onnx.ModelProto) -> None:
    assert {entry.domain: entry.version for entry in graph.opset_import}.get("") == 18
    assert {node.domain for node in graph.graph.node} <= {"", "ai.onnx"}  # nothing of com.microsoft
    operators = [node.op_type for node in graph.graph.node]
    # Two blocks: 2 norms per encoder block and 2 of the fusion, 2 final ones, 2 of the temporal block.
    assert operators.count("LayerNormalization") == 2 * (4 + 2) + 2 + 2
    assert "Attention" not in operators
    assert operators.count("Softmax") == 2 * 2 + 1


def test_the_graph_tells_nothing_of_the_machine_it_was_made_on(tiny_bundle: Path) -> None:
    content = (tiny_bundle / "model.fp32.onnx").read_bytes() + (tiny_bundle / "manifest.json").read_bytes()
    assert str(Path(__file__).parents[1]).encode() not in content
    assert b"site-packages" not in content


@pytest.mark.parametrize("clips", [1, 2, 5])
def test_any_batch_gives_pytorchs_logits(tiny_bundle: Path, tiny_model: MMADFER, clips: int) -> None:
    frames, mel = golden_inputs(40 + clips, 16, clips)
    expected = pytorch_logits(tiny_model, frames, mel)
    got = OnnxCpuEngine(tiny_bundle / "model.fp32.onnx", "fp32")(frames, mel)
    np.testing.assert_allclose(got, expected, atol=1e-4)
    assert np.ptp(expected) > 0.1


def test_a_graph_of_another_model_fails_the_check(tiny_bundle: Path, tmp_path: Path) -> None:
    model = MMADFER(TINY.replace(labels=("one", "two")))
    with pytest.raises(ParityError, match="other outputs"):
        check_graph(tiny_bundle / "model.fp32.onnx", model)
    proto = onnx.load(str(tiny_bundle / "model.fp32.onnx"))
    norm = next(node for node in proto.graph.node if node.op_type == "LayerNormalization")
    norm.domain = "com.microsoft"
    proto.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    onnx.save(proto, str(tmp_path / "odd.onnx"))
    with pytest.raises(ParityError, match="outside the ONNX standard"):
        check_graph(tmp_path / "odd.onnx", MMADFER(TINY))


def test_the_manifest_holds_what_the_export_knows(tiny_bundle: Path, tiny_model: MMADFER) -> None:
    manifest = json.loads((tiny_bundle / "manifest.json").read_text())
    figures = manifest["precisions"]["fp32"]["parity"]
    assert set(figures) == {"max_abs_logit_difference_batch_1", "max_abs_logit_difference_batch_3"}
    assert all(0 <= value <= 1e-4 for value in figures.values())
    assert manifest["labels"] == list(tiny_model.config.labels)
    assert (manifest["image_size"], manifest["num_frames"], manifest["color"]) == (16, 16, "rgb")
    assert manifest["missing_modality"] == {"trained": True}
    frames, mel = golden_inputs(manifest["golden"]["seed"], 16)
    np.testing.assert_allclose(manifest["golden"]["logits"], pytorch_logits(tiny_model, frames, mel), atol=1e-6)


def test_a_model_trained_on_both_modalities_only_says_so(tiny_model: MMADFER, traced: None, tmp_path: Path) -> None:
    checkpoint = Checkpoint(tiny_model.config, tiny_model.state_dict(), {})
    bundle = export(checkpoint, tmp_path / "x")
    assert bundle.manifest["missing_modality"] == {"trained": False}


def test_what_is_returned_is_what_was_written(tiny_checkpoint: Path, traced: None, tmp_path: Path) -> None:
    bundle = write(tiny_checkpoint, tmp_path / "out" / "b")
    assert bundle.folder == tmp_path / "out" / "b"
    assert read_bundle(bundle.folder).manifest == bundle.manifest
    assert bundle.folder.stat().st_mode & 0o777 == 0o755  # readable for others, unlike a temporary folder


def test_terms_and_model_card_travel_with_the_weights(tiny_model: MMADFER, traced: None, tmp_path: Path) -> None:
    card = tmp_path / "MODEL_CARD.md"
    card.write_text("# Tiny\n")
    checkpoint = Checkpoint(tiny_model.config, tiny_model.state_dict())
    terms = WeightsLicense("CC0-1.0", "No rights reserved.\n")
    bundle = export(checkpoint, tmp_path / "b", license_=terms, extra_files=(card,))
    assert (bundle.folder / bundle.manifest["license"]["file"]).read_text() == "No rights reserved.\n"
    assert bundle.manifest["license"]["name"] == "CC0-1.0"
    assert (bundle.folder / "MODEL_CARD.md").read_text() == "# Tiny\n"
    assert "MODEL_CARD.md" in bundle.manifest["files"]


def test_terms_that_were_handed_down_stay_whatever_is_added(tiny_model: MMADFER) -> None:
    inherited = {"license": {"name": "research only", "text": "No sale.\n"}}
    checkpoint = Checkpoint(tiny_model.config, {}, inherited)
    assert license_of(checkpoint) == WeightsLicense("research only", "No sale.\n")
    both = license_of(checkpoint, "CC0-1.0")
    assert both.name == "CC0-1.0; research only" and "CC0-1.0" in both.text and "No sale." in both.text
    assert license_of(Checkpoint(tiny_model.config, {})).name == "unstated"


@pytest.mark.parametrize("error", [0.001, np.nan])
def test_a_failed_gate_leaves_nothing_behind(
    tiny_checkpoint: Path, traced: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: float
) -> None:
    from mma_export import parity

    right = parity.reference_logits
    monkeypatch.setattr(parity, "reference_logits", lambda model, seed, clips: right(model, seed, clips) + error)
    with pytest.raises(ParityError) as failure:
        write(tiny_checkpoint, tmp_path / "b")
    assert "no bundle was written" in one_line(failure.value)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing_behind(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(model: MMADFER, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("mma_export.bundle.export_graph", full)
    with pytest.raises(OutputError, match="No space left on device"):
        write(tiny_checkpoint, tmp_path / "b")
    assert list(tmp_path.iterdir()) == []


def test_an_existing_bundle_is_replaced_only_when_asked(tiny_checkpoint: Path, traced: None, bundle_copy: Path) -> None:
    (bundle_copy / "old.txt").write_text("old")
    with pytest.raises(OutputError) as error:
        write(tiny_checkpoint, bundle_copy)
    assert "--overwrite" in one_line(error.value)
    assert (bundle_copy / "old.txt").is_file()
    write(tiny_checkpoint, bundle_copy, overwrite=True)
    assert not (bundle_copy / "old.txt").exists()
    read_bundle(bundle_copy)


def test_an_existing_bundle_outlives_a_failed_export(
    tiny_checkpoint: Path, traced: None, bundle_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {p.name: p.read_bytes() for p in bundle_copy.iterdir()}
    monkeypatch.setattr("mma_export.parity.reference_logits", lambda model, seed, clips: np.full((clips, 3), 9.0))
    with pytest.raises(ParityError):
        write(tiny_checkpoint, bundle_copy, overwrite=True)
    assert {p.name: p.read_bytes() for p in bundle_copy.iterdir()} == before
    assert [p.name for p in bundle_copy.parent.iterdir()] == [bundle_copy.name]


def test_a_folder_or_file_that_is_no_bundle_is_never_replaced(tiny_checkpoint: Path, tmp_path: Path) -> None:
    folder, file = tmp_path / "thesis", tmp_path / "thesis.txt"
    folder.mkdir()
    (folder / "chapter1.txt").write_text("work of years")
    file.write_text("work of years")
    for output in (folder, file):
        with pytest.raises(OutputError, match="is not a bundle"):
            write(tiny_checkpoint, output, overwrite=True)
    assert (folder / "chapter1.txt").is_file() and file.is_file()
    (tmp_path / "empty").mkdir()
    check_output(tmp_path / "empty", overwrite=False)  # nothing to lose


def test_an_output_that_cannot_be_made_is_named(tiny_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError) as error:
        write(tiny_checkpoint, tmp_path / "file" / "b")
    assert f"cannot write {tmp_path / 'file' / 'b'}" in one_line(error.value)


def test_the_command_writes_a_bundle_and_says_how_to_run_it(
    tiny_model: MMADFER, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    output, grey = tmp_path / "bundle", MMADFER(TINY.replace(color="grey")).eval()
    grey.load_state_dict(tiny_model.state_dict())
    save_checkpoint(tmp_path / "grey-7.pt", Checkpoint(grey.config, grey.state_dict()))
    code, out, err = run(capsys, "--checkpoint", tmp_path / "grey-7.pt", "--output", output, "--license", "CC0-1.0")
    assert (code, err) == (0, "")
    assert f"mma-edge run sample --bundle {output}" in out and "max abs logit difference" in out
    bundle = read_bundle(output)
    assert bundle.name == "grey-7" and bundle.manifest["license"]["name"] == "CC0-1.0"
    # A model of grey faces makes its input grey inside the graph.
    assert bundle.manifest["color"] == "grey"
    frames, mel = golden_inputs(1, 16, 2)
    expected, colour = pytorch_logits(grey, frames, mel), pytorch_logits(tiny_model, frames, mel)
    got = OnnxCpuEngine(bundle.graph("fp32"), "fp32")(frames, mel)
    np.testing.assert_allclose(got, expected, atol=1e-4)
    assert np.abs(got - colour).max() > 1e-3


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        (["--checkpoint", "{tmp}/none.pt", "--output", "{tmp}/b"], 8, "does not exist"),
        (["--checkpoint", "{tmp}", "--output", "{tmp}/b"], 8, "is a folder"),
        (["--checkpoint", "{tmp}/text.pt", "--output", "{tmp}/b"], 8, "not a checkpoint"),
        (["--checkpoint", "{tiny}", "--output", "{tmp}"], 7, "is not a bundle"),
        (["--checkpoint", "{tiny}", "--output", "{tmp}/text.pt/b"], 7, "cannot write"),
        (["--checkpoint", "{tiny}", "--precision", "fp12"], 2, "precision fp12; expected some of fp32"),
    ],
)
def test_what_goes_wrong_is_one_line_and_an_exit_code(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture, argv: list[str], code: int, said: str
) -> None:
    (tmp_path / "text.pt").write_text("hello")
    got, _, err = run(capsys, *(word.format(tmp=tmp_path, tiny=tiny_checkpoint) for word in argv))
    assert got == code
    assert err.startswith("error: ") and err.count("\n") == 1 and said in err
    assert [p.name for p in tmp_path.iterdir()] == ["text.pt"]


def test_a_wrong_precision_does_not_wait_for_the_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    code, _, err = run(capsys, "--checkpoint", tmp_path / "none.pt", "--precision", "fp12")
    assert code == UsageError.exit_code and "fp12" in err


def test_an_unknown_option_exits_with_2(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as leaving:
        main(["--no-such-option"])
    assert leaving.value.code == 2


@pytest.mark.parametrize("shape", [(2, 6, 5, 7), (3, 6)])
def test_the_face_detectors_activation_is_that_of_pytorch(shape: tuple[int, ...]) -> None:
    ours, published = PReLU(6), torch.nn.PReLU(6)
    published.weight.data = torch.tensor([-1.3, -0.2, 0.0, 0.4, 1.0, 1.3])
    ours.load_state_dict(published.state_dict())
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ours(x), published(x), rtol=1e-6, atol=1e-6)
