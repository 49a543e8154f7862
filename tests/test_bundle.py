"""A bundle is what was exported or it is refused, in one line that says what to do; predict() means what it says."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import one_line

import mma_edge
from mma_edge.bundle import read_bundle
from mma_edge.bundle.manifest import check_manifest, read_manifest
from mma_edge.cli import main
from mma_edge.errors import BackendError, BundleError, UsageError
from mma_edge.recognizer import Recognizer
from mma_edge.types import Clip
from mma_trainer.model import MMADFER
from mma_trainer.model.inputs import ContractModel

Edit = Callable[[Callable[[dict], object]], Path]


@pytest.fixture(scope="module")
def recognizer(tiny_bundle: Path) -> Recognizer:
    return mma_edge.load(tiny_bundle, backend="cpu")


def inputs(count: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    frames = rng.integers(0, 256, (count, 16, 16, 16, 3), dtype=np.uint8)
    return frames, rng.standard_normal((count, 512, 128)).astype(np.float32) * 4 - 4


def refused(folder: Path) -> str:
    with pytest.raises(BundleError) as error:
        mma_edge.load(folder)
    return one_line(error.value)


def test_a_bundle_tells_what_it_is(recognizer: Recognizer) -> None:
    assert recognizer.labels == ("happy", "sad", "angry")
    assert recognizer.image_size == 16
    assert (recognizer.backend, recognizer.precision) == ("cpu", "fp32")
    assert recognizer.bundle.manifest["missing_modality"] == {"trained": True}


@pytest.mark.parametrize("name", ["model.fp32.onnx", "LICENSE"])
def test_one_changed_byte_in_any_file_is_refused(bundle_copy: Path, name: str) -> None:
    data = bytearray((bundle_copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (bundle_copy / name).write_bytes(data)
    text = refused(bundle_copy)
    assert name in text and "SHA-256" in text and "mma-export" in text


def test_every_file_of_a_bundle_has_a_sha256(tiny_bundle: Path) -> None:
    files = json.loads((tiny_bundle / "manifest.json").read_text())["files"]
    assert set(files) == {p.name for p in tiny_bundle.iterdir()} - {"manifest.json"}


def test_a_missing_file_is_named(bundle_copy: Path) -> None:
    (bundle_copy / "LICENSE").unlink()
    text = refused(bundle_copy)
    assert "lacks LICENSE" in text and "copy the whole folder" in text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param(lambda m: m.update(quantizer="x"), "unknown keys ['quantizer']", id="unknown key"),
        pytest.param(lambda m: m["audio"].update(dither=1.0), "dither", id="unknown audio key"),
        pytest.param(lambda m: m["golden"].update(clips=2), "clips", id="unknown golden key"),
        pytest.param(lambda m: m["precisions"]["fp32"].update(sha="x"), "precisions.fp32", id="unknown precision key"),
        pytest.param(lambda m: m.pop("labels"), "lacks ['labels']", id="missing key"),
        pytest.param(lambda m: m["license"].pop("file"), "license", id="missing nested key"),
        pytest.param(lambda m: m["audio"].update(frame_shift_ms=12), "audio", id="audio of another shift"),
        pytest.param(lambda m: m.update(num_frames=8), "num_frames", id="another number of frames"),
        pytest.param(lambda m: m.update(face_crop="oval"), "face_crop", id="another crop"),
        pytest.param(lambda m: m.update(color="bgr"), "color", id="another colour"),
        pytest.param(lambda m: m.update(temperature=0), "temperature", id="temperature 0"),
        pytest.param(lambda m: m.update(temperature=float("nan")), "temperature", id="temperature NaN"),
        pytest.param(lambda m: m.update(temperature=float("inf")), "temperature", id="temperature infinite"),
        pytest.param(lambda m: m.update(image_size="16"), "image_size", id="size as text"),
        pytest.param(lambda m: m.update(image_size=True), "image_size", id="size as truth"),
        pytest.param(lambda m: m.update(labels=["a", "a", "b"]), "labels", id="label twice"),
        pytest.param(lambda m: m.update(labels=["a", "b"]), "golden.logits", id="a label too few"),
        pytest.param(lambda m: m.update(precisions={}), "precisions", id="no precision"),
        pytest.param(lambda m: m["precisions"]["fp32"].update(file="g.onnx"), "no SHA-256", id="graph without hash"),
        pytest.param(lambda m: m["golden"].update(logits=[["a", "b", "c"]]), "golden", id="golden logits as text"),
        pytest.param(lambda m: m["golden"].update(seed="x"), "golden", id="golden seed as text"),
        pytest.param(lambda m: m["golden"].update(seed=-1), "golden", id="golden seed negative"),
        pytest.param(lambda m: m["golden"].update(tolerance=None), "golden", id="golden tolerance missing"),
        pytest.param(lambda m: m["golden"].update(tolerance=float("inf")), "golden", id="golden tolerance infinite"),
        pytest.param(lambda m: m["license"].update(file="../x"), "license", id="licence elsewhere"),
    ],
)
def test_a_manifest_that_this_version_does_not_mean_is_refused(
    edit_manifest: Edit, change: Callable, said: str
) -> None:
    folder = edit_manifest(change)
    text = refused(folder)
    assert said in text and "manifest.json" in text


@pytest.mark.parametrize(
    ("version", "advice"),
    [(2, "pip install -U mma-edge"), (0, "mma-export"), ("1", "mma-export"), (True, "mma-export")],
)
def test_another_schema_version_is_refused_with_the_way_out(edit_manifest: Edit, version: object, advice: str) -> None:
    text = refused(edit_manifest(lambda m: m.update(schema_version=version)))
    assert f"schema version {version!r}" in text and advice in text


def test_a_manifest_without_a_version_is_refused(edit_manifest: Edit) -> None:
    assert "schema version None" in refused(edit_manifest(lambda m: m.pop("schema_version")))


def test_a_newer_schema_is_told_so_before_its_new_keys_are(edit_manifest: Edit) -> None:
    text = refused(edit_manifest(lambda m: m.update(schema_version=2, novelty=1)))
    assert "schema version 2" in text and "novelty" not in text


def test_a_flipped_character_of_a_manifest_is_refused_or_changes_nothing(bundle_copy: Path) -> None:
    path = bundle_copy / "manifest.json"
    content, meant = path.read_bytes(), read_manifest(bundle_copy)
    flips = [(place, bit) for place in range(len(content)) for bit in (1, 4, 32)]
    kept = 0
    for place, bit in flips:
        path.write_bytes(content[:place] + bytes([content[place] ^ bit]) + content[place + 1 :])
        try:
            found = read_manifest(bundle_copy)
            check_manifest(bundle_copy, found)
        except BundleError as error:
            assert "manifest.json" in one_line(error)
        else:
            assert found == meant
            kept += 1
    # The e of numbers like 1e-05, and a last digit that a float does not hold.
    assert kept < 0.01 * len(flips)


def test_a_changed_manifest_is_told_so_in_one_line(bundle_copy: Path) -> None:
    path = bundle_copy / "manifest.json"
    path.write_text(path.read_text().replace('"angry"', '"Angry"'))
    text = refused(bundle_copy)
    assert "was changed after it was written (its digest differs)" in text and "mma-export" in text


def test_a_bundle_from_before_manifests_had_a_digest_loads_with_a_note(
    bundle_copy: Path, capsys: pytest.CaptureFixture
) -> None:
    path = bundle_copy / "manifest.json"
    manifest = json.loads(path.read_text())
    assert mma_edge.load(bundle_copy, backend="cpu").notes == ()
    del manifest["digest"]
    path.write_text(json.dumps(manifest))
    (note,) = mma_edge.load(bundle_copy, backend="cpu").notes
    assert "has no digest" in note and "mma-export" in note
    assert capsys.readouterr().out == ""  # `mma-edge run` writes notes to stderr
    assert main(["info", str(bundle_copy)]) == 0 and "has no digest" in capsys.readouterr().out


@pytest.mark.parametrize("content", ["", "not json", "[1, 2]", "\xff\xfe", "[" * 100_000])
def test_a_manifest_that_is_no_json_object_is_refused(bundle_copy: Path, content: str) -> None:
    (bundle_copy / "manifest.json").write_bytes(content.encode("latin-1"))
    assert "manifest.json" in refused(bundle_copy)


@pytest.mark.parametrize("name", ["../outside.txt", "a/../../outside.txt", "..", ".", "", "nul\0byte"])
def test_a_path_that_leaves_the_folder_is_refused(edit_manifest: Edit, tmp_path: Path, name: str) -> None:
    (tmp_path / "outside.txt").write_text("secret")
    text = refused(edit_manifest(lambda m: m["files"].update({name: "0" * 64})))
    assert "inside the bundle's folder" in text


def test_an_absolute_path_is_refused_even_to_a_file_inside(edit_manifest: Edit, bundle_copy: Path) -> None:
    text = refused(edit_manifest(lambda m: m["files"].update({str(bundle_copy / "LICENSE"): "0" * 64})))
    assert "inside the bundle's folder" in text


def test_a_link_out_of_the_folder_is_refused_even_with_the_right_hash(bundle_copy: Path, tmp_path: Path) -> None:
    graph = bundle_copy / "model.fp32.onnx"
    graph.rename(tmp_path / "outside.onnx")
    os.symlink(tmp_path / "outside.onnx", graph)
    assert "inside the bundle's folder" in refused(bundle_copy)


def test_no_bundle_at_all_says_how_to_make_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    for name, said in (("nowhere", "does not exist"), ("file", "is a file"), ("empty", "has no manifest.json")):
        text = refused(tmp_path / name)
        assert said in text and "mma-export" in text


def test_a_graph_that_computes_something_else_fails_the_self_test(edit_manifest: Edit) -> None:
    def swap(manifest: dict) -> None:
        row = manifest["golden"]["logits"][0]
        assert abs(row[0] - row[1]) > 0.01
        row[0], row[1] = row[1], row[0]

    folder = edit_manifest(swap)
    read_bundle(folder)  # nothing wrong with the files
    assert "golden output" in refused(folder)


def test_a_graph_that_is_none_or_another_models_is_refused(edit_manifest: Edit, bundle_copy: Path) -> None:
    from mma_edge.bundle import sha256

    graph = bundle_copy / "model.fp32.onnx"
    detector = Path(mma_edge.__file__).parent / "assets" / "mtcnn" / "pnet.onnx"
    for content, said in ((b"no graph", "cannot load"), (detector.read_bytes(), "outputs")):
        graph.write_bytes(content)
        text = refused(edit_manifest(lambda m: m["files"].update({graph.name: sha256(graph)})))
        assert said in text and graph.name in text


def test_unknown_and_unavailable_backends_are_refused_not_replaced(tiny_bundle: Path) -> None:
    with pytest.raises(BackendError) as error:
        mma_edge.load(tiny_bundle, backend="npu")
    assert "'npu'" in str(error.value) and "tensorrt" in str(error.value)
    with pytest.raises(BackendError) as error:
        mma_edge.load(tiny_bundle, backend="tensorrt")
    assert "tensorrt" in one_line(error.value)


def test_a_precision_that_the_bundle_lacks_is_refused_with_the_command(tiny_bundle: Path) -> None:
    with pytest.raises(BackendError) as error:
        mma_edge.load(tiny_bundle, precision="fp16")
    text = one_line(error.value)
    assert "one of fp32" in text and "mma-export --precision fp16" in text


@pytest.mark.parametrize("count", [1, 2, 5])
def test_predict_is_the_softmax_of_the_pytorch_model(recognizer: Recognizer, tiny_model: MMADFER, count: int) -> None:
    frames, mel = inputs(count)
    got = recognizer.predict(frames, mel)
    with torch.inference_mode():
        expected = ContractModel(tiny_model).eval()(torch.from_numpy(frames), torch.from_numpy(mel)).softmax(dim=1)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected.numpy(), atol=1e-5)
    np.testing.assert_allclose(got.sum(axis=1), 1, atol=1e-6)
    assert np.ptp(got, axis=1).min() > 0.01  # a flat answer would pass anything


def test_a_missing_modality_is_black_frames_or_zeros(recognizer: Recognizer) -> None:
    frames, mel = inputs(2)
    both = recognizer.predict(frames, mel)
    voice, face = recognizer.predict(mel=mel), recognizer.predict(frames)
    np.testing.assert_array_equal(voice, recognizer.predict(np.zeros_like(frames), mel))
    np.testing.assert_array_equal(face, recognizer.predict(frames, np.zeros_like(mel)))
    assert np.abs(voice - both).max() > 1e-3 and np.abs(face - both).max() > 1e-3


def test_views_with_odd_strides_are_read_right(recognizer: Recognizer) -> None:
    frames, mel = inputs(2)
    mirrored = recognizer.predict(np.ascontiguousarray(frames[..., ::-1]), mel)
    np.testing.assert_allclose(recognizer.predict(frames[..., ::-1], np.asfortranarray(mel)), mirrored, atol=1e-6)


def test_no_clips_give_no_rows(recognizer: Recognizer) -> None:
    frames, mel = inputs(0)
    for answer in (recognizer.predict(frames, mel), recognizer.predict(mel=mel)):
        assert answer.shape == (0, 3) and answer.dtype == np.float32


@pytest.mark.parametrize(
    ("frames", "mel", "said"),
    [
        (None, None, "neither"),
        (inputs(2)[0], inputs(3)[1], "2 clips of frames and 3 of mel"),
        (inputs(1)[0][0], None, "(16, 16, 16, 3)"),
        (inputs(1)[0].astype(np.float32), None, "float32"),
        (np.zeros((1, 16, 3, 16, 16), np.uint8), None, "uint8 (N, 16, 16, 16, 3)"),
        (np.zeros((1, 8, 16, 16, 3), np.uint8), None, "(1, 8, 16, 16, 3)"),
        (None, inputs(1)[1].astype(np.float64), "float64"),
        (None, np.zeros((1, 1, 512, 128), np.float32), "(1, 1, 512, 128)"),
        (None, [[0.0]], "list"),
    ],
)
def test_other_shapes_and_dtypes_are_refused_with_both(
    recognizer: Recognizer, frames: np.ndarray | None, mel: np.ndarray | None, said: str
) -> None:
    with pytest.raises(UsageError) as error:
        recognizer.predict(frames, mel)
    assert said in str(error.value) and "expected" in str(error.value)


def test_the_temperature_divides_the_logits(edit_manifest: Edit, recognizer: Recognizer) -> None:
    frames, mel = inputs(2)
    plain = recognizer.predict(frames, mel).astype(np.float64)
    cooled = mma_edge.load(edit_manifest(lambda m: m.update(temperature=2.5))).predict(frames, mel)
    expected = plain ** (1 / 2.5)
    np.testing.assert_allclose(cooled, expected / expected.sum(axis=1, keepdims=True), atol=1e-5)


def test_clips_are_answered_one_by_one_with_what_was_in_them(recognizer: Recognizer) -> None:
    frames, mel = inputs(3)
    clips = [
        Clip(0.0, 2.0, 4, (1, 2, 3, 4), frames[0], mel[0], 0.0),
        Clip(0.5, 2.5, 5, (5, 6, 7, 8), frames[1], None, 0.0),
        Clip(1.0, 3.0, None, None, None, mel[2], 0.0),
    ]
    answers = recognizer.predict_clips(clips)
    assert [a.modalities for a in answers] == [("video", "audio"), ("video",), ("audio",)]
    assert [(a.start_s, a.end_s, a.track_id, a.box) for a in answers] == [
        (c.start_s, c.end_s, c.track_id, c.box) for c in clips
    ]
    for answer, expected in zip(
        answers,
        (recognizer.predict(frames[:1], mel[:1]), recognizer.predict(frames[1:2]), recognizer.predict(mel=mel[2:])),
        strict=True,
    ):
        np.testing.assert_allclose(answer.probabilities, expected[0], atol=1e-5)
        assert answer.label == recognizer.labels[int(expected.argmax())] and answer.age_ms > 0
    assert recognizer.predict_clips([]) == []
