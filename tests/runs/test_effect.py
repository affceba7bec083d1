"""Every option acts or is refused in a sentence that names it, so no run repeats another under a name of its own."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.cells import NEEDED
from helpers.command import told
from torch import Tensor

from neuralop_bench.config.compose import compose
from neuralop_bench.config.constructors import InapplicableError
from neuralop_bench.config.identity import identity
from neuralop_bench.config.schema import RunConfig
from neuralop_bench.runs import parts, plan, training
from neuralop_bench.runs.splits import Data
from neuralop_bench.runtime.processes import ALONE
from neuralop_bench.training.tracking import NoTracker

PERIODIC, CLOSED = "dataset=burgers1d", "dataset=darcy2d"


def made(*overrides: str) -> plan.Plan:
    return plan.make(compose("track=smoke", *overrides), must_fit=False)


@pytest.mark.parametrize(
    ("model", "option", "key"),
    [
        ("pca_ridge", "augmentation=symmetries", "augmentation=symmetries"),
        ("pca_kernel_ridge", "augmentation=symmetries", "augmentation=symmetries"),
        ("mean_field", "augmentation=symmetries", "augmentation=symmetries"),
        ("mean_field", "optimizer.lr=0.5", r"optimizer\.lr=0\.5"),
        ("mean_field", "optimizer=adam", "optimizer=adam"),
        ("mean_field", "scheduler=constant", "scheduler=constant"),
        ("mean_field", "loss=mse", "loss=mse"),
        ("mean_field", "trainer.batch_size=3", r"trainer\.batch_size=3"),
        ("mean_field", "trainer.precision=bf16", r"trainer\.precision=bf16"),
        ("persistence", "trainer.clip_norm=0.1", r"trainer\.clip_norm=0\.1"),
        ("persistence", "trainer.unroll=2", r"trainer\.unroll=2"),
    ],
)
def test_what_acts_in_training_steps_is_refused_without_parameters_to_train(model: str, option: str, key: str) -> None:
    with pytest.raises(
        InapplicableError, match=f"{key} has no effect: model={model} has no parameters to train"
    ) as told:
        made(f"model={model}", option)
    assert ("trainer.prepare_copies=24" in str(told.value)) == option.startswith("augmentation")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ((PERIODIC, "+model.padding=0.2"), r"model\.padding=0\.2 has no effect: .*axes are periodic"),
        ((PERIODIC, "+model.rank=0.3"), r"model\.rank=0\.3 has no effect: it is used with a factorization"),
        ((CLOSED, "+model.coordinates=closed"), r"model\.coordinates=closed has no effect: .*nodes at both ends"),
        (("model=fno_3d", "+model.operator.rank=0.3"), r"model\.operator\.rank=0\.3 has no effect"),
        ((PERIODIC, "model=galerkin", "model.dirichlet_ring=false"), r"model\.dirichlet_ring=False has no effect"),
        ((CLOSED, "model=deeponet", "model.harmonics=3"), r"model\.harmonics=3 has no effect: .*no periodic axis"),
        ((CLOSED, "model=deeponet", "+model.cnn_channels=[8]"), r"model\.cnn_channels=.* has no effect: .* an mlp"),
        ((CLOSED, "model=pod_deeponet", "+model.cnn_channels=[8]"), r"model\.cnn_channels=.* has no effect: .* an mlp"),
        ((PERIODIC, "model=mgno", "+model.edges=reflect"), r"model\.edges=reflect has no effect: .*axes are periodic"),
        (
            (PERIODIC, "model=mgno", "model.n_smoothing=[2]", "+model.prolongation_kernel=3"),
            r"model\.prolongation_kernel=3 has no effect: there is a single level",
        ),
        ((PERIODIC, "model=unet", "model.max_width=512"), r"model\.max_width=512 has no effect: .* 128 channels"),
        ((PERIODIC, "model=lsm", "model.max_width=512"), r"model\.max_width=512 has no effect: .* 128 channels"),
        ((PERIODIC, "model=pca_ridge", "model.n_components=64"), r"model\.n_components=64 has no effect: 16 training"),
        ((CLOSED, "loss=relative_l2_per_step"), r"loss=relative_l2_per_step has no effect: .*trainer\.unroll=1"),
        (("loss=relative_h1", "+loss.cutoff=500"), r"loss\.cutoff=500 has no effect: .*the same without it"),
        (("scheduler=step_decay", "scheduler.every=500"), r"scheduler\.every=500 has no effect: .*epochs=2"),
        (("scheduler=step_decay", "scheduler.factor=0.1"), r"scheduler\.factor=0\.1 has no effect: .*epochs=2"),
        (("model=persistence", "surrogate.bundle=2", "trainer.unroll=2"), r"surrogate\.bundle=2 has no effect"),
        (("trainer.prepare_copies=2",), r"trainer\.prepare_copies=2 has no effect: model=fno isn't prepared"),
        (
            ("model=mean_field", "trainer.prepare_copies=2"),
            r"trainer\.prepare_copies=2 has no effect: with augmentation=none all copies are equal",
        ),
    ],
)
def test_an_option_that_can_not_act_on_these_data_is_refused(overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(InapplicableError, match=message):
        made(*overrides)


@pytest.mark.parametrize(
    "overrides",
    [
        ("model=mean_field", "trainer.epochs=1"),  # the budget of a task, shared with trained models
        ("model=mean_field", "surrogate.bundle=1", "trainer.unroll=1"),
        (CLOSED, "track=lite", "model.padding=0"),  # the recipe pads
        (PERIODIC, "track=lite", "model=unet", "model.max_width=null"),  # the recipe has a bound
        ("model=tfno", "model.factorization=none"),  # the rank is as in its file
        (PERIODIC, "model=pca_ridge", "model.n_components=8"),
        ("loss=relative_l2_per_step", "trainer.unroll=2"),
        ("loss=relative_h1",),
        ("loss=relative_h1", "+loss.cutoff=5"),
        ("loss=relative_h1", "+loss.eps=1e-3"),  # acts where the reference vanishes
        ("scheduler=step_decay",),
        ("scheduler=step_decay", "scheduler.every=1"),
        ("scheduler.warmup=0.31",),
        (CLOSED, "model=galerkin", "model.dirichlet_ring=false"),
        ("model=pod_deeponet", "model.n_modes=8", "augmentation=symmetries"),
        ("model=mean_field", "augmentation=symmetries", "trainer.prepare_copies=2"),
    ],
)
def test_an_option_that_acts_is_accepted(overrides: tuple[str, ...]) -> None:
    made(*overrides)


def test_a_sweep_leaves_out_what_has_no_effect(data_folder: Path, tmp_path: Path) -> None:
    grid = ("track=smoke", PERIODIC, "model=fno,mean_field,fno_3d", "augmentation=none,symmetries", "dry_run=true")
    swept = told("-m", *grid, f"paths.data={data_folder}", f"paths.outputs={tmp_path}")
    assert swept.status == 0, swept.err
    assert {job for job, state in swept.states.items() if state == "left out"} == {
        "model=mean_field augmentation=symmetries",
        "model=fno_3d augmentation=none",
        "model=fno_3d augmentation=symmetries",
    }


# Everything that decides a training, in turn -------------------------------------------------------------------------

OPTIONS = (
    "optimizer._target_=torch.optim.Adam",
    "optimizer.lr=7e-3",
    "optimizer.weight_decay=0.1",
    "scheduler=constant",
    "scheduler=inverse_time",
    "scheduler=step_decay",
    "scheduler.warmup=0.6",
    "loss=mse",
    "loss=relative_h1",
    "loss=relative_l2_per_step",
    "augmentation=symmetries",
    "surrogate.residual=SWITCHED",
    "trainer.batch_size=3",
    "trainer.clip_norm=0.01",
    "trainer.precision=bf16",
    "trainer.pushforward=1",
    "trainer.unroll=2",
)
# One of each kind: by gradients on single steps and on bundles, from outside, and without parameters to train.
KINDS = ("external", "fno", "fno_3d", "mean_field", "persistence")
# Small enough to train in a second.
SMALL = ("splits.train=3", "splits.valid=2", "splits.test=2", "trainer.epochs=1")


def outcome(cfg: RunConfig, folder: Path) -> Tensor:
    """What the trained surrogate predicts on valid."""
    planned = plan.make(cfg, must_fit=False)
    data = Data(cfg, planned.source)
    train, valid, trainer = data.open("train"), data.open("valid"), parts.trainer(cfg)
    surrogate = training._surrogate(planned, train, ALONE)
    trainer.fit(
        surrogate,
        train.windows(trainer.window_steps),
        valid.whole(),
        parts.recipe(cfg, train.spec),
        tracker=NoTracker(),
        folder=folder,
        config="",
        processes=ALONE,
    )
    batch = next(iter(valid.whole().in_order(2)))
    return surrogate.predict(batch, cfg.dataset.horizon)


@pytest.fixture(scope="module")
def standard(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Tensor]:
    @functools.cache
    def of(model: str) -> Tensor:
        return outcome(small(model, data_folder), tmp_path_factory.mktemp(model))

    return of


def small(model: str, data: Path, *overrides: str) -> RunConfig:
    modes = ("model.n_modes=3",) if model == "pod_deeponet" else ()
    return compose(
        "track=smoke", f"model={model}", *NEEDED.get(model, ()), *modes, *SMALL, f"paths.data={data}", *overrides
    )


def _is_exhaustive(model: str, option: str) -> bool:
    return (model, option) not in [
        ("fno", "augmentation=symmetries"),
        *(("mean_field", option) for option in ("optimizer.lr=7e-3", "loss=mse", "trainer.precision=bf16")),
    ]


@pytest.mark.parametrize(
    ("model", "option"),
    [
        pytest.param(model, option, marks=[pytest.mark.exhaustive] * _is_exhaustive(model, option))
        for model in KINDS
        for option in OPTIONS
    ],
)
def test_a_changed_option_changes_the_prediction_or_the_message(
    model: str, option: str, standard: Callable[[str], Tensor], data_folder: Path, tmp_path: Path
) -> None:
    base = small(model, data_folder)
    option = option.replace("SWITCHED", str(not base.surrogate.residual).lower())
    key = option.partition("=")[0].removesuffix("._target_")
    message = ""
    try:
        cfg = small(model, data_folder, option)
        assert identity(cfg).config_hash != identity(base).config_hash
        changed = outcome(cfg, tmp_path)
    except ValueError as error:
        message = str(error)
    assert key in message if message else not torch.equal(changed, standard(model))
