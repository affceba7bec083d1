"""The elliptic solver: exact and manufactured solutions, orders, the discrete maximum principle, every method."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from data_gen.permeability import CosineGaussianField, LogNormal, SmoothHighContrast, TwoPhase
from data_gen.solvers import elliptic
from data_gen.solvers.elliptic import DIRECT, POISSON, SCALED, Faces, harmonic_faces, solve
from data_gen.spec import SolverError

METHODS = (POISSON, SCALED, DIRECT)
LAWS = {"two_phase": TwoPhase(), "log_normal": LogNormal(CosineGaussianField(scale=81.0))}


def _draw(law: object, n: int, n_samples: int = 1) -> NDArray[np.float64]:
    return np.stack([law.draw(np.random.default_rng((3, i)), n) for i in range(n_samples)])  # pyright: ignore


def _solved(a: NDArray[np.float64], f: float | NDArray[np.float64] = 1.0, **options: object) -> NDArray[np.float64]:
    """Solutions for nodal coefficients [sample, n, n]."""
    right = np.broadcast_to(np.asarray(f, dtype=np.float64), a.shape)
    return solve(harmonic_faces(a), right, 1 / (a.shape[1] - 1), **options).values  # pyright: ignore


def _relative(found: NDArray[np.float64], expected: NDArray[np.float64]) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def _nodes(n: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    x = np.linspace(0, 1, n)
    return x[:, None], x[None, :]


# Exact and manufactured solutions ------------------------------------------------------------------------------------


def _manufactured_errors(sizes: tuple[int, ...]) -> list[float]:
    # u = sin(pi x) sin(pi y), a = 1 + sin(2 pi x) cos(2 pi y) / 2; f = -a_x u_x - a_y u_y + 2 pi^2 a u.
    errors = []
    for n in sizes:
        x, y = _nodes(n)
        pi = np.pi
        a = 1 + np.sin(2 * pi * x) * np.cos(2 * pi * y) / 2
        u = np.sin(pi * x) * np.sin(pi * y)
        a_x, a_y = pi * np.cos(2 * pi * x) * np.cos(2 * pi * y), -pi * np.sin(2 * pi * x) * np.sin(2 * pi * y)
        u_x, u_y = pi * np.cos(pi * x) * np.sin(pi * y), pi * np.sin(pi * x) * np.cos(pi * y)
        f = 2 * pi**2 * a * u - a_x * u_x - a_y * u_y
        errors.append(_relative(_solved(a[None], f[None], tolerance=1e-11)[0], u))
    return errors


def test_a_manufactured_solution_converges_with_the_square_of_the_spacing() -> None:
    errors = _manufactured_errors((21, 41, 81, 161))
    orders = [math.log2(coarse / fine) for coarse, fine in itertools.pairwise(errors)]
    assert orders == pytest.approx([2, 2, 2], abs=0.03)
    assert errors[-1] < 1e-4


def test_the_poisson_equation_has_the_value_of_its_double_sine_series() -> None:
    k = np.arange(1, 801, 2)
    sign = np.where(k % 4 == 1, 1.0, -1.0)
    series = 16 / np.pi**4 * np.sum(np.outer(sign / k, sign / k) / (k[:, None] ** 2 + k[None, :] ** 2))
    assert series == pytest.approx(0.0736713, abs=1e-7)
    centre = [_solved(np.ones((1, n, n)))[0, n // 2, n // 2] for n in (41, 81)]
    assert centre[1] == pytest.approx(series, abs=2e-5)
    # The error is a pure h^2 to leading order: Richardson's extrapolation removes it.
    assert (4 * centre[1] - centre[0]) / 3 == pytest.approx(series, abs=1e-7)


def test_a_layered_coefficient_is_solved_as_in_one_dimension() -> None:
    # Harmonic faces give the exact flux across a jump that lies half way between two nodes.
    errors = []
    for n in (21, 41, 81):
        x = np.linspace(0, 1, n)
        # The jump lies at the midpoint of an interval near 1/2.
        jump = 0.5 - 0.5 / (n - 1)
        low, high = 1.0, 4.0
        a = np.where(x < jump, low, high)
        faces = harmonic_faces(np.broadcast_to(a[None, :, None], (1, n, n)).copy()).x[0, :, 0]
        matrix = np.diag(faces[:-1] + faces[1:]) - np.diag(faces[1:-1], 1) - np.diag(faces[1:-1], -1)
        # Without force and with u(0) = 1, u(1) = 0 the flux q is constant: u falls by q / a.
        right = np.zeros(n - 2)
        right[0] = faces[0]
        flux = 1 / (jump / low + (1 - jump) / high)
        exact = np.where(x < jump, 1 - flux * x / low, flux * (1 - x) / high)
        assert np.abs(np.linalg.solve(matrix, right) - exact[1:-1]).max() < 1e-12
        # With f = 1: a u' = c - x, so u = (c x - x^2 / 2) / low up to the jump, from the right accordingly.
        c = (jump**2 / (2 * low) + (1 - jump**2) / (2 * high)) * flux
        forced = np.where(x < jump, (c * x - x**2 / 2) / low, ((1 - x**2) / 2 - c * (1 - x)) / high)
        found = np.linalg.solve(matrix, np.full(n - 2, 1 / (n - 1) ** 2))
        errors.append(np.abs(found - forced[1:-1]).max() / np.abs(forced).max())
    orders = [math.log2(coarse / fine) for coarse, fine in itertools.pairwise(errors)]
    assert orders == pytest.approx([2, 2], abs=0.2)


def test_faces_are_harmonic_means_of_their_two_nodes() -> None:
    a = np.array([[[1.0, 3.0, 3.0], [2.0, 6.0, 1.0], [4.0, 4.0, 12.0]]])
    x, y = harmonic_faces(a)
    np.testing.assert_allclose(x[0], [[4 / 3, 4, 1.5], [8 / 3, 4.8, 24 / 13]])
    np.testing.assert_allclose(y[0], [[1.5, 3], [3, 12 / 7], [4, 6]])


def test_the_matrix_is_the_five_point_scheme() -> None:
    # Written out node by node, against the assembled matrix and the matrix-free operator.
    n = 7
    a = _draw(LAWS["log_normal"], n)
    faces = harmonic_faces(a)
    u = np.zeros((1, n, n))
    u[:, 1:-1, 1:-1] = np.random.default_rng(0).standard_normal((n - 2, n - 2))
    expected = np.zeros((n, n))
    for i in range(1, n - 1):
        for j in range(1, n - 1):
            for p, q, face in (
                *((i - 1, j, faces.x[0, i - 1, j]), (i + 1, j, faces.x[0, i, j])),
                *((i, j - 1, faces.y[0, i, j - 1]), (i, j + 1, faces.y[0, i, j])),
            ):
                expected[i, j] += face * (u[0, i, j] - u[0, p, q])
    out = np.full((1, n, n), np.nan)
    elliptic._Operator(faces).apply(u, out)
    np.testing.assert_allclose(out[0], expected, atol=1e-13)
    assembled = elliptic.assemble(faces) @ u[0, 1:-1, 1:-1].ravel()
    np.testing.assert_allclose(assembled.reshape(n - 2, n - 2), expected[1:-1, 1:-1], atol=1e-13)


# Properties ----------------------------------------------------------------------------------------------------------


@settings(max_examples=12, deadline=None, derandomize=True)
@given(n=st.integers(3, 60), log_contrast=st.floats(0, 6), seed=st.integers(0, 9), smooth=st.booleans())
def test_any_coefficient_gives_a_positive_solution_within_the_tolerance(
    n: int, log_contrast: float, seed: int, smooth: bool
) -> None:
    law = SmoothHighContrast(10**log_contrast) if smooth else TwoPhase(contrast=10**log_contrast)
    a = law.draw(np.random.default_rng(seed), n)[None]
    faces, h = harmonic_faces(a), 1 / (n - 1)
    found = solve(faces, np.ones_like(a), h)
    u = found.values
    assert found.residual[0] <= 1e-8
    # Maximum principle of an M-matrix: positive inside, the greatest value where the force is.
    assert u[0, 1:-1, 1:-1].min() > 0
    assert not u[0, [0, -1]].any()
    assert not u[0, :, [0, -1]].any()
    # Energy identity: the sum over the faces of a (difference of u)^2 is (f, u) h^2.
    energy = (faces.x * np.diff(u, axis=1) ** 2).sum() + (faces.y * np.diff(u, axis=2) ** 2).sum()
    assert energy == pytest.approx(u.sum() * h**2, rel=1e-6)


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_solutions_scale_with_the_coefficient_and_are_linear_in_the_force(law: object) -> None:
    n = 33
    a = _draw(law, n)
    rng = np.random.default_rng(1)
    f, g = rng.standard_normal((2, 1, n, n))
    u, v = _solved(a, f, tolerance=1e-11), _solved(a, g, tolerance=1e-11)
    assert _relative(_solved(1e5 * a, f, tolerance=1e-11), u / 1e5) < 1e-10
    assert _relative(_solved(a, 2 * f - 3 * g, tolerance=1e-11), 2 * u - 3 * v) < 1e-9
    # The operator is symmetric: (g, A^-1 f) = (f, A^-1 g).
    assert float((g * u).sum()) == pytest.approx(float((f * v).sum()), rel=1e-9)


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
@pytest.mark.parametrize("n", [65, 141])  # dense sine matrices, and fast transforms
@pytest.mark.parametrize("method", [POISSON, SCALED])
def test_iterations_agree_with_the_factorisation(method: int, n: int, law: object) -> None:
    a = _draw(law, n)
    found = solve(harmonic_faces(a), np.ones_like(a), 1 / (n - 1), method=method)
    assert found.method[0] == method
    assert _relative(found.values, _solved(a, method=DIRECT)) < 1e-9


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
@pytest.mark.parametrize("n", [4, 11, 25])
def test_small_grids_are_solved_by_bands_as_by_a_sparse_factorisation(n: int, law: object) -> None:
    a = _draw(law, n, 3)
    found = solve(harmonic_faces(a), np.ones_like(a), 1 / (n - 1))
    assert (found.method == DIRECT).all()
    assert found.residual.max() < 1e-13
    assert _relative(found.values, _solved(a, method=DIRECT)) < 1e-12


@pytest.mark.parametrize("contrast", [2.0, 4.0, 10.0, 50.0])
@pytest.mark.parametrize("n", [43, 141])
def test_the_contrast_bounds_the_iterations_on_any_grid(n: int, contrast: float) -> None:
    a = _draw(TwoPhase(contrast=contrast), n)
    found = solve(harmonic_faces(a), np.ones_like(a), 1 / (n - 1), method=POISSON)
    # Energy errors fall by (sqrt c - 1) / (sqrt c + 1) per iteration; residual and energy norm differ by the square
    # root of the condition of A, about c (2 n / pi)^2.
    c = math.sqrt(contrast)
    condition = contrast * (2 * n / np.pi) ** 2
    bound = math.ceil(math.log(2 * math.sqrt(condition) / 1e-8) / math.log((c + 1) / (c - 1)))
    assert 0 < found.iterations[0] <= bound


def test_the_contrast_of_a_smooth_coefficient_hardly_costs_iterations() -> None:
    iterations = []
    for contrast in (1e1, 1e3, 1e6):
        a = _draw(SmoothHighContrast(contrast), 141, 2)
        found = solve(harmonic_faces(a), np.ones_like(a), 1 / 140)
        assert (found.method == SCALED).all()
        iterations.append(found.iterations.max())
    # Measured: 13, 26 and 61; without the mean of q beside the Laplacian 13, 28 and 69.
    assert iterations[0] <= 15
    assert iterations[1] <= 27
    assert iterations[2] <= 66


def test_the_poisson_solver_inverts_the_laplacian_at_once() -> None:
    for n in (3, 20, 160):
        assert solve(harmonic_faces(np.full((1, n, n), 7.0)), np.ones((1, n, n)), 1 / (n - 1)).iterations[0] <= 2


# Choice of the method ------------------------------------------------------------------------------------------------


def test_the_method_follows_from_the_coefficient() -> None:
    cases = (
        *((TwoPhase(), POISSON), (TwoPhase(contrast=10), POISSON), (LogNormal(), SCALED)),
        *((SmoothHighContrast(1e6), SCALED), (TwoPhase(contrast=1e6), DIRECT)),
    )
    n = 85
    a = np.concatenate([_draw(law, n) for law, _ in cases])
    found = solve(harmonic_faces(a), np.ones_like(a), 1 / (n - 1))
    assert found.method.tolist() == [method for _, method in cases]
    assert (found.residual <= 1e-8).all()
    assert ((found.iterations > 0) == (found.method != DIRECT)).all()


def test_a_sample_that_does_not_converge_is_solved_directly() -> None:
    a = np.concatenate([_draw(TwoPhase(contrast=c), 41) for c in (4.0, 1e4)])
    found = solve(harmonic_faces(a), np.ones_like(a), 1 / 40, method=POISSON, max_iterations=25)
    assert found.method.tolist() == [POISSON, DIRECT]
    assert found.iterations[1] == 25, "those spent in vain are told, too"
    assert (found.residual <= 1e-8).all()
    assert _relative(found.values[1], _solved(a, method=DIRECT)[1]) == 0


def test_what_no_method_can_reach_is_an_error_that_names_the_knob(monkeypatch: pytest.MonkeyPatch) -> None:
    a = _draw(TwoPhase(contrast=4.0), 43, 2)
    monkeypatch.setattr(elliptic, "_factorise_and_solve", lambda _, b: (0 * b, 1.0, 0.0))
    with pytest.raises(SolverError, match=r"Sample 0 .* residual of 1, .* contrast 4\. Lower dataset\.problem\.perm"):
        solve(harmonic_faces(a), np.ones_like(a), 1 / 42, max_iterations=2)


def test_a_tolerance_below_what_rounding_leaves_is_not_iterated_on_for_ever() -> None:
    # Conjugate gradients get stuck, and the direct method's residual is that of cancelling terms of size contrast.
    a = _draw(TwoPhase(contrast=1e6), 43)
    found = solve(harmonic_faces(a), np.ones_like(a), 1 / 42, tolerance=1e-15, method=POISSON, max_iterations=10**6)
    assert found.method[0] == DIRECT
    assert found.iterations[0] < 5000
    assert 1e-15 < found.residual[0] < 1e-8


# Batches -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [9, 43, 85, 141])
def test_a_sample_does_not_depend_on_the_others_of_its_batch_to_the_bit(n: int) -> None:
    laws = [TwoPhase(), SmoothHighContrast(30.0), TwoPhase(contrast=10.0), LogNormal(), TwoPhase(contrast=2.0)] * 2
    a = np.stack([law.draw(np.random.default_rng(i), n) for i, law in enumerate(laws)])
    right = np.ones_like(a) * np.arange(1, len(a) + 1)[:, None, None]
    together = solve(harmonic_faces(a), right, 1 / (n - 1))
    for i in range(len(a)):
        alone = solve(harmonic_faces(a[i : i + 1]), right[i : i + 1], 1 / (n - 1))
        for field in elliptic.EllipticSolution._fields:
            assert np.array_equal(getattr(alone, field)[0], getattr(together, field)[i]), field


def test_no_force_and_no_samples_are_solved_too() -> None:
    assert not _solved(np.ones((1, 9, 9)), 0.0).any()
    assert _solved(np.ones((0, 9, 9))).shape == (0, 9, 9)


# Mistakes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf])
def test_a_coefficient_must_be_finite_and_positive(value: float) -> None:
    faces = harmonic_faces(np.ones((1, 5, 5)))
    faces.x[0, 2, 2] = value
    with pytest.raises(ValueError, match=r"finite and positive.*dataset\.problem\.permeability"):
        solve(faces, np.ones((1, 5, 5)), 0.25)


def test_shapes_that_do_not_fit_are_refused() -> None:
    faces = harmonic_faces(np.ones((1, 5, 5)))
    with pytest.raises(ValueError, match="don't fit"):
        solve(faces, np.ones((1, 6, 6)), 0.2)
    with pytest.raises(ValueError, match="at least 3"):
        solve(Faces(np.ones((1, 1, 2)), np.ones((1, 2, 1))), np.ones((1, 2, 2)), 1.0)
