"""An operator with units: physical fields in, physical fields out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from pydantic import BaseModel
from pydantic import Field as PydanticField
from torch import Tensor, nn
from yaml import YAMLError

from data_gen.spec import DatasetSpec
from neuralop_bench.batch import TIME, Batch, Field, Trajectory
from neuralop_bench.config import constructors
from neuralop_bench.layers.options import Inapplicable
from neuralop_bench.layers.precision import widened
from neuralop_bench.metrics.cost import count_parameters
from neuralop_bench.records.run_directory import BEST_NAME
from neuralop_bench.runtime import plain_yaml
from neuralop_bench.surrogate import checkpoint
from neuralop_bench.surrogate.boosted import Boosted
from neuralop_bench.surrogate.coarse_solver import CoarseSolver
from neuralop_bench.surrogate.normalization import Normalizer
from neuralop_bench.surrogate.projection import Projection
from neuralop_bench.surrogate.rollout import rollout

_MOST_STEPS = 2**16
_MOST_POINTS = 2**16  # per axis
_MOST_STAGES = 16


class _DescribedDataset(BaseModel, strict=True):
    history: int = PydanticField(ge=0, le=_MOST_STEPS)
    problem: dict[str, Any] = PydanticField(default_factory=dict)


class _DescribedSurrogate(BaseModel, strict=True):
    bundle: int = PydanticField(ge=1, le=_MOST_STEPS)
    residual: bool
    stages: int = PydanticField(default=1, ge=1, le=_MOST_STAGES)
    cutoff: float = PydanticField(default=1.0, gt=0, le=1)
    conserve: bool = False
    solver: float | None = PydanticField(default=None, gt=0, le=1)
    solver_steps: float = PydanticField(default=1.0, ge=1)


class _Described(BaseModel, strict=True):
    """The part of a checkpoint's configuration that its model needs."""

    model: dict[str, Any]
    dataset: _DescribedDataset
    surrogate: _DescribedSurrogate


class Surrogate(nn.Module):
    """decode . operator . encode: the only place that normalises fields and puts time into channels.

    The operator gets [B, K C + C_s, *S]: the normalised history, oldest frame first, then the normalised static fields
    and parameters. It returns [B, b C, *S], the bundle of b steps predicted per call. With a solver, it also gets the
    bundle that the solver predicts, as b C channels between history and static fields.

    Args:
        operator: an ``nn.Module`` that maps fields to fields.
        normalizer: statistics of the training split.
        bundle: steps per call, b. With 1, the model is autoregressive; with the horizon, it predicts the whole
            trajectory at once.
        residual: predict increments: step j of a bundle is the last history frame, or what the solver predicts, plus
            increment_std[j] times the output.
        solver: predicts every bundle first. Gradients don't flow through it.
        projection: of every predicted state, before it is given back.

    Attributes:
        spec: spec of the training data; None unless the surrogate was loaded from a run.
        n_history: number of history frames it was trained with, K; None unless it was loaded from a run.

    Raises:
        ValueError: in ``forward``: ``residual`` without a history or a solver, or an operator whose output has the
            wrong shape.
    """

    def __init__(
        self,
        operator: nn.Module,
        normalizer: Normalizer,
        *,
        bundle: int = 1,
        residual: bool = False,
        solver: CoarseSolver | None = None,
        projection: Projection | None = None,
    ) -> None:
        super().__init__()
        self.operator = operator
        self.normalizer = normalizer
        self.bundle = bundle
        self.residual = residual
        self._solver = solver
        self._projection = projection
        self.spec: DatasetSpec | None = None
        self.n_history: int | None = None

    @classmethod
    def load(cls, run: Path | str, *, device: torch.device | str = "cpu", trust: Sequence[str] = ()) -> Surrogate:
        """The surrogate of a run with the weights that did best on valid, in evaluation mode.

        Args:
            run: a run directory; only its best.pt is read.
            device: the device to compute on.
            trust: packages, besides the project's own, whose constructors may be called, since they run code.

        Raises:
            CheckpointError: best.pt is missing, damaged, or of another architecture, or has weights that aren't finite.
            ConfigError: a constructor isn't trusted, or its arguments have changed since.

        >>> from neuralop_bench import Surrogate, compose, run, run_directory
        >>> cfg = compose("model=fno", "track=smoke", "seed=1")
        >>> record = run(cfg)  # doctest: +ELLIPSIS
        fno on ns2d, track smoke, seed 1 -> ...
        >>> surrogate = Surrogate.load(run_directory(cfg))
        >>> history = torch.zeros(1, surrogate.n_history, 1, *surrogate.spec.grid.shape)
        >>> surrogate.predict(Batch.given(history), n_steps=3).shape
        torch.Size([1, 3, 1, 32, 32])
        """
        path = Path(run) / BEST_NAME
        content = checkpoint.load(path, device)
        described, spec, states = _described(content, path)
        model = {key: value for key, value in described.model.items() if key != "label"}
        constructors.require_trusted("model", model, trust, foreign=True)
        constructors.check("model", model, trust)
        n_history, made = described.dataset.history, described.surrogate
        sizes: dict[str, Any] = {"n_history": n_history, "bundle": made.bundle, "stages": made.stages}
        solver = None
        if made.solver is not None:
            constructors.require_trusted("dataset.problem", described.dataset.problem, trust, foreign=True)
            constructors.check("dataset.problem", described.dataset.problem, trust)
            problem = constructors.build(described.dataset.problem)
            solver = CoarseSolver.correctable(problem, made.solver, relaxation=made.solver_steps)
            sizes["corrects"] = True
        # First without memory: a small file can describe a network of many gigabytes.
        empty = build_operator(model, spec, **sizes, device=torch.device("meta"))
        checkpoint.load_weights(empty, {name: value.to("meta") for name, value in _of_operator(states).items()}, path)
        operator = build_operator(model, spec, **sizes, device=torch.device(device))
        normalizer = Normalizer(**{name: states[f"normalizer.{name}"] for name in Normalizer.__annotations__})
        projection = Projection.of(spec, cutoff=made.cutoff, conserve=made.conserve)
        surrogate = cls(
            operator, normalizer, bundle=made.bundle, residual=made.residual, solver=solver, projection=projection
        )
        checkpoint.load_weights(surrogate, states, path)
        surrogate.spec, surrogate.n_history = spec, n_history
        return surrogate.to(device).eval()

    def forward(self, history: Trajectory, static: Field) -> Trajectory:
        """The next bundle, [B, b, C, *S], in physical units."""
        start = self._start(history, static)
        output = self.operator(self._encoded(history, static, start))
        n_channels = len(self.normalizer.state_mean)
        expected = (history.shape[0], self.bundle * n_channels, *static.shape[2:])
        if output.shape != expected:
            raise ValueError(f"The operator returned fields of shape {tuple(output.shape)}, expected {expected}.")
        bundle = widened(output).unflatten(1, (self.bundle, n_channels))  # physical units from here on
        if self.residual:
            predicted = start + self.normalizer.decode_increment(bundle)
        else:
            predicted = self.normalizer.decode_state(bundle)
        return predicted if self._projection is None else self._projection(history, static, predicted)

    def encode(self, history: Trajectory, static: Field) -> Field:
        """The operator's input.

        Raises:
            ValueError: ``static`` has another number of channels than in training.
        """
        return self._encoded(history, static, self._start(history, static))

    def _start(self, history: Trajectory, static: Field) -> Trajectory:
        """What increments are added to: the solver's prediction, or the last frame of the history."""
        if self._solver is not None:
            if history.is_meta:
                return history.new_empty(len(history), self.bundle, len(self.normalizer.state_mean), *static.shape[2:])
            return self._solver.predict(Batch.given(history.detach(), static), self.bundle)
        if self.residual and history.shape[TIME] == 0:
            raise ValueError(
                "surrogate.residual=true predicts an increment over the last history frame, but the history is empty. "
                "Use surrogate.residual=false for a steady problem."
            )
        return history[:, -1:]

    def _encoded(self, history: Trajectory, static: Field, start: Trajectory) -> Field:
        n_static = len(self.normalizer.static_mean)
        if static.shape[1] != n_static:
            raise ValueError(
                f"The model is given {n_static} static channels, coefficient fields and then parameters that differ "
                f"between samples, but the batch has {static.shape[1]}. Batch.given(history, static) takes them."
            )
        given = history if self._solver is None else torch.cat([history, start], dim=TIME)
        states = self.normalizer.encode_state(given).flatten(1, 2)
        return torch.cat([states, self.normalizer.encode_static(static)], dim=1)

    def encode_target(self, history: Trajectory, static: Field, target: Trajectory) -> Field:
        """The operator's output for which the surrogate predicts a given bundle of physical fields, [B, b C, *S]."""
        if self.residual:
            return self.normalizer.encode_increment(target - self._start(history, static)).flatten(1, 2)
        return self.normalizer.encode_state(target).flatten(1, 2)

    @torch.no_grad()
    def measure_corrections(self, batches: Iterable[Batch]) -> None:
        """Take for increment_std the root mean square of what the solver lacks, over batches with targets of a bundle's
        length."""
        squares = [(b.target - self._start(b.history, b.static)).double().square() for b in batches]
        rows = [fields.transpose(0, 2).flatten(2).transpose(0, 1) for fields in squares]  # [b, C, ...]
        self.normalizer.increment_std = torch.cat(rows, dim=-1).mean(-1).sqrt()

    @torch.no_grad()
    def prepare(self, batches: Iterable[Batch]) -> None:
        """Call the operator's ``prepare``, if it has one, with the encoded training pairs.

        Operators use them to compute a basis of the targets or a regression.

        Args:
            batches: batches of the training split, with targets of a bundle's length. All of them are held in memory,
                so an operator that needs ``prepare`` only for some of its options says so in ``needs_pairs``.
        """
        prepare = getattr(self.operator, "prepare", None)
        if prepare is None or not getattr(self.operator, "needs_pairs", True):
            return
        pairs = [(self.encode(b.history, b.static), self.encode_target(b.history, b.static, b.target)) for b in batches]
        prepare(*(torch.cat(fields) for fields in zip(*pairs, strict=True)))

    @torch.no_grad()
    def residual_size(self, batches: Iterable[Batch]) -> float:
        """Root mean square of what the operator's output lacks, over batches with targets of a bundle's length."""
        lacking = (
            self.encode_target(b.history, b.static, b.target) - self.operator(self.encode(b.history, b.static))
            for b in batches
        )
        squares = [(float(fields.double().square().sum()), fields.numel()) for fields in lacking]
        return math.sqrt(sum(total for total, _ in squares) / sum(n for _, n in squares))

    @torch.no_grad()
    def predict(self, batch: Batch, n_steps: int) -> Trajectory:
        """Free-running prediction of ``n_steps`` snapshots, [B, n_steps, C, *S], in evaluation mode."""
        was_training = self.training
        self.eval()
        try:
            return rollout(self, batch.history, batch.static, n_steps)
        finally:
            self.train(was_training)

    @property
    def n_parameters(self) -> int:
        """Trainable real numbers; a complex parameter counts as two."""
        return count_parameters(self.operator)


def weights_of(run: Path | str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The model node of the run in a directory, and the operator's weights in its best.pt, by name.

    Raises:
        CheckpointError: the file is missing or damaged, or has weights that aren't finite.
    """
    path = Path(run) / BEST_NAME
    described, _, states = _described(checkpoint.load(path), path)
    return described.model, _of_operator(states)


def build_operator(
    model: Mapping[str, Any],
    spec: DatasetSpec,
    *,
    n_history: int,
    bundle: int,
    device: torch.device,
    n_pairs: int | None = None,
    stages: int = 1,
    corrects: bool = False,
) -> nn.Module:
    """Build the network of a model node for the channels and the grid of a dataset.

    On the device ``meta`` it takes no memory, so impossible sizes fail before any work is done. With ``n_pairs``, the
    network's method ``require_pairs``, if it has one, checks this number of training pairs. Of several ``stages``, each
    is a network of this kind (``Boosted``). One that ``corrects`` a solver also takes what that predicts.
    """
    n_in, n_out = n_history * len(spec.state) + len(spec.static) + len(spec.channels), bundle * len(spec.state)
    n_in += n_out if corrects else 0
    make = partial(constructors.build(model), out_channels=n_out, grid=spec.grid)
    with device:
        operator = make(in_channels=n_in)
        if stages > 1:
            is_prepared = hasattr(operator, "prepare") and getattr(operator, "needs_pairs", True)
            if is_prepared or not any(p.requires_grad for p in operator.parameters()):
                raise Inapplicable(
                    f"surrogate.stages={stages} trains networks one after another, but this model is prepared with "
                    "the training pairs or has nothing to train. Use surrogate.stages=1."
                )
            operator = Boosted([operator, *(make(in_channels=n_in + n_out) for _ in range(1, stages))])
    if n_pairs is not None and (check := getattr(operator, "require_pairs", None)) is not None:
        check(n_pairs)
    return operator


def _of_operator(states: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix("operator."): value for name, value in states.items() if name.startswith("operator.")}


def _described(content: Mapping[str, Any], path: Path) -> tuple[_Described, DatasetSpec, dict[str, Tensor]]:
    """The configuration, the data's spec and the weights in a checkpoint, which may come from someone else."""
    try:
        described = _Described.model_validate(plain_yaml.load(content["config"], "its configuration"))
        spec, states = DatasetSpec.from_json(content["spec"]), content["model"]
        if max(spec.grid.shape) > _MOST_POINTS:
            raise ValueError(f"its grid has more than {_MOST_POINTS} points on an axis")
        for name, value in states.items():
            if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_quantized or value.is_meta:
                raise ValueError(f"{name} isn't an ordinary tensor")
            if value.numel() * value.element_size() > value.untyped_storage().nbytes():  # memory that it doesn't have
                raise ValueError(f"{name} has the shape {tuple(value.shape)}, but fewer numbers are stored")
        infinite = [name for name, value in states.items() if not bool(value.isfinite().all())]
        if infinite:
            raise ValueError(f"{infinite[0]} has values that aren't finite")
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError, YAMLError) as error:
        reason = shorten(str(error), 300, placeholder=" ...")
        raise checkpoint.CheckpointError(
            f"The checkpoint {path} isn't that of a finished run ({type(error).__name__}: {reason})."
        ) from error
    return described, spec, states
