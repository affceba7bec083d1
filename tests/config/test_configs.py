"""Every configuration composes and builds; identities and error messages are as documented."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers.cells import GIVEN_AS_FILES, KINDS_OF_DATA, NEEDED, REFUSED

from neuralop_bench.config import constructors
from neuralop_bench.config.compose import compose
from neuralop_bench.config.constructors import ConfigError
from neuralop_bench.config.identity import Identity, identity, run_directory
from neuralop_bench.config.messages import describe, report_errors
from neuralop_bench.data.trajectories import require_frames
from neuralop_bench.runs import plan, splits
from neuralop_bench.runtime.place import CONFIG_DIR


def _options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONFIG_DIR / group).glob("*.yaml"))


def _dataset_of(task: str) -> str:
    """A task file is called as its dataset, or <dataset>_<variant> if a track has several tasks for one."""
    return max((name for name in _options("dataset") if f"{task}_".startswith(f"{name}_")), key=len)


# What the experiments of another benchmark share, whatever their dataset.
SHARED = {"apebench", "pdebench"}
CELLS = [
    (track, _dataset_of(task), task)
    for track in _options("track")
    for task in _options(f"task/{track}")
    if task not in {*GIVEN_AS_FILES, *SHARED}
]
GROUPS = [
    (group, option)
    for group in ("optimizer", "scheduler", "loss", "surrogate", "augmentation", "evaluator", "tracker", "paths")
    for option in _options(group)
]


def _first(model: str, track: str, task: str) -> bool:
    """Every model, every dataset, every track and every refusal once; make test-all tries further cells."""
    if track == "lite":
        return task == "ns2d" or model == "fno" or (model, task) in REFUSED
    return (model, task) == ("fno", "ns2d")


@pytest.mark.parametrize(
    ("model", "track", "dataset", "task"),
    [
        pytest.param(*(model, track, dataset, task), marks=[pytest.mark.exhaustive] * (not _first(model, track, task)))
        for track, dataset, task in CELLS
        for model in _options("model")
        # One model stands for all where neither size nor recipe is new; the smoke track's are built by the contract.
        if model == "fno"
        or (track == "lite" and task in KINDS_OF_DATA)
        or (CONFIG_DIR / f"recipe/{track}/{task}_{model}.yaml").exists()
    ],
)
def test_every_cell_composes_and_its_model_builds(model: str, track: str, dataset: str, task: str) -> None:
    chosen = (f"track={track}", f"dataset={dataset}", f"task={track}/{task}", f"model={model}", *NEEDED.get(model, ()))
    refused = [error for (name, root), error in REFUSED.items() if name == model and f"{dataset}_".startswith(root)]
    if refused:
        with pytest.raises(ConfigError, match=refused[0]):
            plan.make(compose(*chosen))
        return
    cfg = compose(*chosen)
    assert (cfg.task, identity(cfg).track) == (task, track), "a track's own cells are never custom"
    assert plan.make(cfg).n_parameters >= 0


@pytest.mark.parametrize(
    ("track", "dataset", "task"),
    [cell if cell[0] == "lite" else pytest.param(*cell, marks=pytest.mark.exhaustive) for cell in CELLS],
)
def test_the_further_test_sets_of_every_cell_can_be_made(track: str, dataset: str, task: str) -> None:
    cfg = compose(f"track={track}", f"dataset={dataset}", f"task={track}/{task}")
    assert {"test_half", "test_double"} <= set(cfg.dataset.test_splits)
    main = splits.split_of(cfg, "test")
    for name in cfg.dataset.test_splits:
        split = splits.split_of(cfg, name)
        require_frames(split.source.spec, cfg.dataset.history, split.horizon)
        assert split.n_samples == cfg.splits["test"]
        assert split.source.spec != main.source.spec, "it differs from test"


@pytest.mark.parametrize(("group", "option"), GROUPS)
def test_every_option_composes_with_valid_arguments(group: str, option: str) -> None:
    cfg = compose("track=smoke", "~recipe", f"{group}={option}")
    assert cfg.choices[group] == option


def test_an_option_that_the_recipe_undoes_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"surrogate=direct has no effect.*surrogate\.residual=False, or ~recipe"):
        compose("track=smoke", "surrogate=direct")
    assert compose("track=smoke", "surrogate=direct", "~recipe").surrogate.residual is False
    assert compose("track=smoke", "surrogate=direct", "surrogate.residual=false").surrogate.residual is False
    # An optimiser is still the user's choice; the recipe tunes its rate.
    assert compose("track=smoke", "optimizer=adam").optimizer["_target_"] == "torch.optim.Adam"


def test_an_argument_that_another_option_left_behind_can_be_taken_away() -> None:
    expected = r"Unknown key scheduler\.warmup\..*constant doesn't take it.*~scheduler\.warmup"
    with pytest.raises(ConfigError, match=expected):
        compose("track=smoke", "scheduler=constant", "+scheduler.warmup=0.1")
    # AdamW over a recipe that names SOAP, as the message about the option says
    with pytest.raises(ConfigError, match=r"optimizer=adamw has no effect.*optimizer\._target_=torch\.optim\.AdamW"):
        compose("optimizer=adamw")
    assert compose("optimizer._target_=torch.optim.AdamW").optimizer["_target_"] == "torch.optim.AdamW"


@pytest.mark.parametrize("path", sorted(CONFIG_DIR.glob("recipe/*/*.yaml")), ids=lambda path: path.stem)
def test_recipes_belong_to_a_cell(path: Path) -> None:
    # A recipe is found by its name: one that no choice leads to would never be used.
    track = path.parent.name
    names = {f"{dataset}_{model}" for t, dataset, _ in CELLS if t == track for model in _options("model")}
    assert path.stem in names


def test_a_recipe_cannot_change_the_budget() -> None:
    cfg = compose("track=lite")
    lines = (CONFIG_DIR / "task" / "lite" / "ns2d.yaml").read_text()
    assert f"epochs: {cfg.trainer.epochs}" in lines
    order = [line.strip() for line in (CONFIG_DIR / "config.yaml").read_text().splitlines()]
    assert order.index("- task: ${track}/${dataset}") > order.index("- optional recipe: ${track}/${dataset}_${model}")


EXPERIMENTS = sorted(
    path.relative_to(CONFIG_DIR / "experiment") for path in (CONFIG_DIR / "experiment").rglob("*.yaml")
)
# Without those on imported data: tests/end_to_end/test_imported.py.
PAPERS = [path.stem for path in EXPERIMENTS if path.parent.name == "paper" and "imported" not in path.stem]
# Of models.md's table of published networks: what each experiment must build.
PUBLISHED_PARAMETERS = {
    **{f"apebench_{name}": 31_757 for name in ("advection", "burgers", "diffusion", "kdv", "ks")},
    "deeponet_darcy29": 682_753,
    "fno_burgers1024": 549_569,
    "fno_darcy421": 2_368_001,
    "fno_darcy85": 2_368_001,
    "sfno_ns_nu1e-3": 9_250_333,
    "fno_ns_nu1e-3": 926_357,
    "fno_ns_nu1e-5": 926_357,
    "galerkin_burgers2048": 530_305,
    "galerkin_darcy141": 2_220_829,
    "lsm_darcy85": 19_187_457 - 1_472,  # without the weights of sin(0)
    "lsm_ns_nu1e-5": 19_188_033 - 1_472,
    "mgno_darcy_rough": 572_661,
    # 11 x 20 + 20, four layers of 12 x 20 x 20 complex weights and 20 x 20 + 20 pointwise ones, 20 to 128 to 1
    **dict.fromkeys(("pdebench_advection", "pdebench_burgers"), 43_137),
}


@pytest.mark.parametrize(
    "name",
    [
        name if name in ("fno_darcy85", "galerkin_darcy141") else pytest.param(name, marks=pytest.mark.exhaustive)
        for name in PAPERS
    ],
)
def test_a_published_experiment_names_its_value_and_builds_the_published_network(name: str) -> None:
    cfg = compose(f"experiment=paper/{name}")
    who = identity(cfg)
    assert (who.track, who.task, who.label) == ("paper", name, "default")
    # The tasks of APEBench are for several networks, those of PDEBench for several parameters; the value follows.
    assert cfg.published.id == (None if name.startswith(("apebench", "pdebench")) else name)
    assert plan.make(cfg).n_parameters == PUBLISHED_PARAMETERS[name]


@pytest.mark.parametrize(
    ("overrides", "track"),
    [
        (("splits.train=10",), "custom"),
        (("trainer.epochs=2",), "custom"),
        (("dataset.problem.solver_resolution=841",), "custom"),
        (("seed=3", "device=cpu"), "paper"),
    ],
)
def test_a_published_experiment_that_is_changed_is_custom(overrides: tuple[str, ...], track: str) -> None:
    assert identity(compose("experiment=paper/fno_darcy85", *overrides)).track == track


# Identity ------------------------------------------------------------------------------------------------------------


def test_a_default_spelled_out_is_the_same_run() -> None:
    plain = compose("track=smoke")
    spelled = compose("track=smoke", f"model.width={plain.model['width']}", "dataset.horizon=10")
    assert run_directory(spelled) == run_directory(plain)
    assert identity(plain).label == "default"


@pytest.fixture(scope="module")
def plain() -> Identity:
    """Of the smoke track as it is."""
    return identity(compose("track=smoke"))


def test_what_does_not_decide_the_numbers_is_not_in_the_hash(plain: Identity) -> None:
    overrides = (
        "device=cpu",
        "paths.outputs=elsewhere",
        "paths.data=elsewhere",
        "workers=2",
        "trainer.workers=1",
        "force=true",
        "trainer.checkpoint_seconds=5",
        "evaluator.batch_size=2",
        "debug=true",
        "preload_gib=0",
    )
    assert identity(compose("track=smoke", *overrides)) == plain


@pytest.mark.parametrize(
    "override",
    [
        "model.width=7",
        "optimizer.lr=0.1",
        "loss=relative_l2_per_step",
        "augmentation=symmetries",
        "trainer.batch_size=3",
        "surrogate.residual=false",
        "scheduler=constant",
        "trainer.unroll=2",
        "splits.test=4",
        "dataset.seed=1",
    ],
)
def test_what_decides_the_numbers_is_in_the_hash(plain: Identity, override: str) -> None:
    changed = identity(compose("track=smoke", override))
    assert changed.config_hash != plain.config_hash
    assert changed.label != "default"


@pytest.mark.parametrize(
    ("override", "track"),
    [
        ("trainer.epochs=3", "custom"),
        ("splits.train=8", "custom"),
        ("dataset.problem.viscosity=2e-3", "custom"),
        ("dataset.horizon=5", "custom"),
        ("model.width=8", "smoke"),
    ],
)
def test_changing_what_the_track_fixes_is_custom(override: str, track: str) -> None:
    assert identity(compose("track=smoke", override)).track == track


@pytest.mark.parametrize(("key", "default"), [("pushforward", 0), ("prepare_copies", 1)])
def test_a_newer_key_names_a_run_and_its_default_leaves_earlier_names_alone(
    plain: Identity, key: str, default: int
) -> None:
    changed, without = (identity(compose("track=smoke", f"trainer.{key}={n}")) for n in (default + 1, default))
    assert changed.label == f"{key}={default + 1}"
    assert without == plain
    assert plain.config_hash == "68d60bd1"  # before there were such keys
    assert changed.config_hash != plain.config_hash


def test_pushforward_needs_a_history() -> None:
    with pytest.raises(ConfigError, match=r"trainer\.pushforward=1 starts from predicted frames"):
        compose("dataset=darcy2d", "trainer.pushforward=1")


def test_pushforward_is_of_whole_bundles() -> None:
    with pytest.raises(ConfigError, match=r"trainer\.pushforward=3 isn't a whole number of bundles"):
        compose("surrogate.bundle=2", "trainer.unroll=2", "trainer.pushforward=3")


def test_run_directory_is_readable_short_and_safe() -> None:
    cfg = compose(
        "track=smoke", "model.width=8", "optimizer.lr=0.01", "scheduler=constant", "seed=3", "trainer.unroll=2"
    )
    label, _, digest = run_directory(cfg).parent.name.rpartition("-")
    assert run_directory(cfg).name == "seed=3"
    assert len(label) <= 40
    assert len(digest) == 8
    assert "lr=0.01" in label
    assert set(label) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789=,._+-")


@pytest.mark.parametrize(("track", "variant"), [("lite", "default-f3e46648"), ("smoke", "default-68d60bd1")])
def test_the_hashes_of_runs_that_exist_are_kept(track: str, variant: str) -> None:
    # They name run directories: with another hash, a finished run would be run again. A retuned recipe changes them.
    assert identity(compose("model=fno", f"track={track}")).variant == variant


# Errors --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("model=fmo", "Did you mean fno"),
        ("dataset=ns2dd", "Did you mean ns2d"),
        ("track=lit", "Did you mean lite"),
        ("model.widht=3", "Unknown key model.widht. Did you mean model.width"),
        ("lr=3", "Unknown key lr. Did you mean optimizer.lr?"),
        ("+sede=3", "Unknown key sede. Did you mean seed"),
        ("model.activation=relu", "write +model.activation=<value>"),
        ("+model.activtion=relu", "Did you mean model.activation"),
        ("trainer.epochs=abc", "trainer.epochs: Value 'abc'"),
        ("model.width=abc", "model.width must be of type int, got 'abc'"),
        ("model.width=true", "model.width must be of type int, got True"),
        ("model.width=1.5", "model.width must be of type int, got 1.5"),
        ("trainer.epochs=0", "trainer.epochs must be at least 1"),
        ("splits.valid=0", "splits.valid must be at least 1"),
        ("seed=-1", "seed must be at least 0"),
        (
            "published.id=fno_darcy58",
            "published.id=fno_darcy58 isn't an entry of configs/published.yaml. Did you mean fno_darcy85",
        ),
        ("trainer.clip_norm=0", "trainer.clip_norm must be positive"),
        ("~splits.test", "splits lacks ['test']"),
        ("dataset.history=0", "surrogate.residual=false"),
    ],
)
def test_mistakes_are_explained(override: str, expected: str) -> None:
    with pytest.raises(Exception) as raised:  # noqa: PT011  (Hydra's, OmegaConf's and ours)
        compose("track=smoke", override)
    assert expected in describe(raised.value)


def test_an_integer_is_a_fine_float() -> None:
    assert compose("track=smoke", "optimizer.lr=1").optimizer["lr"] == 1


def test_a_target_that_is_none_is_explained() -> None:
    with pytest.raises(ConfigError, match="can't be imported"):
        constructors.check("model", {"_target_": "neuralop_bench.models.nothing.Nothing"})
    with pytest.raises(ConfigError, match="_target_"):
        constructors.check("model", {"width": 3})


def test_errors_exit_with_status_one_and_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_, report_errors():
        raise ValueError("what, why, which knob")
    assert exit_.value.code == 1
    assert capsys.readouterr().err == "Error: what, why, which knob\n"


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["run.py", "debug=true"])
    with pytest.raises(SystemExit), report_errors():
        raise ValueError("what")
    assert "Traceback" in capsys.readouterr().err


def test_interruption_says_how_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_, report_errors():
        raise KeyboardInterrupt
    assert exit_.value.code == 130
    assert "same command" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("module", "remedy"),
    [
        ("data_gen.problems.ns2d", "Lower workers or dataset.problem.resolution"),
        ("neuralop_bench.evaluation.evaluator", "Lower evaluator.batch_size"),
        ("neuralop_bench.training.trainer", "Lower trainer.batch_size or model.width"),
        ("neuralop_bench.predict", "Divide the input into files of fewer samples"),
        ("elsewhere", "Lower trainer.batch_size, model.width or preload_gib"),
    ],
)
def test_lack_of_memory_names_the_option_of_the_part_that_lacks_it(module: str, remedy: str) -> None:
    part: dict[str, Any] = {"__name__": module}
    exec("def work():\n    raise MemoryError", part)
    with pytest.raises(MemoryError) as raised:
        part["work"]()
    assert f"Out of memory. {remedy}, or use a machine" in describe(raised.value)
