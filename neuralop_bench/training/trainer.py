"""The training loop: the same for every model, dataset and way of training."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from data_gen import progress
from data_gen.spec import SolverError
from neuralop_bench.batch import TIME, Batch, Field, Predictor, Trajectory
from neuralop_bench.data.trajectories import Examples, Windows
from neuralop_bench.metrics.relative import mean_squares, relative_l2_of
from neuralop_bench.records.run_directory import BEST_NAME, LAST_NAME
from neuralop_bench.runtime.processes import Processes
from neuralop_bench.surrogate import checkpoint
from neuralop_bench.surrogate.boosted import Boosted
from neuralop_bench.surrogate.coarse_solver import CoarseSolver
from neuralop_bench.surrogate.rollout import rollout
from neuralop_bench.surrogate.surrogate import Surrogate
from neuralop_bench.training.augmentation import Augmentation
from neuralop_bench.training.losses import Loss
from neuralop_bench.training.schedules import Schedule
from neuralop_bench.training.state import Files, Progress, State
from neuralop_bench.training.tracking import Tracker

# Maps predicted fields and static fields to the size of what they lack to solve the equation, [B].
Residual = Callable[[Trajectory, Field], Tensor]


class Diverged(RuntimeError):
    """The loss became non-finite."""


@dataclass(frozen=True)
class Recipe:
    """How weights are updated. Each part has its own module (``optimizers``, ``schedules`` ...)."""

    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer]
    schedule: Schedule
    loss: Loss
    augmentation: Augmentation
    residual: Residual | None = None
    solver: CoarseSolver | None = None


@dataclass(frozen=True)
class Trainer:
    """Fit a surrogate: shuffle, unroll, clip, step, validate, keep the best epoch (or the last).

    The loss compares ``unroll`` free-running steps with the reference and is differentiated through all of them; with
    1, it trains on one-step pairs. With ``pushforward``, these steps start from states that the surrogate has predicted
    itself. The number of steps up to there is drawn for every batch, and gradients don't flow through them. So the
    surrogate learns to correct its own errors for little more than the cost of pairs (Brandstetter, Worrall, Welling
    2022, arXiv 2202.03376, section 3.1). With ``diverted``, they are compared with what the recipe's solver makes of
    the same states, not with the stored reference (Koehler et al. 2024, APEBench, arXiv 2411.00180).

    The order of samples in an epoch depends only on (seed, epoch), so on a CPU a training that was interrupted and
    resumed gives the same bits as an uninterrupted one.

    Attributes:
        epochs: passes over the training windows.
        batch_size: windows per step.
        unroll: predicted steps per window that are compared with the reference.
        pushforward: largest number of steps before these, a multiple of the surrogate's bundle.
        diverted: whether the reference after predicted steps is computed anew from the predicted state.
        prepare_copies: number of times that the operator's ``prepare`` gets each training pair: once as it is, followed
            by images under the recipe's augmentation, at random each time.
        data_weight, residual_weight: of the loss, and of the equation's residual that is added to it (Li et al. 2024,
            Physics-informed neural operator, arXiv 2111.03794).
        clip_norm: bound on the gradient's norm; None for no bound.
        seed: seed of the samples' order.
        checkpoint_seconds: longest time between checkpoints.
        precision: precision of the products in a training step, float32 or bf16 (torch's autocast; weights, loss,
            transforms and predictions stay float32).
        compile: whether torch.compile translates the operator.
        keep: the epoch whose weights are kept: best (on valid) or last.
        workers: processes that read data that aren't held in memory (``preload_gib``). A thread always reads one batch
            ahead; use workers if it is slower than a training step. Results don't depend on it.
    """

    epochs: int
    batch_size: int
    unroll: int
    clip_norm: float | None
    seed: int
    data_weight: float = 1.0
    residual_weight: float = 0.0
    pushforward: int = 0
    diverted: bool = False
    prepare_copies: int = 1
    checkpoint_seconds: float = 60.0
    workers: int = 0
    precision: str = "float32"
    compile: bool = False
    keep: str = "best"

    @property
    def window_steps(self) -> int:
        """Steps that follow the history in a training window."""
        return self.pushforward + self.unroll

    def fit(
        self,
        surrogate: Surrogate,
        train: Examples,
        valid: Windows,
        recipe: Recipe,
        *,
        tracker: Tracker,
        folder: Path,
        config: str,
        processes: Processes,
    ) -> Progress:
        """Train to the last epoch and leave the surrogate with the weights that did best on ``valid``, or with the last
        ones (``keep``).

        Writes last.pt (resumable), best.pt and curve.csv into ``folder``; resumes from last.pt if it exists. Before
        training, the operator's method ``prepare`` gets the training pairs, if it has one. For an operator without
        parameters that is the whole training: it only writes best.pt, as epoch 0.

        Args:
            surrogate: on the device of ``processes``, with its normaliser fitted.
            train: examples with ``window_steps`` steps.
            valid: whole trajectories; free-running predictions of them select the best epoch.
            recipe: how weights are updated.
            tracker: receives the numbers of every epoch.
            folder: the run directory.
            config: the configuration as YAML, stored in every checkpoint.
            processes: the processes that share the training, each with a part of every batch; only the first writes.

        Raises:
            Diverged: the loss became non-finite; last.pt and best.pt stay as they were.
        """
        clock = _Clock()
        pairs = train.source.windows(surrogate.bundle)
        if not (folder / LAST_NAME).exists():  # a checkpoint already contains the result of prepare
            surrogate.prepare(self._copies(pairs, recipe.augmentation, processes.device))
        files = Files(folder, config, train.source.spec.to_json(), processes)
        parameters = [p for p in surrogate.parameters() if p.requires_grad]
        if not parameters:
            return self._keep_prepared(surrogate, valid, tracker, files, clock)
        optim, n_batches = recipe.optimizer(parameters), -(-len(train) // self.batch_size)
        stages = _Stages(self.epochs, surrogate, optim, partial(recipe.schedule, steps_per_epoch=n_batches))
        scheduler = stages.schedule()
        training = State(surrogate, optim, scheduler, files)
        at = training.resume()
        train.spent.update(at.spent)
        at.spent = train.spent  # the same dict, so the stream keeps adding to it and every checkpoint holds the sums
        if self.compile:
            surrogate.operator.compile()
        objective = processes.sharing(_Objective(surrogate, recipe, self))
        clock.saved()
        with progress.track("Training", self.epochs * n_batches, "steps", at.epoch * n_batches + at.batch) as bar:
            while at.epoch < self.epochs:
                stages.enter(training, pairs.in_order(self.batch_size))
                for value in self._steps(training, train, objective, recipe):
                    _require_finite(value, at, n_batches)
                    at.batch += 1
                    at.loss_sum += value
                    clock.tick(at)
                    bar.advance(1, self._note(at.epoch + 1, at.loss_sum / at.batch, at), milestone=False)
                    if clock.since_saved > self.checkpoint_seconds:
                        training.save()
                        clock.saved()
                self._end_epoch(training, valid, tracker, n_batches)
                bar.advance(0, self._note(at.epoch, at.curve[-1]["train_loss"], at))
                clock.tick(at)
                training.save()
                clock.saved()
        processes.wait()  # for best.pt
        if at.best_epoch < 0:
            raise Diverged("No epoch gave a finite error on the validation split.")
        stages.end()
        checkpoint.load_weights(surrogate, files.load_best(at)["model"], folder / BEST_NAME)
        return at

    def _copies(self, pairs: Windows, augmentation: Augmentation, device: torch.device) -> Iterator[Batch]:
        """All pairs in order, each followed by its augmented copies, so that a part of them has whole samples."""
        for batch in pairs.in_order(self.batch_size):
            given = _to(batch, device)
            copies = [given, *(augmentation(given) for _ in range(self.prepare_copies - 1))]
            yield Batch(*(torch.stack(fields, dim=1).flatten(0, 1) for fields in zip(*copies, strict=True)))

    def _keep_prepared(
        self, surrogate: Surrogate, valid: Windows, tracker: Tracker, files: Files, clock: _Clock
    ) -> Progress:
        """Keep a surrogate without trainable parameters as ``prepare`` left it: epoch 0 is the best."""
        at = Progress(best_epoch=0, best_valid=validate(surrogate, valid, self.batch_size, files.processes))
        clock.tick(at)
        if not math.isfinite(at.best_valid):
            raise Diverged("The prediction isn't finite on the validation split.")
        files.save_best(surrogate, at)
        tracker.log({"epoch": 0, "valid_rel_l2": at.best_valid, "seconds": at.seconds})
        return at

    def _steps(self, training: State, train: Examples, objective: nn.Module, recipe: Recipe) -> Iterator[float]:
        """Do the remaining steps of an epoch and yield the loss of each."""
        at, processes = training.at, training.processes
        training.surrogate.train()
        batches = train.shuffled(
            self.batch_size,
            self.seed,
            at.epoch,
            skip=at.batch,
            workers=self.workers,
            pinned=processes.device.type == "cuda",
            processes=processes,
        )
        for batch in _waiting(batches, at):
            share = _Share.of(processes, min(self.batch_size, len(train) - at.batch * self.batch_size))
            n_after = share.n_whole - share.n_before - len(batch.target)
            batch = recipe.augmentation(_to(batch, processes.device), share.n_before, n_after)
            with _subnormals_are_zero():
                pushed = self._pushed(training.surrogate, batch, recipe.solver)
                value = self._step(training.surrogate, objective, pushed, training.optim, share.weight, processes)
            training.scheduler.step()
            yield value

    def _step(
        self,
        surrogate: Surrogate,
        objective: nn.Module,
        batch: Batch,
        optim: Optimizer,
        weight: float,
        processes: Processes,
    ) -> float:
        """Do one step and return the loss of the whole batch, of which this process has a part of the given weight."""
        optim.zero_grad(set_to_none=True)
        with torch.autocast(processes.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            value: Tensor = objective(batch.history, batch.static, batch.target)
        if processes.n > 1:
            value = weight * value  # gradients are averaged over processes, whose parts may differ in size
        value.backward()
        if self.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(surrogate.parameters(), self.clip_norm)
        optim.step()
        return float(processes.summed(value.detach() / processes.n))

    @torch.no_grad()
    def _pushed(self, surrogate: Surrogate, batch: Batch, solver: CoarseSolver | None) -> Batch:
        """The batch with the history that the loss starts from, and the target steps that follow it."""
        n_calls = self.pushforward // surrogate.bundle
        n_pushed = surrogate.bundle * int(torch.randint(n_calls + 1, ())) if n_calls else 0
        if not n_pushed:
            return batch._replace(target=batch.target[:, : self.unroll])
        with torch.autocast(batch.history.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            predicted = rollout(surrogate, batch.history, batch.static, n_pushed)
        history = torch.cat([batch.history, predicted], dim=TIME)[:, n_pushed:]
        target = batch.target[:, n_pushed : n_pushed + self.unroll]
        if self.diverted and solver is not None:
            # Where an untrained network leads, the solver may not be able to go on.
            with suppress(SolverError):
                target = solver.predict(Batch.given(history, batch.static), self.unroll)
        return batch._replace(history=history, target=target)

    def _note(self, epoch: int, loss: float, at: Progress) -> str:
        valid = f", valid {at.curve[-1]['valid_rel_l2']:.4g}" if at.curve else ""
        return f"epoch {epoch}/{self.epochs}, loss {loss:.4g}{valid}"

    def _end_epoch(self, training: State, valid: Windows, tracker: Tracker, n_batches: int) -> None:
        at, files = training.at, training.files
        files.processes.align(training.surrogate)
        error = validate(training.surrogate, valid, self.batch_size, files.processes)
        row = {
            "epoch": at.epoch + 1,
            "train_loss": at.loss_sum / n_batches,
            "valid_rel_l2": error,
            "learning_rate": training.optim.param_groups[0]["lr"],
            "seconds": at.seconds,
        }
        at.epoch, at.batch, at.loss_sum = at.epoch + 1, 0, 0.0
        at.curve.append(row)
        if error < at.best_valid or self.keep == "last":
            at.best_valid, at.best_epoch = error, at.epoch
            files.save_best(training.surrogate, at)
        files.write_curve(at)
        tracker.log(row)


def validate(predictor: Predictor, valid: Windows, batch_size: int, processes: Processes) -> float:
    """Mean relative L2 of free-running predictions over whole trajectories (``rel_l2``).

    It is infinite if any prediction isn't finite. Every process predicts its part of the batches and gets the mean
    over all of them.
    """
    squares: list[NDArray[np.float64]] = []
    for batch in valid.in_order(batch_size, processes):
        prediction = predictor.predict(_to(batch, processes.device), valid.n_steps)
        squares.append(mean_squares(prediction, batch))
    return relative_l2_of(np.concatenate(processes.interleaved(squares)))


@contextmanager
def _subnormals_are_zero() -> Iterator[None]:
    """Count numbers below 1e-38 as 0, because processors may take a hundred times as long for them.

    An optimizer has many where gradients nearly vanish, as those of high wavenumbers do on smooth data. It is done for
    the steps alone, so data that are solved in this process keep their bytes.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


class _Stages:
    """The networks of a ``Boosted`` operator, trained one after another with as many epochs and a schedule of their
    own; any other operator is a single stage.

    Each stage starts from the best weights of those before it. It leaves them as they are.
    """

    def __init__(
        self, epochs: int, surrogate: Surrogate, optim: Optimizer, schedule: Callable[..., LRScheduler]
    ) -> None:
        operator = surrogate.operator
        self._surrogate, self._optim, self._make = surrogate, optim, schedule
        self._boosted = operator if isinstance(operator, Boosted) else None
        self._n_epochs = epochs // (1 if self._boosted is None else len(self._boosted.stages))
        self._rates = [group["lr"] for group in optim.param_groups]

    def schedule(self) -> LRScheduler:
        """A new schedule, for one stage."""
        for group, rate in zip(self._optim.param_groups, self._rates, strict=True):
            group["lr"] = rate
        return self._make(self._optim, n_epochs=self._n_epochs)

    def enter(self, training: State, pairs: Iterable[Batch]) -> None:
        """Do what is due before an epoch, which may be the first of a stage or one that a resumed training goes on
        with."""
        at, boosted = training.at, self._boosted
        if boosted is None:
            return
        number = at.epoch // self._n_epochs
        if number == 0 or at.epoch % self._n_epochs or at.batch:
            boosted.train_stage(number, float(boosted.scale[number]))
            return
        files = training.files
        checkpoint.load_weights(self._surrogate, files.load_best(at)["model"], files.folder / BEST_NAME)
        boosted.n_active = number
        self._surrogate.eval()
        device = training.device
        boosted.train_stage(number, self._surrogate.residual_size(_to(batch, device) for batch in pairs))
        self._optim.state.clear()
        training.scheduler = self.schedule()

    def end(self) -> None:
        if self._boosted is not None:
            self._boosted.end_training()


class _Objective(nn.Module):
    """The loss of a batch as a module: to share gradients, a module must be called once per backward pass."""

    def __init__(self, surrogate: Surrogate, recipe: Recipe, trainer: Trainer) -> None:
        super().__init__()
        self.surrogate, self._recipe, self._trainer = surrogate, recipe, trainer
        self._scale = surrogate.normalizer.scale

    def forward(self, history: Trajectory, static: Field, target: Trajectory) -> Tensor:
        prediction = rollout(self.surrogate, history, static, self._trainer.unroll)
        value = self._recipe.loss(prediction, target, self._scale)
        if self._recipe.residual is None:
            return value
        lacking = self._recipe.residual(prediction, static).mean()
        return self._trainer.data_weight * value + self._trainer.residual_weight * lacking


class _Clock:
    """Adds elapsed time to the seconds of a training, and measures the time since the last checkpoint."""

    def __init__(self) -> None:
        self._read = self._saved = time.monotonic()

    def tick(self, at: Progress) -> None:
        now = time.monotonic()
        at.seconds, self._read = at.seconds + now - self._read, now

    def saved(self) -> None:
        self._saved = time.monotonic()

    @property
    def since_saved(self) -> float:
        return time.monotonic() - self._saved


class _Share(NamedTuple):
    """One process's part of a batch: number of examples before it, its weight, and size of the whole batch."""

    n_before: int
    weight: float
    n_whole: int

    @classmethod
    def of(cls, processes: Processes, n_whole: int) -> _Share:
        part = processes.part_of(n_whole)
        # A process without a part gets one example with weight 0.
        return cls(min(part.start, n_whole - 1), processes.n * (part.stop - part.start) / n_whole, n_whole)


def _require_finite(loss: float, at: Progress, n_batches: int) -> None:
    if not math.isfinite(loss):
        raise Diverged(f"The training loss became {loss} in epoch {at.epoch + 1}, step {at.batch + 1} of {n_batches}.")


def _waiting(batches: Iterator[Batch], at: Progress) -> Iterator[Batch]:
    """The batches; the time spent waiting for them is added up."""
    while True:
        started = time.monotonic()
        batch = next(batches, None)
        at.waited += time.monotonic() - started
        if batch is None:
            return
        yield batch


def _to(batch: Batch, device: torch.device) -> Batch:
    return Batch(*(x.to(device, non_blocking=True) for x in batch))
