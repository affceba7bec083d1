"""Plain form of MgNO."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu, pad

from benchmarks.references.shared import holding, require
from neuralop_bench.layers.conv import Edge
from neuralop_bench.models.mgno import MgNO, VCycle


class _PlainVCycle(nn.Module):
    """Down: u <- u + S (f - A u), then f <- R f, u <- Pi u; up: u_j <- u_j + P_j u_{j+1}."""

    def __init__(self, in_channels: int, width: int, n_smoothing: Sequence[int], edges: Edge) -> None:
        super().__init__()

        def conv(n_in: int, n_out: int, stride: int = 1) -> nn.Module:
            return nn.Conv2d(n_in, n_out, 3, stride, padding=1, padding_mode=edges, bias=False)

        n_coarser = len(n_smoothing) - 1
        n_residuals = [n_smoothing[0] - 1, *n_smoothing[1:]]  # the first step starts from u = 0 and has no A
        self.edges = edges
        self.S = nn.ModuleList(nn.ModuleList(conv(in_channels, width) for _ in range(n)) for n in n_smoothing)
        self.A = nn.ModuleList(nn.ModuleList(conv(width, in_channels) for _ in range(n)) for n in n_residuals)
        self.restrictions = nn.ModuleList(conv(in_channels, in_channels, stride=2) for _ in range(n_coarser))
        self.projections = nn.ModuleList(conv(width, width, stride=2) for _ in range(n_coarser))
        # A transposed convolution only pads with zeros. For other edges ``forward`` adds a point at both ends, and two
        # more points of the output are dropped there.
        padding = 1 if edges == "zeros" else 3
        self.prolongations = nn.ModuleList(
            nn.ConvTranspose2d(width, width, 4, stride=2, padding=padding, bias=False) for _ in range(n_coarser)
        )

    def forward(self, f: Float[Tensor, "batch in_channels n m"]) -> Float[Tensor, "batch width n m"]:
        u, finer = f, []
        for level, (all_S, all_A) in enumerate(zip(self.S, self.A, strict=True)):
            steps = iter(all_S.children())
            if level == 0:
                u = next(steps)(f)
            else:
                finer.append(u)
                f, u = self.restrictions[level - 1](f), self.projections[level - 1](u)
            for S, A in zip(steps, all_A.children(), strict=True):
                u = u + S(f - A(u))
        for prolongation in reversed(self.prolongations):
            above = finer.pop()
            if self.edges != "zeros":
                u = pad(u, (1, 1, 1, 1), mode=self.edges)
            u = above + prolongation(u)[..., : above.shape[-2], : above.shape[-1]]
        return u


class PlainMgNO(nn.Module):
    """v_{l+1} = gelu(V_l v_l + B_l v_l + b_l),  u = Q v_L, with a V-cycle V_l; two axes.

    He, Liu, Xu (2024), arXiv 2310.19809, as published for Darcy flow: kernels of 4 points in the prolongation, the
    right-hand side restricted, not the residual.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        width: int = 24,
        n_layers: int = 4,
        n_smoothing: Sequence[int] = (1, 1, 1, 1, 2),
        edges: Edge = "zeros",
    ) -> None:
        super().__init__()
        channels = [in_channels] + [width] * (n_layers - 1)
        self.cycles = nn.ModuleList(_PlainVCycle(n, width, n_smoothing, edges) for n in channels)
        self.pointwise = nn.ModuleList(nn.Conv2d(n, width, 1) for n in channels)
        self.projection = nn.Conv2d(width, out_channels, 1, bias=False)

    @classmethod
    def with_weights_of(cls, ours: MgNO) -> PlainMgNO:
        cycle, projection = ours.cycles[0], ours.projection
        assert isinstance(cycle, VCycle)
        require(ours._activation is gelu and not ours._coordinates, "GELU and no coordinates")
        require(len(set(projection.edges)) == 1, "the same edges on every axis")
        kernels = {module.kernel_size for module in ours.modules() if isinstance(module, nn.ConvTranspose2d)}
        require(kernels <= {(4, 4)}, "prolongation kernels of 4 points")
        smoothing = [len(list(smoother.get_submodule("S").children())) for smoother in cycle.smoothers]
        plain = cls(
            in_channels=ours.get_parameter("pointwise.0.weight").shape[1],
            out_channels=projection.conv.out_channels,
            width=projection.conv.in_channels,
            n_layers=len(ours.cycles),
            n_smoothing=smoothing,
            edges=projection.edges[0],
        )
        return holding(plain, ours)

    def forward(self, v: Float[Tensor, "batch in_channels n m"]) -> Float[Tensor, "batch out_channels n m"]:
        for cycle, pointwise in zip(self.cycles, self.pointwise, strict=True):
            v = gelu(cycle(v) + pointwise(v))
        return self.projection(v)
