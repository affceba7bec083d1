"""Networks in stages, each for what those before it leave over."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Boosted(nn.Module):
    """A sum of networks that are trained one after another, each on the residual of the sum before it.

        u_1 = N_1(x),    u_k = u_{k-1} + s_k N_k(x, u_{k-1})

    s_k is the root mean square of the residual over the training pairs, so that each network has a target of size 1.

    Reference: Qin et al. (2024), Toward a better understanding of Fourier neural operators from a spectral perspective,
    arXiv 2404.07200 (SpecB-FNO), where all networks are FNOs.

    Args:
        stages: the networks. All but the first also take the sum so far, as further input channels.

    Attributes:
        n_active: how many of them are used.
        resolution_free: whether all of them are.
    """

    scale: Tensor

    def __init__(self, stages: Sequence[nn.Module]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        # A stage that hasn't been trained yet adds nothing.
        self.register_buffer("scale", torch.tensor([1.0] + [0.0] * (len(stages) - 1)))
        self.n_active = len(stages)
        self.resolution_free = all(getattr(stage, "resolution_free", False) for stage in stages)

    def forward(self, x: Float[Tensor, "batch in_channels *space"]) -> Float[Tensor, "batch out_channels *space"]:
        total = self.stages[0](x)
        for scale, stage in zip(self.scale[1 : self.n_active], self.stages[1 : self.n_active], strict=True):
            total = total + scale * stage(torch.cat([x, total], dim=1))
        return total

    def train_stage(self, number: int, residual: float = 1.0) -> None:
        """Leave only the network of this number to train, for a residual of this root mean square."""
        self.n_active = number + 1
        self.scale[number] = residual
        for other, stage in enumerate(self.stages):
            stage.requires_grad_(other == number)

    def end_training(self) -> None:
        """Use all networks again."""
        self.n_active = len(self.stages)
        self.requires_grad_(True)
