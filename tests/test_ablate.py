"""mma-train ablate runs a table's rows once each, goes on where it stopped, and prints what the paper's do."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from conftest import SEVEN, make_model, one_line

from mma_edge.errors import CheckpointError, UsageError
from mma_trainer import __main__ as entry
from mma_trainer.architectures import ARCHITECTURES, Architecture
from mma_trainer.commands import ablate as ablate_cli
from mma_trainer.commands import data_options as cli_data
from mma_trainer.commands import model_options as cli_model
from mma_trainer.commands import train as cli
from mma_trainer.model import MMADFERConfig
from mma_trainer.training.pretrain import EncoderClassifier
from mma_trainer.training.sweeps.variants import TABLES, folder_name
from mma_trainer.weights.checkpoint import Checkpoint, read_checkpoint, save_checkpoint

pytestmark = pytest.mark.usefixtures("no_pictures")


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """Options that name two tiny pre-trained encoders."""
    folder = tmp_path_factory.mktemp("encoders")
    torch.manual_seed(0)
    for modality in ("image", "audio"):
        state = EncoderClassifier(SEVEN, modality).state_dict()
        save_checkpoint(folder / f"{modality}.pt", Checkpoint(SEVEN, state))
    return ["--image-encoder", folder / "image.pt", "--audio-encoder", folder / "audio.pt"]


@pytest.fixture
def ablate(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, public: Path, encoders: list[object]
) -> Iterator[Callable[..., tuple[int, str, str]]]:
    """mma-train ablate on made-up faces and voices with a tiny "nano"; exit code, stdout and stderr."""
    monkeypatch.setitem(ARCHITECTURES, "nano", Architecture("nano", vars(SEVEN)))
    monkeypatch.setattr(cli_data, "PSEUDO_CLIPS_PER_EPOCH", 4)
    monkeypatch.setattr(cli, "plot_confusion", lambda metrics, labels, path: None)
    common = ("--model", "nano", "--device", "cpu", "--batch-size", 4, "--epochs", 1, "--dataset", "pseudo")

    def command(*argv: object) -> tuple[int, str, str]:
        words = ("ablate", *common, "--data", public, *encoders, *argv)
        code = entry.train([str(word) for word in words])
        return code, *capsys.readouterr()

    return command


def results(folder: Path) -> dict[str, list[dict]]:
    return json.loads((folder / "ablation.json").read_text())["tables"]


def test_a_table_is_trained_row_by_row_and_printed(ablate: Callable, tmp_path: Path) -> None:
    code, out, err = ablate("--table", "modality", "--run", tmp_path, "--set", "fusion=none")
    assert (code, err) == (0, "")
    tables = results(tmp_path)
    assert [row["variant"] for row in tables["modality"]] == ["audio only", "vision only", "MMA-DFER"]
    for row in tables["modality"]:
        stored = read_checkpoint(tmp_path / row["folder"] / "model.pt")
        assert stored.config.modalities == row["changes"]["modalities"] and stored.config.fusion == "none"
        assert {"uar", "war"} <= stored.provenance["val"].keys()
        assert (row["uar"], row["war"]) == (stored.provenance["val"]["uar"], stored.provenance["val"]["war"])
        assert row["clips"] == 4 and f"{100 * row['uar']:.2f}" in out
        trainable = sum(p.numel() for p in make_model(stored.config).parameters() if p.requires_grad)
        assert row["trainable"] == trainable
        if row["variant"] != "MMA-DFER":  # the classifier alone
            assert trainable == 7 * (SEVEN.width + 1)
    text = (tmp_path / "ablation.md").read_text()
    assert text.count("| audio only |") == 1 and "67.01 WAR 77.51" in text
    (line,) = (line for line in text.splitlines() if line.startswith("| audio only |"))
    assert line.endswith("| 26.43 | 33.53 |") and "paper UAR | paper WAR |" in text
    assert tables["modality"][1]["paper_percent"] == {"uar": 54.34, "war": 67.15}


def test_the_same_model_in_two_tables_is_trained_once(
    ablate: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = []

    def train(args: object, console: object) -> int:
        """Stands in for training, which other tests do: the files that it leaves."""
        trained.append(args.run.name)
        config = cli_model.make_config(args)
        provenance = {"val": {"uar": 0.25, "war": len(trained) / 100, "clips": 3}}
        save_checkpoint(args.run / "model.pt", Checkpoint(config, make_model(config).state_dict(), provenance))
        return 0

    monkeypatch.setattr(cli, "train", train)
    tables = ("--table", "fusion", "temporal", "--run", tmp_path, "--set", "ita_width=8")
    code, _, err = ablate(*tables)
    assert code == 2 and "ita_width set for table temporal" in err and trained == []
    assert ablate("--table", "modality", "fusion", "--run", tmp_path, "--set", "bottleneck_width=64")[0] == 2
    assert ablate("--table", "temporal", "modality", "--run", tmp_path)[0] == 0
    temporal = {"mean", "ita,ita_width=64", "ita", "ita,ita_width=256", "both"}
    names = {f"temporal={name}" for name in temporal} | {"base"}
    names |= {f"prompts=none,temporal=mean,modalities={one},trained=classifier" for one in ("audio", "vision")}
    assert len(trained) == 8 and set(trained) == names
    rows = results(tmp_path)
    assert rows["temporal"][1]["war"] == rows["modality"][2]["war"] == 0.02  # "MTT" is "MMA-DFER"
    assert ablate("--table", "temporal", "--run", tmp_path)[0] == 0 and len(trained) == 8
    # Under other options the stored rows are not taken for these, nor trained over.
    code, _, err = ablate("--table", "temporal", "--run", tmp_path, "--lr", 0.5)
    assert code == 8 and "lr was 0.001, is 0.5" in err and err.count("\n") == 1 and len(trained) == 8
    (tmp_path / "base" / "result.json").write_text("{}")
    code, _, err = ablate("--table", "temporal", "--run", tmp_path)
    assert code == 8 and "is not the result of a row" in err


def test_results_of_a_variant_that_was_made_otherwise_are_not_taken_for_todays(
    ablate: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(args: object, console: object) -> int:
        config, val = cli_model.make_config(args), {"uar": 0.5, "war": 0.5, "clips": 3}
        save_checkpoint(args.run / "model.pt", Checkpoint(config, make_model(config).state_dict(), {"val": val}))
        return 0

    monkeypatch.setattr(cli, "train", train)
    assert ablate("--table", "temporal", "--run", tmp_path)[0] == 0
    stored = {folder.name: json.loads((folder / "result.json").read_text()) for folder in tmp_path.glob("*/")}
    carry = {name for name, result in stored.items() if result["identity"].get("variants") == 2}
    assert carry == {name for name in stored if "=ita" in name or "=both" in name} and len(carry) == 4
    del stored["temporal=ita"]["identity"]["variants"]
    (tmp_path / "temporal=ita" / "result.json").write_text(json.dumps(stored["temporal=ita"]))
    code, _, err = ablate("--table", "temporal", "--run", tmp_path)
    assert code == 8 and "variants was None, is 2" in err and err.count("\n") == 1


def test_every_fold_is_trained_and_the_row_is_their_mean(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, encoders: list[object], tmp_path: Path
) -> None:
    monkeypatch.setitem(ARCHITECTURES, "nano", Architecture("nano", vars(SEVEN)))
    trained = []

    def train(args: object, console: object) -> int:
        trained.append((args.run.relative_to(tmp_path).as_posix(), args.fold))
        config, val = cli_model.make_config(args), {"uar": args.fold / 10, "war": 0.5, "clips": 7}
        save_checkpoint(args.run / "model.pt", Checkpoint(config, make_model(config).state_dict(), {"val": val}))
        return 0

    monkeypatch.setattr(cli, "train", train)
    words = ["--dataset", "dfew", "--model", "nano", "--table", "resolution", *encoders, "--run", tmp_path]
    argv = [str(word) for word in words]
    assert ablate_cli.main([*argv, "--fold", "2"]) == 0
    assert trained == [(f"image_size={size}/fold2", 2) for size in (112, 160, 224)]
    assert ablate_cli.main([*argv, "--fold", "all"]) == 0
    assert len(trained) == 15 and len(set(trained)) == 15  # the second folds were there already
    for row in results(tmp_path)["resolution"]:
        assert row["uar"] == pytest.approx(0.3) and (row["folds"], row["clips"]) == (5, 35)
    assert "30.00" in capsys.readouterr().out


def test_an_interrupted_row_resumes_and_finished_ones_stay(
    ablate: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, seen = cli.train, []

    def until_the_second(args: object, console: object) -> int:
        seen.append((args.run.name, args.resume))
        if len(seen) == 2:
            args.epochs, epochs = 1, args.epochs
            train(args, console)  # leaves last.pt, as Ctrl-C after the first epoch does
            (args.run / "model.pt").unlink()
            args.epochs = epochs
            raise KeyboardInterrupt
        return train(args, console)

    monkeypatch.setattr(cli, "train", until_the_second)
    code, _, err = ablate("--table", "modality", "--run", tmp_path)
    assert (code, err) == (130, "interrupted\n")
    name = "prompts=none,temporal=mean,modalities={},trained=classifier"
    first = (tmp_path / name.format("audio") / "model.pt").read_bytes()
    uar = results(tmp_path)["modality"][0]["uar"]
    assert [row["uar"] for row in results(tmp_path)["modality"]] == [uar, None, None]
    assert ablate("--table", "modality", "--run", tmp_path)[0] == 0
    assert seen[2:] == [(name.format("vision"), True), ("base", False)]
    assert (tmp_path / name.format("audio") / "model.pt").read_bytes() == first
    assert all(row["uar"] is not None for row in results(tmp_path)["modality"])


def test_a_dry_run_trains_nothing_and_counts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setenv("COLUMNS", "120")  # so that no heading is broken over two lines
    argv = ["ablate", "--table", "fusion", "temporal", "--model", "vit-b", "--image-size", "160", "--dry-run"]
    assert entry.train([*argv, "--run", str(tmp_path / "run")]) == 0
    out = capsys.readouterr().out
    for text in ("bottleneck 256", "12.29", "12.3", "temporal part (M)", "2.11", "2.2", "66.72", "78.17"):
        assert text in out, text
    assert not (tmp_path / "run").exists()


def test_rows_that_do_not_fit_the_architecture_are_said_and_left_out(ablate: Callable, tmp_path: Path) -> None:
    code, out, _ = ablate("--table", "prompts", "--dry-run", "--run", tmp_path)
    assert code == 0 and out.count("does not fit this architecture") == 3  # two layers: no 4, 6 or 12 updates
    assert "depth 2 is not a multiple of the 12 prompt updates" in " ".join(out.split())


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--init", "x.pt"], "ablate --init"),
        (["--dataset", "faces"], "whole model"),
        (["--set", "fusion=add"], "fusion set for table fusion"),
    ],
)
def test_what_no_table_can_start_from_is_one_line(ablate: Callable, tmp_path: Path, argv: list, said: str) -> None:
    code, _, err = ablate("--table", "fusion", "--run", tmp_path, *argv)
    assert code == 2 and said in err and err.count("\n") == 1


def test_the_tables_are_the_papers() -> None:
    printed = {name: [table.paper.get(row.name) for row in table.rows] for name, table in TABLES.items()}
    best, no_prompts, no_fusion, no_mtt = (66.52, 77.92), (64.62, 77.40), (59.27, 70.56), (61.96, 74.58)
    assert printed == {
        "components": [(56.59, 68.43), (57.45, 69.33), (58.21, 69.34), no_fusion, no_mtt, no_prompts, best],
        "prompts": [no_prompts, None, best, (64.41, 77.62), (65.44, 77.83), (65.14, 77.87)],
        "fusion": [
            *(no_fusion, (59.97, 71.20), (59.89, 71.12), (54.96, 65.66)),
            *((64.57, 77.44), best, (66.72, 78.17), (66.77, 78.13)),
        ],
        "temporal": [no_mtt, best, (63.27, 76.59), (64.44, 76.80), (63.35, 76.59), (64.66, 77.36)],
        "modality": [(26.43, 33.53), (54.34, 67.15), best],
        "resolution": [(64.24, 75.40), (66.61, 77.15), (67.01, 77.51)],
    }
    assert all(set(table.paper) <= {row.name for row in table.rows} for table in TABLES.values())
    components = [tuple(row.changes.values()) for row in TABLES["components"].rows]  # prompts, fusion, temporal
    assert components == [
        ("none", "none", "mean"),
        ("static", "none", "mean"),
        ("progressive", "none", "mean"),
        ("progressive", "none", "mtt"),
        ("progressive", "bottleneck", "mean"),
        ("none", "bottleneck", "mtt"),
        ("progressive", "bottleneck", "mtt"),
    ]
    updates = [row.changes.get("num_prompts") for row in TABLES["prompts"].rows[2:]]
    assert updates == [6, 12, 18, 36]  # 2, 4, 6 and 12 of three tokens
    base = MMADFERConfig()
    assert folder_name(base, base.replace(fusion="mult", adaptor_heads=4)) == "fusion=mult,adaptor_heads=4"


def config_of(*argv: object) -> MMADFERConfig:
    return cli_model.make_config(cli.build_parser().parse_args([str(word) for word in argv]))


def test_set_reaches_any_field_of_the_config() -> None:
    settings = ("fusion=mult", "bottleneck_width = 64", "drop_path=0.25", "image_stem=8,16", "labels=a, b")
    config = config_of("--model", "vit-b", *(word for setting in settings for word in ("--set", setting)))
    assert config == MMADFERConfig(
        fusion="mult", bottleneck_width=64, drop_path=0.25, image_stem=(8, 16), labels=("a", "b")
    )
    assert config_of("--model", "vit-b", "--set", "image_stem=") == MMADFERConfig()


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--set", "fuzion=mult"], "KEY one of image_size, labels"),
        (["--set", "fusion"], "KEY=VALUE"),
        (["--set", "bottleneck_width=wide"], "a whole number for bottleneck_width"),
        (["--set", "drop_path=no"], "a number for drop_path"),
        (["--set", "image_stem=8,x"], "whole numbers between commas for image_stem"),
        (["--set", "fusion=add", "--set", "fusion=mult"], "fusion is set to add and to mult"),
        (["--set", "image_size=112", "--image-size", 160], "image_size is set to 112 and to 160"),
    ],
)
def test_a_setting_that_is_none_is_refused(argv: list, said: str) -> None:
    with pytest.raises(UsageError) as error:
        config_of(*argv)
    assert said in one_line(error.value)
    with pytest.raises(CheckpointError, match="fusion 'sum' is none of none, add"):
        config_of("--model", "vit-b", "--set", "fusion=sum")
