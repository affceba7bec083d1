"""Counting parameters: a complex number is two real ones, or one, as some published tables have it."""

from typing import Literal

import pytest
import torch
from torch import nn

from data_gen.grids import Grid
from neuralop_bench.config.compose import compose
from neuralop_bench.config.constructors import build
from neuralop_bench.config.schema import constructor
from neuralop_bench.layers.spectral_conv import SpectralConv
from neuralop_bench.metrics.cost import count_parameters
from neuralop_bench.models.ffno import FFNO
from neuralop_bench.models.fno import FNO
from neuralop_bench.models.sfno import SFNO
from neuralop_bench.models.sinenet import SineNet
from neuralop_bench.models.uno import UNO
from neuralop_bench.surrogate.normalization import Normalizer
from neuralop_bench.surrogate.surrogate import Surrogate


def statistics() -> Normalizer:
    one = torch.ones(1, dtype=torch.float64)
    return Normalizer(0 * one, one, 0 * one, one, torch.empty(0, 1, dtype=torch.float64))


class Mixed(nn.Module):
    """7 real, 3 complex, 4 pairs of reals, and what isn't trained."""

    complex_pairs = frozenset({"pair"})

    def __init__(self) -> None:
        super().__init__()
        self.real = nn.Parameter(torch.zeros(7))
        self.complex = nn.Parameter(torch.zeros(3, dtype=torch.complex64))
        self.pair = nn.Parameter(torch.zeros(2, 4))
        self.frozen = nn.Parameter(torch.zeros(5, dtype=torch.complex64), requires_grad=False)
        self.register_buffer("constant", torch.zeros(6))


def test_a_complex_number_counts_as_two_or_as_one() -> None:
    assert count_parameters(Mixed()) == 7 + 2 * 3 + 2 * 4
    assert count_parameters(Mixed(), complex_as=1) == 7 + 3 + 4
    nested = nn.Sequential(Mixed(), nn.Linear(2, 3), Mixed())
    assert count_parameters(nested) == 2 * 21 + 9
    assert count_parameters(nested, complex_as=1) == 2 * 14 + 9


def test_a_shared_parameter_counts_once() -> None:
    one = Mixed()
    assert count_parameters(nn.Sequential(one, one)) == 21
    assert count_parameters(nn.Sequential(one, one), complex_as=1) == 14


def test_a_surrogate_counts_real_numbers() -> None:
    assert Surrogate(Mixed(), statistics()).n_parameters == count_parameters(Mixed()) == 21


def test_spectral_weights_are_pairs() -> None:
    for name in SpectralConv.complex_pairs:
        assert getattr(SpectralConv(3, 5, (2, 4)), name).shape[0] == 2
    assert count_parameters(SpectralConv(3, 5, (2, 4))) == 2 * (4 * 4) * 15
    assert count_parameters(SpectralConv(3, 5, (2, 4)), complex_as=1) == (4 * 4) * 15


@pytest.mark.parametrize(
    ("n_dims", "n_modes", "width", "as_reals", "as_complex"),
    [(1, 16, 64, 549_569, 287_425), (2, 12, 32, 2_368_001, 1_188_353)],
)
def test_published_counts_both_ways(n_dims: int, n_modes: int, width: int, as_reals: int, as_complex: int) -> None:
    with torch.device("meta"):
        model = FNO(in_channels=1, out_channels=1, grid=Grid.periodic(64, n_dims), n_modes=n_modes, width=width)
    assert count_parameters(model) == as_reals
    assert count_parameters(model, complex_as=1) == as_complex


@pytest.mark.parametrize(
    ("model", "n_parameters"),
    [
        ("conv_net", 31_757),
        ("res_net", 32_943),
        ("unet_strided", 27_193),
        ("dilated_res_net", 31_777),
        ("fno_apebench", 32_527),
    ],
)
def test_the_networks_of_apebench_have_the_published_sizes(model: str, n_parameters: int) -> None:
    """Koehler et al. (2024): Conv;34;10, Res;26;8, UNet;12;2, Dil;2;32;2 and FNO;12;18;4 on one field in 1D."""
    node = constructor(compose(f"model={model}").model)
    network = build(node)(in_channels=1, out_channels=1, grid=Grid.periodic(160, n_dims=1))
    assert count_parameters(network) == n_parameters


@pytest.mark.parametrize(
    ("n_layers", "share_weights", "n_parameters"),
    [(4, True, 404_674), (12, True, 671_938), (24, True, 1_072_834), (24, False, 7_102_146)],
)
def test_ffno_has_the_size_of_the_published_code(n_layers: int, share_weights: bool, n_parameters: int) -> None:
    """The networks for Navier-Stokes in github.com/alasdairtran/fourierflow, experiments/torus_li.

    That is, markov and ablation/no_sharing, counted tensor by tensor in their code: one vorticity and two coordinates
    in, one vorticity out.
    """
    with torch.device("meta"):
        model = FFNO(
            in_channels=1,
            out_channels=1,
            grid=Grid.periodic(64),
            n_modes=16,
            width=64,
            n_layers=n_layers,
            share_weights=share_weights,
        )
    assert count_parameters(model) == n_parameters


@pytest.mark.parametrize(("encoding", "n_parameters"), [("fixed", 9_250_333), ("learned", 9_251_853)])
@pytest.mark.parametrize("n_steps", [10, 40])
def test_sfno_has_the_published_size(encoding: Literal["fixed", "learned"], n_steps: int, n_parameters: int) -> None:
    """Cao et al. (2024) for Navier-Stokes; with random features in the encoding, their code has 1,520 more.

    The latter are an affine map from 3 coordinates and 6 * 6 * 2 products to 20 channels.
    """
    with torch.device("meta"):
        model = SFNO(
            in_channels=10,
            out_channels=n_steps,
            grid=Grid.periodic(64),
            n_steps=n_steps,
            history=10,
            n_modes=12,
            n_time_modes=5,
            width=20,
            hidden_width=128,
            latent_steps=10,
            encoding=encoding,
        )
    assert count_parameters(model) == n_parameters


def test_sinenet8_has_the_published_size() -> None:
    """sinenet8-dual of github.com/divelab/AIRS, OpenPDE/SineNet: four frames of a scalar and a vector in, one out."""
    with torch.device("meta"):
        model = SineNet(
            in_channels=12,
            out_channels=3,
            grid=Grid.periodic(128),
            width=64,
            n_waves=8,
            n_levels=4,
            growth=1.425,
        )
    assert count_parameters(model) == 35_490_219


def test_uno_has_the_size_of_the_published_code() -> None:
    """Class UNO of github.com/ashiq24/UNO, navier_stokes_uno2d.py, for width 32 and 14 input channels.

    They are ten vorticities and four coordinates there; we have two coordinates, so twelve fields are given here.
    """
    with torch.device("meta"):
        model = UNO(
            in_channels=12,
            out_channels=1,
            grid=Grid.periodic(64),
            width=32,
            widths=(48, 96, 192),
            scales=(0.75, 0.5, 0.25),
            n_modes=(22, 14, 6),
            projection_width=128,
        )
    # Their layers, as (in, out, modes).
    layers = [(32, 48, 22), (48, 96, 14), (96, 192, 6), (192, 192, 6), (192, 96, 6), (192, 48, 14), (96, 32, 22)]
    spectral = sum(2 * 2 * k * k * n_in * n_out for n_in, n_out, k in layers)  # two corners of complex numbers
    maps = [(14, 16), (16, 32), *((n_in, n_out) for n_in, n_out, _ in layers), (64, 128), (128, 1)]
    assert count_parameters(model) == spectral + sum((n_in + 1) * n_out for n_in, n_out in maps)
