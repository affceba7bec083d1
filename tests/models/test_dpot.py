"""DPOT: its sizes, its map of Fourier coefficients, which frames it uses, and its errors."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from data_gen.grids import Grid
from neuralop_bench.models import dpot
from neuralop_bench.models.dpot import DPOT, FourierPerceptron

MIXED = Grid((12, 11), (1.0, 2.0), ("periodic", "dirichlet"), ("periodic", "closed"))
SMALL = {"width": 16, "n_layers": 2, "n_heads": 2, "embed_width": 5, "out_width": 6}


def varied(module: Any) -> Any:
    """In float64, with its parameters changed a little."""
    module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return module.requires_grad_(False)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("width", "mlp_ratio", "n_layers", "n_heads", "millions"),
    [(512, 1, 4, 4, 7), (1024, 1, 6, 8, 30), (1024, 4, 12, 8, 122)],
)
def test_the_published_networks_have_their_published_sizes(
    width: int, mlp_ratio: int, n_layers: int, n_heads: int, millions: int
) -> None:
    """The table in the readme of github.com/HaoZhongkai/DPOT: 7M, 30M and 122M, with a head for 12 datasets."""
    with torch.device("meta"):
        model = DPOT(
            in_channels=40,
            out_channels=4,
            grid=Grid.periodic(128),
            n_frames=10,
            patch=8,
            width=width,
            mlp_ratio=mlp_ratio,
            n_layers=n_layers,
            n_heads=n_heads,
            embed_width=35,
        )
    head = 2 * (width**2 + width) + 12 * (width + 1)
    assert (count(model) + head) // 10**6 == millions


def test_the_smallest_published_network_tensor_by_tensor() -> None:
    with torch.device("meta"):
        model = DPOT(
            in_channels=40, out_channels=4, grid=Grid.periodic(128), n_frames=10, patch=8, width=512, embed_width=35
        )
    embedding = (4 + 3) * 8 * 8 * 35 + 35 + 35 * 512 + 512 + 512 * 16 * 16
    frames = 10 * 512 * 512 + 512
    block = 2 * (2 * 4 * 128 * 128 + 2 * 512) + 2 * 2 * 512 + 2 * (512 * 512 + 512)
    out = 512 * 32 * 8 * 8 + 32 + 32 * 32 + 32 + 32 * 4 + 4
    assert count(model) == embedding + frames + 4 * block + out == 7_003_175


@pytest.mark.parametrize("n", [7, 8])
def test_the_map_of_fourier_coefficients_is_its_formula_wavenumber_by_wavenumber(n: int) -> None:
    mixer: FourierPerceptron = varied(FourierPerceptron(6, n_heads=2))
    v = torch.randn(2, n, 6, dtype=torch.float64)
    expected = torch.zeros_like(v)
    points = torch.arange(n, dtype=torch.float64)
    for k in range(n // 2 + 1):
        wave = torch.polar(torch.ones(n, dtype=torch.float64), 2 * math.pi * k * points / n)
        coefficient = torch.einsum("x,bxc->bc", wave.conj(), v.to(wave.dtype)) / math.sqrt(n)
        for head in range(2):
            part = slice(3 * head, 3 * head + 3)
            z = coefficient[:, part] @ torch.complex(*mixer.weight[:, head]) + torch.complex(*mixer.bias[:, head])
            z = torch.complex(nn.functional.gelu(z.real), nn.functional.gelu(z.imag))
            z = z @ torch.complex(*mixer.out_weight[:, head]) + torch.complex(*mixer.out_bias[:, head])
            both = 1 if k in (0, n / 2) else 2  # -k has the conjugate coefficient
            expected[..., part] += both * torch.einsum("x,bc->bxc", wave, z).real / math.sqrt(n)
    torch.testing.assert_close(mixer(v), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("space", [(9,), (6, 7), (4, 5, 6)])
def test_without_its_activation_it_multiplies_each_point_and_heads_stay_apart(
    space: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    mixer: FourierPerceptron = varied(FourierPerceptron(6, n_heads=2))
    v = torch.randn(2, *space, 6, dtype=torch.float64)
    other = v.clone()
    other[..., 3:] += 1
    assert torch.equal(mixer(v)[..., :3], mixer(other)[..., :3])
    monkeypatch.setattr(dpot, "gelu", lambda z: z)
    for parameter in (mixer.bias, mixer.out_bias, mixer.weight[1], mixer.out_weight[1]):
        parameter.zero_()
    expected = [part @ mixer.weight[0, h] @ mixer.out_weight[0, h] for h, part in enumerate(v.split(3, dim=-1))]
    torch.testing.assert_close(mixer(v), torch.cat(expected, dim=-1), rtol=0, atol=1e-12)


def test_each_frame_has_a_matrix_of_its_own_and_static_fields_reach_all() -> None:
    """3 frames of 2 fields, oldest first, then one static field."""
    model: DPOT = varied(DPOT(in_channels=7, out_channels=2, grid=MIXED, n_frames=3, **SMALL))
    x = torch.randn(2, 7, 12, 11, dtype=torch.float64)

    def influence(channels: slice) -> float:
        changed = x.clone()
        changed[:, channels] += 1
        return float((model(changed) - model(x)).abs().max())

    frames = [slice(0, 2), slice(2, 4), slice(4, 6)]
    for frame, channels in enumerate(frames):
        matrix = model.by_frame[frame].clone()
        assert influence(channels) > 1e-3
        model.by_frame[frame] = 0
        assert influence(channels) == 0
        assert influence(slice(6, 7)) > 1e-3
        model.by_frame[frame] = matrix


def test_without_frames_all_fields_are_one_frame() -> None:
    model: DPOT = varied(DPOT(in_channels=3, out_channels=1, grid=MIXED, n_frames=0, **SMALL))
    torch.manual_seed(0)
    same: DPOT = varied(DPOT(in_channels=3, out_channels=3, grid=MIXED, n_frames=1, **SMALL))
    assert model.frequencies is None
    assert {name for name, _ in model.named_parameters()} == {name for name, _ in same.named_parameters()}
    assert model.embedding.weight.shape == same.embedding.weight.shape
    assert model(torch.randn(2, 3, 12, 11, dtype=torch.float64)).shape == (2, 1, 12, 11)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 8}, "needs model.width to be at least 16, got 8"),
        ({"width": 20}, "n_heads=2 heads and 8 groups, but width=20"),
        ({"n_heads": 3}, "n_heads=3 heads and 8 groups, but width=16.*model.n_heads"),
        ({"n_heads": 0}, "needs model.n_heads to be at least 1"),
        ({"patch": 0}, "needs model.patch to be at least 1"),
        ({"patch": 20}, "patches of 20 points per axis doesn't fit .*model.patch to at most"),
        ({"mlp_ratio": 0}, "needs model.mlp_ratio to be at least 1"),
        ({"n_frames": -1}, "needs model.n_frames to be at least 0"),
        ({"n_frames": 3}, "3 frames of 2 channels each, but in_channels is only 5.*dataset.history"),
        ({"n_steps": 3}, "n_steps=3 frames, but out_channels=2 isn't a multiple.*surrogate.bundle"),
    ],
)
def test_impossible_options_are_refused_with_the_knob_to_turn(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DPOT(in_channels=5, out_channels=2, grid=MIXED, **{"n_frames": 2, **SMALL, **options})
