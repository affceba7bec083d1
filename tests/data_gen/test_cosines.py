"""Cosine series on closed grids: exact values, derivatives, products and the laws drawn in them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from data_gen.cosine_fields import CosineNoise
from data_gen.cosines import CosineSpace, wall_derivatives
from data_gen.generation.random_streams import generator


def nodes(n: int, length: float = 1.0) -> NDArray[np.float64]:
    return np.linspace(0, length, n)


@pytest.mark.parametrize("n_dims", [1, 2, 3])
def test_a_space_holds_all_values_on_its_nodes(n_dims: int) -> None:
    space = CosineSpace(9, n_dims, 1.0, degree=1)
    u = torch.from_numpy(np.random.default_rng(0).standard_normal((2, *[9] * n_dims)))
    assert torch.allclose(space.values(space.coefficients(u), 9), u, atol=1e-14)


def test_coefficients_are_those_of_cosines_on_any_grid() -> None:
    x, y = np.meshgrid(nodes(13, 2.0), nodes(13, 2.0), indexing="ij")
    u = torch.from_numpy(3 + np.cos(np.pi * 2 * x / 2) * np.cos(np.pi * 5 * y / 2))
    expected = np.zeros((9, 9))
    expected[0, 0], expected[2, 5] = 3, 1
    np.testing.assert_allclose(CosineSpace(9, 2, 2.0, degree=1).coefficients(u), expected, atol=1e-14)


@pytest.mark.parametrize("degree", [2, 3])
def test_products_of_the_highest_waves_have_no_aliases(degree: int) -> None:
    space = CosineSpace(9, 1, 1.0, degree=degree)
    u_hat = torch.zeros(1, 9, dtype=torch.float64)
    u_hat[0, 7:] = 1
    fine = CosineSpace(41, 1, 1.0, degree=1)
    exact = fine.coefficients(fine.values(fine.coefficients(space.values(u_hat, 41)), 41) ** degree)[..., :9]
    np.testing.assert_allclose(space.coefficients(space.values(u_hat) ** degree), exact, atol=1e-14)


def test_the_laplacian_is_that_of_cosines() -> None:
    space, x = CosineSpace(9, 1, 2.0, degree=1), nodes(9, 2.0)
    wave = np.cos(np.pi * 3 * x / 2)
    found = space.values(space.laplacian * space.coefficients(torch.from_numpy(wave)), 9)
    np.testing.assert_allclose(found, -((np.pi * 3 / 2) ** 2) * wave, atol=1e-12)


def test_the_mean_square_follows_from_the_coefficients() -> None:
    space = CosineSpace(17, 2, 1.0, degree=1)
    u_hat = torch.zeros(17, 17, dtype=torch.float64)
    u_hat[:5, :5] = torch.from_numpy(np.random.default_rng(0).standard_normal((5, 5)))
    weights = np.outer(*[np.r_[0.5, np.ones(15), 0.5] / 16] * 2)
    mean_square = (weights * space.values(u_hat, 17).numpy() ** 2).sum()
    assert float((u_hat**2 * space.multiplicity).sum()) == pytest.approx(mean_square)


def test_derivatives_between_walls_are_exact_and_add_up_to_zero() -> None:
    n, length = 17, 2.0
    x, d = nodes(n, length), wall_derivatives(n, length)
    for k in range(1, n - 1):
        kappa = np.pi * k / length
        np.testing.assert_allclose(d.of_cosines @ np.cos(kappa * x), -kappa * np.sin(kappa * x), atol=1e-11)
        np.testing.assert_allclose(d.of_sines @ np.sin(kappa * x), kappa * np.cos(kappa * x), atol=1e-11)
    weights = np.diag(np.r_[0.5, np.ones(n - 2), 0.5])
    inside = slice(1, -1)
    np.testing.assert_allclose((weights @ d.of_sines)[:, inside], -(weights @ d.of_cosines).T[:, inside], atol=1e-11)


def test_noise_has_its_deviation_and_is_the_same_on_any_grid() -> None:
    law, rngs = CosineNoise(n_waves=6, n_cells=8, deviation=2.0), [generator(0, "test", i) for i in range(200)]
    coarse, fine = CosineSpace(9, 2, 1.0, degree=1), CosineSpace(17, 2, 1.0, degree=1)
    drawn = law.draw(rngs, 2, coarse)
    again = law.draw([generator(0, "test", i) for i in range(200)], 2, fine)
    np.testing.assert_allclose(fine.values(again, 17)[..., ::2, ::2], coarse.values(drawn, 9), atol=1e-13)
    power = (drawn**2).mean(dim=(0, 1)) * coarse.multiplicity
    assert float(power[:7, :7].mean()) == pytest.approx(4 / 64, rel=0.03)  # of 49 * 400 numbers
    assert not power[7:].any()
