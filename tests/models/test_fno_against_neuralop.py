"""FNO and SpectralConv against the neuralop package with the same weights.

neuralop counts modes on both sides (n_modes = 2K, on the last axis 2K - 2), lays its rows out from -K to K - 1 and puts
the bias of the pointwise map into the convolution. Release 2.0.0 is wrong on odd grids in 2D and 3D, so those are left
out, and it activates every block twice, so networks are compared with ReLU, for which twice is once.
"""

import pytest
import torch
from neuralop.layers.spectral_convolution import SpectralConv as ReferenceConv
from neuralop.models import FNO as ReferenceFNO

from data_gen.grids import Grid
from neuralop_bench.layers.coordinates import append_coordinates
from neuralop_bench.layers.spectral_conv import SpectralConv
from neuralop_bench.models.fno import FNO

TOLERANCE = 1e-6


def reference_weight(conv: SpectralConv) -> torch.Tensor:
    """Our weight [part, *modes, in, out] as neuralop's complex [in, out, *modes] with the negative rows first."""
    weight = torch.complex(*conv.weight.detach()).movedim((-2, -1), (0, 1))
    for axis, k in enumerate(conv.n_modes[:-1]):
        weight = weight.roll(k, dims=2 + axis)
    return weight


def reference_modes(n_modes: tuple[int, ...]) -> tuple[int, ...]:
    return (*(2 * k for k in n_modes[:-1]), 2 * n_modes[-1] - 2)


def relative_difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max() / theirs.abs().max())


@pytest.mark.parametrize(
    ("shape", "n_modes"),
    [
        ((128,), (16,)),
        ((81,), (16,)),
        ((64, 64), (12, 12)),
        ((24, 24), (12, 12)),
        ((32, 20), (5, 8)),
        ((16, 16, 16), (8, 8, 8)),
        ((12, 16, 10), (3, 5, 4)),
    ],
)
def test_spectral_conv_agrees(shape: tuple[int, ...], n_modes: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    ours = SpectralConv(3, 5, n_modes)
    theirs = ReferenceConv(3, 5, n_modes=reference_modes(n_modes), bias=False)
    with torch.no_grad():
        theirs.weight.tensor.copy_(reference_weight(ours))
        u = torch.randn(2, 3, *shape)
        assert relative_difference(ours(u), theirs(u)) < TOLERANCE


@pytest.mark.parametrize(("n", "onto"), [(64, 32), (32, 48)])
def test_spectral_conv_onto_another_grid_agrees(n: int, onto: int) -> None:
    """The only part of neuralop's UNO to compare: its blocks have no activation in 2.0.0, since each has one layer.

    Only on one axis: on others, neuralop 2.0.0 lengthens and cuts the spectrum behind its negative frequencies, so that
    these become others. ``test_uno.py`` tests ours in more dimensions.
    """
    torch.manual_seed(0)
    ours = SpectralConv(3, 5, (12,))
    theirs = ReferenceConv(3, 5, n_modes=reference_modes((12,)), bias=False)
    with torch.no_grad():
        theirs.weight.tensor.copy_(reference_weight(ours))
        u = torch.randn(2, 3, n)
        assert relative_difference(ours(u, (onto,)), theirs(u, output_shape=(onto,))) < TOLERANCE


@pytest.mark.parametrize(
    ("shape", "n_modes"), [((128,), (16,)), ((64, 64), (12, 12)), ((32, 24), (6, 9)), ((16, 12, 10), (4, 5, 3))]
)
def test_whole_network_agrees(shape: tuple[int, ...], n_modes: tuple[int, ...]) -> None:
    n_dims = len(shape)
    grid = Grid(shape, (1.0,) * n_dims, ("periodic",) * n_dims, ("periodic",) * n_dims)
    torch.manual_seed(0)
    ours = FNO(
        in_channels=2,
        out_channels=3,
        grid=grid,
        n_modes=n_modes,
        width=16,
        n_layers=3,
        projection_width=64,
        activation="relu",
    )
    theirs = ReferenceFNO(
        n_modes=reference_modes(n_modes),
        in_channels=2 + n_dims,
        out_channels=3,
        hidden_channels=16,
        n_layers=3,
        lifting_channel_ratio=0,
        projection_channel_ratio=4,
        positional_embedding=None,
        non_linearity=torch.nn.functional.relu,
        use_channel_mlp=False,
        channel_mlp_skip=None,
        fno_skip="linear",
    )
    state = {}
    pairs = [("lifting.fcs.0", ours.lifting), *((f"projection.fcs.{i}", ours.projection[i]) for i in range(2))]
    for name, layer in pairs:
        state[f"{name}.weight"], state[f"{name}.bias"] = layer.weight[..., None], layer.bias
    for i, (spectral, pointwise) in enumerate(zip(ours.spectral, ours.pointwise, strict=True)):
        state[f"fno_blocks.convs.{i}.weight.tensor"] = reference_weight(spectral)
        state[f"fno_blocks.convs.{i}.bias"] = pointwise.bias.view(-1, *(1,) * n_dims)
        state[f"fno_blocks.fno_skips.{i}.conv.weight"] = pointwise.weight[..., None]
    expected = dict(theirs.named_parameters())
    # Every parameter of theirs is set, so the comparison covers the whole network.
    assert state.keys() == expected.keys()
    with torch.no_grad():
        for name, parameter in expected.items():
            parameter.copy_(state[name])
        x = torch.randn(2, 2, *shape)
        assert relative_difference(ours(x), theirs(append_coordinates(x, grid.nodes))) < TOLERANCE
