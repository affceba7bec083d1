"""Where matrix products compute the kept modes faster than fast transforms: the basis of ``is_faster_as_product``.

    python -m benchmarks.transforms     takes two minutes on 2 cores; run nothing else meanwhile

Measures one layer of a Fourier neural operator, forward and backward, with 32 channels and about 131,000 points in a
batch. Figures go to benchmarks/results.
"""

from __future__ import annotations

import math
from functools import partial
from unittest import mock

import torch

from benchmarks.timing import interleaved, save
from data_gen.generation.memory import keep_freed_memory
from neuralop_bench.layers import spectral_conv
from neuralop_bench.layers.mlp import Pointwise
from neuralop_bench.layers.spectral_conv import SpectralConv, fourier_layer

CHANNELS, POINTS = 32, 2**17
CASES = [
    *(((n,), k) for n in (1024, 8192) for k in (16, 64, 128, 256)),
    *(((n, n), k) for n in (64, 128) for k in (12, 24)),
    *(((n, n), k) for n in (256, 512) for k in (12, 24, 64, 128)),
    ((32, 32, 32), 8),
    ((64, 64, 40), 8),
]


def _step(v: torch.Tensor, spectral: SpectralConv, pointwise: Pointwise, *, as_product: bool) -> None:
    with mock.patch.object(spectral_conv, "is_faster_as_product", return_value=as_product):
        out = fourier_layer(v, spectral, pointwise)
        out.backward(out.detach())


def main() -> None:
    """Measure every case."""
    keep_freed_memory()  # as in a run
    rows = []
    for space, k in CASES:
        n_modes = (k,) * len(space)
        v = torch.randn(max(1, round(POINTS / math.prod(space))), *space, CHANNELS, requires_grad=True)
        layer = (v, SpectralConv(CHANNELS, CHANNELS, n_modes), Pointwise(CHANNELS, CHANNELS))
        seconds = interleaved(
            {name: partial(_step, *layer, as_product=name == "product") for name in ("product", "fast transform")},
            repeats=7,
        )
        gain = round(seconds["fast transform"] / seconds["product"], 2)
        rows.append({"space": space, "n_modes": k, "gain_of_product": gain})
        print(*space, f"K={k}: product {gain:.2f} times as fast", flush=True)
    save("transforms", {"rows": rows})


if __name__ == "__main__":
    main()
