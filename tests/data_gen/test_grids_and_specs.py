"""Grids, and the metadata that travels with every file."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from data_gen.grids import Grid
from data_gen.problems.ns2d import NavierStokes2D
from data_gen.spec import DatasetSpec

CLOSED = Grid((5, 9), (1.0, 2.0), ("dirichlet", "neumann"), ("closed", "closed"))


def test_where_the_points_sit() -> None:
    mixed = Grid((4, 5, 2), (1.0, 2.0, 3.0), ("periodic", "dirichlet", "open"), ("periodic", "closed", "centres"))
    x, y, z = mixed.coordinates()
    assert x.tolist() == [0.0, 0.25, 0.5, 0.75]
    assert y.tolist() == [0.0, 0.5, 1.0, 1.5, 2.0]
    assert z.tolist() == [0.75, 2.25]
    assert mixed.spacing == (0.25, 0.5, 1.5)
    assert (mixed.n_dims, mixed.n_points, mixed.axis_names) == (3, 40, ("x", "y", "z"))
    assert not mixed.is_periodic
    assert Grid.periodic(8).is_periodic


@pytest.mark.parametrize("grid", [Grid.periodic(12), CLOSED])
def test_coarse_points_are_points_of_the_fine_grid(grid: Grid) -> None:
    coarse = grid.coarsen(2)
    for fine_axis, coarse_axis in zip(grid.coordinates(), coarse.coordinates(), strict=True):
        assert np.array_equal(fine_axis[::2], coarse_axis)
    assert coarse.refine(2) == grid
    assert grid.coarsen(Fraction(1, 3)) == grid.refine(3)


def test_impossible_grids_are_refused() -> None:
    with pytest.raises(ValueError, match="not a whole number"):
        Grid.periodic(9).coarsen(2)
    with pytest.raises(ValueError, match="at least 2 points"):
        Grid.periodic(1)
    with pytest.raises(ValueError, match="positive"):
        Grid.periodic(4, length=0.0)
    with pytest.raises(ValueError, match="Periodic axes"):
        Grid((4,), (1.0,), ("periodic",), ("closed",))
    with pytest.raises(ValueError, match="Unknown boundary"):
        Grid((4,), (1.0,), ("wall",), ("closed",))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="each of 1 to 3 axes"):
        Grid((4, 4), (1.0,), ("periodic",), ("periodic",))


def test_a_spec_survives_json() -> None:
    spec = NavierStokes2D(viscosity=1e-4).spec
    assert DatasetSpec.from_json(spec.to_json()) == spec
    assert DatasetSpec.from_json(replace(spec, grid=CLOSED).to_json()).grid == CLOSED


def test_what_a_spec_says_of_time() -> None:
    spec = NavierStokes2D(viscosity=1e-4).spec
    assert (spec.is_steady, spec.n_snapshots, spec.stores_initial) == (False, 20, False)
    assert NavierStokes2D(viscosity=1e-4, first_time=1.0).spec.stores_initial
    steady = replace(spec, times=())
    assert (steady.is_steady, steady.n_snapshots, steady.stores_initial) == (True, 1, False)
    with pytest.raises(ValueError, match="increase"):
        replace(spec, times=(0.0, 0.0))


def test_the_state_variance_is_the_published_one() -> None:
    # 0.0343 for the paper's law (Karhunen-Loeve value), less than 1e-5 of it lost above |k| = 31.
    (variance,) = NavierStokes2D(viscosity=1e-4).spec.state_variance
    assert variance == pytest.approx(0.034311, abs=2e-6)
