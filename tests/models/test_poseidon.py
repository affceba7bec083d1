"""Poseidon: its sizes, its windows, which shifts it commutes with, and its errors."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from data_gen.grids import Grid
from neuralop_bench.layers.options import DoesNotFit
from neuralop_bench.models.poseidon import Poseidon, WindowAttention, Windows

MIXED = Grid((24, 17), (1.0, 2.0), ("periodic", "dirichlet"), ("periodic", "closed"))
SMALL = {"patch": 1, "width": 4, "n_stages": 2, "n_heads": 2, "window": 4, "mlp_ratio": 1, "bias_width": 3, "kernel": 3}


def varied(module: Any) -> Any:
    """In float64, with its parameters changed."""
    torch.manual_seed(0)
    module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return module.requires_grad_(False)


@pytest.mark.parametrize(
    ("width", "depth", "millions"), [(48, 4, 20.8), pytest.param(96, 8, 157.7, marks=pytest.mark.exhaustive)]
)
def test_with_conditioned_normalisation_it_has_the_published_size(width: int, depth: int, millions: float) -> None:
    """camlab-ethz/Poseidon-T (20.8M) and -B (158M) on Hugging Face: each scale and shift is affine in the time."""
    sizes = {"width": width, "n_stages": 4, "depth": depth, "window": 16, "n_blocks": 2, "bias_width": 512}
    with torch.device("meta"):
        model = Poseidon(in_channels=4, out_channels=4, grid=Grid.periodic(128), **sizes)
    norms = [part for part in model.modules() if isinstance(part, nn.LayerNorm)]
    numbers = sum(p.numel() for part in (model, *norms) for p in part.parameters())
    assert round(numbers / 1e6, 1) == millions


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("kind", ["periodic", "closed"])
@pytest.mark.parametrize(("n", "window"), [(8, 4), (12, 4), (11, 4), (9, 2), (7, 3), (4, 4), (3, 8)])
def test_every_token_is_in_one_window_with_its_neighbours(n: int, window: int, kind: Any, shifted: bool) -> None:
    windows = Windows((n,), (kind,), window, shifted=shifted)
    tokens = torch.arange(n)[None, :, None]
    cut = windows.cut(tokens)
    assert torch.equal(windows.join(cut), tokens)
    present = torch.ones(cut.shape[1:3], dtype=torch.bool) if windows.is_token is None else windows.is_token
    for of_window, is_token in zip(cut[0, ..., 0], present, strict=True):
        members = of_window[is_token]
        steps = members.diff() % n if kind == "periodic" else members.diff()
        assert (steps == 1).all()
        assert len(members) == windows.sizes[0] or kind == "closed"
    if shifted and n > window:
        first = windows.join(cut - cut[:, :, :1])[0, 0, 0]  # how far into its window the first token lies
        assert first != 0 if kind == "periodic" else first == 0
    assert windows.sizes == (min(n, window),)


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("n", [8, 10])
@pytest.mark.parametrize("kind", ["periodic", "closed"])
def test_attention_is_its_formula_token_by_token(kind: Any, n: int, shifted: bool) -> None:
    w, heads = 4, 2
    attention: WindowAttention = varied(
        WindowAttention(6, n_heads=heads, windows=Windows((n,), (kind,), w, shifted=shifted), bias_width=5)
    )
    x = torch.randn(1, n, 6, dtype=torch.float64)
    start = -(w // 2) if shifted else 0
    expected = torch.zeros_like(x)
    for i in range(n):
        offset = i - start
        if kind == "periodic" and offset >= math.ceil(n / w) * w:  # the end of the axis is in the first window
            offset -= n
        members = [start + offset // w * w + p for p in range(w)]
        if kind == "periodic":
            members = [member % n for member in members]
        own = members.index(i)
        heads_out = []
        for head in range(heads):
            part = slice(3 * head, 3 * head + 3)
            q = attention.query.weight[part] @ x[0, i] + attention.query.bias[part]
            scores, values = [], []
            for p, j in enumerate(members):
                if 0 <= j < n:
                    k = attention.key.weight[part] @ x[0, j]
                    step = (own - p) * 8 / (w - 1)
                    log = math.copysign(math.log2(1 + abs(step)) / 3, step)
                    beta = attention.beta(torch.tensor([log], dtype=torch.float64))[head]
                    cosine = q @ k / (q.norm() * k.norm())
                    tau = attention.temperature[head, 0, 0].clamp(max=math.log(100)).exp()
                    scores.append(tau * cosine + 16 * beta.sigmoid())
                    values.append(attention.value.weight[part] @ x[0, j] + attention.value.bias[part])
            weights = torch.stack(scores).softmax(0)
            heads_out.append(sum(a * v for a, v in zip(weights, values, strict=True)))
        expected[0, i] = attention.merge.weight @ torch.cat(heads_out) + attention.merge.bias
    torch.testing.assert_close(attention(x), expected, rtol=0, atol=1e-12)


def test_commutes_with_shifts_by_windows_of_the_coarsest_stage_along_periodic_axes() -> None:
    model = varied(Poseidon(in_channels=1, out_channels=2, grid=MIXED, **SMALL))
    x = torch.randn(2, 1, 24, 17, dtype=torch.float64)
    y = model(x)
    torch.testing.assert_close(model(x.roll(8, 2)), y.roll(8, 2), rtol=0, atol=1e-10)
    assert float((model(x.roll(4, 2)) - y.roll(4, 2)).abs().max()) > 1e-4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "needs model.width to be at least 1"),
        ({"width": 5}, "n_heads=2 heads, but width=5.*model.n_heads"),
        ({"n_stages": 1}, "needs model.n_stages to be at least 2, got 1"),
        ({"window": 0}, "needs model.window to be at least 1"),
        ({"depth": 0}, "needs model.depth to be at least 1"),
        ({"kernel": 4}, "odd kernel, got 4"),
        (
            {"kernel": 21, "n_stages": 4},
            "6 tokens on a periodic axis.*Lower model.n_stages to at most 3, model.kernel or",
        ),
        ({"kernel": 99}, "24 tokens on a periodic axis.*Lower model.kernel or model.patch"),
    ],
)
def test_impossible_options_are_refused_with_the_knob_to_turn(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Poseidon(in_channels=1, out_channels=1, grid=MIXED, **{**SMALL, **options})


@pytest.mark.parametrize(
    ("n", "n_stages", "patch", "fitting"),
    [(16, 5, 1, {"n_stages": 4}), (6, 3, 4, {"n_stages": 2, "patch": 2}), (6, 2, 4, {"patch": 2})],
)
def test_the_largest_sizes_that_fit_are_named(n: int, n_stages: int, patch: int, fitting: dict[str, int]) -> None:
    with pytest.raises(DoesNotFit) as error:
        Poseidon(in_channels=1, out_channels=1, grid=Grid.periodic(n, 1), n_stages=n_stages, patch=patch)
    assert error.value.fitting == fitting
