"""What all plain forms share: their weights, and interpolation."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TypeVar

import torch
from jaxtyping import Complex, Float
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

from data_gen.grids import Nodes

CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
# Parameters with different names in our models and here.
_RENAMED = (
    (r"\.conv\.", "."),
    (r"^backbone\.", ""),
    (r"^branch\.net\.1\.", "branch."),
    (r"\.smoothers\.(\d+)\.([SA])\.", r".\2.\1."),
)

_Plain = TypeVar("_Plain", bound=nn.Module)


def translated(numbers: Mapping[str, Tensor], plain: nn.Module) -> dict[str, Tensor]:
    """Parameters of one of our models, or their gradients, with the names and shapes of ``plain``."""
    shapes = {name: parameter.shape for name, parameter in plain.named_parameters()}
    result = {}
    for name, tensor in numbers.items():
        for pattern, replacement in _RENAMED:
            name = re.sub(pattern, replacement, name)
        if f"{name}s.0" in shapes:
            result |= {f"{name}s.{corner}": weight for corner, weight in enumerate(_corners(tensor))}
        else:
            result[name] = tensor.reshape(shapes.get(name, tensor.shape))
    return result


def _corners(weight: Float[Tensor, "part *modes i o"]) -> Sequence[Complex[Tensor, "i o *corner"]]:
    corners = [torch.complex(*weight).movedim((-2, -1), (0, 1))]
    for axis in range(2, corners[0].ndim - 1):
        corners = [half for corner in corners for half in corner.chunk(2, dim=axis)]
    return corners


def holding(plain: _Plain, ours: nn.Module) -> _Plain:
    """``plain`` with copies of the parameters of ``ours``, in their precision and on their device."""
    numbers = translated({name: parameter.detach() for name, parameter in ours.named_parameters()}, plain)
    copies = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in numbers.items()}
    plain.load_state_dict(copies, assign=True)
    return plain


def require(condition: bool, what: str) -> None:
    if not condition:
        raise ValueError(f"The plain form only supports {what}.")


def is_periodic(nodes: Sequence[Nodes]) -> bool:
    require(set(nodes) in ({"periodic"}, {"closed"}), "grids whose axes are all periodic or all closed")
    require(len(nodes) <= 2, "one or two axes")
    return nodes[0] == "periodic"


def node_positions(space: Sequence[int], periodic: bool, like: Tensor) -> Float[Tensor, "axis ..."]:
    """Coordinates of the points in [0, 1]; a periodic axis has no point at 1."""
    axes = [torch.linspace(0, 1, n + periodic, dtype=like.dtype, device=like.device)[:n] for n in space]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))


def with_positions(x: Float[Tensor, "batch channel *space"], periodic: bool) -> Tensor:
    positions = node_positions(x.shape[2:], periodic, x)
    return torch.cat([x, positions.expand(x.shape[0], *positions.shape)], dim=1)


def interpolated(x: Float[Tensor, "batch channel *space"], shape: Sequence[int], periodic: bool) -> Tensor:
    """Linear interpolation to ``shape`` points of the same domain.

    On a periodic axis the first point is repeated at the end, and dropped again afterwards.
    """
    if periodic:
        x = pad(x, (0, 1) * len(shape), mode="circular")
    mode = "bilinear" if len(shape) == 2 else "linear"
    x = interpolate(x, [n + periodic for n in shape], mode=mode, align_corners=True)
    return x[(..., *(slice(n) for n in shape))]
