"""Training steps beside the same networks in other implementations: forward, backward and AdamW, float32.

    python benchmarks/steps.py            as a run does it: memory that is freed is kept (data_gen.memory)
    python benchmarks/steps.py default    with the C library's own allocator, as users of other packages have it

Networks have equal parameter counts and, but for neuralop's defaults, equal outputs (tests/models). They take turns in
one process; ratios of medians go to benchmarks/results/steps.json. About four minutes on 2 cores; let nothing else run.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from neuralop.models import FNO as NeuralopFNO
from references import (
    PlainDeepONet,
    PlainFNO,
    PlainGalerkinAttention,
    PlainLSM,
    PlainMgNO,
    SoftmaxAttention,
)
from timing import interleaved, save
from torch import Tensor, nn

from data_gen.grids import Grid
from data_gen.memory import keep_freed_memory
from neuralop_bench.layers.attention import LinearAttention
from neuralop_bench.layers.coordinates import append_coordinates
from neuralop_bench.metrics.cost import forward_flops
from neuralop_bench.models.deeponet import DeepONet
from neuralop_bench.models.fno import FNO
from neuralop_bench.models.lsm import LSM
from neuralop_bench.models.mgno import MgNO

# (points per axis, axes, batch, width, modes). neuralop is wrong on odd grids and only timed on 85 x 85.
CASES = {
    "64x64": (64, 2, 20, 32, 12),
    "85x85": (85, 2, 12, 32, 12),
    "128x128": (128, 2, 8, 32, 12),
    "1024": (1024, 1, 20, 64, 16),
}
WARM_UP = 5  # steps until the allocator has what it needs


class _WithCoordinates(nn.Module):
    """A network that is given the coordinates, which ours appends itself."""

    def __init__(self, network: nn.Module, grid: Grid) -> None:
        super().__init__()
        self.network, self._nodes = network, grid.nodes

    def forward(self, x: Tensor) -> Tensor:
        return self.network(append_coordinates(x, self._nodes))


def fno(name: str) -> dict[str, Any]:
    """The step of one network in four implementations."""
    n, n_dims, batch, width, k = CASES[name]
    grid = Grid.periodic(n, n_dims=n_dims)
    ours = FNO(in_channels=1, out_channels=1, grid=grid, n_modes=k, width=width, n_layers=4, projection_width=128)
    theirs = partial(
        NeuralopFNO,
        in_channels=1 + n_dims,
        out_channels=1,
        hidden_channels=width,
        n_layers=4,
        projection_channel_ratio=128 / width,
        positional_embedding=None,
    )
    equal = theirs(
        n_modes=(*(2 * k,) * (n_dims - 1), 2 * k - 2),
        lifting_channel_ratio=0,
        use_channel_mlp=False,
        channel_mlp_skip=None,
        fno_skip="linear",
    )
    others = {
        "neuralop": _WithCoordinates(equal, grid),
        "plain": PlainFNO.with_weights_of(ours),
        "neuralop_defaults": _WithCoordinates(theirs(n_modes=(2 * k,) * n_dims), grid),
    }
    x = torch.randn(batch, 1, *(n,) * n_dims)
    found = _compared(ours, others, x, of_equal_size=("neuralop", "plain"))
    rate = forward_flops(ours, x) * 3 / found["milliseconds"]["ours"] * 1e3
    return {**found, "share_of_matrix_product_rate": round(rate / matrix_product_rate(), 2)}


def others(name: str) -> dict[str, Any]:
    """The step of another network in its default sizes on 64 x 64 points, beside its plain form."""
    model, plain = {"mgno": (MgNO, PlainMgNO), "lsm": (LSM, PlainLSM), "deeponet": (DeepONet, PlainDeepONet)}[name]
    ours = model(in_channels=1, out_channels=1, grid=Grid.periodic(64))
    return _compared(ours, {"plain": plain.with_weights_of(ours)}, torch.randn(20, 1, 64, 64), of_equal_size=("plain",))


def attention() -> dict[str, Any]:
    """A layer of Galerkin attention over 64 x 64 points beside its formula in einsum form, and beside softmax."""
    ours = LinearAttention(width=128, n_heads=4, n_dims=2)
    alternatives = {
        "plain": PlainGalerkinAttention.with_weights_of(ours),
        "softmax": SoftmaxAttention.with_weights_of(ours),
    }
    positions = append_coordinates(torch.empty(1, 0, 64, 64), ("periodic", "periodic"))[0].flatten(1).T.contiguous()
    return _compared(ours, alternatives, torch.randn(4, 4096, 128), positions, of_equal_size=("plain",))


def _compared(
    ours: nn.Module, others: dict[str, nn.Module], *inputs: Tensor, of_equal_size: tuple[str, ...], repeats: int = 15
) -> dict[str, Any]:
    networks = {"ours": ours, **others}
    counts = {key: _n_numbers(network) for key, network in networks.items()}
    if any(counts[key] != counts["ours"] for key in of_equal_size):
        raise RuntimeError(f"The networks to compare differ in their numbers of parameters: {counts}.")
    steps = {key: _step(network, *inputs) for key, network in networks.items()}
    for _ in range(WARM_UP):
        for step in steps.values():
            step()
    seconds = interleaved(steps, repeats)
    return {
        "parameters": counts,
        "milliseconds": {key: round(1e3 * value, 1) for key, value in seconds.items()},
        "times_as_fast": {key: round(seconds[key] / seconds["ours"], 2) for key in others},
    }


def _n_numbers(network: nn.Module) -> int:
    return sum(p.numel() * (2 if p.is_complex() else 1) for p in network.parameters())


def _step(network: nn.Module, *inputs: Tensor) -> Callable[[], None]:
    with torch.no_grad():
        y = torch.randn_like(network(*inputs))
    # torch's faster implementation, as in our recipes. It doesn't take complex parameters, which neuralop has.
    fused = not any(p.is_complex() for p in network.parameters())
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, fused=fused)

    def step() -> None:
        optimizer.zero_grad()
        (network(*inputs) - y).square().mean().backward()
        optimizer.step()

    return step


def matrix_product_rate(n: int = 1024, repeats: int = 20) -> float:
    """Operations per second of products of n x n matrices in float32."""
    a, b = torch.randn(2, n, n)
    a @ b
    started = time.perf_counter()
    for _ in range(repeats):
        a @ b
    return repeats * 2 * n**3 / (time.perf_counter() - started)


def main() -> None:
    """Measure every case."""
    allocator = sys.argv[1] if len(sys.argv) > 1 else "kept"
    if allocator not in ("kept", "default"):
        sys.exit(f"The allocator is 'kept' or 'default', got {allocator!r}.")
    if allocator == "kept":
        keep_freed_memory()
    results = {}
    measurements = {f"fno {name}": partial(fno, name) for name in CASES}
    measurements |= {name: partial(others, name) for name in ("mgno", "lsm", "deeponet")}
    measurements["galerkin attention"] = attention
    for name, measure in measurements.items():
        results[name] = measure()
        print(name, results[name], flush=True)
    save("steps", f"{allocator}_memory", results)


if __name__ == "__main__":
    main()
