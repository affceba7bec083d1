"""dataset=file: every model's defaults fit small data, so a sweep over all models gives a board at the first try."""

from __future__ import annotations

import csv
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.command import told
from helpers.imported_files import mat_v5

from data_gen.importing.convert import About, Part, import_data
from neuralop_bench.config.compose import compose
from neuralop_bench.config.constructors import ConfigError
from neuralop_bench.config.identity import identity
from neuralop_bench.config.schema import flattened
from neuralop_bench.records.record import RunRecord
from neuralop_bench.runs import plan
from neuralop_bench.runtime.place import CONFIG_DIR

# All but the one that has to be told which module it is.
MODELS = sorted({path.stem for path in (CONFIG_DIR / "model").glob("*.yaml")} - {"external"})


@pytest.fixture(scope="module")
def waves(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Ten translating waves on a periodic grid, imported: waves(16, 16, frames=1) -> folder. One frame is a map."""

    @functools.cache
    def made(*shape: int, frames: int = 1) -> Path:
        folder = tmp_path_factory.mktemp("waves")
        phase = sum(np.meshgrid(*(np.arange(n) / n for n in shape), indexing="ij"))[None]
        phase = phase + np.random.default_rng(0).uniform(0, 1, (10, *(1,) * len(shape)))
        later = [np.sin(2 * np.pi * (phase - 0.1 * step)) for step in range(1, frames + 1)]
        u = later[0] if frames == 1 else np.stack(later, axis=-1)
        path = mat_v5(folder / "waves.mat", {"a": np.sin(2 * np.pi * phase), "u": u})
        parts = [Part("train", path, 6), Part("valid", path, 2), Part("test", path)]
        import_data("mat", parts, About("waves"), folder / "imported")
        return folder / "imported"

    return made


def on(folder: Path, *overrides: str) -> Any:
    return compose("track=smoke", "dataset=file", f"dataset.path={folder}", *overrides)


@pytest.mark.parametrize(
    ("shape", "model", "key", "chosen"),
    [
        ((12, 20), "fno", "n_modes", [6, 10]),
        ((32,), "fno", "n_modes", 12),  # the default fits
        ((15,), "mgno", "n_smoothing", [1, 1, 1, 2]),  # the coarsest level keeps its steps
        ((16, 16), "pod_deeponet", "n_modes", 6),  # as many as training pairs
        *(
            pytest.param(*case, marks=pytest.mark.exhaustive)
            for case in (
                ((16, 16), "fno", "n_modes", 8),
                ((15, 15), "tfno", "n_modes", 7),
                ((16, 16), "galerkin", "n_modes", 8),
                ((16, 16), "mgno", "n_smoothing", [1, 1, 1, 2]),
                ((32,), "mgno", "n_smoothing", [1, 1, 1, 1, 2]),
                ((4,), "pod_deeponet", "n_modes", 4),  # as many as values
            )
        ),
    ],
)
def test_a_default_that_does_not_fit_becomes_the_largest_that_does(
    shape: tuple[int, ...], model: str, key: str, chosen: Any, waves: Callable[..., Path]
) -> None:
    cfg = on(waves(*shape), f"model={model}")
    assert cfg.model[key] == chosen, "the configuration holds the number"
    who = identity(cfg)
    assert who.label == "default"
    assert plan.make(cfg, who).n_parameters > 0
    # Spelled out, it is the same run; a smaller number is another one.
    assert identity(on(waves(*shape), f"model={model}", f"model.{key}={chosen}")).variant == who.variant
    other = chosen[-1:] if isinstance(chosen, list) else 1
    assert identity(on(waves(*shape), f"model={model}", f"model.{key}={other}")).label.startswith(key)


@pytest.mark.parametrize(
    ("overrides", "key", "chosen"),
    [
        (("model=fno", "dataset=ns2d", "dataset.problem.resolution=16"), "n_modes", 8),
        (("model=fno", "dataset=ns2d"), "n_modes", 12),  # the default fits, and the recipe has fewer
        (("model=mgno", "dataset=burgers1d", "dataset.problem.resolution=16"), "n_smoothing", [1, 1, 1, 2]),
        (("model=pod_deeponet", "dataset=burgers1d"), "n_modes", 16),  # as many as training pairs
        (("model=fno_3d", "dataset=ns2d", "dataset.horizon=4"), "operator.n_modes", [8, 8, 3]),
    ],
)
def test_auto_is_the_largest_that_fits_on_generated_data(overrides: tuple[str, ...], key: str, chosen: Any) -> None:
    automatic, given = (compose("track=smoke", *overrides, f"model.{key}={value}") for value in ("auto", chosen))
    assert flattened(automatic.model)[key] == chosen, "the configuration holds the number"
    assert automatic.model == given.model
    assert identity(automatic) == identity(given)


def test_auto_is_for_sizes_and_leaves_other_numbers_as_they_are_given(waves: Callable[..., Path]) -> None:
    folder = waves(16, 16)
    assert on(folder, "model=fno", "model.n_modes=auto").model == on(folder, "model=fno").model
    with pytest.raises(ConfigError, match=r"model\.branch.*got 'auto'"):
        on(folder, "model=deeponet", "model.branch=auto")
    with pytest.raises(ConfigError, match="n_modes must be at most 8"):
        plan.make(on(folder, "model=galerkin", "model.n_modes=12", "model.width=auto"))


def test_the_operator_of_a_space_time_model_fits_space_and_time(waves: Callable[..., Path]) -> None:
    cfg = on(waves(12, 20, frames=5), "model=fno_3d")
    assert cfg.model["operator"]["n_modes"] == [6, 8, 3], "four steps and two of padding"
    assert identity(cfg).label == "default"
    plan.make(cfg)


@pytest.mark.parametrize(
    ("model", "option", "message"),
    [
        ("fno", "model.n_modes=12", r"n_modes must be at most 8\. Lower model\.n_modes"),
        ("fno", "model.n_modes=[9,8]", r"n_modes must be at most 8"),
        ("mgno", "model.n_smoothing=[1,1,1,1,2]", r"Shorten model\.n_smoothing to at most 4"),
        ("pod_deeponet", "model.n_modes=7", r"n_modes=7, but there are only 6 training pairs"),
    ],
)
def test_a_given_number_that_does_not_fit_is_refused(
    model: str, option: str, message: str, waves: Callable[..., Path]
) -> None:
    with pytest.raises(ConfigError, match=message):
        plan.make(on(waves(16, 16), f"model={model}", option))


def test_a_sweep_over_models_can_be_planned_at_once(waves: Callable[..., Path], tmp_path: Path) -> None:
    paths = (f"dataset.path={waves(16, 16)}", f"paths.outputs={tmp_path}")
    models = "fno,mgno,pod_deeponet,pca_ridge,fno_3d"
    swept = told("-m", f"model={models}", "dataset=file", "track=smoke", "dry_run=true", *paths)
    assert swept.status == 0, swept.err
    assert {job for job, state in swept.states.items() if state != "waiting"} == {"model=fno_3d"}  # needs two steps


@pytest.mark.exhaustive
@pytest.mark.usefixtures("no_figures")
def test_a_sweep_over_all_models_gives_a_board(waves: Callable[..., Path], tmp_path: Path) -> None:
    paths = (f"dataset.path={waves(16, 16)}", f"paths.outputs={tmp_path}")
    swept = told("-m", f"model={','.join(MODELS)}", "dataset=file", "track=smoke", *paths)
    assert swept.status == 0, swept.err
    left_out = {job for job, state in swept.states.items() if state == "left out"}
    assert left_out == {"model=fno_3d", "model=sfno"}
    with open(tmp_path / "leaderboard" / "leaderboard.csv", newline="") as handle:
        rows = {row["model"]: row for row in csv.DictReader(handle)}
    assert {f"model={name}" for name in rows} == {f"model={name}" for name in MODELS} - left_out
    (path,) = tmp_path.glob("smoke/waves/mgno/*/seed=0/record.json")
    config = RunRecord.load(path).config
    assert plan.make(on(waves(16, 16), "model=mgno")).cfg.model == config["model"]


@pytest.mark.exhaustive
@pytest.mark.parametrize(("shape", "frames"), [((12, 20), 3), ((15, 15), 1), ((6,), 3)])
def test_all_models_fit_small_and_odd_grids(
    shape: tuple[int, ...], frames: int, waves: Callable[..., Path], tmp_path: Path
) -> None:
    paths = (f"dataset.path={waves(*shape, frames=frames)}", f"paths.outputs={tmp_path}")
    swept = told("-m", f"model={','.join(MODELS)}", "dataset=file", "track=smoke", "dry_run=true", *paths)
    assert swept.status == 0, swept.err
    left_out = {job for job, state in swept.states.items() if state == "left out"}
    assert left_out == ({"model=fno_3d", "model=sfno"} if frames == 1 else set())
