"""Plain form of DeepONet."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from benchmarks.references.shared import holding, interpolated, is_periodic, node_positions, require
from neuralop_bench.models.deeponet import DeepONet


class PlainDeepONet(nn.Module):
    """u_c(y) = sum_k b_ck(a) t_ck(y) + d_c, with a dense branch on samples at sensors; one or two axes.

    The trunk ends with an activation. Its input for a periodic axis is cos 2 pi j x and sin 2 pi j x.

    Lu et al. (2021), arXiv 1910.03193, equation 2; Lu et al. (2022), arXiv 2111.05512, for the waves.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        periodic: bool,
        sensors: tuple[int, ...] = (32, 32),
        n_basis: int = 128,
        width: int = 128,
        n_branch_layers: int = 4,
        n_trunk_layers: int = 4,
        harmonics: int = 2,
    ) -> None:
        super().__init__()
        self.periodic, self.sensors, self.harmonics = periodic, sensors, harmonics
        n_functions = out_channels * n_basis
        n_sampled, n_features = in_channels * math.prod(sensors), len(sensors) * (2 * harmonics if periodic else 1)
        self.branch = self._dense([n_sampled, *[width] * (n_branch_layers - 1), n_functions])[:-1]
        self.trunk = self._dense([n_features, *[width] * (n_trunk_layers - 1), n_functions])
        self.bias = nn.Parameter(torch.zeros(out_channels))

    @classmethod
    def with_weights_of(cls, ours: DeepONet) -> PlainDeepONet:
        branch = [module for module in ours.branch.modules() if isinstance(module, nn.Linear)]
        trunk = [module for module in ours.trunk if isinstance(module, nn.Linear)]
        require(isinstance(ours.branch.net[0], nn.Flatten), "a dense branch")
        require(isinstance(ours.trunk[1], nn.GELU) and not ours.needs_pairs, "GELU and no hard boundary")
        require(ours._harmonics > 0, "harmonics")
        plain = cls(
            in_channels=branch[0].in_features // math.prod(ours.branch.sensors),
            out_channels=len(ours.bias),
            periodic=is_periodic(ours._nodes),
            sensors=ours.branch.sensors,
            n_basis=trunk[-1].out_features // len(ours.bias),
            width=trunk[0].out_features,
            n_branch_layers=len(branch),
            n_trunk_layers=len(trunk),
            harmonics=ours._harmonics,
        )
        return holding(plain, ours)

    def _dense(self, widths: Sequence[int]) -> nn.Sequential:
        layers = [layer for n_in, n_out in itertools.pairwise(widths) for layer in (nn.Linear(n_in, n_out), nn.GELU())]
        return nn.Sequential(*layers)

    def forward(self, x: Float[Tensor, "batch in_channels *space"]) -> Float[Tensor, "batch out_channels *space"]:
        space, n_channels = x.shape[2:], len(self.bias)
        samples = x if space == self.sensors else interpolated(x, self.sensors, self.periodic)
        coefficients = self.branch(samples.flatten(1)).unflatten(1, (n_channels, -1))
        features = node_positions(space, self.periodic, x).flatten(1).T
        if self.periodic:
            j = torch.arange(1, self.harmonics + 1, dtype=x.dtype, device=x.device)
            phase = 2 * math.pi * features[..., None] * j
            features = torch.cat([torch.cos(phase), torch.sin(phase)], dim=-1).flatten(1)
        functions = self.trunk(features).unflatten(1, (n_channels, -1))
        u = torch.einsum("bck,nck->bcn", coefficients, functions) + self.bias[:, None]
        return u.unflatten(2, space)
