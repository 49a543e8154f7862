"""mma-eval: how accurate, how robust and how well calibrated a checkpoint or a bundle is."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import TimeRemainingColumn

from mma_edge.bundle import read_bundle
from mma_edge.bundle.manifest import read_temperatures
from mma_edge.commands.support import Parser, progress, run_cli, say
from mma_edge.errors import UsageError
from mma_edge.files import make_folder
from mma_edge.manual.completion import add_completion
from mma_trainer.data.public.background import load_noise
from mma_trainer.evaluation.calibration import ECE_BINS
from mma_trainer.evaluation.figures import (
    Evaluated,
    Progress,
    calibrate_bundle,
    calibration_record,
    evaluate_set,
    figures_of,
    fit_calibration,
)
from mma_trainer.evaluation.predict import Predictor, bundle_predictor
from mma_trainer.evaluation.sets.lists import open_list
from mma_trainer.evaluation.sets.public import SETS, check_labels, open_set, parse_set
from mma_trainer.report.blocks import (
    FIT_HEADER,
    FUSION_HEADER,
    ROBUSTNESS_HEADER,
    calibration_rows,
    fusion_rows,
    robustness_rows,
)
from mma_trainer.report.page import Table, number, to_rich

EXAMPLES = """\
examples:
  the embedded default model, faces alone and voices alone:
    mma-eval --data DATA --set faces voices
  on real audio-visual clips, and on the same with background noise:
    mma-eval --data DATA --set av-javanese/04,05 --robustness
  a checkpoint on an annotation list of the authors, the mean of two clips of each video:
    mma-eval runs/dfew1/model.pt --val-list DFEW_set_1_test.txt --frames-root DFEW/clip_224x224 --clips 2
  a bundle on a random tenth of it, with noise, bad light and lost frames, and a report:
    mma-eval bundles/dfew1 --val-list DFEW_set_1_test.txt --limit 234 --robustness --output report
  calibrate the probabilities, and see what is gained by no answer below 90 %:
    mma-eval bundles/nano --data DATA --set faces voices pseudo --calibrate
    mma-eval bundles/nano --data DATA --set faces --abstain-at 0.9
"""


def build_parser() -> argparse.ArgumentParser:
    parser = Parser("mma-eval", description=__doc__, epilog=EXAMPLES)
    model_help = "checkpoint or bundle (default: the embedded one)"
    parser.add_argument("model", nargs="?", type=Path, metavar="MODEL", help=model_help)
    sets = parser.add_argument_group("clips")
    sets.add_argument("--data", type=Path, metavar="DIR", help="folder of the public sets (docs/evaluation.md)")
    set_help = f"{', '.join(SETS[:-1])} or {SETS[-1]}; SET/SPEAKER,... for some people of one, e.g. javanese/04,05"
    sets.add_argument("--set", nargs="+", default=[], metavar="SET", help=set_help)
    sets.add_argument("--val-list", type=Path, metavar="FILE", help="annotation list in the authors' format")
    sets.add_argument("--frames-root", type=Path, metavar="DIR", help="where the list's frame folders lie")
    sets.add_argument("--audio-root", type=Path, metavar="DIR", help="parallel tree of .wav files")
    sets.add_argument("--skip-bad", action="store_true", help="go on without the list's bad clips")
    sets.add_argument("--limit", type=int, metavar="N", help="evenly spaced clips of each set only")
    sets.add_argument("--clips", type=int, choices=(1, 2), default=1, help="clips of each video, averaged (list only)")
    parser.add_argument("--backend", default="auto", metavar="B", help="of a bundle")
    parser.add_argument("--precision", metavar="P", help="of a bundle (default: the backend's best)")
    parser.add_argument("--device", default="cpu", metavar="D", help="of a checkpoint: cpu, cuda, cuda:1 ...")
    parser.add_argument(
        "--robustness",
        action="store_true",
        help="also with damaged sound, faces and timing, and with missing modalities",
    )
    calibrate_help = "fit the temperature on these clips, which must not be training clips, and write it into MODEL"
    calibrations = parser.add_mutually_exclusive_group()
    calibrations.add_argument("--calibrate", action="store_true", help=calibrate_help)
    as_help = "write the temperatures of another model into MODEL, e.g. of one that was fitted on greater strangers"
    calibrations.add_argument("--calibrate-as", type=Path, metavar="OTHER", help=as_help)
    abstain_help = "what is gained by answering only with at least this confidence"
    parser.add_argument("--abstain-at", nargs="+", type=float, default=[], metavar="T", help=abstain_help)
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="write report.html, metrics.json and confusion_<set>.png there"
    )
    add_completion(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return run_cli(build_parser(), evaluate_command, argv, extra="train")


def evaluate_command(args: argparse.Namespace, console: Console) -> int:
    _check(args)
    if args.output:
        make_folder(args.output)  # before minutes are spent on a report that cannot be written
    if args.calibrate_as:
        _write_calibration(args.model, calibration_of(args.calibrate_as), console)
        if not args.set and not args.val_list:
            return 0
    model = _open_model(args)
    if args.set:
        check_labels(model.labels)
    sets = [open_set(name, args.data, model.image_size) for name in args.set]
    if args.val_list:
        roots = (args.frames_root, args.audio_root)
        sets.append(open_list(args.val_list, *roots, model.labels, model.image_size, args.clips, args.skip_bad))
    heard = args.robustness and args.data and any("audio" in clips.modalities for clips in sets)
    background = load_noise(args.data, "val") if heard else None
    results, figures = [], []
    for clips in sets:
        chosen = clips.first(args.limit) if args.limit else clips
        with _bar(console) as show:
            results.append(evaluate_set(model, chosen, args.robustness, background, show))
        figures.append(figures_of(results[-1], model.labels, args.abstain_at))
        _print(console, results[-1], figures[-1], model.labels)
    record = None
    if args.calibrate:
        with _bar(console) as show:
            record = calibration_record(model.temperatures, fit_calibration(model, results, show))
        _print_calibration(console, record)
        _write_calibration(args.model, record, console)
    if args.output:
        # Imported here: it draws, and matplotlib takes a second to load.
        from mma_trainer.report.evaluation import write_eval_report

        name = "embedded default model" if args.model is None else str(args.model)
        path = write_eval_report(args.output, name, model, results, figures, record)
        say(console, f"report: {path}")
    return 0


def _check(args: argparse.Namespace) -> None:
    if not args.set and not args.val_list:
        expected = "--data DIR --set faces, or --val-list FILE"
        if not args.calibrate_as:
            raise UsageError("nothing to evaluate on", expected, "see mma-eval --help")
        _refuse(args, ("output", "robustness", "abstain_at", "limit", "data"), "without clips", expected)
    if not args.val_list:
        _refuse(args, ("frames_root", "audio_root", "skip_bad"), "without --val-list", "--val-list FILE")
    if args.set and not args.data:
        raise UsageError("--set without --data", "--data DIR")
    for name in args.set:
        parse_set(name)
    if args.limit is not None and args.limit < 1:
        raise UsageError(f"--limit {args.limit}", "at least 1")
    if args.clips > 1 and (args.set or not args.val_list):
        hint = "two clips of a still are the same clip"
        how = "with --set" if args.set else "without --val-list"
        raise UsageError(f"--clips {args.clips} {how}", "--val-list alone", hint)
    if args.clips > 1 and args.robustness:
        raise UsageError(f"--robustness with --clips {args.clips}", "--clips 1")
    if wrong := [t for t in args.abstain_at if not 0 <= t <= 1]:
        raise UsageError(f"--abstain-at {wrong[0]:g}", "a confidence from 0 to 1")
    if args.model is not None and not args.model.exists():
        raise UsageError(f"{args.model} does not exist", "a checkpoint file or a bundle folder")
    if (args.calibrate or args.calibrate_as) and args.model is None:
        hint = "the installed default model is not changed"
        given = "--calibrate" if args.calibrate else "--calibrate-as"
        raise UsageError(f"{given} without MODEL", "a checkpoint or a bundle of yours", hint)
    if args.calibrate_as and not args.calibrate_as.exists():
        raise UsageError(f"{args.calibrate_as} does not exist", "a checkpoint file or a bundle folder")


def _refuse(args: argparse.Namespace, names: Sequence[str], why: str, expected: str) -> None:
    """UsageError for the first of these options that was given."""
    for name in names:
        if getattr(args, name):
            raise UsageError(f"--{name.replace('_', '-')} {why}", expected, "or leave it out")


def _open_model(args: argparse.Namespace) -> Predictor:
    if args.model is not None and args.model.is_file():
        # Imported here: a bundle is evaluated without torch.
        from mma_trainer.weights.predictor import checkpoint_predictor

        return checkpoint_predictor(args.model, args.device)
    return bundle_predictor(args.model, args.backend, args.precision)


def _write_calibration(model: Path, record: dict, console: Console) -> None:
    if model.is_dir():
        calibrate_bundle(model, record)
    else:
        # Imported here: a bundle is calibrated without torch.
        from mma_trainer.weights.predictor import calibrate_checkpoint

        calibrate_checkpoint(model, record)
    say(console, f"temperature written into {model}")


def calibration_of(path: Path) -> dict:
    """The calibration of a checkpoint or a bundle, and whose it is; CheckpointError or BundleError for other files.

    UsageError: it was never calibrated.
    """
    if path.is_dir():
        provenance = read_bundle(path).manifest["provenance"]
    else:
        from mma_trainer.weights.checkpoint import read_checkpoint

        provenance = read_checkpoint(path).provenance
    try:
        record = dict(provenance["calibration"])
        return {**record, "temperature": read_temperatures(record["temperature"]), "taken_from": str(path)}
    except (KeyError, TypeError, ValueError) as error:
        expected = "a model that mma-eval --calibrate has written into"
        raise UsageError(f"{path} was never calibrated", expected) from error


@contextmanager
def _bar(console: Console) -> Iterator[Progress]:
    """A bar per set or condition, removed when done."""
    with progress(console, TimeRemainingColumn()) as bars:
        bar = bars.add_task("")
        yield lambda name, done, total: bars.update(bar, description=name, completed=done, total=total)


def _print(console: Console, result: Evaluated, figures: dict, labels: Sequence[str]) -> None:
    metrics = result.answers.metrics
    say(console, f"{result.clips.name}: {result.clips.description}")
    honest, at_most = figures["ece_of_honest"]
    text = f"  UAR {metrics.uar:.4f}  WAR {metrics.war:.4f}  loss {metrics.loss:.3f}  ECE {figures['ece']:.4f}  "
    say(console, text + f"AURC {figures['abstention']['aurc']:.4f}  on {metrics.num_clips} clips")
    say(console, f"  ECE of so many honest answers: {honest:.4f}, in 19 of 20 cases at most {at_most:.4f}")
    confusion = zip(labels, metrics.confusion, metrics.recall, strict=True)
    rows = [(label, *map(str, counts), number(recall, 3)) for label, counts, recall in confusion]
    _show(console, "confusion (rows true, columns predicted)", ("", *labels, "recall"), rows)
    for row in figures["abstention"]["at"]:
        accuracy = "no answer" if row["accuracy"] is None else f"accuracy {100 * row['accuracy']:.1f} %"
        coverage = f"coverage {100 * row['coverage']:.1f} %"
        say(console, f"  answers at confidence {row['threshold']:g} and above: {coverage}, {accuracy}")
    if robustness := robustness_rows(figures["robustness"], 1):
        _show(console, f"robustness, {figures['set']} (percent)", ROBUSTNESS_HEADER, robustness)
    if fusion := fusion_rows({row["condition"]: row["uar"] for row in figures["robustness"]}, 1):
        _show(console, f"both against the better alone, {figures['set']} (UAR, percent)", FUSION_HEADER, fusion)


def _print_calibration(console: Console, record: dict) -> None:
    """Expected calibration error in percent: at T = 1, as it was, and cross-fitted."""
    header = tuple(name.replace(" = ", "=") for name in FIT_HEADER)  # a console is narrow
    title = f"calibration (ECE in percent, {ECE_BINS} equal-width bins)"
    _show(console, title, header, calibration_rows(record, 1), prose=(1,))
    say(console, "  'now' is cross-fitted: each half of the clips at the temperature of the other half")
    for name, kept in record["temperature"].items():
        if name not in record["fits"]:
            say(console, f"  no clips with {name}: its temperature stays {kept:.3f}")


def _show(console: Console, caption: str, header: tuple[str, ...], rows: list, prose: tuple[int, ...] = ()) -> None:
    console.print(to_rich(Table(caption, header, rows, prose)), highlight=False)
