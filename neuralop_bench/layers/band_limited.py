"""Resampling by Fourier and cosine series, and activations between two such resamplings, as alias-free networks use.

A field on n points of an axis stands for the series through its values. On a periodic axis this is the Fourier series,
on a closed axis or one of cell centres the cosine series: the field is continued beyond its ends by reflection. Both
leave out the wave that alternates from point to point, whose phase the points don't determine. So the series of a
periodic axis can be shifted by any distance, and shifts commute with resampling.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor

from data_gen.grids import Nodes
from neuralop_bench.layers.kept import kept
from neuralop_bench.layers.precision import unrounded, widened

# Up to this many points an axis is resampled by a product with a matrix, beyond it by fast transforms.
_MOST_POINTS = 512
# Values on the fine grid that are in memory together: few enough for a core's cache.
_VALUES = {"cpu": 2**18}
_VALUES_OF_A_DEVICE = 2**26


def resample_series(
    x: Float[Tensor, "*batch_and_space"], nodes: Sequence[Nodes], shape: Sequence[int]
) -> Float[Tensor, "*batch_and_shape"]:
    """The values of the field's series at the nodes of another grid, without the waves that this grid can't hold.

    Args:
        x: fields; the last ``len(nodes)`` axes are space.
        nodes: where the points lie on each axis (``data_gen.grids.Grid.nodes``), in input and output.
        shape: points of the output per axis.

    >>> wave = torch.cos(2 * math.pi * torch.arange(8) / 8)
    >>> bool(torch.allclose(resample_series(wave, ["periodic"], [4]), wave[::2], atol=1e-6))
    True
    """
    first = x.ndim - len(nodes)
    # Shrinking axes first leaves less work for the others, and so does growing the last axis before the first.
    for axis in sorted(range(len(nodes)), key=lambda axis: (shape[axis] / x.shape[first + axis], -axis)):
        x = _along(x, first + axis, nodes[axis], shape[axis])
    return x


def filtered_activation(
    x: Float[Tensor, "batch channel *space"],
    activation: Callable[[Tensor], Tensor],
    nodes: Sequence[Nodes],
    fine: Sequence[int],
    shape: Sequence[int],
) -> Float[Tensor, "batch channel *shape"]:
    """Resample to ``fine`` points, apply the activation to every value there, and resample to ``shape`` points.

    The fine fields are computed part by part, and again for the gradient, so they are never in memory together.

    Args:
        x: fields.
        activation: acts on each value by itself, and has no parameters.
        nodes: where the points lie on each axis.
        fine, shape: points per axis where the activation acts, and of the output.
    """

    with unrounded(x):
        rows = widened(x).flatten(0, 1)
        sizes = tuple(nodes), tuple(fine), tuple(shape)
        if torch.compiler.is_compiling() or rows.is_meta:
            return _filtered(rows, activation, *sizes).unflatten(0, x.shape[:2])
        return cast(Tensor, _Filtered.apply(rows, activation, *sizes)).unflatten(0, x.shape[:2])


def _filtered(
    x: Tensor, activation: Callable[[Tensor], Tensor], nodes: Sequence[Nodes], fine: Sequence[int], shape: Sequence[int]
) -> Tensor:
    return resample_series(activation(resample_series(x, nodes, fine)), nodes, shape)


class _Filtered(torch.autograd.Function):
    """``_filtered`` for a few rows at a time, and again for the gradient."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any,
        x: Tensor,
        activation: Callable[[Tensor], Tensor],
        nodes: tuple[Nodes, ...],
        fine: tuple[int, ...],
        shape: tuple[int, ...],
    ) -> Tensor:
        ctx.save_for_backward(x)
        ctx.options = activation, nodes, fine, shape
        return torch.cat([_filtered(part, *ctx.options) for part in _parts(x, fine)])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (x,) = ctx.saved_tensors
        activation, nodes, fine, _ = ctx.options
        if torch.is_grad_enabled():  # the gradient will be differentiated again
            by_x = torch.autograd.grad(_filtered(x, *ctx.options), x, grad, create_graph=True)[0]
            return by_x, None, None, None, None
        by_x = []
        for part, g in zip(_parts(x, fine), _parts(grad, fine), strict=True):
            with torch.enable_grad():
                before = resample_series(part.detach(), nodes, fine).requires_grad_()
                after = activation(before)
            (by_fine,) = torch.autograd.grad(after, before, _transposed(g, nodes, fine))
            by_x.append(_transposed(by_fine, nodes, x.shape[1:]))
        return torch.cat(by_x), None, None, None, None


def _parts(x: Tensor, fine: Sequence[int]) -> tuple[Tensor, ...]:
    return x.split(max(1, _VALUES.get(x.device.type, _VALUES_OF_A_DEVICE) // math.prod(fine)))


def _transposed(grad: Tensor, nodes: Sequence[Nodes], shape: Sequence[int]) -> Tensor:
    """The transpose of resampling from ``shape`` to the points of ``grad``. It is resampling in the other direction, up
    to the weights of the points as quadrature nodes: a point at the end of a closed axis has half the weight."""
    first = grad.ndim - len(nodes)
    given = grad.shape[first:]
    grad = _with_ends_times(2.0, grad, nodes)
    ends = [1 if kind == "closed" else 0 for kind in nodes]
    scale = math.prod((n - end) / (m - end) for n, m, end in zip(given, shape, ends, strict=True))
    return _with_ends_times(0.5, resample_series(grad, nodes, shape), nodes) * scale


def _with_ends_times(factor: float, x: Tensor, nodes: Sequence[Nodes]) -> Tensor:
    for axis, kind in enumerate(nodes, start=x.ndim - len(nodes)):
        if kind == "closed":
            weights = x.new_ones(x.shape[axis])
            weights[0] = weights[-1] = factor
            x = x * weights.view(-1, *(1,) * (x.ndim - axis - 1))
    return x


def _along(x: Tensor, axis: int, nodes: Nodes, n: int) -> Tensor:
    n_given = x.shape[axis]
    if max(n_given, n) > _MOST_POINTS:
        return _by_transform(x.movedim(axis, -1), nodes, n).movedim(-1, axis)
    matrix = _matrix(n_given, nodes, n, x.dtype, x.device)
    before, behind = x.shape[:axis], x.shape[axis + 1 :]
    if not behind:
        return x @ matrix.T
    columns = x.reshape(math.prod(before), n_given, math.prod(behind))
    return torch.bmm(matrix.expand(len(columns), -1, -1), columns).view(*before, n, *behind)


@kept
def _matrix(n_given: int, nodes: Nodes, n: int, dtype: torch.dtype, device: torch.device) -> Float[Tensor, "n n_given"]:
    with torch.no_grad():
        unit = torch.eye(n_given, dtype=torch.float64, device="cpu")
        return _by_transform(unit, nodes, n).T.contiguous().to(device, dtype)


def _by_transform(x: Tensor, nodes: Nodes, n: int) -> Tensor:
    """Resample the last axis."""
    n_given = x.shape[-1]
    if nodes == "periodic":
        return _periodic(x, n)
    if nodes == "closed":  # the reflection repeats neither end
        return _periodic(torch.cat([x, x[..., 1:-1].flip(-1)], dim=-1), 2 * (n - 1))[..., :n]
    # The first point lies half a spacing from the wall: further from it on the coarser of the two grids.
    return _periodic(torch.cat([x, x.flip(-1)], dim=-1), 2 * n, (1 / n - 1 / n_given) / 4)[..., :n]


def _periodic(x: Tensor, n: int, shift: float = 0.0) -> Tensor:
    """The Fourier series at n points, the first of which lies ``shift`` periods behind the first given one."""
    n_waves = (min(x.shape[-1], n) + 1) // 2
    coefficients = torch.fft.rfft(x, norm="forward")[..., :n_waves]
    if shift:
        angle = 2 * math.pi * shift * torch.arange(n_waves, dtype=x.dtype, device=x.device)
        coefficients = coefficients * torch.polar(torch.ones_like(angle), angle)
    return torch.fft.irfft(coefficients, n=n, norm="forward")
