"""Multigrid neural operator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from jaxtyping import Float
from torch import Tensor, nn

from data_gen.grids import Grid
from neuralop_bench.layers.conv import Conv, Edge, edges_of, extend
from neuralop_bench.layers.coordinates import append_coordinates
from neuralop_bench.layers.mlp import Pointwise
from neuralop_bench.layers.padding import crop

_ACTIVATIONS = {"gelu": nn.functional.gelu, "relu": nn.functional.relu}
_CONV_TRANSPOSE = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_NORMALIZATIONS = ("none", "layer", "group")


class MgNO(nn.Module):
    """Multigrid neural operator: layers whose linear map between all points is one V-cycle with learned convolutions.

        v_0 = a,    v_{l+1} = act(V_l v_l + B_l v_l + b_l),    u = Q v_L

    V_l is a V-cycle (``VCycle``), B_l acts pointwise, Q is linear and acts pointwise, without a bias. There is no
    lifting: the first V-cycle maps the input's channels to ``width``. Every layer has its activation, the last too.

    Every kernel weighs neighbouring points, whatever their distance. The network therefore runs on other grids, but it
    is another operator there, and isn't resolution-free. It needs no sizes that halve evenly: every level is prolonged
    to the number of points of the level above.

    Periodic axes are circles on every level, in the prolongation too. Without coordinates the network then commutes
    with shifts by 2^(n_levels - 1) points, if the axis has a multiple of that. With another number of points the last
    interval of the coarser circles is shorter than the others, which the kernels don't know. The other axes are
    continued by zeros or by reflection; zeros let the network know where the boundary is.

    The published networks are, with ``n_smoothing`` [1, 1, 1, 1, 1, 2] unless said otherwise:

    - Darcy, rough and multiscale, 256 x 256: 4 layers of width 24;
    - Darcy, smooth, 211 x 211: 5 layers of width 24, ``prolongation_kernel`` [3, 4, 3, 3, 4];
    - Navier-Stokes, 64 x 64: 5 layers of width 32, ``n_smoothing`` [1, 1, 1, 2, 2], ``bias``, ``normalization`` layer,
      no ``pointwise`` map, and ``surrogate.residual``. Its prolongation isn't circular.

    Args:
        in_channels, out_channels: channels of the input and output fields.
        grid: the training grid, for its axes and the bound on the number of levels.
        width: channels of every layer, on every level.
        n_layers: layers, each with its own V-cycle.
        n_smoothing: smoothing steps on every level, finest first: as many levels as there are numbers.
        prolongation_kernel: points along each axis of the prolongation's kernel, 3 or 4: one number, or one for each
            level but the coarsest, finest first.
        edges: ``zeros`` or ``reflect``: what lies beyond the ends of axes that aren't periodic.
        restrict_residual: restrict the residual instead of the right-hand side (``VCycle``); no published run does.
        pointwise: add B_l v_l + b_l.
        bias: add biases to the smoothing steps, so that the V-cycle is affine.
        normalization: of every sum of a level and its prolonged correction: ``none``; ``layer``, layer normalisation
            over channels and points with a scale and a shift for each, which binds the network to the training grid;
            ``group``, the same with a scale and a shift per channel. With either the V-cycle isn't linear.
        activation: ``gelu`` or ``relu``.
        coordinates: append the positions of the grid's nodes to the input.

    Shapes: [batch, in_channels, *space] to [batch, out_channels, *space].

    Raises:
        ValueError: a size below 1, an unknown option, a number of kernels other than that of the prolongations, or
            more levels than the grid has room for (the coarsest has at least two points per axis). In ``forward``, a
            grid too small for the levels, or with ``layer`` normalisation any other than the training grid.

    Reference: He, Liu, Xu (2024), MgNO: Efficient Parameterization of Linear Operators via Multigrid, arXiv
    2310.19809. Restriction, biases and normalisation as in the code published with it.

    >>> grid = Grid((256, 256), (1.0, 1.0), ("dirichlet", "dirichlet"), ("closed", "closed"))
    >>> model = MgNO(in_channels=1, out_channels=1, grid=grid, width=24, n_layers=4, n_smoothing=[1, 1, 1, 1, 1, 2])
    >>> sum(p.numel() for p in model.parameters())
    572661
    """

    resolution_free: ClassVar[bool] = False

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        grid: Grid,
        width: int = 24,
        n_layers: int = 4,
        n_smoothing: Sequence[int] = (1, 1, 1, 1, 2),
        prolongation_kernel: int | Sequence[int] = 4,
        edges: Literal["zeros", "reflect"] = "zeros",
        restrict_residual: bool = False,
        pointwise: bool = True,
        bias: bool = False,
        normalization: Literal["none", "layer", "group"] = "none",
        activation: Literal["gelu", "relu"] = "gelu",
        coordinates: bool = False,
    ) -> None:
        super().__init__()
        if isinstance(n_smoothing, int) or not n_smoothing:
            raise ValueError(
                f"MgNO needs n_smoothing as a list with one number for each level, finest first, got {n_smoothing!r}. "
                "Set e.g. model.n_smoothing=[1,1,1,1,2]."
            )
        n_levels = len(n_smoothing)
        kernels = (
            (prolongation_kernel,) * (n_levels - 1)
            if isinstance(prolongation_kernel, int)
            else tuple(prolongation_kernel)
        )
        for name, value in (("width", width), ("n_layers", n_layers), ("n_smoothing", min(n_smoothing))):
            if value < 1:
                raise ValueError(f"MgNO needs {name} of at least 1, got {value}. Raise model.{name}.")
        for name, value, known in (
            ("activation", activation, tuple(_ACTIVATIONS)),
            ("normalization", normalization, _NORMALIZATIONS),
        ):
            if value not in known:
                raise ValueError(f"MgNO knows model.{name} in {known}, got {value!r}.")
        if len(kernels) != n_levels - 1 or not set(kernels) <= {3, 4}:
            raise ValueError(
                f"MgNO with {n_levels} levels needs {n_levels - 1} prolongation kernels of 3 or 4 points, got "
                f"{prolongation_kernel}. Set model.prolongation_kernel to one number or a list of {n_levels - 1}."
            )
        _require_room(grid.shape, n_levels)
        self._n_levels = n_levels
        self._nodes = grid.nodes
        self._activation = _ACTIVATIONS[activation]
        self._coordinates = coordinates
        # Layer normalisation has a scale and a shift for every point: the only weights that are tied to the grid.
        self._shape = grid.shape if normalization == "layer" else None
        beyond = edges_of(grid, edges)
        first = in_channels + (grid.n_dims if coordinates else 0)
        channels = [first] + [width] * (n_layers - 1)
        self.cycles = nn.ModuleList(
            VCycle(
                n,
                width,
                edges=beyond,
                n_smoothing=n_smoothing,
                prolongation_kernels=kernels,
                restrict_residual=restrict_residual,
                bias=bias,
                norms=[_norm(normalization, width, space) for space in _halved(grid.shape, n_levels)[:-1]],
            )
            for n in channels
        )
        self.pointwise = nn.ModuleList(Pointwise(n, width) for n in channels) if pointwise else None
        self.projection = Conv(width, out_channels, edges=beyond, kernel=1, bias=False)

    def forward(self, x: Float[Tensor, "batch in_channels *space"]) -> Float[Tensor, "batch out_channels *space"]:
        space = tuple(x.shape[2:])
        _require_room(space, self._n_levels)
        if self._shape not in (None, space):
            raise ValueError(
                f"MgNO with layer normalisation is bound to the grid it was built for, {self._shape}, got fields on "
                f"{space}. Use model.normalization=group or none."
            )
        v = append_coordinates(x, self._nodes) if self._coordinates else x
        for layer, cycle in enumerate(self.cycles):
            linear = cycle(v)
            if self.pointwise is not None:
                linear = linear + self.pointwise[layer](v)
            v = self._activation(linear)
        return self.projection(v)


class VCycle(nn.Module):
    """One V-cycle for A u = f with learned convolutions: a linear map of f to an approximate u.

    It starts from u_0 = 0 and goes down through the levels j = 0 ... J-1. On each, it improves u_j in ``n_smoothing``
    steps, then restricts the right-hand side and the solution:

        u_j <- u_j + S_j (f_j - A_j u_j),    f_{j+1} = R_j f_j,    u_{j+1} = Pi_j u_j

    Then it goes up and corrects every level from the one below, j = J-2 ... 0:

        u_j <- u_j + P_j u_{j+1}

    S, A, R, Pi are convolutions of 3 points per axis, R and Pi with stride 2; P is a transposed convolution with stride
    2 (``Prolongation``). Every step has its own S and A; the very first has no A, as u_0 = 0. There is no smoothing on
    the way up. The points of level j+1 are every second point of level j, beginning with the first.

    With ``restrict_residual`` the residual goes down, f_{j+1} = R_j (f_j - A u_j) with one more A, as in a multigrid
    method for linear equations. There u_{j+1} would start from zero; here, as in the published code, from Pi_j u_j.

    Args:
        in_channels: channels of f.
        width: channels of u.
        edges: how each axis is continued on every level (``edges_of``).
        n_smoothing: steps on every level, finest first.
        prolongation_kernels: points per axis of every P_j, 3 or 4, finest first.
        restrict_residual: restrict f - A u rather than f.
        bias: a bias in every S and A.
        norms: what is applied to every corrected level, finest first; none by default.

    Shapes: [batch, in_channels, *space] to [batch, width, *space].

    Reference: He, Liu, Xu (2024), section 3; Xu (1992), Iterative Methods by Space Decomposition and Subspace
    Correction, for the V-cycle.

    >>> import torch
    >>> cycle = VCycle(1, 8, edges=("circular", "zeros"), n_smoothing=[1, 2], prolongation_kernels=[4])
    >>> cycle(torch.ones(2, 1, 16, 17)).shape
    torch.Size([2, 8, 16, 17])
    """

    def __init__(
        self,
        in_channels: int,
        width: int,
        *,
        edges: Sequence[Edge],
        n_smoothing: Sequence[int],
        prolongation_kernels: Sequence[int],
        restrict_residual: bool = False,
        bias: bool = False,
        norms: Sequence[nn.Module] | None = None,
    ) -> None:
        super().__init__()
        downwards = range(len(n_smoothing) - 1)
        self.smoothers = nn.ModuleList(
            Smoother(in_channels, width, edges=edges, n_steps=n, from_zero=level == 0, bias=bias)
            for level, n in enumerate(n_smoothing)
        )
        self.residuals = (
            nn.ModuleList(Conv(width, in_channels, edges=edges, bias=False) for _ in downwards)
            if restrict_residual
            else None
        )
        self.restrictions = nn.ModuleList(
            Conv(in_channels, in_channels, edges=edges, stride=2, bias=False) for _ in downwards
        )
        self.projections = nn.ModuleList(Conv(width, width, edges=edges, stride=2, bias=False) for _ in downwards)
        self.prolongations = nn.ModuleList(
            Prolongation(width, edges=edges, kernel=kernel) for kernel in prolongation_kernels
        )
        self.norms = nn.ModuleList(norms or [nn.Identity() for _ in downwards])

    def forward(self, f: Float[Tensor, "batch in_channels *space"]) -> Float[Tensor, "batch width *space"]:
        u = self.smoothers[0](f)
        finer = []
        for level, (restriction, projection) in enumerate(zip(self.restrictions, self.projections, strict=True)):
            finer.append(u)
            if self.residuals is not None:
                f = f - self.residuals[level](u)
            f, u = restriction(f), projection(u)
            u = self.smoothers[level + 1](f, u)
        for prolongation, norm in zip(reversed(self.prolongations), reversed(self.norms), strict=True):
            above = finer.pop()
            u = norm(above + prolongation(u, above.shape[2:]))
        return u


class Smoother(nn.Module):
    """Steps u <- u + S (f - A u), each with its own S and A; with ``from_zero`` the first is u <- S f.

    Args:
        in_channels: channels of f.
        width: channels of u.
        edges: how each axis is continued.
        n_steps: number of steps.
        from_zero: start from u = 0; ``forward`` is then given f alone.
        bias: a bias in every S and A.

    Shapes: [batch, in_channels, *space], [batch, width, *space] to [batch, width, *space].
    """

    def __init__(
        self, in_channels: int, width: int, *, edges: Sequence[Edge], n_steps: int, from_zero: bool, bias: bool
    ) -> None:
        super().__init__()
        self.S = nn.ModuleList(Conv(in_channels, width, edges=edges, bias=bias) for _ in range(n_steps))
        self.A = nn.ModuleList(Conv(width, in_channels, edges=edges, bias=bias) for _ in range(n_steps - from_zero))

    def forward(self, f: Tensor, u: Tensor | None = None) -> Float[Tensor, "batch width *space"]:
        steps = iter(self.S)
        improved: Tensor = next(steps)(f) if u is None else u
        for S, A in zip(steps, self.A, strict=True):
            improved = improved + S(f - A(improved))
        return improved


class Prolongation(nn.Module):
    """Transposed convolution from every second point to all points, x_j of the coarse grid lying on point 2j.

        y_i = sum_j w_{i + 1 - 2j} x_j

    The coarse axis is continued at both ends as by ``Conv``, so on a circle the map commutes with shifts by one coarse
    point; torch's transposed convolutions know zeros alone. A kernel of 3 points reaches the neighbours of point 2j, as
    linear interpolation does, one of 4 also point 2j + 2.

    Args:
        width: channels of input and output.
        edges: how each axis is continued.
        kernel: 3 or 4 points along each axis.

    Shapes: [batch, width, *ceil(space / 2)] to [batch, width, *space], with ``space`` given to ``forward``: an odd
    number of points and the even one above have equally many coarse points.
    """

    def __init__(self, width: int, *, edges: Sequence[Edge], kernel: int) -> None:
        super().__init__()
        self.edges = tuple(edges)
        # torch drops ``padding`` points at both ends: two that stand for the coarse point added in ``forward``, and one
        # because w_1 is the weight of point 2j. What is left are 2 n points, with either kernel.
        self.conv = _CONV_TRANSPOSE[len(self.edges)](
            width, width, kernel, stride=2, padding=3, output_padding=4 - kernel, bias=False
        )

    def forward(
        self, x: Float[Tensor, "batch width *coarse"], space: Sequence[int]
    ) -> Float[Tensor, "batch width *space"]:
        return crop(self.conv(extend(x, self.edges, (1,) * len(self.edges))), space)


def _halved(shape: Sequence[int], n_levels: int) -> list[tuple[int, ...]]:
    """Points per axis on every level: each next one has every second point, beginning with the first."""
    return [tuple(-(-n // 2**level) for n in shape) for level in range(n_levels)]


def _require_room(shape: Sequence[int], n_levels: int) -> None:
    """Raise ValueError unless the coarsest level has at least two points per axis, which a reflection needs."""
    if min(shape) <= 2 ** (n_levels - 1):
        at_most = (min(shape) - 1).bit_length()
        raise ValueError(
            f"MgNO with {n_levels} levels halves every axis {n_levels - 1} times and needs "
            f"{2 ** (n_levels - 1) + 1} points on each, but the grid has shape {tuple(shape)}. Shorten "
            f"model.n_smoothing to at most {at_most} numbers, one for each level, or raise the resolution."
        )


def _norm(normalization: str, width: int, space: Sequence[int]) -> nn.Module:
    if normalization == "layer":
        return nn.LayerNorm([width, *space])
    return nn.GroupNorm(1, width) if normalization == "group" else nn.Identity()
