"""The keys of a run's configuration and their types.

Imports neither torch nor Hydra, so it loads at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from omegaconf import MISSING

if TYPE_CHECKING:
    from data_gen.spec import DatasetSpec

# With data=stream. On lite ns2d, one core solves eight times the train split while another trains the FNO. Half of
# that leaves room for slower solvers.
FRESH_PER_SAMPLE = 4


@dataclass
class ExtraSplitConfig:
    """A further test set: the samples of test, from another problem or on another grid.

    Attributes:
        n: number of samples; null means as many as test has.
        problem: arguments that differ from ``dataset.problem``.
        source: name of the split whose stored fields are interpolated to another grid; null solves the samples.
        refine: points per length of the grid, relative to the source's, e.g. 2 or 0.5.
        horizon: frames to predict; null means the dataset's.
        tolerance: largest error of the data; null means the dataset's.
    """

    n: int | None = None
    problem: dict[str, Any] = field(default_factory=dict)
    source: str | None = None
    refine: float = 1.0
    horizon: int | None = None
    tolerance: float | None = None


@dataclass
class DatasetConfig:
    """The data to learn from.

    Attributes:
        problem: constructor of a ``data_gen.spec.Problem``.
        path: folder of imported data, instead of a problem.
        history, horizon: frames given and predicted.
        seed: seed of the data.
        tolerance: generation fails if the data's measured error (relative L2) exceeds it; null accepts any error.
        test_splits: further test sets by name (test_...), made on demand.
        ladder: fractions of the file's grid on which the solver is compared with models (evaluator ``thorough``). Above
            1 the grid is finer than the file's, and coefficients are drawn again from the streams of the samples.
        conditioning: channels gives models the parameters that differ between samples, each as a channel that is
            constant in space; none hides them.
        name, content: name of imported data, and a hash of each split's file; filled in by the composition.
    """

    problem: dict[str, Any] = field(default_factory=dict)
    path: str | None = None
    history: int = MISSING
    horizon: int = MISSING
    seed: int = 0
    tolerance: float | None = None
    test_splits: dict[str, ExtraSplitConfig] = field(default_factory=dict)
    ladder: list[float] = field(default_factory=list)
    conditioning: str = "channels"
    name: str | None = None
    content: dict[str, str] = field(default_factory=dict)


@dataclass
class DataConfig:
    """The samples to train on.

    Attributes:
        stream: solve further samples of the train split while training; each replaces the oldest one in memory.
        n_fresh: number of further samples, evenly spread over the training; null means four times the train split, or
            the number of epochs times the train split if there are fewer than four epochs.
        workers: processes that solve during the training; 0 solves in the training process, between steps.
    """

    stream: bool = False
    n_fresh: int | None = None
    workers: int = 1


@dataclass
class SurrogateConfig:
    """How an operator's channels are made of fields.

    Attributes:
        bundle: steps predicted per call.
        residual: predict increments over the last history frame.
        stages: number of networks in a sum, trained one after another, each on the residual of those before it.
        solver: fraction of the grid's points on which the dataset's own solver predicts first; the network corrects it
            and residual is over its prediction. Null for no solver.
        solver_steps: how many times as long that solver's steps are.
        cutoff: fraction of each axis's points that could hold the waves that predicted states keep; 1 keeps all.
        conserve: keep the means that the equation conserves.
        normalize: standardise every field by its mean and standard deviation over the training data; otherwise an
            operator gets and gives fields in their own units.
    """

    bundle: int = 1
    residual: bool = False
    stages: int = 1
    solver: float | None = None
    solver_steps: float = 1.0
    cutoff: float = 1.0
    conserve: bool = False
    normalize: bool = True


@dataclass
class TrainerConfig:
    """See ``neuralop_bench.training.trainer.Trainer``."""

    epochs: int = MISSING
    batch_size: int = 10
    unroll: int = 1
    pushforward: int = 0
    diverted: bool = False
    prepare_copies: int = 1
    clip_norm: float | None = 1.0
    data_weight: float = 1.0
    residual_weight: float = 0.0
    checkpoint_seconds: float = 60.0
    workers: int = 0
    precision: str = "float32"
    compile: bool = False
    keep: str = "best"


@dataclass
class EvaluatorConfig:
    """The measurements of a trained model.

    Attributes:
        on_test: open test after the training. Without, a run only has its error on valid; no board takes it.
        metrics: constructors by name, for every test set.
        batch_size: samples predicted together.
        test_splits: further test sets of the dataset to measure on, or [all].
        rollout_metrics: constructors by name, only for the test set ``test_long``.
        ladder: compare with the solver itself on the grids of ``dataset.ladder``.
    """

    on_test: bool = True
    metrics: dict[str, Any] = field(default_factory=dict)
    batch_size: int = 16
    test_splits: list[str] = field(default_factory=list)
    rollout_metrics: dict[str, Any] = field(default_factory=dict)
    ladder: bool = False

    @property
    def is_thorough(self) -> bool:
        """Whether it measures more than a record holds. The rest goes into an evaluation file."""
        return bool(self.test_splits) or self.ladder


@dataclass
class PathsConfig:
    """Folders.

    Attributes:
        data: all datasets.
        outputs: all runs and the user's leaderboard.
        board: a committed board; null for none. A run whose record is there counts as done; other runs are filed there.
    """

    data: str = "data"
    outputs: str = "outputs"
    board: str | None = None


@dataclass
class PublishedConfig:
    """id: of the published value for an experiment's task and recipe (``configs/published.yaml``)."""

    id: str | None = None


@dataclass
class GenerationConfig:
    """How data are generated.

    Attributes:
        splits: splits that mode=generate makes; [all] means every split that the configuration defines.
        device: device for solvers that use torch. On other devices than cpu, float32 values differ in their last
            digits, so their hashes differ from those of other people's data.
        part, n_parts: solve only this share of the shards; a later command without part puts the files together.
    """

    splits: list[str] = field(default_factory=lambda: ["train", "valid", "test"])
    device: str = "cpu"
    part: int | None = None
    n_parts: int = 1


@dataclass
class RunConfig:
    """One run. Components (model, optimizer ...) are constructors: ``_target_`` and its arguments.

    Attributes:
        splits: number of samples of train, valid and test.
        tuning_trials: number of trainings among which the recipe was chosen, by their error on valid; null means
            untuned.
        published: the published result to compare with, set by experiment=paper/...
        seed: seed of initial weights and shuffling; the data have their own.
        device: auto, cpu, cuda, or cuda:<index>.
        workers: processes that generate data; null means one per core.
        preload_gib: splits up to this size are held in memory.
        generation: how data are generated.
        mode: run; evaluate: evaluate the finished run in ``run`` again, perhaps with another evaluator; or generate:
            only make data.
        run: the run directory for mode=evaluate.
        init_from: directory of another run, whose best weights the training starts from, or a file of published
            weights; null starts afresh.
        initial: run_id of that run, or the name of that file, and the SHA-256 of the weights; filled in by the
            composition.
        dry_run: print what would be done, and what it would take, without doing it.
        force: run again even if there is a record; the old run directory is moved aside.
        trust: packages, besides the project's own, whose constructors may be imported and called.
        debug: show tracebacks.
        choices: the option chosen in each configuration group; filled in by the composition.
        overrides: arguments of the command line; filled in by the composition.
    """

    model: dict[str, Any] = field(default_factory=dict)
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    data: DataConfig = field(default_factory=DataConfig)
    track: str = MISSING
    task: str = MISSING
    splits: dict[str, int] = field(default_factory=dict)
    surrogate: SurrogateConfig = field(default_factory=SurrogateConfig)
    optimizer: dict[str, Any] = field(default_factory=dict)
    scheduler: dict[str, Any] = field(default_factory=dict)
    loss: dict[str, Any] = field(default_factory=dict)
    augmentation: dict[str, Any] = field(default_factory=dict)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    evaluator: EvaluatorConfig = field(default_factory=EvaluatorConfig)
    tracker: dict[str, Any] = field(default_factory=dict)
    paths: PathsConfig = field(default_factory=PathsConfig)
    tuning_trials: int | None = None
    published: PublishedConfig = field(default_factory=PublishedConfig)
    seed: int = 0
    device: str = "auto"
    workers: int | None = None
    preload_gib: float = 2.0
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    mode: str = "run"
    run: str | None = None
    init_from: str | None = None
    initial: dict[str, str] = field(default_factory=dict)
    dry_run: bool = False
    force: bool = False
    trust: list[str] = field(default_factory=list)
    debug: bool = False
    choices: dict[str, str] = field(default_factory=dict)
    overrides: list[str] = field(default_factory=list)


def n_fresh(run: RunConfig) -> int:
    """Number of fresh samples in a training with ``data=stream``."""
    if run.data.n_fresh is not None:
        return run.data.n_fresh
    return min(FRESH_PER_SAMPLE, run.trainer.epochs) * run.splits["train"]


def n_pairs(run: RunConfig, n_snapshots: int) -> int:
    """Number of training pairs that a model can be prepared with: every bundle of every sample and its history, and the
    images of each under symmetries."""
    return (
        run.trainer.prepare_copies
        * run.splits["train"]
        * max(0, n_snapshots - run.dataset.history - run.surrogate.bundle + 1)
    )


def seen(run: RunConfig, spec: DatasetSpec) -> DatasetSpec:
    """The spec of a dataset with the channels that the run's model is given."""
    return replace(spec, channels=spec.varying if run.dataset.conditioning == "channels" else ())


def components(run: RunConfig) -> dict[str, dict[str, Any]]:
    """Every constructor node of a configuration, by its key."""
    nodes = {
        "model": constructor(run.model),
        **({"dataset.problem": run.dataset.problem} if run.dataset.path is None else {}),
        "optimizer": run.optimizer,
        "scheduler": run.scheduler,
        "loss": run.loss,
        "augmentation": run.augmentation,
        "tracker": run.tracker,
    }
    for group in ("metrics", "rollout_metrics"):
        nodes |= {f"evaluator.{group}.{name}": node for name, node in getattr(run.evaluator, group).items()}
    for name, extra in run.dataset.test_splits.items():
        if extra.source is None:
            nodes[f"dataset.test_splits.{name}.problem"] = changed(run.dataset.problem, extra.problem)
    return nodes


def changed(node: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A constructor node with some arguments changed, including those of nested constructors.

    >>> changed({"viscosity": 1.0, "initial": {"tau": 7, "scale": 2}}, {"initial": {"tau": 10}})
    {'viscosity': 1.0, 'initial': {'tau': 10, 'scale': 2}}
    """
    merged = dict(node)
    for key, value in changes.items():
        # A different constructor has its own arguments.
        nested = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping) and "_target_" not in value
        merged[key] = changed(merged[key], value) if nested else value
    return merged


def constructor(model: Mapping[str, Any]) -> dict[str, Any]:
    """A model node without its label, as ``constructors.build`` expects it."""
    return {key: value for key, value in model.items() if key != "label"}


def flattened(node: Any, prefix: str = "") -> dict[str, Any]:
    """The leaves of nested mappings, by dotted key."""
    if not isinstance(node, Mapping):
        return {prefix: node}
    flat: dict[str, Any] = {}
    for key, value in node.items():
        flat.update(flattened(value, f"{prefix}.{key}" if prefix else str(key)))
    return flat
