"""Training steps compared with other implementations of the same networks: forward, backward and AdamW, float32.

    python -m benchmarks.steps            with freed memory kept, as in a run (data_gen.generation.memory)
    python -m benchmarks.steps default    with the C library's default allocator, as users of other packages have it
    python -m benchmarks.steps memory     memory of each step, in its own process

The networks have equal parameter counts and outputs (tests/models), except neuralop's defaults and softmax attention.
They take turns in one process, on a GPU if there is one. Each command takes a few minutes on 2 cores; run nothing else
meanwhile.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from neuralop.models import FNO as NeuralopFNO
from torch import Tensor, nn

from benchmarks.references.attention import PlainGalerkinAttention, SoftmaxAttention
from benchmarks.references.cno import PlainCNO
from benchmarks.references.convnext_unet import PlainConvNeXtUNet
from benchmarks.references.deeponet import PlainDeepONet
from benchmarks.references.dpot import PlainDPOT
from benchmarks.references.factformer import PlainFactFormer
from benchmarks.references.ffno import PlainFFNO
from benchmarks.references.fno import PlainFNO
from benchmarks.references.gnot import PlainGNOT
from benchmarks.references.lsm import PlainLSM
from benchmarks.references.mgno import PlainMgNO
from benchmarks.references.mwt import PlainMWT
from benchmarks.references.poseidon import PlainPoseidon
from benchmarks.references.sfno import PlainSFNO
from benchmarks.references.sinenet import PlainSineNet
from benchmarks.references.transolver import PlainTransolver
from benchmarks.references.uno import PlainUNO
from benchmarks.timing import DEVICE, alone, interleaved, peak_megabytes, save
from data_gen.generation.memory import keep_freed_memory
from data_gen.grids import Grid
from neuralop_bench.layers.attention import LinearAttention
from neuralop_bench.layers.coordinates import append_coordinates
from neuralop_bench.metrics.cost import forward_flops
from neuralop_bench.models.cno import CNO
from neuralop_bench.models.convnext_unet import ConvNeXtUNet
from neuralop_bench.models.deeponet import DeepONet
from neuralop_bench.models.dpot import DPOT
from neuralop_bench.models.factformer import FactFormer
from neuralop_bench.models.ffno import FFNO
from neuralop_bench.models.fno import FNO
from neuralop_bench.models.gnot import GNOT
from neuralop_bench.models.lsm import LSM
from neuralop_bench.models.mgno import MgNO
from neuralop_bench.models.mwt import MWT
from neuralop_bench.models.poseidon import Poseidon
from neuralop_bench.models.sfno import SFNO
from neuralop_bench.models.sinenet import SineNet
from neuralop_bench.models.transolver import Transolver
from neuralop_bench.models.uno import UNO

WARM_UP = 6  # steps until the allocator has all the memory it needs
REPEATS = 15


@dataclass(frozen=True)
class Comparison:
    """Our network, others by name, their inputs, and how many times as fast ours should be.

    ``of_other_size`` names those that aren't the same network.
    """

    ours: nn.Module
    others: dict[str, nn.Module]
    inputs: tuple[Tensor, ...]
    asked: dict[str, float]
    of_other_size: tuple[str, ...] = field(default=())


class WithCoordinates(nn.Module):
    """A network that gets the coordinates as input; ours appends them itself."""

    def __init__(self, network: nn.Module, grid: Grid) -> None:
        super().__init__()
        self.network, self._nodes = network, grid.nodes

    def forward(self, x: Tensor) -> Tensor:
        return self.network(append_coordinates(x, self._nodes))


def fno(n: int, n_dims: int, batch: int, width: int, n_modes: int, asked: dict[str, float]) -> Comparison:
    """One network in four implementations. neuralop's is wrong on odd grids, so it is only timed there."""
    grid = Grid.periodic(n, n_dims=n_dims)
    ours = FNO(in_channels=1, out_channels=1, grid=grid, n_modes=n_modes, width=width, n_layers=4, projection_width=128)
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
        n_modes=(*(2 * n_modes,) * (n_dims - 1), 2 * n_modes - 2),
        lifting_channel_ratio=0,
        use_channel_mlp=False,
        channel_mlp_skip=None,
        fno_skip="linear",
    )
    others = {
        "neuralop": WithCoordinates(equal, grid),
        "neuralop_defaults": WithCoordinates(theirs(n_modes=(2 * n_modes,) * n_dims), grid),
        "plain": PlainFNO.with_weights_of(ours),
    }
    if DEVICE.type == "cuda":
        others["neuralop_compiled"] = torch.compile(others["neuralop"])
    x = torch.randn(batch, 1, *(n,) * n_dims)
    return Comparison(ours, others, (x,), asked, of_other_size=("neuralop_defaults",))


def zoo(model: Any, plain: Any, asked: float = 1.2, in_channels: int = 1) -> Comparison:
    """Another network with its default sizes on 64 x 64 points, and its plain form."""
    ours = model(in_channels=in_channels, out_channels=1, grid=Grid.periodic(64))
    return Comparison(
        ours, {"plain": plain.with_weights_of(ours)}, (torch.randn(20, in_channels, 64, 64),), {"plain": asked}
    )


def sfno() -> Comparison:
    """Ten frames from ten frames of one field."""
    ours = SFNO(in_channels=10, out_channels=10, grid=Grid.periodic(64), n_steps=10, history=10)
    return Comparison(ours, {"plain": PlainSFNO.with_weights_of(ours)}, (torch.randn(4, 10, 64, 64),), {"plain": 1.0})


def attention() -> Comparison:
    """A layer of Galerkin attention over 64 x 64 points, its formula in einsum form, and softmax attention."""
    ours = LinearAttention(width=128, n_heads=4, n_dims=2)
    others = {
        "plain": PlainGalerkinAttention.with_weights_of(ours),
        "softmax": SoftmaxAttention.with_weights_of(ours),
    }
    positions = append_coordinates(torch.empty(1, 0, 64, 64), ("periodic", "periodic"))[0].flatten(1).T.contiguous()
    inputs = (torch.randn(4, 4096, 128), positions)
    return Comparison(ours, others, inputs, {"plain": 1.3, "softmax": 5.0}, of_other_size=("softmax",))


_FNO_2D = {"neuralop": 2.5, "neuralop_defaults": 3.0, "plain": 1.9}
CASES: dict[str, Callable[[], Comparison]] = {
    "FNO, 64 x 64": partial(fno, 64, 2, 20, 32, 12, _FNO_2D),
    "FNO, 85 x 85": partial(fno, 85, 2, 12, 32, 12, {"neuralop_defaults": 3.0}),
    "FNO, 128 x 128": partial(fno, 128, 2, 8, 32, 12, _FNO_2D),
    "FNO, 1024": partial(fno, 1024, 1, 20, 64, 16, {"neuralop": 2.0}),
    "FFNO, 64 x 64": partial(zoo, FFNO, PlainFFNO, asked=1.0),
    "UNO, 64 x 64": partial(zoo, UNO, PlainUNO, asked=1.0),
    "SFNO, 64 x 64 x 10": sfno,
    "SineNet, 64 x 64": partial(zoo, SineNet, PlainSineNet, asked=1.0),
    "MgNO, 64 x 64": partial(zoo, MgNO, PlainMgNO),
    "LSM, 64 x 64": partial(zoo, LSM, PlainLSM),
    "MWT, 64 x 64": partial(zoo, MWT, PlainMWT),
    "CNO, 64 x 64": partial(zoo, CNO, PlainCNO),
    "ConvNeXt U-Net, 64 x 64": partial(zoo, ConvNeXtUNet, PlainConvNeXtUNet, asked=1.0),
    "FactFormer, 64 x 64": partial(zoo, FactFormer, PlainFactFormer),
    "DPOT, 10 frames of 64 x 64": partial(zoo, partial(DPOT, n_frames=10), PlainDPOT, asked=1.0, in_channels=10),
    "DeepONet, 64 x 64": partial(zoo, DeepONet, PlainDeepONet),
    "Poseidon, 64 x 64": partial(zoo, Poseidon, PlainPoseidon, asked=1.0),
    "Transolver, 64 x 64": partial(zoo, Transolver, PlainTransolver),
    "GNOT, 64 x 64": partial(zoo, GNOT, PlainGNOT),
    "Galerkin attention, 4096 tokens": attention,
}
if DEVICE.type == "cuda":
    _GPU = {"neuralop": 1.5, "neuralop_compiled": 1.5}
    CASES |= {
        f"FNO, {n} x {n}": partial(fno, n, 2, batch, 32, 12, _GPU) for n, batch in ((64, 20), (256, 20), (421, 20))
    }


def built(name: str) -> tuple[Comparison, dict[str, nn.Module]]:
    """A comparison and all its networks, by name, on the device."""
    with DEVICE:
        comparison = CASES[name]()
    networks = {"ours": comparison.ours, **comparison.others}
    counts = {key: n_numbers(network) for key, network in networks.items() if key not in comparison.of_other_size}
    if len(set(counts.values())) > 1:
        raise RuntimeError(f"The networks to compare have different numbers of parameters: {counts}.")
    return comparison, networks


def n_numbers(network: nn.Module) -> int:
    """Number of real parameters."""
    return sum(p.numel() * (2 if p.is_complex() else 1) for p in network.parameters())


def step_of(network: nn.Module, *inputs: Tensor) -> Callable[[], None]:
    """One step of training on random numbers."""
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


class _Given(nn.Module):
    """A network with one input; its other inputs are fixed."""

    def __init__(self, network: nn.Module, *others: Tensor) -> None:
        super().__init__()
        self.network, self._others = network, others

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x, *self._others)


def speed(name: str) -> dict[str, Any]:
    """Median times of one comparison, and of a large matrix product.

    The product only takes turns with our step, because it evicts the data of the next alternative from the caches.
    """
    comparison, networks = built(name)
    n = 1024 if DEVICE.type == "cpu" else 8192
    a, b = torch.randn(2, n, n, device=DEVICE)
    steps = {key: step_of(network, *comparison.inputs) for key, network in networks.items()}
    seconds = interleaved(steps, REPEATS, WARM_UP)
    product = interleaved({"ours": steps["ours"], "product": lambda: a @ b}, REPEATS)["product"]
    rate = 2 * n**3 / product
    x, *others = comparison.inputs
    operations = 3 * forward_flops(_Given(comparison.ours, *others), x)
    return {
        "parameters": {key: n_numbers(network) for key, network in networks.items()},
        "milliseconds": {key: round(1e3 * value, 2) for key, value in seconds.items()},
        "times_as_fast": {key: round(seconds[key] / seconds["ours"], 2) for key in comparison.others},
        "asked": comparison.asked,
        "gflops": round(operations / 1e9, 2),
        "share_of_matrix_product_rate": round(operations / seconds["ours"] / rate, 2),
    }


def memory_of(network: nn.Module, first: Tensor, *others: Tensor) -> float:
    """Growth of memory in 10^6 bytes during the first steps of a network: activations, gradients, optimizer."""

    def one_sample() -> None:
        step_of(network, first[:1], *others)()
        network.zero_grad(set_to_none=True)

    def steps() -> None:
        step = step_of(network, first, *others)
        for _ in range(3):
            step()

    return peak_megabytes(one_sample, steps)


def memory(name: str, key: str) -> float:
    """``memory_of`` one network of a comparison."""
    comparison, networks = built(name)
    return memory_of(networks[key], *comparison.inputs)


def memories(name: str) -> dict[str, Any]:
    """Memory of every network of a comparison."""
    keys = ("ours", *built(name)[0].others)
    megabytes = {key: round(alone(memory, name, key), 1) for key in keys}
    return {
        "megabytes": megabytes,
        "share": {key: round(megabytes["ours"] / megabytes[key], 2) for key in keys if key != "ours"},
    }


def main() -> None:
    """Measure every case."""
    ways = {"kept": ("steps, freed memory kept", speed), "default": ("steps", speed), "memory": ("memory", memories)}
    way = sys.argv[1] if len(sys.argv) > 1 else "kept"
    if way not in ways:
        sys.exit(f"Unknown argument {way!r}. Known: {', '.join(ways)}.")
    if way == "kept":
        keep_freed_memory()
    section, measure = ways[way]
    results = {}
    for name in CASES:
        results[name] = measure(name)
        print(name, results[name], flush=True)
    save(section, {"cases": results})


if __name__ == "__main__":
    main()
