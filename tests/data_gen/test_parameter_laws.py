"""Parameters with a law: every sample has a value of its own, from its own stream, which its file keeps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from data_gen.generation import cache, regridded
from data_gen.generation.random_streams import generator
from data_gen.importing.contents import Given
from data_gen.importing.convert import About, Part, import_data
from data_gen.problems.burgers1d import Burgers1D
from data_gen.problems.fisher1d import FisherKPP1D
from data_gen.random_fields import LogUniform, Uniform, draw_parameters
from data_gen.semilinear import SemilinearProblem
from data_gen.spec import ParameterSpec, Samples
from data_gen.store import DatasetFile, StoreError, to_xarray

CONFIGS = Path(__file__).parents[2] / "configs" / "dataset"
LAW = LogUniform(5e-3, 5e-2)
BURGERS = Burgers1D(viscosity=LAW, resolution=64, solver_resolution=96, interval=0.1)


def _small(problem: SemilinearProblem) -> SemilinearProblem:
    """On a coarse grid, four steps long, after a warm-up of two."""
    step, n = min(problem.max_step, problem.interval), {1: 32, 2: 16, 3: 8}[problem.n_dims]
    times = {"interval": 2 * step, "warm_up": 2 * step, "first_step": step, "max_step": step}
    return replace(problem, resolution=n, n_snapshots=3, **times)


def _laws() -> Iterator[Any]:
    """Every parameter of every configured equation, with a law around its value."""
    yield pytest.param(BURGERS, "viscosity", id="burgers1d-viscosity")
    for path in sorted(CONFIGS.glob("*.yaml")):
        node: Any = OmegaConf.load(path).get("problem")
        problem = instantiate(node) if node is not None and "_target_" in node else None
        for entry in fields(problem) if isinstance(problem, SemilinearProblem) else ():
            if entry.type == "Parameter":
                value = getattr(problem, entry.name) or 1e-4
                law = Uniform(0.5 * value, 1.5 * value)
                yield pytest.param(
                    replace(_small(problem), **{entry.name: law}), entry.name, id=f"{path.stem}-{entry.name}"
                )


def _draw(problem: Any, *samples: int) -> Samples:
    return problem.simulate([generator(0, "train", i) for i in samples])


@pytest.mark.parametrize(("problem", "name"), list(_laws()))
def test_a_sample_is_that_of_the_equation_with_its_value(problem: Any, name: str) -> None:
    found = _draw(problem, 0, 1, 2)
    values = found.parameters[name]
    assert len(set(values)) == 3
    # Bit for bit, in a batch of others and alone.
    alone = _draw(replace(problem, **{name: float(values[1])}), 1)
    assert np.array_equal(found.trajectory[1], alone.trajectory[0])
    assert found.diagnostics["n_steps"][1] == alone.diagnostics["n_steps"][0]
    # The solver goes on from a state if it is given the values.
    static = found.static
    again = problem.solve(found.history, static, problem.n_snapshots - 1, {name: values}).trajectory
    np.testing.assert_allclose(again, found.trajectory[:, 1:], rtol=0, atol=1e-8 * np.abs(again).max())
    with pytest.raises(ValueError, match=f"needs the parameters {name}, which differ between samples, got none"):
        problem.solve(found.history, static, 1)
    refined = problem.simulate_refined([generator(0, "train", i) for i in range(3)])
    assert np.array_equal(refined.parameters[name], values)


def test_a_value_comes_from_the_stream_of_its_sample_and_name() -> None:
    one = FisherKPP1D(diffusivity=LAW, resolution=32, n_snapshots=2)
    both = replace(one, growth=Uniform(1.0, 3.0))
    values = _draw(one, 0, 1, 2).parameters["diffusivity"]
    assert np.array_equal(_draw(one, 2, 1).parameters["diffusivity"], values[[2, 1]])
    finer = replace(one, resolution=64)
    assert np.array_equal(_draw(finer, 0, 1, 2).parameters["diffusivity"], values)
    found = _draw(both, 0, 1, 2)
    assert np.array_equal(found.parameters["diffusivity"], values)  # another law changes nothing
    fixed = _draw(replace(one, diffusivity=1e-3), 0, 1, 2)
    assert np.array_equal(found.history, fixed.history)  # nor do laws change the initial states
    # Another range keeps the order, so test sets out of distribution are paired.
    shifted = _draw(replace(one, diffusivity=LogUniform(5e-2, 5e-1)), 0, 1, 2).parameters["diffusivity"]
    np.testing.assert_allclose(shifted, 10 * values)


@pytest.mark.parametrize("law", [Uniform(2.0, 5.0), LogUniform(1e-3, 10.0)])
def test_a_law_has_its_distribution(law: Uniform | LogUniform) -> None:
    problem = FisherKPP1D(growth=law)
    values = draw_parameters(problem, [generator(0, "train", i) for i in range(2000)])["growth"]
    assert law.low <= values.min() < values.max() <= law.high
    low, high = np.log([law.low, law.high]) if law.scale == "log" else (law.low, law.high)
    share = ((np.log(values) if law.scale == "log" else values) - low) / (high - low)
    assert np.quantile(share, [0.25, 0.5, 0.75]) == pytest.approx([0.25, 0.5, 0.75], abs=0.04)


def test_the_address_tells_laws_apart() -> None:
    problems = [replace(BURGERS, viscosity=law) for law in (LAW, Uniform(LAW.low, LAW.high), LogUniform(5e-3, 4e-2))]
    assert len({cache.address(problem, 0) for problem in problems}) == 3


def test_a_file_keeps_the_values(tmp_path: Path) -> None:
    path = cache.ensure(BURGERS, {"test": 5}, 0, tmp_path, workers=1)["test"]
    values = BURGERS.simulate([generator(0, "test", i) for i in range(5)]).parameters["viscosity"]
    with DatasetFile(path) as file:
        assert file.spec.varying == (ParameterSpec("viscosity", "log"),)
        assert np.array_equal(file.read_parameters()[:, 0], values)
        assert np.array_equal(file.read_parameters(slice(1, 3))[:, 0], values[1:3])
        first = file.sha256(3)
        half = replace(file.spec, grid=regridded.refined(file.spec.grid, 0.5))
    with to_xarray(path) as dataset:
        assert np.array_equal(dataset["velocity"].coords["viscosity"], values)
        assert dataset["viscosity"].dims == ("sample",)
    with h5py.File(path) as file:  # as The Well stores a scalar that differs between samples
        scalar: Any = file["scalars/viscosity"]
        assert (bool(scalar.attrs["sample_varying"]), bool(scalar.attrs["time_varying"])) == (True, False)
        assert "viscosity" in file["scalars"].attrs["field_names"]
    # A longer file begins with the same samples; one on another grid has the same values.
    longer = cache.ensure(BURGERS, {"test": 20}, 0, tmp_path, workers=1)["test"]
    with DatasetFile(longer) as file:
        assert file.sha256(3) == first
    coarse = tmp_path / "burgers" / "test_half" / "burgers1d.hdf5"
    regridded.ensure_regridded(longer, half, coarse, 5)
    with DatasetFile(coarse) as file:
        assert np.array_equal(file.read_parameters()[:, 0], values)
    # The importer of The Well's files reads them as values per sample, too.
    written, _ = import_data("well", [Part("test", coarse)], About("b"), tmp_path / "imported", Given())
    with DatasetFile(written["test"].path) as file:
        assert np.array_equal(file.read_parameters()[:, 0], values)


def test_a_value_that_changed_is_found(tmp_path: Path) -> None:
    path = cache.ensure(BURGERS, {"test": 2}, 0, tmp_path, workers=1)["test"]
    with h5py.File(path, "r+") as file:
        values: Any = file["viscosity"]
        values[1] *= 1 + 1e-15
    with DatasetFile(path) as file, pytest.raises(StoreError, match="damaged"):
        file.sha256()


@pytest.mark.parametrize(
    ("law", "message"),
    [
        (Uniform(0.2, 0.1), r"viscosity\.low must be below dataset\.problem\.viscosity\.high, got 0\.2 and 0\.1"),
        (LogUniform(0.0, 0.1), r"viscosity\.low must be positive, because a log-uniform law .* or use .*Uniform"),
        (Uniform(-1.0, 0.1), r"dataset\.problem\.viscosity\.low must be positive \(an inviscid flow"),
        (Uniform(0.1, float("inf")), r"dataset\.problem\.viscosity\.high must be finite"),
        (-0.1, r"dataset\.problem\.viscosity must be positive \(an inviscid flow"),
    ],
)
def test_impossible_parameters_are_refused(law: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(BURGERS, viscosity=law)


def test_the_solver_needs_a_number_for_every_sample() -> None:
    found = _draw(BURGERS, 0, 1)
    for values in ([0.1], [0.1, np.nan]):
        with pytest.raises(ValueError, match="viscosity must be 2 finite numbers, one per sample"):
            BURGERS.solve(found.history, found.static, 1, {"viscosity": np.array(values)})
