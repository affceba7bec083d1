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
from neuralop_bench.layers.options import DoesNotFit, choose, one_for_each, require_at_least, require_known
from neuralop_bench.layers.padding import crop
from neuralop_bench.layers.tables import ACTIVATIONS, CONV_TRANSPOSE, NORMS, Activation


class MgNO(nn.Module):
    """Multigrid neural operator: the linear map of every layer is a V-cycle with learned convolutions.

        v_0 = a,    v_{l+1} = act(V_l v_l + B_l v_l + b_l),    u = Q v_L

    V_l is a V-cycle (``VCycle``), B_l acts pointwise, Q is linear and acts pointwise, without a bias. There is no
    lifting: the first V-cycle maps the input's channels to ``width``. Every layer has an activation, including the
    last.

    The kernels weight neighbouring points, regardless of their distance. The network therefore runs on other grids, but
    it is a different operator there, and isn't resolution-free. Sizes needn't be divisible by 2: every level is
    prolonged to the number of points of the level above.

    Convolutions and prolongation wrap around periodic axes on every level. Without coordinates, the network then
    commutes with shifts by 2^(n_levels - 1) points, if the axis has a multiple of that number of points. Otherwise the
    last interval of the coarser levels is shorter than the others, which the kernels ignore. The other axes are
    continued by zeros or by reflection; zeros let the network know where the boundary is.

    The published networks are, with ``n_smoothing`` [1, 1, 1, 1, 1, 2] unless said otherwise:

    - Darcy, rough and multiscale, 256 x 256: 4 layers of width 24;
    - Darcy, smooth, 211 x 211: 5 layers of width 24, ``prolongation_kernel`` [3, 4, 3, 3, 4];
    - Navier-Stokes, 64 x 64: 5 layers of width 32, ``n_smoothing`` [1, 1, 1, 2, 2], ``bias``, ``normalization`` layer,
      no ``pointwise`` map, and ``surrogate.residual``. Its prolongation isn't circular.

    Args:
        in_channels, out_channels: channels of the input and output fields.
        grid: the training grid: its axes are used, and its size bounds the number of levels.
        width: channels of every layer, on every level.
        n_layers: layers, each with its own V-cycle.
        n_smoothing: smoothing steps on every level, finest first. There are as many levels as numbers.
        prolongation_kernel: points along each axis of the prolongation's kernel, 3 or 4: one number, or one for each
            level but the coarsest, finest first.
        edges: ``zeros`` or ``reflect``: how axes that aren't periodic are continued.
        pointwise: add B_l v_l + b_l.
        bias: add biases to the smoothing steps, so that the V-cycle is affine.
        normalization: applied to every level after its correction: ``none``; ``layer``, layer normalisation over
            channels and points, with a scale and a shift for every channel of every point, which binds the network to
            the training grid; ``group``, the same with a scale and a shift per channel. With ``layer`` or ``group`` the
            V-cycle isn't linear.
        activation: ``gelu``, ``relu`` or ``tanh``.
        coordinates: append the positions of the grid's nodes to the input.

    Attributes:
        idle: options that can't act, and why.

    Shapes: [batch, in_channels, *space] to [batch, out_channels, *space].

    Raises:
        DoesNotFit: more levels than the grid has room for (the coarsest needs two points per axis).
        ValueError: a size below 1, an unknown option, or not one kernel for each prolongation. In ``forward``, a grid
            too small for the levels, or with ``layer`` normalisation any grid other than the training grid.

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
        pointwise: bool = True,
        bias: bool = False,
        normalization: Literal["none", "layer", "group"] = "none",
        activation: Activation = "gelu",
        coordinates: bool = False,
    ) -> None:
        super().__init__()
        if isinstance(n_smoothing, int) or not n_smoothing:
            raise ValueError(
                "MgNO needs model.n_smoothing to be a list with one number for each level, finest first, got "
                f"{n_smoothing!r}. Set e.g. model.n_smoothing=[1,1,1,1,2]."
            )
        n_levels = len(n_smoothing)
        kernels = _kernels(prolongation_kernel, n_levels)
        require_at_least(1, "MgNO", width=width, n_layers=n_layers, n_smoothing=min(n_smoothing))
        require_known("MgNO", "normalization", normalization, ("none", "layer", "group"))
        _require_room(grid.shape, n_smoothing)
        self._n_smoothing = tuple(n_smoothing)
        self.idle = {
            **({"edges": "all axes are periodic"} if set(grid.nodes) == {"periodic"} else {}),
            **({"prolongation_kernel": "there is a single level"} if n_levels == 1 else {}),
        }
        self._nodes = grid.nodes
        self._activation = choose("MgNO", "activation", activation, ACTIVATIONS).function
        self._coordinates = coordinates
        # Layer normalisation has weights for every point; all other weights are independent of the grid.
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
                bias=bias,
                norms=[_norm(normalization, width, space) for space in _halved(grid.shape, n_levels)[:-1]],
            )
            for n in channels
        )
        self.pointwise = nn.ModuleList(Pointwise(n, width) for n in channels) if pointwise else None
        self.projection = Conv(width, out_channels, edges=beyond, kernel=1, bias=False)

    def forward(self, x: Float[Tensor, "batch in_channels *space"]) -> Float[Tensor, "batch out_channels *space"]:
        space = tuple(x.shape[2:])
        _require_room(space, self._n_smoothing)
        if self._shape not in (None, space):
            raise ValueError(
                f"MgNO with layer normalisation is bound to the grid it was built for, {self._shape}, got fields on "
                f"{space}. Use model.normalization=group or model.normalization=none."
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

    It starts from u_0 = 0 and goes down through the levels j = 0 ... J-1. On each level it improves u_j in
    ``n_smoothing`` steps, then restricts the right-hand side and the solution:

        u_j <- u_j + S_j (f_j - A_j u_j),    f_{j+1} = R_j f_j,    u_{j+1} = Pi_j u_j

    Then it goes up and corrects every level from the one below, j = J-2 ... 0:

        u_j <- u_j + P_j u_{j+1}

    S, A, R and Pi are convolutions over 3 points per axis, R and Pi with stride 2; P is a transposed convolution with
    stride 2 (``Prolongation``). Every step has its own S and A, except that the very first has no A, since u_0 = 0.
    There is no smoothing on the way up. Level j+1 has every second point of level j, beginning with the first.

    A multigrid method for linear equations restricts the residual instead, f_{j+1} = R_j (f_j - A u_j), and starts from
    u_{j+1} = 0. The published code restricts f_j, as here.

    Args:
        in_channels: channels of f.
        width: channels of u.
        edges: how each axis is continued on every level (``edges_of``).
        n_smoothing: steps on every level, finest first.
        prolongation_kernels: points per axis of every P_j, 3 or 4, finest first.
        bias: a bias in every S and A.
        norms: modules applied to the corrected levels, finest first; none by default.

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
        bias: bool = False,
        norms: Sequence[nn.Module] | None = None,
    ) -> None:
        super().__init__()
        downwards = range(len(n_smoothing) - 1)
        self.smoothers = nn.ModuleList(
            Smoother(in_channels, width, edges=edges, n_steps=n, from_zero=level == 0, bias=bias)
            for level, n in enumerate(n_smoothing)
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
        for restriction, projection, smoother in zip(
            self.restrictions, self.projections, self.smoothers[1:], strict=True
        ):
            finer.append(u)
            f, u = restriction(f), projection(u)
            u = smoother(f, u)
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
    """Transposed convolution from every second point to all points. Point j of the coarse grid is point 2j of the fine.

        y_i = sum_j w_{i + 1 - 2j} x_j

    The coarse axis is continued at both ends as in ``Conv``, so on a periodic axis the map commutes with shifts by one
    coarse point; torch's transposed convolutions only pad with zeros. A kernel of 3 points reaches the neighbours of
    point 2j, as linear interpolation does; a kernel of 4 points also reaches point 2j + 2.

    Args:
        width: channels of input and output.
        edges: how each axis is continued.
        kernel: 3 or 4 points along each axis.

    Shapes: [batch, width, *ceil(space / 2)] to [batch, width, *space]. ``forward`` is given ``space``, since 2m - 1 and
    2m points have the same number m of coarse points.
    """

    def __init__(self, width: int, *, edges: Sequence[Edge], kernel: int) -> None:
        super().__init__()
        self.edges = tuple(edges)
        # torch drops ``padding`` points at both ends: two for the coarse point that ``forward`` adds, and one because
        # w_1 is the weight of point 2j. With either kernel, 2 n points are left.
        self.conv = CONV_TRANSPOSE[len(self.edges)](
            width, width, kernel, stride=2, padding=3, output_padding=4 - kernel, bias=False
        )

    def forward(
        self, x: Float[Tensor, "batch width *coarse"], space: Sequence[int]
    ) -> Float[Tensor, "batch width *space"]:
        return crop(self.conv(extend(x, self.edges, (1,) * len(self.edges))), space)


def _halved(shape: Sequence[int], n_levels: int) -> list[tuple[int, ...]]:
    """Points per axis on every level: each level has every second point of the one above, beginning with the first."""
    return [tuple(-(-n // 2**level) for n in shape) for level in range(n_levels)]


def _kernels(prolongation_kernel: int | Sequence[int], n_levels: int) -> tuple[int, ...]:
    n = n_levels - 1
    kernels = one_for_each(prolongation_kernel, n)
    if len(kernels) != n or not set(kernels) <= {3, 4}:
        raise ValueError(
            f"MgNO with {n_levels} levels needs {n} prolongation kernels of 3 or 4 points, got {prolongation_kernel}. "
            f"Set model.prolongation_kernel to one number or a list of {n}."
        )
    return kernels


def _require_room(shape: Sequence[int], n_smoothing: Sequence[int]) -> None:
    """Raise DoesNotFit unless the coarsest level has at least two points per axis, which a reflection needs."""
    n_levels = len(n_smoothing)
    if min(shape) <= 2 ** (n_levels - 1):
        at_most = (min(shape) - 1).bit_length()
        raise DoesNotFit(
            f"MgNO with {n_levels} levels halves every axis {n_levels - 1} times and needs at least "
            f"{2 ** (n_levels - 1) + 1} points on each, but the grid has shape {tuple(shape)}. Shorten "
            f"model.n_smoothing to at most {at_most} numbers, one for each level, or raise the resolution.",
            # The coarsest level keeps its number of steps.
            n_smoothing=[*n_smoothing[: max(1, at_most) - 1], n_smoothing[-1]],
        )


def _norm(normalization: str, width: int, space: Sequence[int]) -> nn.Module:
    if normalization == "layer":
        return nn.LayerNorm([width, *space])
    return NORMS[normalization](width, len(space))
