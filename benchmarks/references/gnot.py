"""Plain form of GNOT."""

from __future__ import annotations

import itertools

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu, linear

from benchmarks.references.shared import holding, is_periodic, with_positions
from neuralop_bench.models.gnot import GNOT
from neuralop_bench.models.gnot import Block as GNOTBlock


class _PlainPerceptron(nn.ModuleList):
    def __init__(self, *widths: int) -> None:
        super().__init__(nn.Linear(n_in, n_out) for n_in, n_out in itertools.pairwise(widths))

    def forward(self, v: Tensor) -> Tensor:
        return self[1](gelu(self[0](v)))


class PlainNormalizedAttention(nn.Module):
    """z_t = q_t + sum_i <q_t, k_i> v_i / sum_i <q_t, k_i> in every head, with softmax over the features of q and k.

    Hao et al. (2023), arXiv 2302.14376, section 3.2.
    """

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.query, self.key, self.value, self.merge = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Float[Tensor, "batch n width"], y: Float[Tensor, "batch m width"]) -> Tensor:
        query, key, value = (
            linear(v).unflatten(-1, (self.n_heads, -1))
            for linear, v in ((self.query, x), (self.key, y), (self.value, y))
        )
        query, key = query.softmax(dim=-1), key.softmax(dim=-1)
        total = torch.einsum("bthc,bhc->bth", query, key.sum(dim=1))
        out = torch.einsum("bthc,bhcd->bthd", query, torch.einsum("bihc,bihd->bhcd", key, value))
        return self.merge((out / total[..., None] + query).flatten(2))


class PlainMixture(nn.Module):
    """F(v) = sum_e g_e (W_e gelu(U_e v + a_e) + b_e), one expert after the other."""

    def __init__(self, width: int, ffn_width: int, n_experts: int) -> None:
        super().__init__()
        self.first = nn.Linear(width, n_experts * ffn_width)
        self.weight = nn.Parameter(torch.zeros(width, n_experts * ffn_width))
        self.bias = nn.Parameter(torch.zeros(n_experts, width))

    def forward(self, v: Float[Tensor, "batch n width"], gates: Float[Tensor, "n expert"]) -> Tensor:
        n_experts = len(self.bias)
        parts = zip(
            self.first.weight.chunk(n_experts),
            self.first.bias.chunk(n_experts),
            self.weight.chunk(n_experts, dim=1),
            self.bias,
            strict=True,
        )
        outputs = [linear(gelu(linear(v, u, a)), w, b) for u, a, w, b in parts]
        return (torch.stack(outputs, dim=-1) * gates[:, None]).sum(dim=-1)


class _PlainGNOTBlock(nn.Module):
    def __init__(self, width: int, *, n_dims: int, n_heads: int, ffn_width: int, n_experts: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(5))
        self.cross, self.own = (PlainNormalizedAttention(width, n_heads) for _ in range(2))
        self.mixtures = nn.ModuleList(PlainMixture(width, ffn_width, n_experts) for _ in range(2))
        widths = (n_dims, ffn_width, ffn_width, n_experts)
        layers = [layer for n_in, n_out in itertools.pairwise(widths) for layer in (nn.Linear(n_in, n_out), nn.GELU())]
        self.gate = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor, z: Tensor, positions: Tensor) -> Tensor:
        gates = self.gate(positions).softmax(dim=-1)
        x = x + self.cross(self.norms[0](x), self.norms[1](z))
        x = x + self.norms[2](self.mixtures[0](x, gates))
        x = x + self.own(self.norms[3](x), self.norms[3](x))
        return x + self.norms[4](self.mixtures[1](x, gates))


class PlainGNOT(nn.Module):
    """x_0 = X(p),  z = Z(a, p) + c,  x_{l+1} = B_l(x_l, z, p),  u = D(x_L); one or two axes.

    Hao et al. (2023), arXiv 2302.14376.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        n_dims: int,
        periodic: bool,
        width: int = 32,
        n_layers: int = 2,
        n_heads: int = 4,
        ffn_width: int = 64,
        n_experts: int = 3,
    ) -> None:
        super().__init__()
        self.periodic = periodic
        self.positions = _PlainPerceptron(n_dims, 2 * width, width)
        self.fields = _PlainPerceptron(in_channels + n_dims, 2 * width, width)
        self.placeholder = nn.Parameter(torch.rand(width) / width)
        sizes = {"n_dims": n_dims, "n_heads": n_heads, "ffn_width": ffn_width, "n_experts": n_experts}
        self.blocks = nn.ModuleList(_PlainGNOTBlock(width, **sizes) for _ in range(n_layers))
        self.projection = _PlainPerceptron(width, 2 * width, out_channels)

    @classmethod
    def with_weights_of(cls, ours: GNOT) -> PlainGNOT:
        block = ours.blocks[0]
        assert isinstance(block, GNOTBlock)
        n_experts, width = block.get_parameter("mixtures.0.bias").shape
        n_dims = len(ours._nodes)
        plain = cls(
            in_channels=ours.get_parameter("fields.0.weight").shape[1] - n_dims,
            out_channels=ours.get_parameter("projection.1.bias").numel(),
            n_dims=n_dims,
            periodic=is_periodic(ours._nodes),
            width=width,
            n_layers=len(ours.blocks),
            n_heads=block.cross.n_heads,
            ffn_width=block.get_parameter("gate.0.bias").numel(),
            n_experts=n_experts,
        )
        return holding(plain, ours)

    def forward(self, a: Float[Tensor, "batch in_channels *space"]) -> Float[Tensor, "batch out_channels *space"]:
        joined = with_positions(a, self.periodic).flatten(2).transpose(1, 2)
        positions = joined[..., a.shape[1] :]
        x, z = self.positions(positions), self.fields(joined) + self.placeholder
        for block in self.blocks:
            x = block(x, z, positions[0])
        return self.projection(x).transpose(1, 2).unflatten(2, a.shape[2:])
