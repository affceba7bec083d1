"""The small layers that models share."""

import itertools
import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import RegularGridInterpolator
from torch import Tensor, nn
from torch.nn.functional import conv1d, conv2d, conv3d, interpolate, pad

from data_gen.grids import Grid, Nodes
from neuralop_bench.layers import mlp
from neuralop_bench.layers import resample as resampling
from neuralop_bench.layers.conv import Conv, Edge, edges_of, extend
from neuralop_bench.layers.coordinates import append_coordinates
from neuralop_bench.layers.mlp import Perceptron, Pointwise
from neuralop_bench.layers.padding import crop, pad_to_multiple
from neuralop_bench.layers.resample import resample

MIXED = Grid(
    shape=(5, 6, 7),
    lengths=(2.0, 3.0, 0.5),
    boundary=("periodic", "dirichlet", "neumann"),
    nodes=("periodic", "closed", "centres"),
)
EDGES: tuple[Edge, ...] = ("zeros", "reflect", "circular")
NODES: tuple[Nodes, ...] = ("periodic", "closed", "centres")


def grid_1d(n: int, nodes: Nodes) -> Grid:
    return Grid((n,), (1.0,), ("periodic" if nodes == "periodic" else "open",), (nodes,))


# Coordinates and pointwise maps --------------------------------------------------------------------------------------


def test_appended_coordinates_are_the_nodes_of_the_grid_in_units_of_its_lengths() -> None:
    x = torch.randn(2, 3, *MIXED.shape, dtype=torch.float64)
    out = append_coordinates(x, MIXED.nodes)
    assert out.shape == (2, 6, *MIXED.shape)
    assert torch.equal(out[:, :3], x)
    for axis, (positions, length) in enumerate(zip(MIXED.coordinates(), MIXED.lengths, strict=True)):
        shape = [1, 1, 1]
        shape[axis] = -1
        expected = torch.from_numpy(positions / length).view(shape).expand(2, *MIXED.shape)
        torch.testing.assert_close(out[:, 3 + axis], expected)


def test_appended_coordinates_follow_the_shape_at_hand() -> None:
    x = torch.zeros(1, 1, 9, 4)
    out = append_coordinates(x, ("closed", "periodic"))
    assert out[0, 1, :, 0].tolist() == [i / 8 for i in range(9)]
    assert out[0, 2, 0].tolist() == [0.0, 0.25, 0.5, 0.75]
    assert out.dtype == torch.float32


@pytest.mark.parametrize(("n_dims", "convolution"), [(1, torch.nn.Conv1d), (2, torch.nn.Conv2d), (3, torch.nn.Conv3d)])
def test_pointwise_is_a_convolution_with_a_kernel_of_one_point(n_dims: int, convolution: type) -> None:
    torch.manual_seed(0)
    layer, oracle = Pointwise(3, 5).double(), convolution(3, 5, 1).double()
    with torch.no_grad():
        oracle.weight.copy_(layer.weight.view_as(oracle.weight))
        oracle.bias.copy_(layer.bias)
    x = torch.randn(2, 3, *(4, 5, 6)[:n_dims], dtype=torch.float64)
    torch.testing.assert_close(layer(x), oracle(x))
    for module in (layer, oracle):
        module(x).square().sum().backward()
    torch.testing.assert_close(layer.weight.grad, oracle.weight.grad.view_as(layer.weight))
    torch.testing.assert_close(layer.bias.grad, oracle.bias.grad)


# Convolutions --------------------------------------------------------------------------------------------------------


def value_beyond(x: Tensor, edge: Edge, axis: int, index: int) -> Tensor:
    """x at any index along an axis, also beyond its ends."""
    n = x.shape[axis]
    if edge == "circular":
        index = index % n
    elif edge == "reflect":
        index = abs(index) if index < n else 2 * (n - 1) - index
    elif not 0 <= index < n:
        return torch.zeros_like(x.select(axis, 0))
    return x.select(axis, index)


def continued(x: Tensor, edges: tuple[Edge, ...], n_points: int) -> Tensor:
    """Every axis continued point by point."""
    for axis, edge in enumerate(edges, start=2):
        indices = range(-n_points, x.shape[axis] + n_points)
        x = torch.stack([value_beyond(x, edge, axis, i) for i in indices], dim=axis)
    return x


@pytest.mark.parametrize("edges", list(itertools.product(EDGES, repeat=2)) + [(e,) for e in EDGES] + [EDGES])
def test_each_axis_is_continued_in_its_own_way(edges: tuple[Edge, ...]) -> None:
    x = torch.randn(2, 3, *(5, 4, 6)[: len(edges)])
    for n_points in (0, 1, 3):
        assert torch.equal(extend(x, edges, (n_points,) * len(edges)), continued(x, edges, n_points))


@pytest.mark.parametrize("edges", [*((e,) for e in EDGES), *itertools.product(EDGES, repeat=2), EDGES])
@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (5, 1), (3, 2), (5, 2), (3, 3), (1, 2)])
@pytest.mark.parametrize("shape", [(8, 6, 4), (7, 9, 5), (6, 7, 4)])
def test_conv_is_torchs_on_the_continued_field(
    edges: tuple[Edge, ...], kernel: int, stride: int, shape: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    n_dims = len(edges)
    shape = shape[:n_dims]
    layer = Conv(2, 3, edges=edges, kernel=kernel, stride=stride).double()
    x = torch.randn(2, 2, *shape, dtype=torch.float64)
    oracle = (conv1d, conv2d, conv3d)[n_dims - 1]
    expected = oracle(continued(x, edges, kernel // 2), layer.conv.weight, layer.conv.bias, stride=stride)
    y = layer(x)
    assert y.shape == (2, 3, *(math.ceil(n / stride) for n in shape))
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-13)
    # With a stride, the output has every so many points of the convolution without it, beginning with the first.
    dense = Conv(2, 3, edges=edges, kernel=kernel).double()
    dense.load_state_dict(layer.state_dict())
    torch.testing.assert_close(y, dense(x)[(..., *(slice(None, None, stride),) * n_dims)], rtol=0, atol=1e-13)


@pytest.mark.parametrize("edge", EDGES)
def test_conv_with_one_kind_of_edge_is_torchs_with_that_padding(edge: Edge) -> None:
    torch.manual_seed(0)
    ours = Conv(2, 3, edges=(edge, edge), kernel=5)
    theirs = nn.Conv2d(2, 3, 5, padding=2, padding_mode=edge)
    theirs.load_state_dict(ours.conv.state_dict())
    x = torch.randn(2, 2, 7, 6)
    torch.testing.assert_close(ours(x), theirs(x))


@pytest.mark.parametrize(
    ("space", "widths"), [((5,), (2,)), ((3, 4), (1, 2)), ((4, 3), (0, 3)), ((2, 1, 3), (1, 1, 0))]
)
def test_gradients_of_any_order_pass_round_circular_axes(space: tuple[int, ...], widths: tuple[int, ...]) -> None:
    x = torch.randn(2, 1, *space, dtype=torch.float64, requires_grad=True)
    edges: tuple[Edge, ...] = ("circular",) * len(space)
    assert torch.autograd.gradcheck(lambda u: extend(u, edges, widths), x)
    assert torch.autograd.gradgradcheck(lambda u: extend(u, edges, widths) ** 3, x)


@pytest.mark.parametrize(("n_dims", "stride", "bias"), [(1, 1, True), (2, 2, False), (3, 1, True)])
def test_gradients_of_any_order_pass_a_circular_conv(n_dims: int, stride: int, bias: bool) -> None:
    conv = Conv(2, 1, edges=("circular",) * n_dims, stride=stride, bias=bias).double()
    x = torch.randn(2, 2, *(4,) * n_dims, dtype=torch.float64, requires_grad=True)
    inputs = (x, *conv.parameters())
    assert torch.autograd.gradcheck(lambda u, *_: conv(u), inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda u, *_: conv(u) ** 2, inputs, fast_mode=True)
    assert torch.autograd.gradcheck(lambda *_: conv(x.detach()), tuple(conv.parameters()), fast_mode=True)


def test_a_kernel_that_reaches_round_a_circle_twice_is_refused() -> None:
    conv = Conv(1, 1, edges=("circular",), kernel=5)
    assert conv(torch.ones(1, 1, 2)).shape == (1, 1, 2)
    with pytest.raises(ValueError, match="kernel of 5 points wraps around a periodic axis of 1 points"):
        conv(torch.ones(1, 1, 1))


@pytest.mark.parametrize(("kernel", "dilation"), [(3, 1), (3, 4), (5, 2)])
@pytest.mark.parametrize(
    ("edge", "narrow"), [("circular", False), ("circular", True), ("zeros", False), ("zeros", True)]
)
def test_a_dilated_conv_is_torchs_on_the_continued_field(edge: Edge, narrow: bool, kernel: int, dilation: int) -> None:
    conv = Conv(3, 2, edges=(edge,), kernel=kernel, dilation=dilation, narrow=narrow).double()
    x = torch.randn(2, 3, 16, dtype=torch.float64, requires_grad=True)
    width = dilation * (kernel // 2)
    continued = pad(x, (width, width), mode="circular" if edge == "circular" else "constant")
    weight, bias = conv.conv.weight, conv.conv.bias
    for found, expected in zip(
        _with_gradients(conv(x), x, weight, bias),
        _with_gradients(conv1d(continued, weight, bias, dilation=dilation), x, weight, bias),
        strict=True,
    ):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert torch.autograd.gradgradcheck(conv, x)


def _with_gradients(out: Tensor, *inputs: Tensor | None) -> tuple[Tensor, ...]:
    wanted = [tensor for tensor in inputs if tensor is not None]
    return out, *torch.autograd.grad(out.square().sum(), wanted)


def test_a_circular_conv_keeps_its_input_alone() -> None:
    kept: list[torch.Tensor] = []
    conv, x = Conv(2, 3, edges=("circular", "circular")), torch.randn(1, 2, 16, 16, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        conv(x).sum().backward()
    own = {x.data_ptr(), *(p.data_ptr() for p in conv.parameters())}
    assert {tensor.data_ptr() for tensor in kept} == own


def test_a_circular_conv_works_where_torch_chooses_the_precision() -> None:
    conv, x = Conv(2, 3, edges=("circular", "circular")), torch.randn(1, 2, 16, 16, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = conv(x)
    assert out.dtype == torch.bfloat16
    out.float().square().sum().backward()
    torch.testing.assert_close(out.float(), conv(x), rtol=0.05, atol=0.05)


def test_conv_commutes_with_shifts_along_circular_axes_and_only_those() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 2, 8, 9, dtype=torch.float64)

    def defect(edges: tuple[Edge, ...], shift: tuple[int, int], stride: int = 1) -> float:
        layer = Conv(2, 3, edges=edges, kernel=5, stride=stride).double()
        moved = layer(x.roll(shift, (2, 3)))
        return float((moved - layer(x).roll([s // stride for s in shift], (2, 3))).abs().max().detach())

    assert defect(("circular", "circular"), (3, -4)) < 1e-13
    assert defect(("circular", "zeros"), (3, 0)) < 1e-13
    assert defect(("reflect", "circular"), (0, 2)) < 1e-13
    assert defect(("circular", "zeros"), (2, 0), stride=2) < 1e-13
    assert defect(("circular", "zeros"), (0, 1)) > 1e-2
    assert defect(("reflect", "circular"), (1, 0)) > 1e-2


@pytest.mark.parametrize("edges", [("circular", "reflect"), ("reflect", "reflect"), ("circular", "circular")])
def test_a_kernel_that_sums_to_one_keeps_constants_where_no_zeros_are_beyond(edges: tuple[Edge, ...]) -> None:
    layer = Conv(1, 1, edges=edges, bias=False)
    with torch.no_grad():
        layer.conv.weight.fill_(1 / 9)
    torch.testing.assert_close(layer(torch.ones(1, 1, 6, 5)), torch.ones(1, 1, 6, 5))


def test_conv_takes_what_torchs_convolution_does() -> None:
    assert Conv(1, 1, edges=("zeros",), bias=False).conv.bias is None
    assert sum(p.numel() for p in Conv(3, 5, edges=("zeros", "circular"), kernel=7).parameters()) == 7 * 7 * 15 + 5


def test_edges_follow_the_boundaries_of_the_grid() -> None:
    assert edges_of(MIXED) == ("circular", "zeros", "zeros")
    assert edges_of(MIXED, closed="reflect") == ("circular", "reflect", "reflect")
    assert edges_of(Grid.periodic(4, 3), closed="reflect") == ("circular",) * 3
    with pytest.raises(ValueError, match=r"periodic needs model\.edges to be one of zeros, reflect, got 'circular'"):
        edges_of(MIXED, closed="circular")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("kernel", [-1, 0, 2, 4])
def test_even_kernels_are_refused(kernel: int) -> None:
    with pytest.raises(ValueError, match=f"needs an odd kernel, got {kernel}"):
        Conv(1, 1, edges=("zeros",), kernel=kernel)


def test_unknown_edges_are_refused() -> None:
    with pytest.raises(ValueError, match=r"model\.edges to be one of zeros, reflect, circular, got 'replicate'"):
        Conv(1, 1, edges=("zeros", "replicate"))  # pyright: ignore[reportArgumentType]


# Other numbers of points ---------------------------------------------------------------------------------------------


def mesh_of(grid: Grid) -> tuple[Tensor, ...]:
    return torch.meshgrid(*map(torch.from_numpy, grid.coordinates()), indexing="ij")


def affine(grid: Grid) -> Tensor:
    """[1, 2, *space]: two functions that are affine along every axis."""
    mesh = mesh_of(grid)
    plane = 0.3 + sum((axis + 1.5) * x for axis, x in enumerate(mesh))
    product = torch.stack([1 + (axis + 0.5) * x for axis, x in enumerate(mesh)]).prod(dim=0)
    return torch.stack([torch.as_tensor(plane), product])[None]


@pytest.mark.parametrize(("shape", "other"), [((5,), (13,)), ((9, 4), (5, 7)), ((4, 5, 6), (7, 3, 6)), ((8,), (3,))])
def test_affine_fields_are_exact_on_closed_axes(shape: tuple[int, ...], other: tuple[int, ...]) -> None:
    n_dims = len(shape)
    grids = [Grid(s, (2.0,) * n_dims, ("dirichlet",) * n_dims, ("closed",) * n_dims) for s in (shape, other)]
    given, expected = map(affine, grids)
    torch.testing.assert_close(resample(given, grids[0].nodes, other), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize(("shape", "other"), [((6,), (15,)), ((8, 5), (5, 12)), ((4, 5, 6), (9, 4, 6))])
def test_affine_fields_of_cell_centres_are_exact_inside_and_constant_beyond_the_last_centres(
    shape: tuple[int, ...], other: tuple[int, ...]
) -> None:
    n_dims = len(shape)
    coarse, fine = (Grid(s, (1.0,) * n_dims, ("open",) * n_dims, ("centres",) * n_dims) for s in (shape, other))
    result = resample(affine(coarse), coarse.nodes, other)
    # The same functions at the nearest point between the first and the last centre.
    ends = [(0.5 / n, 1 - 0.5 / n) for n in shape]
    mesh = [x.clamp(*end) for x, end in zip(mesh_of(fine), ends, strict=True)]
    plane = 0.3 + sum((axis + 1.5) * x for axis, x in enumerate(mesh))
    product = torch.stack([1 + (axis + 0.5) * x for axis, x in enumerate(mesh)]).prod(dim=0)
    expected = torch.stack([torch.as_tensor(plane), product])[None]
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-13)


def test_a_periodic_axis_is_interpolated_across_its_end() -> None:
    x = torch.tensor([[[0.0, 4.0, 8.0]]], dtype=torch.float64)
    expected = [0.0, 2.0, 4.0, 6.0, 8.0, 4.0]
    assert resample(x, ["periodic"], [6])[0, 0].tolist() == expected
    fine = resample(x, ["periodic"], [12])[0, 0]
    assert fine[-3:].tolist() == [6.0, 4.0, 2.0]


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(NODES), st.integers(2, 60), st.integers(2, 60))
def test_shared_nodes_keep_their_values_to_the_last_digit(nodes: Nodes, n: int, other: int) -> None:
    x = torch.randn(1, 1, n, dtype=torch.float64)
    result = resample(x, [nodes], [other])[0, 0]

    def positions(n: int) -> list[tuple[int, int]]:
        """Numerator and denominator of each node in units of the domain, reduced."""
        pairs = {"periodic": (2, 0, 2 * n), "closed": (1, 0, n - 1), "centres": (2, 1, 2 * n)}
        step, start, whole = pairs[nodes]
        return [((step * i + start) // (g := math.gcd(step * i + start, whole)), whole // g) for i in range(n)]

    given = {position: i for i, position in enumerate(positions(n))}
    shared = [(given[p], j) for j, p in enumerate(positions(other)) if p in given]
    assert shared or nodes == "centres"
    for i, j in shared:
        assert result[j] == x[0, 0, i]
    # Linear interpolation stays between the given values.
    assert x.min() <= result.min() <= result.max() <= x.max()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(NODES), st.integers(2, 9), st.integers(2, 13)), min_size=1, max_size=3))
def test_resampling_is_scipys_linear_interpolation(axes: list[tuple[Nodes, int, int]]) -> None:
    nodes, shape, other = (tuple(values) for values in zip(*axes, strict=True))
    x = torch.randn(1, 2, *shape, dtype=torch.float64)
    # scipy has no periodic axes, so the first point is repeated at the end.
    closing = [int(kind == "periodic") for kind in nodes]
    closed = x
    for axis, extra in enumerate(closing, start=2):
        closed = torch.cat([closed, closed.narrow(axis, 0, extra)], dim=axis)
    points = [
        list(grid_1d(n, kind).coordinates()[0]) + [1.0] * extra
        for n, kind, extra in zip(shape, nodes, closing, strict=True)
    ]
    oracle = RegularGridInterpolator(points, closed[0].movedim(0, -1).numpy())
    queries = [
        torch.from_numpy(grid_1d(m, kind).coordinates()[0]).clamp(p[0], p[-1])
        for m, kind, p in zip(other, nodes, points, strict=True)
    ]
    expected = torch.from_numpy(oracle(torch.stack(torch.meshgrid(*queries, indexing="ij"), dim=-1).numpy()))
    torch.testing.assert_close(resample(x, nodes, other)[0], expected.movedim(-1, 0), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("shape", "other", "mode"),
    [
        ((7,), (12,), "linear"),
        ((7,), (3,), "linear"),
        ((5, 8), (9, 3), "bilinear"),
        ((4, 3, 5), (6, 5, 2), "trilinear"),
        ((4, 5), (1, 6), "bilinear"),
        ((1, 5), (3, 5), "bilinear"),
    ],
)
@pytest.mark.parametrize("nodes", ["closed", "centres"])
def test_resampling_is_torchs_interpolation(
    shape: tuple[int, ...], other: tuple[int, ...], mode: str, nodes: Nodes
) -> None:
    x = torch.randn(2, 3, *shape, dtype=torch.float64)
    expected = interpolate(x, size=other, mode=mode, align_corners=nodes == "closed")
    torch.testing.assert_close(resample(x, (nodes,) * len(shape), other), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_same_number_of_points_is_the_same_field(dtype: torch.dtype) -> None:
    x = torch.randn(1, 2, 5, 6, 7, dtype=dtype)
    assert torch.equal(resample(x, MIXED.nodes, (5, 6, 7)), x)
    assert resample(x, MIXED.nodes, (10, 3, 7)).dtype == dtype


@pytest.mark.parametrize("nodes", ["periodic", "closed", "centres"])
def test_products_and_picking_points_resample_alike(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(2, 3, 12, 7, 5, dtype=torch.float64)
    shapes = [(12, 14, 5), (24, 7, 10), (5, 3, 2)]
    as_products = [resample(x, (nodes,) * 3, shape) for shape in shapes]
    monkeypatch.setattr(resampling, "_MOST_POINTS", 0)
    for product, shape in zip(as_products, shapes, strict=True):
        torch.testing.assert_close(product, resample(x, (nodes,) * 3, shape), rtol=0, atol=1e-14)


def test_resampling_keeps_the_precision_of_fields_under_autocast() -> None:
    x = torch.randn(2, 1, 8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = resample(x, ("periodic", "closed"), (16, 5))
    assert torch.equal(found, resample(x, ("periodic", "closed"), (16, 5)))
    assert resample(x[:0], ("periodic", "closed"), (16, 5)).shape == (0, 1, 16, 5)


def test_gradients_pass_through_resampling() -> None:
    x = torch.randn(1, 1, 3, 4, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda u: resample(u, MIXED.nodes, (5, 3, 4)), x)


# A multiple of points ------------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(NODES), st.integers(1, 20)), min_size=1, max_size=3),
    st.sampled_from([1, 2, 4, 5, 8, 16]),
)
def test_padding_to_a_multiple_is_the_shortest_and_crop_undoes_it(axes: list[tuple[Nodes, int]], multiple: int) -> None:
    nodes, space = (tuple(values) for values in zip(*axes, strict=True))
    x = torch.randn(1, 2, *space)
    padded = pad_to_multiple(x, multiple, nodes)
    assert padded.shape[2:] == tuple(math.ceil(n / multiple) * multiple for n in space)
    assert torch.equal(crop(padded, space), x)
    # Point by point, every axis in its own way.
    expected = x
    for axis, (kind, m) in enumerate(zip(nodes, padded.shape[2:], strict=True), start=2):
        edge: Edge = "circular" if kind == "periodic" else "zeros"
        expected = torch.stack([value_beyond(expected, edge, axis, i) for i in range(m)], dim=axis)
    assert torch.equal(padded, expected)


def test_a_periodic_axis_goes_on_with_its_beginning_and_others_with_zeros() -> None:
    x = torch.arange(1.0, 6.0)[None, None]
    assert pad_to_multiple(x, 8, ["periodic"])[0, 0].tolist() == [1, 2, 3, 4, 5, 1, 2, 3]
    assert pad_to_multiple(x[..., :2], 8, ["periodic"])[0, 0].tolist() == [1, 2] * 4
    for nodes in ("closed", "centres"):
        assert torch.equal(pad_to_multiple(x, 8, [nodes]), pad(x, (0, 3)))


def test_nothing_is_added_to_a_multiple() -> None:
    x = torch.randn(1, 1, 8, 16)
    assert torch.equal(pad_to_multiple(x, 8, ("periodic", "closed")), x)


def test_gradients_pass_through_padding_to_a_multiple() -> None:
    x = torch.randn(1, 1, 3, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda u: pad_to_multiple(u, 4, ("periodic", "closed")), x)


@pytest.mark.parametrize("activation", [torch.nn.functional.gelu, torch.nn.functional.relu])
@pytest.mark.parametrize("points", [5, 24, 1000])
def test_a_perceptron_in_parts_equals_its_formula(
    activation: Callable[[Tensor], Tensor], points: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlp, "_POINTS", {"cpu": points})  # of 3 x 2 x 4 = 24
    model = Perceptron(6, 7, 2, activation).double()
    results = []
    for perceptron in (model.channels_last, partial(plain_perceptron, model, activation)):
        torch.manual_seed(1)
        v = torch.randn(3, 6, 2, 4, dtype=torch.float64).movedim(1, -1).requires_grad_()
        model.zero_grad()
        out = perceptron(v)
        (out * torch.randn_like(out)).sum().backward()
        results.append([out.detach(), v.grad, *(parameter.grad for parameter in model.parameters())])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13)


def plain_perceptron(model: Perceptron, activation: Callable[[Tensor], Tensor], v: Tensor) -> Tensor:
    first, second = model
    return activation(v @ first.weight.T + first.bias) @ second.weight.T + second.bias


def test_the_gradient_of_a_perceptron_has_a_gradient() -> None:
    model = Perceptron(3, 4, 2, torch.nn.functional.gelu).double()
    x = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(model, (x,))
    assert torch.autograd.gradgradcheck(model, (x,))


def test_the_hidden_channels_of_a_perceptron_are_not_kept() -> None:
    x = torch.randn(2, 4, 100, requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x):
        Perceptron(4, 64, 1, torch.nn.functional.gelu)(x)
    assert max(kept) == x.numel()


def test_a_perceptron_works_where_torch_chooses_the_precision() -> None:
    model = Perceptron(3, 7, 2, torch.nn.functional.gelu)
    v = torch.randn(2, 5, 3, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = model.channels_last(v)
    assert out.dtype == torch.bfloat16
    out.sum().backward()
    torch.testing.assert_close(out.float(), plain_perceptron(model, torch.nn.functional.gelu, v), rtol=0.05, atol=0.02)
