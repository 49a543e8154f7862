"""Number formats and what saves memory: the gradient stays, the frozen weights are untouched."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import TINY, make_model, one_line
from loop_task import BATCH, DEEP, make_run, random_batch
from torch import nn

from mma_edge.errors import BackendError, UsageError
from mma_trainer.commands.data_options import RECIPES
from mma_trainer.commands.run_options import make_recipe
from mma_trainer.commands.train import bf16_note, run_parser
from mma_trainer.model.encoder import part_of_batch
from mma_trainer.model.inputs import ContractModel
from mma_trainer.training.execution import Execution, checkpointed
from mma_trainer.training.int8 import Int8Linear
from mma_trainer.training.loop import Loop, Run
from mma_trainer.training.precision import Precision
from mma_trainer.training.pretrain import EncoderClassifier
from mma_trainer.training.recipe import Recipe
from mma_trainer.training.state import LAST

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("no_pictures")


@pytest.fixture
def gradient(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., tuple[torch.Tensor, Run]]:
    """Of one batch, as the loop computes it, and the run, which ended there."""

    class EnoughError(Exception):
        pass

    def compute(execution: Execution, precision: str = "fp32") -> tuple[torch.Tensor, Run]:
        run = make_run(tmp_path, Recipe(batch_size=BATCH, precision=precision), execution=execution)

        def update(loop: Loop, at: object, batch: object, loss: object) -> None:
            raise EnoughError

        with monkeypatch.context() as patch, pytest.raises(EnoughError):
            patch.setattr(Loop, "_update", update)
            run.fit(resume=False)
        return torch.cat([p.grad.flatten() for p in run.model.parameters() if p.grad is not None]), run

    return compute


@pytest.mark.parametrize(
    "execution", [Execution(micro_batch=1), Execution(micro_batch=3), Execution(activation_checkpointing=True)]
)
def test_what_saves_memory_leaves_the_gradient_as_it_was(execution: Execution, gradient: Callable) -> None:
    whole, _ = gradient(Execution())
    saved, _ = gradient(execution)
    assert whole.abs().max() > 0.01
    torch.testing.assert_close(saved, whole, rtol=1e-4, atol=1e-6)


def test_activation_checkpointing_keeps_fewer_activations() -> None:
    def kept_elements(checkpointing: bool) -> int:
        sizes: list[int] = []
        run = make_run(Path("unused"))

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            sizes.append(tensor.numel())
            return tensor

        with (
            checkpointed(run.model.train(), checkpointing),
            torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        ):
            run.model(*random_batch(2, torch.Generator()).inputs)
        return sum(sizes)

    assert kept_elements(True) < 0.5 * kept_elements(False)


def test_activation_checkpointing_of_a_lone_encoder_gives_the_same_gradient() -> None:
    images, grads = torch.rand(2, 3, 16, 16), []
    for enabled in (False, True):
        torch.manual_seed(0)
        model = EncoderClassifier(DEEP, "image").train()
        with checkpointed(model, enabled), part_of_batch(0, 2, 2, seed=1):
            outputs = model(images)
            sum(output.square().sum() for output in (outputs if isinstance(outputs, tuple) else (outputs,))).backward()
        grads.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
        assert "forward" not in vars(model.encoder.blocks[0])
    assert torch.equal(*grads)


def test_stochastic_depth_is_that_of_the_whole_batch_in_each_of_its_parts() -> None:
    model, batch = ContractModel(make_model(DEEP)).train(), random_batch(4, torch.Generator())
    with torch.no_grad():
        with part_of_batch(0, 4, 4, seed=7):
            whole = model(*batch.inputs)
        parts = []
        for start, stop in ((0, 1), (1, 4)):
            with part_of_batch(start, stop - start, 4, seed=7):
                parts.append(model(*(tensor[start:stop] for tensor in batch.inputs)))
        with part_of_batch(0, 4, 4, seed=8):
            other = model(*batch.inputs)
    torch.testing.assert_close(torch.cat(parts), whole)
    assert not torch.allclose(other, whole, atol=1e-3)


def test_micro_batches_are_refused_where_batch_statistics_would_change(tmp_path: Path) -> None:
    run = make_run(tmp_path, execution=Execution(micro_batch=1))
    run.model = EncoderClassifier(TINY, "image")
    with pytest.raises(UsageError, match="batch normalisation"):
        run.fit(resume=False)


@pytest.mark.parametrize("precision", ["bf16", "fp16", "int8"])
def test_each_precision_is_close_to_fp32_and_leaves_the_frozen_weights_untouched(
    precision: str, gradient: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Scaled by 65536 to begin with, the first steps of float16 overflow and are left out.
    scaler = torch.amp.GradScaler
    monkeypatch.setattr(torch.amp, "GradScaler", functools.partial(scaler, init_scale=1.0))
    exact, _ = gradient(Execution())
    try:
        rough, run = gradient(Execution(), precision)
    except BackendError:
        pytest.skip(f"{precision} does not run on this processor")
    assert not torch.equal(rough, exact)
    assert torch.nn.functional.cosine_similarity(rough, exact, dim=0) > 0.99
    before = ContractModel(make_model(DEEP)).state_dict()
    frozen = {name for name, p in run.model.named_parameters() if not p.requires_grad}
    after = run.model.state_dict()
    assert frozen and all(torch.equal(before[name], after[name]) for name in frozen)
    assert not any(isinstance(module, Int8Linear) for module in run.model.modules())
    make_run(tmp_path, Recipe(epochs=1, batch_size=BATCH, precision=precision)).fit(resume=False)
    saved = torch.load(tmp_path / LAST, weights_only=True)["state_dict"]
    assert all(torch.equal(before[name], saved[name]) for name in frozen)
    assert not torch.equal(before["model.classifier.weight"], saved["model.classifier.weight"])
    assert {value.dtype for value in saved.values() if value.is_floating_point()} == {torch.float32}


def test_frozen_weights_are_held_in_the_format_of_the_products() -> None:
    model = ContractModel(make_model(TINY))
    frozen, trained = model.model.image_encoder.blocks[0].attn.qkv.weight, model.model.joint.weight
    precision = Precision("bf16", CPU)
    with precision.applied(model):
        assert (frozen.dtype, trained.dtype) == (torch.bfloat16, torch.float32)
        assert model.model.image_encoder.norm.weight.dtype == torch.float32  # autocast does not round norms
        assert precision.state_dict(model)["model.image_encoder.blocks.0.attn.qkv.weight"].dtype == torch.float32
    assert frozen.dtype == torch.float32


def test_an_8_bit_layer_is_the_float_layer_to_a_percent_and_exactly_that_in_eval_mode() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(64, 96).requires_grad_(False)
    x = torch.randn(5, 7, 64) * torch.logspace(-3, 3, 35).reshape(5, 7, 1)  # rows of very different size
    rough = Int8Linear(linear)
    results = []
    for layer in (linear, rough):
        source = x.clone().requires_grad_(True)
        y = layer(source)
        (y * torch.linspace(-1, 1, 96)).sum().backward()
        results.append((y.detach(), source.grad))
    for exact, near in zip(*results, strict=True):
        error = (near - exact).norm(dim=-1) / exact.norm(dim=-1)
        assert 0 < error.max() < 0.02
    assert torch.equal(rough.eval()(x), linear(x))
    assert rough.state_dict().keys() == linear.state_dict().keys()


def test_a_precision_that_the_device_lacks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cpu._is_vnni_supported", lambda: False)
    with pytest.raises(BackendError) as error:
        Precision("int8", CPU)
    assert "VNNI" in one_line(error.value)


@pytest.mark.parametrize(
    ("flags", "options", "precision", "words"),
    [
        ("avx2 fma", [], "fp32", "fp32 takes the place of the recipe's bf16"),
        ("avx2 fma", ["--precision", "bf16"], "bf16", "ten times slower than fp32"),
        ("avx2 fma", ["--precision", "fp32"], "fp32", ""),
        ("avx512f avx512_bf16", [], "bf16", ""),
        ("avx512f amx_tile amx_bf16", [], "bf16", ""),
    ],
)
def test_a_recipe_takes_fp32_where_a_processor_only_imitates_bf16(
    flags: str, options: list[str], precision: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "mma_edge.engines.machine.read_text", lambda path: f"model name : a processor\nflags : {flags}\n"
    )
    args = run_parser().parse_args(["--dataset", "faces", *options])
    recipe = make_recipe(args, RECIPES["faces"], CPU)
    assert recipe.precision == precision
    note = bf16_note(args, recipe, CPU)
    assert words in note and bool(words) == bool(note)
    lists = run_parser().parse_args([])
    assert bf16_note(lists, make_recipe(lists, RECIPES["lists"], CPU), CPU) == ""  # fp32 as the paper, as ever
