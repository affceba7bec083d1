"""How time and memory of a training step grow with resolution, batch, width, modes, tokens and samples.

    python -m benchmarks.growth      takes four minutes on 2 cores; run nothing else meanwhile

Every point is measured in its own process. Memory comes first, with freed tensors returned to the system. Then comes
the time of a step with freed memory kept, the median of five (for an epoch: the time of the second epoch). Exponents
are those of a power law through the last two points of each line.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.around import lite, written
from benchmarks.references.attention import SoftmaxAttention
from benchmarks.steps import memory_of, step_of
from benchmarks.timing import DEVICE, alone, interleaved, peak_megabytes, save
from data_gen.generation.memory import keep_freed_memory
from data_gen.grids import Grid
from neuralop_bench.data.trajectories import Trajectories
from neuralop_bench.layers.attention import LinearAttention
from neuralop_bench.layers.coordinates import append_coordinates
from neuralop_bench.models.deeponet import DeepONet
from neuralop_bench.models.fno import FNO
from neuralop_bench.models.galerkin import GalerkinTransformer
from neuralop_bench.models.lsm import LSM
from neuralop_bench.models.mgno import MgNO
from neuralop_bench.models.unet import UNet

MODELS: dict[str, Callable[..., nn.Module]] = {
    "FNO": FNO,
    "Galerkin transformer": partial(GalerkinTransformer, width=32, ffn_width=64, coarse=1.0),
    "MgNO": MgNO,
    "LSM": LSM,
    "DeepONet": DeepONet,
    "U-Net": UNet,
}


def model_step(name: str, n: int, batch: int, options: Mapping[str, Any]) -> tuple[float, float]:
    """Seconds and 10^6 bytes for a step of a model on n x n points."""
    with DEVICE:
        network = MODELS[name](in_channels=1, out_channels=1, grid=Grid.periodic(n), **options)
        return _measured(network, torch.randn(batch, 1, n, n))


def attention_step(kind: str, n: int) -> tuple[float, float]:
    """Seconds and 10^6 bytes for a step of an attention layer over n x n tokens."""
    with DEVICE:
        network: nn.Module = LinearAttention(width=128, n_heads=4, n_dims=2)
        if kind == "softmax":
            network = SoftmaxAttention.with_weights_of(network)
        positions = append_coordinates(torch.empty(1, 0, n, n), ("periodic", "periodic"))[0].flatten(1).T.contiguous()
        return _measured(network, torch.randn(2, n * n, 128), positions)


def _measured(network: nn.Module, x: Tensor, *others: Tensor) -> tuple[float, float]:
    megabytes = memory_of(network, x, *others)
    keep_freed_memory()
    seconds = interleaved({"step": step_of(network, x, *others)}, repeats=5, warm_up=3)["step"]
    return seconds, megabytes


def epoch(n_samples: int) -> tuple[float, float]:
    """Seconds and 10^6 bytes for an epoch of one-step pairs of the lite ns2d task: loader, network and optimizer."""
    cfg, spec = lite()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train.hdf5"
        written(path, spec, n_samples)

        def run(n: int) -> None:
            data = Trajectories(path, n_samples=n, history=cfg.dataset.history, horizon=1)
            network = FNO(
                in_channels=cfg.dataset.history, out_channels=1, grid=spec.grid, n_modes=8, width=8, n_layers=2
            ).to(DEVICE)
            optimizer = torch.optim.AdamW(network.parameters(), fused=True)
            for batch in data.windows(1).shuffled(16, 0):
                prediction = network(batch.history[:, :, 0].to(DEVICE))
                optimizer.zero_grad()
                (prediction - batch.target[:, 0].to(DEVICE)).square().mean().backward()
                optimizer.step()

        megabytes = peak_megabytes(partial(run, 1), partial(run, n_samples))
        keep_freed_memory()
        return interleaved({"epoch": partial(run, n_samples)}, repeats=1)["epoch"], megabytes


def sweeps() -> dict[str, dict[str, dict[int, tuple[Any, ...]]]]:
    """The measurements, by varied quantity, by line, by value."""
    no: dict[str, Any] = {}
    return {
        "points per axis": {name: {n: (model_step, name, n, 2, no) for n in (32, 64, 128, 256)} for name in MODELS},
        "batch": {name: {b: (model_step, name, 32, b, no) for b in (4, 16, 64)} for name in ("FNO", "MgNO", "LSM")},
        "width": {
            name: {w: (model_step, name, 32, 8, {"width": w}) for w in (16, 32, 64)}
            for name in ("FNO", "MgNO", "LSM", "U-Net")
        },
        "modes": {"FNO": {k: (model_step, "FNO", 64, 8, {"n_modes": k}) for k in (4, 8, 16, 32)}},
        "tokens": {
            "Galerkin": {n * n: (attention_step, "galerkin", n) for n in (16, 32, 64, 128)},
            "softmax": {n * n: (attention_step, "softmax", n) for n in (16, 32, 64)},
        },
        "samples": {"FNO, an epoch": {n: (epoch, n) for n in (16, 64, 256)}},
    }


def main() -> None:
    """Measure every point."""
    found: dict[str, Any] = {}
    for varied, lines in sweeps().items():
        found[varied] = {}
        for name, points in lines.items():
            measured = {value: alone(*call) for value, call in points.items()}
            values, last = list(points), [measured[value] for value in list(points)[-2:]]
            exponents = [math.log(last[1][i] / last[0][i]) / math.log(values[-1] / values[-2]) for i in range(2)]
            found[varied][name] = {
                "milliseconds": {str(value): round(1e3 * seconds, 2) for value, (seconds, _) in measured.items()},
                "megabytes": {str(value): round(megabytes, 1) for value, (_, megabytes) in measured.items()},
                "exponents": {"time": round(exponents[0], 2), "memory": round(exponents[1], 2)},
            }
            print(varied, name, found[varied][name], flush=True)
    save("growth of steps", {"lines": found})


if __name__ == "__main__":
    main()
