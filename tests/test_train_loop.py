"""The loop keeps its promises about precision, memory, interruption and bad numbers."""

from __future__ import annotations

import os
import signal
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import one_line
from loop_task import BATCH, DEEP, RandomClips, make_run
from rich.console import Console
from torch import nn

from mma_edge.errors import CheckpointError, DataError, DependencyError
from mma_trainer.training.execution import Execution
from mma_trainer.training.log import FIELDS
from mma_trainer.training.loop import Loop
from mma_trainer.training.recipe import Recipe, WeightAverage, build_optimizer, build_scheduler
from mma_trainer.training.state import LAST, recipe_differences
from mma_trainer.weights.checkpoint import read_checkpoint

CPU = torch.device("cpu")
RECIPE = Recipe(epochs=2, batch_size=BATCH, lr=0.01, ema_decay=0.9, schedule="step")
pytestmark = pytest.mark.usefixtures("no_pictures")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(folder / LAST).state_dict


def assert_same_weights(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


def rows(folder: Path) -> list[dict]:
    """The log without the columns that tell the time."""
    logged = read_checkpoint(folder / LAST).training["rows"]
    return [{name: row[name] for name in FIELDS[:-2]} for row in logged]


def test_the_average_follows_the_weights_with_a_decay_that_warms_up() -> None:
    model = nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(0.0)
    average = WeightAverage(model, decay=0.25)
    expected = 0.0
    for step, decay in enumerate((1 / 10, 2 / 11, 3 / 12, 0.25, 0.25)):
        model.weight.data.fill_(step + 1.0)
        average.update()
        expected = decay * expected + (1 - decay) * (step + 1.0)
        with average.applied():
            assert model.weight.item() == pytest.approx(expected)
        assert model.weight.item() == step + 1.0


def test_the_statistics_of_batch_norms_are_averaged_with_the_weights() -> None:
    model = nn.BatchNorm1d(1)
    average = WeightAverage(model, decay=0.25)
    model(torch.tensor([[10.0], [30.0]]))  # mean 20, of which a tenth counts
    average.update()
    with average.applied():
        assert model.running_mean.item() == pytest.approx(0.9 * 2.0)
    assert model.running_mean.item() == pytest.approx(2.0)
    again = WeightAverage(nn.BatchNorm1d(1), decay=0.25)
    again.load_state_dict({"step": 1, "raw": {}})  # of an earlier version
    assert again.averages["running_mean"].item() == 0.0


def test_the_result_of_a_run_with_an_average_is_the_average(tmp_path: Path) -> None:
    run = make_run(tmp_path, RECIPE)
    run.fit(resume=False)
    saved = read_checkpoint(tmp_path / LAST)
    assert_same_weights(saved.state_dict, run.model.state_dict())
    raw = saved.training["ema"]["raw"]["model.classifier.weight"]
    assert not torch.equal(raw, saved.state_dict["model.classifier.weight"])


def test_the_step_schedule_is_a_cosine_over_the_steps_after_a_linear_warm_up() -> None:
    recipe = Recipe(epochs=3, warmup_epochs=1, lr=1.0, schedule="step")
    optimizer = build_optimizer(nn.Linear(1, 1), recipe)
    scheduler = build_scheduler(optimizer, recipe, num_batches=4)
    rates = []
    for _ in range(13):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[8] == pytest.approx(0.5) and rates[12] == pytest.approx(0.0, abs=1e-12)


def stop_at(epoch: int, batch: int, number: int) -> Callable[[int, int], None]:
    def before(*now: int) -> None:
        if now == (epoch, batch):
            os.kill(os.getpid(), number)

    return before


@pytest.mark.parametrize(("at", "number"), [((0, 1), signal.SIGINT), ((1, 2), signal.SIGTERM), ((1, 3), signal.SIGINT)])
def test_a_signal_saves_the_step_and_a_resumed_run_has_the_same_bits(
    tmp_path: Path, at: tuple[int, int], number: int, capsys: pytest.CaptureFixture
) -> None:
    make_run(tmp_path / "whole", RECIPE).fit(resume=False)
    folder, before = tmp_path / "stopped", signal.getsignal(signal.SIGINT)
    with pytest.raises((KeyboardInterrupt, SystemExit)) as left:
        make_run(folder, RECIPE, RandomClips(before=stop_at(*at, number)), console=Console()).fit(resume=False)
    assert left.type is (KeyboardInterrupt if number == signal.SIGINT else SystemExit)
    assert number == signal.SIGINT or left.value.code == 143
    position = read_checkpoint(folder / LAST).training["position"]
    assert (position["epoch"], position["batch"]) == (at[0], at[1] + 1)  # the step it was in is the last one learnt
    said = " ".join(capsys.readouterr().out.split())
    assert f"in epoch {at[0] + 1} after batch {at[1] + 1}" in said and "--resume" in said
    assert signal.getsignal(signal.SIGINT) is before
    make_run(folder, RECIPE).fit(resume=True)
    assert_same_weights(weights(tmp_path / "whole"), weights(folder))
    assert rows(tmp_path / "whole") == rows(folder)
    states = [read_checkpoint(f / LAST).training for f in (tmp_path / "whole", folder)]
    assert states[0]["scheduler"] == states[1]["scheduler"] and states[0]["ema"]["step"] == states[1]["ema"]["step"]


def test_a_second_ctrl_c_stops_at_once(tmp_path: Path) -> None:
    def twice(*now: int) -> None:
        if now == (0, 1):
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        make_run(tmp_path, task=RandomClips(before=twice)).fit(resume=False)
    assert not (tmp_path / LAST).exists()


def test_a_run_stopped_while_it_validates_does_so_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(tmp_path / "whole", RECIPE).fit(resume=False)
    run, validate = make_run(tmp_path / "stopped", RECIPE), Loop.validate

    def stopped(self: Loop):
        os.kill(os.getpid(), signal.SIGINT)
        return validate(self)

    monkeypatch.setattr(Loop, "validate", stopped)
    with pytest.raises(KeyboardInterrupt):
        run.fit(resume=False)
    monkeypatch.setattr(Loop, "validate", validate)
    assert read_checkpoint(tmp_path / "stopped" / LAST).training["rows"] == []
    make_run(tmp_path / "stopped", RECIPE).fit(resume=True)
    assert_same_weights(weights(tmp_path / "whole"), weights(tmp_path / "stopped"))
    assert rows(tmp_path / "whole") == rows(tmp_path / "stopped")


def test_the_state_is_saved_within_an_epoch_when_the_time_has_come(tmp_path: Path) -> None:
    seen: list[tuple[int, int] | None] = []

    def look(*now: int) -> None:
        if (tmp_path / LAST).exists():
            position = read_checkpoint(tmp_path / LAST).training["position"]
            seen.append((position["epoch"], position["batch"]))

    task = RandomClips(num_batches=3, before=look)
    make_run(tmp_path, Recipe(epochs=1, batch_size=BATCH), task, Execution(save_every_minutes=1e-9)).fit(resume=False)
    assert seen == [(0, 1), (0, 2)]


def test_a_clip_that_is_no_number_is_named_with_epoch_and_batch(tmp_path: Path) -> None:
    run = make_run(tmp_path, task=RandomClips(poison=(1, 2, 3)))
    with pytest.raises(DataError) as error:
        run.fit(resume=False)
    text = one_line(error.value)
    assert "loss became nan in epoch 2, batch 3: clip-3 (its input has NaN or infinity)" in text
    assert all(f"clip-{index}" not in text for index in range(3))
    assert all(tensor.isfinite().all() for tensor in weights(tmp_path).values())


def test_a_gradient_that_is_no_number_stops_the_run_before_it_reaches_the_weights(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    run.model.model.classifier.weight.register_hook(lambda grad: grad * torch.inf)
    with pytest.raises(DataError, match=r"gradient became (nan|inf) in epoch 1, batch 1: clip-0 \(its gradient is not"):
        run.fit(resume=False)
    assert all(p.isfinite().all() for p in run.model.parameters())


def test_what_differs_from_the_first_command_is_said_in_words(tmp_path: Path) -> None:
    make_run(tmp_path).fit(resume=False)
    run = make_run(tmp_path, Recipe(epochs=2, batch_size=BATCH, lr=0.001))
    run.config = DEEP.replace(bottleneck_width=16)
    with pytest.raises(CheckpointError) as error:
        run.fit(resume=True)
    text = one_line(error.value)
    assert "bottleneck_width is 8 in the file, 16 here" in text and "lr is 0.01 in the file, 0.001 here" in text
    run = make_run(tmp_path)
    run.task.fingerprint = "b" * 64
    run.fit(resume=True)  # the file has none: nothing to compare


def test_other_data_is_noticed_where_the_task_can_tell(tmp_path: Path) -> None:
    for fingerprint, resume in (("a" * 64, False), ("a" * 64, True), ("b" * 64, True)):
        run = make_run(tmp_path)
        run.task.fingerprint = fingerprint
        if fingerprint[0] == "a":
            run.fit(resume)
        else:
            with pytest.raises(CheckpointError, match="fingerprint aaaaaaaaaaaa in the file, bbbbbbbbbbbb here"):
                run.fit(resume)


def test_fields_that_an_older_file_lacks_had_their_defaults() -> None:
    assert recipe_differences({"epochs": 25, "lr": 1e-4}, Recipe()) == []
    assert recipe_differences({"magic": 1}, Recipe()) == ["magic is 1 in the file, unknown here"]


def test_the_deterministic_option_is_on_during_the_run_and_off_afterwards(tmp_path: Path) -> None:
    seen: list[bool] = []
    task = RandomClips(before=lambda *now: seen.append(torch.are_deterministic_algorithms_enabled()))
    make_run(tmp_path, task=task, execution=Execution(deterministic=True)).fit(resume=False)
    assert seen and all(seen) and not torch.are_deterministic_algorithms_enabled()


def test_tensorboard_is_asked_for_by_name_where_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(DependencyError, match="pip install tensorboard"):
        make_run(tmp_path, execution=Execution(tensorboard=True)).fit(resume=False)


def test_tensorboard_gets_every_step_and_every_column_of_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[tuple[str, int]] = []

    class Writer:
        def __init__(self, folder: str, purge_step: int | None) -> None:
            assert folder == str(tmp_path / "events")

        def add_scalar(self, name: str, value: float, step: int) -> None:
            written.append((name, step))

        def flush(self) -> None: ...

        def close(self) -> None: ...

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", types.SimpleNamespace(SummaryWriter=Writer))
    make_run(tmp_path, execution=Execution(tensorboard=True)).fit(resume=False)
    assert [step for name, step in written if name == "step/loss"] == list(range(1, 9))
    assert [step for name, step in written if name == "epoch/val_uar"] == [1, 2]
