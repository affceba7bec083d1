"""Where a training stands, on disk and in memory: resumed from there, it equals an uninterrupted one."""

from __future__ import annotations

import csv
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.optim import Optimizer

from data_gen.files import replacing
from neuralop_bench.records.run_directory import BEST_NAME, CURVE_NAME, LAST_NAME
from neuralop_bench.runtime.processes import Processes
from neuralop_bench.surrogate import checkpoint
from neuralop_bench.surrogate.checkpoint import CheckpointError
from neuralop_bench.surrogate.surrogate import Surrogate


@dataclass
class Progress:
    """The progress of a training, stored in every checkpoint.

    ``spent`` holds the cost of a stream of examples, as columns of a record's cost.
    """

    epoch: int = 0
    batch: int = 0
    loss_sum: float = 0.0
    best_epoch: int = -1
    best_valid: float = math.inf
    seconds: float = 0.0
    waited: float = 0.0  # the part of these spent waiting for the next batch
    curve: list[dict[str, float]] = field(default_factory=list)
    spent: dict[str, float] = field(default_factory=dict)


@dataclass
class Files:
    """The files of a training in its run directory. Only the first process writes them."""

    folder: Path
    config: str
    spec: str
    processes: Processes

    def save_best(self, surrogate: Surrogate, at: Progress) -> None:
        content = {
            "model": surrogate.state_dict(),
            "epoch": at.best_epoch,
            "valid_rel_l2": at.best_valid,
            "config": self.config,
            "spec": self.spec,
        }
        if self.processes.is_first:
            checkpoint.save(self.folder / BEST_NAME, content)

    def load_best(self, at: Progress) -> dict[str, Any]:
        """The checkpoint of the best epoch. It may be of an epoch that was interrupted just after becoming the best."""
        path = self.folder / BEST_NAME
        content = checkpoint.load(path, self.processes.device)
        if content.get("epoch") not in (at.best_epoch, at.epoch + 1):
            raise CheckpointError(
                f"The checkpoint {path} is from epoch {content.get('epoch')}, but the best one was {at.best_epoch}. "
                "Run the same command with force=true to start the run from scratch."
            )
        return content

    def write_curve(self, at: Progress) -> None:
        if not self.processes.is_first or not at.curve:
            return
        with replacing(self.folder / CURVE_NAME) as temporary, open(temporary, "w", newline="") as handle:
            writer = csv.DictWriter(handle, fieldnames=list(at.curve[0]))
            writer.writeheader()
            writer.writerows(at.curve)


@dataclass
class State:
    """The content of a resumable checkpoint."""

    surrogate: Surrogate
    optim: Optimizer
    scheduler: Any
    files: Files
    at: Progress = field(default_factory=Progress)

    @property
    def processes(self) -> Processes:
        return self.files.processes

    @property
    def device(self) -> torch.device:
        return self.processes.device

    def save(self) -> None:
        if not self.processes.is_first:
            return
        content = {
            "model": self.surrogate.state_dict(),
            "optimizer": self.optim.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "progress": asdict(self.at),
            "rng": torch.get_rng_state(),
            "rng_cuda": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
            "config": self.files.config,
        }
        checkpoint.save(self.files.folder / LAST_NAME, content)

    def resume(self) -> Progress:
        """Resume from the checkpoint, if there is one."""
        path = self.files.folder / LAST_NAME
        if not path.exists():
            return self.at
        content = checkpoint.load(path, self.device)
        try:
            checkpoint.load_weights(self.surrogate, content["model"], path)
            self.optim.load_state_dict(content["optimizer"])
            self.scheduler.load_state_dict(content["scheduler"])
            torch.set_rng_state(content["rng"].cpu())
            if content["rng_cuda"] is not None:
                torch.cuda.set_rng_state(content["rng_cuda"].cpu(), self.device)
            at = self.at = Progress(**content["progress"])
        except CheckpointError:
            raise
        except (KeyError, ValueError, TypeError, RuntimeError) as error:
            raise CheckpointError(
                f"The checkpoint {path} doesn't fit this training ({' '.join(str(error).split())}). It may come from "
                "another version of the code. Run the same command with force=true to start the run from scratch."
            ) from error
        if at.best_epoch >= 0:  # check now: at the end of the training it would be too late
            best = self.files.load_best(at)
            # Killed between writing best.pt and last.pt: the epoch that is repeated now is the best.
            at.best_epoch, at.best_valid = best["epoch"], best["valid_rel_l2"]
        self.files.write_curve(at)
        print(f"Resuming {self.files.folder} after {at.epoch} epochs and {at.batch} steps.", flush=True)
        return at
