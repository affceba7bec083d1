"""Weights saved by published code, in our networks.

published_weights.json has the names and shapes of two small networks of the published code, and what they make of an
input. The values of weights and inputs are drawn from their names.
"""

import argparse
import json
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from data_gen.grids import Grid
from neuralop_bench.models.dpot import DPOT
from neuralop_bench.models.poseidon import Poseidon
from neuralop_bench.surrogate import checkpoint

PUBLISHED = json.loads((Path(__file__).parent / "published_weights.json").read_text())


def closed(n: int) -> Grid:
    return Grid((n, n), (1.0, 1.0), ("dirichlet",) * 2, ("closed",) * 2)


def dpot() -> nn.Module:
    sizes = {"patch": 4, "width": 16, "n_layers": 2, "n_heads": 2, "embed_width": 11, "out_width": 8}
    return DPOT(in_channels=6, out_channels=2, grid=closed(16), n_frames=3, **sizes)


def poseidon() -> nn.Module:
    sizes = {"patch": 2, "width": 6, "depth": 2, "n_heads": 2, "window": 8, "n_blocks": 1, "bias_width": 512}
    return Poseidon(in_channels=2, out_channels=2, grid=closed(32), n_stages=3, **sizes)


def drawn(name: str, shape: Sequence[int]) -> Tensor:
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return torch.from_numpy(0.3 * rng.standard_normal(shape)).float()


def saved(states: dict[str, Tensor], folder: Path, suffix: str) -> Path:
    path = folder / f"weights{suffix}"
    if suffix == ".safetensors":
        safetensors.torch.save_file(states, path)
    else:
        torch.save({"args": argparse.Namespace(lr=1e-3), "model": states}, path)
    return path


@pytest.mark.parametrize(
    ("make", "suffix", "n_channels"), [(dpot, ".pth", 6), (poseidon, ".safetensors", 2)], ids=["dpot", "poseidon"]
)
def test_published_weights_give_the_published_output(
    make: Callable[[], Any], suffix: str, n_channels: int, tmp_path: Path
) -> None:
    published, model = PUBLISHED[make.__name__], make()
    path = saved({name: drawn(name, shape) for name, shape in published["names"].items()}, tmp_path, suffix)
    found = model.from_published(checkpoint.load_published(path))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(found[name].view_as(parameter))
        n = 16 if make is dpot else 32
        shape = (1, 3, 2, n, n) if make is dpot else (1, 2, n, n)
        output = model(drawn("input", shape).reshape(1, n_channels, n, n))[0]
    stride = 5 if make is dpot else 9
    torch.testing.assert_close(output[:, ::stride, ::stride], torch.tensor(published["output"]), rtol=1e-4, atol=2e-5)


def test_a_file_without_weights_says_what_it_should_be(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_text("nothing")
    with pytest.raises(checkpoint.CheckpointError, match="can't be read as weights"):
        checkpoint.load_published(path)


@pytest.mark.parametrize("wrap", [lambda w: {"model": "gnot", "model_state_dict": w, "epoch": 3}, lambda w: w])
def test_weights_are_found_in_what_training_scripts_save(wrap: Callable[[Any], Any], tmp_path: Path) -> None:
    torch.save(wrap({"module.a": torch.ones(2)}), tmp_path / "weights.pth")
    assert list(checkpoint.load_published(tmp_path / "weights.pth")) == ["a"]
