"""Boundary, nodes and lengths: guessed from coordinates and values, told with their reason, compared with options."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.imported_files import centres, mat_v5, pdebench
from numpy.typing import NDArray

from data_gen.importing.axes import kind_of_nodes
from data_gen.importing.contents import Given
from data_gen.importing.convert import About, ImportedSplit, Part, import_data
from data_gen.store import DatasetFile

CLOSED = np.linspace(0, 1, 33)


def _waves(x: NDArray[Any], n: int = 20, n_times: int = 5) -> NDArray[np.float64]:
    """Waves with random phases, [sample, time, x]; periodic on [0, 1]."""
    phase = np.random.default_rng(0).uniform(0, 1, (n, 1, 1)) - 0.05 * np.arange(n_times)[:, None]
    return np.sin(2 * np.pi * (x + phase))


def _trajectories(path: Path, u: NDArray[Any], x: NDArray[Any] | None, **given: Any) -> ImportedSplit:
    pdebench(path / "f.hdf5", {"tensor": u} | ({} if x is None else {"x-coordinate": x}))
    parts = [Part("train", path / "f.hdf5")]
    return import_data("pdebench", parts, About("d"), path / "out", Given(**given))[0]["train"]


@pytest.mark.parametrize(
    ("start", "length"), [(0, 1), (0, 2 * np.pi), (-1, 2), (-2.5, 5), (3, 1), (-0.5, 2.5), (-np.pi, 2 * np.pi)]
)
def test_cell_centres_are_told_from_nodes(start: float, length: float) -> None:
    for n, unit, dtype in product((16, 33, 100, 1024), (1.0, 1e-6), (np.float32, np.float64)):
        inside = unit * (start + (np.arange(n) + 0.5) * length / n)
        assert kind_of_nodes(inside.astype(dtype)) == "centres"
        assert kind_of_nodes((unit * np.linspace(start, start + length, n)).astype(dtype)) == "closed"


def test_cell_centres_that_start_below_zero(tmp_path: Path) -> None:
    found = _trajectories(tmp_path, _waves(CLOSED[:32]), centres(32, 2.0, -1.0), boundary=("open",))
    grid = found.spec.grid
    assert (grid.lengths, grid.nodes) == ((2,), ("centres",))
    assert "x from -0.96875 to 0.96875 in steps of 0.0625: read as cell centres of [-1, 1] (--nodes)" in found.notes


@pytest.mark.parametrize("given", [{}, {"boundary": ("periodic",)}])
def test_both_ends_of_a_periodic_axis_are_one_point(given: dict[str, Any], tmp_path: Path) -> None:
    u = _waves(CLOSED)
    found = _trajectories(tmp_path, u, CLOSED, **given)
    assert found.spec.grid.shape == (32,)
    assert (found.spec.grid.lengths, found.spec.grid.boundary) == ((1,), ("periodic",))
    assert any("the last point is left out" in note for note in found.notes)
    with DatasetFile(found.path) as file:
        assert np.array_equal(file.read_states(slice(None))[:, :, 0], u[..., :-1].astype(np.float32))


_WALL = np.sin(np.pi * CLOSED) * (1 + _waves(CLOSED))
_LINE = _waves(CLOSED / 3)


@pytest.mark.parametrize(
    ("u", "expected", "reason"),
    [
        (_waves(CLOSED[:32]), "periodic", "periodic boundaries are assumed; the values don't contradict it"),
        (_WALL, "dirichlet", "dirichlet, since the values at both ends are constant"),
        (1e5 + 1e-2 * _WALL, "dirichlet", "dirichlet, since the values at both ends are constant"),
        (1e5 + 1e-2 * _LINE, "open", "open, since the values at both ends differ"),
        (_LINE, "open", "open, since the values at both ends differ far more than those of neighbours do"),
    ],
)
def test_the_boundary_of_trajectories(u: NDArray[Any], expected: str, reason: str, tmp_path: Path) -> None:
    found = _trajectories(tmp_path, u, None)
    assert found.spec.grid.boundary == (expected,)
    assert any(note.startswith(f"x: {reason}") for note in found.notes)


@pytest.mark.parametrize(
    ("x", "expected", "reason"),
    [
        (np.linspace(0, 1, 16), "dirichlet", "dirichlet, since the solution is constant at both ends"),
        (np.arange(16) / 16, "open", "constant at the first point alone"),
        ((np.arange(16) + 0.5) / 16, "open", "constant at neither end"),
    ],
)
def test_the_boundary_of_steady_problems(x: NDArray[Any], expected: str, reason: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    sol = rng.uniform(1, 2, (20, 1, 1)) * np.sin(np.pi * x)[:, None] * np.sin(np.pi * x)
    path = mat_v5(tmp_path / "f.mat", {"coeff": rng.uniform(1, 2, sol.shape), "sol": sol})
    found = import_data("mat", [Part("train", path)], About("d"), tmp_path / "out")[0]["train"]
    assert found.spec.grid.boundary == (expected,) * 2
    assert any(note.startswith("x and y: ") and reason in note for note in found.notes)


@pytest.mark.parametrize(
    ("u", "x", "given", "named"),
    [
        (_LINE, None, {"boundary": ("periodic",)}, "periodic, but the values at both ends differ far more"),
        (_LINE, None, {"boundary": ("dirichlet",)}, "the values there aren't constant"),
        (_waves(CLOSED), CLOSED, {"boundary": ("open",)}, "as if a periodic axis held both its ends"),
        (_WALL, None, {"boundary": ("dirichlet",), "nodes": ("centres",)}, "as if they lay on the boundary"),
        (_LINE, centres(33), {"boundary": ("open",), "nodes": ("closed",)}, "they look like cell centres of [0, 1]"),
        (_LINE, CLOSED, {"boundary": ("open",), "nodes": ("centres",)}, "they look like nodes at both ends of [0, 1]"),
        (_WALL, CLOSED, {"boundary": ("dirichlet",), "nodes": ("closed",)}, ""),
        (_waves(CLOSED[:32]), None, {"boundary": ("periodic",)}, ""),
    ],
)
def test_a_wrong_choice_is_named(
    u: NDArray[Any], x: NDArray[Any] | None, given: dict[str, Any], named: str, tmp_path: Path
) -> None:
    found = _trajectories(tmp_path, u, x, **given)
    assert found.spec.grid.boundary == given["boundary"]
    told = [note for note in found.notes if ", but " in note or "as if" in note]
    assert bool(told) == bool(named)
    assert all(named in note for note in told)
