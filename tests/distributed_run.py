"""A run that several processes share; started by test_distributed.py.

argv: folder of the run, what to do ("train", "resume", "crash", "stop", "poison", "twice"), and optionally "pair". With
it, this process becomes torchrun's agent and forks the two processes of the run; without it, it is one of them.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import torch
from loop_task import BATCH, RandomClips, make_run
from torch.distributed import run as torchrun
from torch.distributed.launcher.api import elastic_launch

from mma_edge.commands.support import report
from mma_edge.errors import MMAEdgeError
from mma_trainer.training import loop as train
from mma_trainer.training.execution import Execution
from mma_trainer.training.processes import Processes
from mma_trainer.training.recipe import Recipe

RECIPE = Recipe(epochs=2, batch_size=BATCH, lr=0.01, ema_decay=0.9, schedule="step")


def main(folder: Path, what: str) -> int:
    torch.set_num_threads(1)
    train.plot_curves = lambda rows, path: None
    rank = Processes.from_environment().rank

    def before(*now: int) -> None:
        if what == "crash" and now == (0, 1) and rank == 1:
            os._exit(3)
        if what == "stop" and now == (1, 1) and rank == 1:  # one of them hears it; both must stop
            os.kill(os.getpid(), signal.SIGINT)

    task = RandomClips(poison=(0, 2, 3) if what == "poison" else None, before=before)
    execution = Execution(micro_batch=1 if what == "micro" else 0)
    try:
        metrics = make_run(folder, RECIPE, task, execution).fit(resume=what == "resume")
        if what == "twice":  # a sweep, whose writer has more to do between two runs
            if rank == 0:
                time.sleep(3)
            make_run(folder / "second", RECIPE, task, execution).fit(resume=False)
    except MMAEdgeError as error:
        return report(error)
    except KeyboardInterrupt:
        return 130
    figures = {"confusion": metrics.confusion.tolist(), "loss": metrics.loss, "uar": metrics.uar}
    (folder / f"metrics-{rank}.json").write_text(json.dumps(figures))
    return 0


def launch_pair(folder: Path, what: str) -> None:
    """What `torchrun --standalone --nproc-per-node=2` does, but torch is imported once, not by three processes."""
    options = "--nproc-per-node=2 --rdzv-backend=c10d --rdzv-endpoint=localhost:0 --start-method=fork member"
    config, *_ = torchrun.config_from_args(torchrun.parse_args(options.split()))
    elastic_launch(config, lambda: sys.exit(main(folder, what)))()


if __name__ == "__main__":
    arguments = Path(sys.argv[1]), sys.argv[2]
    if sys.argv[3:] == ["pair"]:
        launch_pair(*arguments)
    else:
        sys.exit(main(*arguments))
