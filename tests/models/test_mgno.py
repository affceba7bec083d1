"""MgNO: published parameter counts, the V-cycle against formulas, options, errors."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from data_gen.grids import Grid
from neuralop_bench.layers.conv import Edge
from neuralop_bench.models.mgno import MgNO, Prolongation, VCycle

CONV = {1: functional.conv1d, 2: functional.conv2d}
PAD_MODE = {"zeros": "constant", "reflect": "reflect", "circular": "circular"}


def closed(*shape: int) -> Grid:
    n_dims = len(shape)
    return Grid(shape, (1.0,) * n_dims, ("dirichlet",) * n_dims, ("closed",) * n_dims)


def periodic(*shape: int) -> Grid:
    n_dims = len(shape)
    return Grid(shape, (1.0,) * n_dims, ("periodic",) * n_dims, ("periodic",) * n_dims)


def v_cycle(
    in_channels: int = 2,
    width: int = 3,
    *,
    edges: Sequence[Edge] = ("circular", "circular"),
    n_smoothing: Sequence[int] = (1, 2, 2),
    kernel: int = 4,
    bias: bool = False,
) -> VCycle:
    torch.manual_seed(0)
    return VCycle(
        in_channels,
        width,
        edges=edges,
        n_smoothing=n_smoothing,
        prolongation_kernels=[kernel] * (len(n_smoothing) - 1),
        bias=bias,
    ).double()


def fields(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def set_to(module: nn.Module, value: float) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(value)


# Parameter counts


ROUGH = [1, 1, 1, 1, 1, 2]
SMOOTH = {"n_layers": 5, "n_smoothing": ROUGH, "prolongation_kernel": [3, 4, 3, 3, 4]}
TURBULENCE = {"n_layers": 5, "width": 32, "n_smoothing": [1, 1, 1, 2, 2], "pointwise": False}


@pytest.mark.parametrize(
    ("grid", "options", "expected"),
    [
        pytest.param(closed(256, 256), {"n_smoothing": ROUGH}, 572_661, id="darcy-rough"),
        pytest.param(closed(211, 211), SMOOTH, 678_093, id="darcy-smooth"),
        pytest.param(closed(256, 256), {"n_layers": 5, "n_smoothing": [1, 1, 1, 2, 2]}, 645_828, id="script-default"),
        pytest.param(periodic(64, 64), {**TURBULENCE, "bias": True, "normalization": "layer"}, 2_885_194, id="ns"),
        pytest.param(periodic(64, 64), {**TURBULENCE, "normalization": "layer"}, 2_883_300, id="ns-no-bias"),
        pytest.param(periodic(64, 64), {**TURBULENCE, "bias": True}, 1_144_394, id="ns-no-affine-norm"),
    ],
)
def test_published_parameter_counts(grid: Grid, options: dict[str, Any], expected: int) -> None:
    with torch.device("meta"):
        model = MgNO(in_channels=1, out_channels=1, grid=grid, **options)
    assert sum(p.numel() for p in model.parameters()) == expected


@pytest.mark.parametrize("n_smoothing", [[1, 1, 1, 1, 1, 2], [3, 1, 2], [2]])
@pytest.mark.parametrize(("in_channels", "width", "n_layers"), [(1, 24, 4), (3, 5, 2)])
def test_parameter_count_follows_the_closed_form(
    in_channels: int, width: int, n_layers: int, n_smoothing: list[int]
) -> None:
    model = MgNO(
        in_channels=in_channels,
        out_channels=2,
        grid=closed(64, 64),
        width=width,
        n_layers=n_layers,
        n_smoothing=n_smoothing,
    )
    n_coarser, c = len(n_smoothing) - 1, width
    expected = 2 * c
    for f in [in_channels] + [c] * (n_layers - 1):
        expected += 9 * f * c * (2 * sum(n_smoothing) - 1)  # S and A, but for the first A
        expected += n_coarser * (9 * c * c + 9 * f * f + 16 * c * c)
        expected += f * c + c
    assert sum(p.numel() for p in model.parameters()) == expected


# The V-cycle


@pytest.mark.parametrize("edges", [("zeros", "zeros"), ("circular", "reflect")])
def test_the_v_cycle_is_linear(edges: tuple[Edge, Edge]) -> None:
    cycle = v_cycle(edges=edges)
    f, g = fields(2, 2, 17, 12), fields(2, 2, 17, 12, seed=2)
    torch.testing.assert_close(cycle(0.3 * f - 7 * g), 0.3 * cycle(f) - 7 * cycle(g), rtol=1e-12, atol=1e-12)
    assert not cycle(torch.zeros_like(f)).any()


def test_a_bias_makes_the_v_cycle_affine() -> None:
    cycle = v_cycle(bias=True)
    f, g = fields(2, 2, 16, 16), fields(2, 2, 16, 16, seed=2)
    assert cycle(torch.zeros_like(f)).abs().max() > 1e-3
    torch.testing.assert_close(cycle(0.3 * f + 0.7 * g), 0.3 * cycle(f) + 0.7 * cycle(g), rtol=1e-12, atol=1e-12)


def test_one_level_of_one_step_is_a_convolution() -> None:
    cycle = v_cycle(edges=("zeros", "zeros"), n_smoothing=[1])
    f = fields(2, 2, 9, 8)
    (weight,) = cycle.parameters()
    torch.testing.assert_close(cycle(f), functional.conv2d(f, weight, padding=1))


def convolve(x: Tensor, weight: Tensor, edge: str, stride: int = 1) -> Tensor:
    n_dims = x.ndim - 2
    return CONV[n_dims](functional.pad(x, (1,) * (2 * n_dims), mode=PAD_MODE[edge]), weight, stride=stride)


def prolong(x: Tensor, weight: Tensor, edge: str, space: Sequence[int]) -> Tensor:
    """Put zeros between the points of x and convolve: the other reading of a transposed convolution."""
    n_dims, kernel = x.ndim - 2, weight.shape[-1]
    stuffed = x.new_zeros(*x.shape[:2], *space)
    stuffed[(..., *(slice(None, None, 2),) * n_dims)] = x
    extended = functional.pad(stuffed, (kernel - 2, 1) * n_dims, mode=PAD_MODE[edge])
    return CONV[n_dims](extended, weight.transpose(0, 1).flip(*range(2, weight.ndim)))


@pytest.mark.parametrize("kernel", [3, 4])
@pytest.mark.parametrize(
    ("edge", "space"),
    [
        ("zeros", (10, 12)),
        ("zeros", (9, 12)),
        ("zeros", (11,)),
        ("circular", (10, 12)),
        ("circular", (14,)),
        ("reflect", (9, 11)),
        ("reflect", (13,)),
    ],
)
def test_two_levels_equal_their_formula(edge: Edge, space: tuple[int, ...], kernel: int) -> None:
    cycle = v_cycle(edges=(edge,) * len(space), n_smoothing=[2, 2], kernel=kernel)
    fine, coarse = cycle.smoothers
    S, A = ([conv.conv.weight for conv in convs] for convs in (fine.S, fine.A))
    S_coarse, A_coarse = ([conv.conv.weight for conv in convs] for convs in (coarse.S, coarse.A))
    f = fields(2, 2, *space)

    u = convolve(f, S[0], edge)
    u = u + convolve(f - convolve(u, A[0], edge), S[1], edge)
    f_coarse = convolve(f, cycle.restrictions[0].conv.weight, edge, stride=2)
    u_coarse = convolve(u, cycle.projections[0].conv.weight, edge, stride=2)
    for step in range(2):
        defect = f_coarse - convolve(u_coarse, A_coarse[step], edge)
        u_coarse = u_coarse + convolve(defect, S_coarse[step], edge)
    u = u + prolong(u_coarse, cycle.prolongations[0].conv.weight, edge, space)
    torch.testing.assert_close(cycle(f), u, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(("n", "kernel"), [(211, 3), (106, 4), (53, 3), (27, 3), (14, 4), (256, 4)])
def test_prolongation_is_the_published_transposed_convolution_at_its_sizes(n: int, kernel: int) -> None:
    torch.manual_seed(0)
    prolongation = Prolongation(3, edges=("zeros",), kernel=kernel).double()
    x = fields(2, 3, -(-n // 2))
    expected = functional.conv_transpose1d(x, prolongation.conv.weight, stride=2, padding=1)
    torch.testing.assert_close(prolongation(x, [n]), expected)


def test_without_smoothing_kernels_nothing_is_left() -> None:
    cycle = v_cycle()
    for smoother in cycle.smoothers:
        set_to(smoother.S, 0.0)
    assert not cycle(fields(2, 2, 16, 16)).any()


def test_without_prolongation_the_finest_smoother_is_left() -> None:
    cycle = v_cycle(n_smoothing=[3, 2, 2])
    set_to(cycle.prolongations, 0.0)
    f = fields(2, 2, 16, 16)
    assert torch.equal(cycle(f), cycle.smoothers[0](f))


def test_one_level_holds_the_identity() -> None:
    cycle = v_cycle(in_channels=3, width=3, n_smoothing=[1])
    set_to(cycle, 0.0)
    with torch.no_grad():
        cycle.smoothers[0].S[0].conv.weight[range(3), range(3), 1, 1] = 1
    f = fields(2, 3, 7, 8)
    assert torch.equal(cycle(f), f)


# The network


def test_equals_its_formula() -> None:
    # Every layer has an activation, including the last; the projection has no bias; coordinates come after the input.
    torch.manual_seed(0)
    model = MgNO(
        in_channels=2,
        out_channels=3,
        grid=closed(9, 12),
        width=4,
        n_layers=2,
        n_smoothing=[1, 1],
        coordinates=True,
    ).double()
    x = fields(2, 2, 9, 12)
    rows = torch.linspace(0, 1, 9, dtype=torch.float64)[:, None].expand(2, 1, 9, 12)
    columns = torch.linspace(0, 1, 12, dtype=torch.float64).expand(2, 1, 9, 12)
    v = torch.cat([x, rows, columns], dim=1)
    assert model.pointwise is not None
    for cycle, pointwise in zip(model.cycles, model.pointwise, strict=True):
        constant = pointwise.bias[:, None, None]
        v = functional.gelu(cycle(v) + torch.einsum("oi,bi...->bo...", pointwise.weight, v) + constant)
    (weight,) = model.projection.parameters()
    torch.testing.assert_close(model(x), torch.einsum("oi,bi...->bo...", weight[..., 0, 0], v))


def shift_defect(model: nn.Module, x: Tensor, *shifts: int) -> float:
    dims = tuple(range(-len(shifts), 0))
    with torch.no_grad():
        return float((model(x.roll(shifts, dims)) - model(x).roll(shifts, dims)).abs().max())


@pytest.mark.parametrize("kernel", [3, 4])
@pytest.mark.parametrize("normalization", ["none", "group"])
def test_commutes_with_shifts_of_coarsest_points_on_a_torus(normalization: str, kernel: int) -> None:
    torch.manual_seed(0)
    model = MgNO(
        in_channels=2,
        out_channels=1,
        grid=periodic(16, 24),
        width=4,
        n_layers=2,
        n_smoothing=[1, 1, 2],
        prolongation_kernel=kernel,
        normalization=normalization,
    ).double()
    x = fields(2, 2, 16, 24)
    scale = float(model(x).detach().abs().max())
    assert shift_defect(model, x, 4, -8) < 1e-13 * max(scale, 1)
    assert shift_defect(model, x, 12, 4) < 1e-13 * max(scale, 1)
    assert shift_defect(model, x, 2, 0) > 1e-5 * scale


def test_one_level_commutes_with_all_shifts_of_a_torus_unless_it_has_coordinates() -> None:
    x = fields(2, 1, 7, 8)
    for coordinates in (False, True):
        torch.manual_seed(0)
        model = MgNO(
            in_channels=1, out_channels=1, grid=periodic(7, 8), width=4, n_smoothing=[2], coordinates=coordinates
        ).double()
        assert (shift_defect(model, x, 1, 3) < 1e-14) is not coordinates


def test_each_axis_has_its_own_ends() -> None:
    grid = Grid((16, 16), (1.0, 1.0), ("periodic", "dirichlet"), ("periodic", "closed"))
    torch.manual_seed(0)
    model = MgNO(in_channels=1, out_channels=1, grid=grid, width=4, n_layers=2, n_smoothing=[1, 1, 1]).double()
    x = fields(2, 1, 16, 16)
    assert shift_defect(model, x, 4, 0) < 1e-14
    assert shift_defect(model, x, 0, 4) > 1e-5


def test_zeros_and_reflection_differ_near_the_boundary_alone() -> None:
    outputs = []
    x = fields(1, 1, 33, 33)
    for edges in ("zeros", "reflect"):
        torch.manual_seed(0)
        model = MgNO(
            in_channels=1, out_channels=1, grid=closed(33, 33), width=4, n_layers=1, n_smoothing=[1, 1], edges=edges
        ).double()
        outputs.append(model(x))
    difference = (outputs[0] - outputs[1]).abs()
    assert difference[..., 0, :].min() > 0
    assert not difference[..., 12:-12, 12:-12].any()


@pytest.mark.parametrize("make", [closed, periodic])
@pytest.mark.parametrize(
    "shape", [(64, 64), (128, 128), (256, 256), (85, 85), (211, 211), (33, 33), (17, 64), (255,), (64,)]
)
def test_maps_fields_to_fields_of_the_same_size(make: Callable[..., Grid], shape: tuple[int, ...]) -> None:
    model = MgNO(in_channels=2, out_channels=3, grid=make(*shape), width=2, n_layers=2)
    assert model(torch.randn(1, 2, *shape)).shape == (1, 3, *shape)


@pytest.mark.parametrize(
    "options",
    [
        {"bias": True, "pointwise": False},
        {"normalization": "layer"},
        {"normalization": "group"},
        {"coordinates": True},
        {"edges": "reflect"},
        {"activation": "relu"},
        {"prolongation_kernel": [3, 4]},
        {"n_smoothing": [2, 1, 3]},
    ],
)
@pytest.mark.parametrize("grid", [closed(13, 10), periodic(12, 8), closed(11)], ids=["closed", "torus", "line"])
def test_every_option_is_felt_and_every_parameter_is_trained(grid: Grid, options: dict[str, Any]) -> None:
    def build(**options: Any) -> MgNO:
        torch.manual_seed(0)
        return MgNO(
            in_channels=2, out_channels=1, grid=grid, width=8, n_layers=2, **{"n_smoothing": [1, 1, 2], **options}
        ).double()

    x = fields(2, 2, *grid.shape)
    output = build()(x)
    model = build(**options)
    changed = model(x)
    assert changed.shape == output.shape
    if options != {"edges": "reflect"} or not grid.is_periodic:
        assert (changed - output).abs().max() > 1e-6
    (changed * fields(*changed.shape, seed=3)).sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


def test_normalization_makes_every_corrected_level_centred_and_of_unit_size() -> None:
    for normalization, kind in (("layer", nn.LayerNorm), ("group", nn.GroupNorm)):
        torch.manual_seed(0)
        model = MgNO(
            in_channels=1, out_channels=1, grid=periodic(32, 32), width=4, normalization=normalization
        ).double()
        norms = [module for module in model.modules() if isinstance(module, kind)]
        assert len(norms) == 4 * 4
        u = model.cycles[0](fields(3, 1, 32, 32))
        torch.testing.assert_close(u.mean(dim=(1, 2, 3)), torch.zeros(3, dtype=torch.float64))
        assert (u.square().mean(dim=(1, 2, 3)) - 1).abs().max() < 1e-2


def test_layer_normalization_is_bound_to_its_grid_and_the_others_are_not() -> None:
    for normalization in ("none", "group"):
        model = MgNO(in_channels=1, out_channels=1, grid=periodic(32, 32), width=4, normalization=normalization)
        assert model(torch.randn(1, 1, 48, 33)).shape == (1, 1, 48, 33)
    model = MgNO(in_channels=1, out_channels=1, grid=periodic(32, 32), width=4, normalization="layer")
    with pytest.raises(ValueError, match=r"bound to the grid it was built for, \(32, 32\), got fields on \(48, 33\)"):
        model(torch.randn(1, 1, 48, 33))


# Errors


def test_more_levels_than_the_grid_has_room_for_are_refused() -> None:
    message = (
        "MgNO with 5 levels halves every axis 4 times and needs at least 17 points on each, but the grid has shape "
        "(64, 16). Shorten model.n_smoothing to at most 4 numbers, one for each level, or raise the resolution."
    )
    with pytest.raises(ValueError, match="needs at least 17 points") as error:
        MgNO(in_channels=1, out_channels=1, grid=periodic(64, 16))
    assert str(error.value) == message
    model = MgNO(in_channels=1, out_channels=1, grid=periodic(64, 64))
    with pytest.raises(ValueError, match="needs at least 17 points"):
        model(torch.zeros(1, 1, 64, 16))


@pytest.mark.parametrize("edges", ["zeros", "reflect"])
@pytest.mark.parametrize(("n", "n_levels"), [(2, 1), (3, 2), (4, 2), (5, 3), (16, 4), (17, 5)])
def test_as_many_levels_as_the_message_allows_work(n: int, n_levels: int, edges: str) -> None:
    options = {"in_channels": 1, "out_channels": 1, "grid": closed(n), "width": 2, "edges": edges}
    assert MgNO(**options, n_smoothing=[1] * n_levels)(torch.zeros(1, 1, n)).shape == (1, 1, n)
    with pytest.raises(ValueError, match=f"at most {n_levels} numbers"):
        MgNO(**options, n_smoothing=[1] * (n_levels + 1))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("width", 0, "needs model.width to be at least 1, got 0"),
        ("n_layers", 0, "needs model.n_layers to be at least 1, got 0"),
        ("n_smoothing", [1, 0], "needs model.n_smoothing to be at least 1, got 0"),
        ("n_smoothing", [], "a list with one number for each level"),
        ("n_smoothing", 2, "a list with one number for each level, finest first, got 2"),
        ("prolongation_kernel", 5, "4 prolongation kernels of 3 or 4 points, got 5. Set model.prolongation_kernel"),
        ("prolongation_kernel", [3, 4], r"needs 4 prolongation kernels of 3 or 4 points, got \[3, 4\]"),
        ("edges", "circular", "model.edges to be one of zeros, reflect, got 'circular'"),
        ("normalization", "batch", "model.normalization to be one of none, layer, group, got 'batch'"),
        ("activation", "sine", "model.activation to be one of gelu, gelu_tanh, relu, tanh, got 'sine'"),
    ],
)
def test_impossible_options_are_refused_with_the_knob_to_turn(name: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MgNO(in_channels=1, out_channels=1, grid=periodic(64, 64), **{name: value})
