"""ConvNeXt U-Net: its sizes, which shifts and scales leave it as it is, and its errors."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from data_gen.grids import Grid
from neuralop_bench.layers.conv import Conv
from neuralop_bench.layers.convnext import ConvNeXtBlock
from neuralop_bench.layers.options import DoesNotFit
from neuralop_bench.models.convnext_unet import ConvNeXtUNet

MIXED = Grid((16, 13), (1.0, 2.0), ("periodic", "dirichlet"), ("periodic", "closed"))


def network(grid: Grid, **options: Any) -> ConvNeXtUNet:
    """A small model in float64, its parameters changed a little."""
    torch.manual_seed(0)
    options = {"width": 4, "n_levels": 2, **options}
    model = ConvNeXtUNet(in_channels=1, out_channels=2, grid=grid, **options).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.requires_grad_(False)


def test_the_wells_network_has_the_size_of_its_weights_file() -> None:
    """polymathic-ai/UNetConvNext-viscoelastic_instability on Hugging Face: 74.4 MB, 8 fields, 4 frames in and 1 out."""
    with torch.device("meta"):
        model = ConvNeXtUNet(in_channels=32, out_channels=8, grid=Grid.periodic(512), width=42, n_levels=4, n_blocks=2)
    unused = sum(42 * 2**level + 42 * 2 ** (level + 1) for level in range(4))  # biases of ``Direction``
    assert 4 * (sum(p.numel() for p in model.parameters()) + unused) == pytest.approx(74.4e6, abs=0.07e6)


@pytest.mark.parametrize(("n_dims", "max_width", "c"), [(1, None, 16), (2, None, 16), (3, None, 16), (1, 10, 10)])
def test_parameter_count_follows_the_closed_form(n_dims: int, max_width: int | None, c: int) -> None:
    grid, sizes = Grid.periodic(16, n_dims), {"width": 4, "n_levels": 2, "n_blocks": 2, "n_neck_blocks": 3}
    model = ConvNeXtUNet(in_channels=2, out_channels=3, grid=grid, kernel=5, max_width=max_width, **sizes)

    def block(c: int) -> int:
        return 8 * c**2 + (5**n_dims + 9) * c

    ends = 3**n_dims * (2 * 4 + 4 * 3) + 4 + 3
    steps = sum(2 * 2**n_dims * a * b + 2 * (a + b) for a, b in ((4, 8), (8, c)))
    blocks = 2 * block(4) + 2 * block(8) + 3 * block(c) + 2 * block(c) + 2 * block(8)
    merge = 2 * 8 * 8 + 8
    assert sum(p.numel() for p in model.parameters()) == ends + steps + blocks + merge


@pytest.mark.parametrize("grid", [Grid.periodic(32, 1), MIXED, Grid.periodic(12, 3)], ids=["1D", "mixed", "3D"])
def test_commutes_with_shifts_by_points_of_the_coarsest_grid(grid: Grid) -> None:
    model, x = network(grid), torch.randn(2, 1, *grid.shape, dtype=torch.float64)
    y = model(x)
    torch.testing.assert_close(model(x.roll(4, 2)), y.roll(4, 2), rtol=0, atol=1e-12)
    assert float((model(x.roll(1, 2)) - y.roll(1, 2)).abs().max()) > 1e-3  # 2 x 2 points become one


def test_without_blocks_and_biases_of_the_lifting_the_size_of_the_input_is_lost() -> None:
    """Every path to the output passes through a normalisation of each point's channels."""
    model, x = network(MIXED), torch.randn(2, 1, *MIXED.shape, dtype=torch.float64)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("scale") or name == "lifting.conv.bias":
                parameter.zero_()
    y = model(x)
    # The shortcuts are taken before the first step down on all but the finest level, so they are normalised, too.
    torch.testing.assert_close(model(3 * x), y, rtol=0, atol=1e-12)
    assert float((model(x.flip(0)) - y).abs().max()) > 1e-3


def test_a_block_is_its_formula_point_by_point() -> None:
    torch.manual_seed(0)
    block = ConvNeXtBlock(3, edges=("circular", "zeros"), kernel=5).double()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    v = torch.randn(2, 3, 6, 7, dtype=torch.float64)
    kernel, bias = block.depthwise.conv.weight, block.depthwise.conv.bias
    assert isinstance(bias, Tensor)
    expected = torch.empty_like(v)
    for i in range(6):
        for j in range(7):
            wide = bias.expand(2, 3).clone()
            for p in range(-2, 3):
                for q in range(-2, 3):
                    if 0 <= j + q < 7:
                        wide += kernel[:, 0, p + 2, q + 2] * v[:, :, (i + p) % 6, j + q]
            normed = (wide - wide.mean(1, keepdim=True)) / (wide.var(1, correction=0, keepdim=True) + 1e-6).sqrt()
            normed = normed * block.norm.weight + block.norm.bias
            first, second = block.network
            hidden = nn.functional.gelu(normed @ first.weight.T + first.bias)
            expected[:, :, i, j] = v[:, :, i, j] + block.scale * (hidden @ second.weight.T + second.bias)
    torch.testing.assert_close(block(v), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("edges", [("circular",), ("zeros", "circular"), ("circular", "circular"), ("reflect",)])
@pytest.mark.parametrize("groups", [2, pytest.param(4, marks=pytest.mark.exhaustive)])
def test_a_convolution_in_groups_is_one_convolution_for_each(groups: int, edges: Any) -> None:
    torch.manual_seed(0)
    whole = Conv(4, 8, edges=edges, kernel=5, groups=groups).double()
    x = torch.randn(2, 4, *(7, 6)[: len(edges)], dtype=torch.float64, requires_grad=True)
    parts = []
    for group, given in enumerate(x.chunk(groups, dim=1)):
        part = Conv(4 // groups, 8 // groups, edges=edges, kernel=5).double()
        for parameter, values in zip(part.parameters(), whole.parameters(), strict=True):
            parameter.data = values.data.chunk(groups)[group]
        parts.append(part(given))
    expected, found = torch.cat(parts, dim=1), whole(x)
    torch.testing.assert_close(found, expected)
    weights = torch.randn_like(found)
    torch.testing.assert_close(*(torch.autograd.grad((y * weights).sum(), x)[0] for y in (found, expected)))
    if len(edges) == 1:
        assert torch.autograd.gradgradcheck(whole, x)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "needs model.width to be at least 1, got 0"),
        ({"n_levels": 0}, "needs model.n_levels to be at least 1, got 0"),
        ({"n_blocks": 0}, "needs model.n_blocks to be at least 1"),
        ({"n_neck_blocks": 0}, "needs model.n_neck_blocks to be at least 1"),
        ({"kernel": 4}, "odd kernel, got 4"),
        ({"width": 8, "max_width": 4}, "needs model.max_width to be at least 8, got 4"),
        ({"layer_scale": 0.0}, "model.layer_scale to be positive, got 0.0"),
        ({"n_levels": 3}, "16 points to 2, which a kernel of 7.*n_levels must be at most 2. Lower it or model.kernel"),
        ({"n_levels": 1, "kernel": 19}, "16 points to 8, which a kernel of 19.*Lower model.kernel"),
    ],
)
def test_impossible_options_are_refused_with_the_knob_to_turn(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ConvNeXtUNet(in_channels=1, out_channels=1, grid=MIXED, **{"n_levels": 2, **options})


def test_too_many_levels_name_the_largest_number_that_fits() -> None:
    with pytest.raises(DoesNotFit) as error:
        ConvNeXtUNet(in_channels=1, out_channels=1, grid=Grid.periodic(20, 1), n_levels=6)
    assert error.value.fitting == {"n_levels": 3}
