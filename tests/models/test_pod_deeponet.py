"""POD-DeepONet: published parameter counts, the basis, the formula and errors."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from data_gen.grids import Grid
from neuralop_bench.layers.resample import resample
from neuralop_bench.models.pod_deeponet import PODDeepONet

CLOSED = Grid(shape=(29, 29), lengths=(1.0,) * 2, boundary=("dirichlet",) * 2, nodes=("closed",) * 2)
MIXED = Grid(shape=(9, 8), lengths=(1.0, 3.0), boundary=("dirichlet", "periodic"), nodes=("closed", "periodic"))
DOUBLE = torch.float64


def build(grid: Grid = MIXED, out_channels: int = 2, *, n_modes: int = 4, **options: Any) -> PODDeepONet:
    torch.manual_seed(0)
    small: dict[str, Any] = {"sensors": 8, "width": 7, "n_branch_layers": 2}
    return PODDeepONet(
        in_channels=1, out_channels=out_channels, grid=grid, n_modes=n_modes, **(small | options)
    ).double()


def snapshots(n: int, grid: Grid = MIXED, *, n_channels: int = 2, seed: int = 0) -> Tensor:
    """Random targets with modes of very different sizes and a mean that isn't zero."""
    generator = torch.Generator().manual_seed(seed)
    n_values = n_channels * grid.n_points
    shapes = torch.randn(n_values, n_values, generator=generator, dtype=DOUBLE)
    sizes = 0.8 ** torch.arange(n_values, dtype=DOUBLE)
    values = torch.randn(n, n_values, generator=generator, dtype=DOUBLE) * sizes @ shapes
    return (values + shapes[0]).unflatten(1, (n_channels, *grid.shape))


def prepared(targets: Tensor, **options: Any) -> PODDeepONet:
    model = build(**options)
    model.prepare(torch.zeros(len(targets), 1, *targets.shape[2:]), targets)
    return model


def with_coefficients(model: PODDeepONet, coefficients: Tensor) -> Tensor:
    """The model's prediction if its branch returned these numbers."""
    handle = model.branch.register_forward_hook(lambda *_: coefficients)
    try:
        return model(torch.zeros(len(coefficients), 1, *model.mean.shape[2:], dtype=DOUBLE))
    finally:
        handle.remove()


def n_parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_published_parameter_counts() -> None:
    burgers = PODDeepONet(
        in_channels=1,
        out_channels=1,
        grid=Grid.periodic(128, n_dims=1),
        n_modes=32,
        sensors=128,
        n_branch_layers=3,
        activation="tanh",
    )
    darcy = PODDeepONet(
        in_channels=1,
        out_channels=1,
        grid=CLOSED,
        n_modes=115,
        branch="cnn",
        sensors=29,
        n_branch_layers=2,
        activation="relu",
    )
    assert (n_parameters(burgers), n_parameters(darcy)) == (37_152, 631_155)


# The basis -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [20, 400], ids=["fewer-pairs-than-values", "more-pairs-than-values"])
def test_mean_and_modes_are_those_of_a_singular_value_decomposition(n: int) -> None:
    # NumPy's SVD of the centred snapshots, where the model takes the eigenvectors of a Gram matrix.
    targets = snapshots(n)
    model = prepared(targets, n_modes=6)
    values = targets.flatten(1).numpy()
    _, sizes, directions = np.linalg.svd(values - values.mean(axis=0), full_matrices=False)
    torch.testing.assert_close(model.mean[0], targets.mean(dim=0))
    for k in range(6):
        expected = sizes[k] / math.sqrt(n) * directions[k]
        mode = model.modes[k].flatten().numpy()
        assert mode[np.abs(mode).argmax()] > 0
        np.testing.assert_allclose(mode * np.sign(mode @ expected), expected, atol=1e-8 * sizes[0])


def test_all_modes_with_exact_coefficients_reproduce_the_training_outputs() -> None:
    targets = snapshots(12)
    model = prepared(targets, n_modes=12)
    modes = model.modes.flatten(1)
    coefficients = (targets - model.mean).flatten(1) @ torch.linalg.pinv(modes, rtol=1e-9)
    torch.testing.assert_close(with_coefficients(model, coefficients), targets)
    # The coefficients to be learned have mean square 1; centred, 12 pairs span 11 directions.
    torch.testing.assert_close(coefficients.square().mean(dim=0)[:11], torch.ones(11, dtype=DOUBLE))
    assert model.modes[11].abs().max() < 1e-6


def test_the_squares_of_all_modes_sum_to_the_variance_at_every_place() -> None:
    targets = snapshots(12)
    model = prepared(targets, n_modes=12)
    torch.testing.assert_close(model.modes.square().sum(dim=0), targets.var(dim=0, correction=0))


def test_leading_modes_do_best_and_their_error_is_the_rest_of_the_spectrum() -> None:
    targets = snapshots(12)
    lost = []
    for n_modes in (2, 5):
        model = prepared(targets, n_modes=n_modes)
        centred = (targets - model.mean).flatten(1)
        modes = model.modes.flatten(1)
        coefficients = centred @ torch.linalg.pinv(modes)
        lost.append(float((centred - coefficients @ modes).square().sum(dim=1).mean()))
    spectrum = torch.linalg.svdvals((targets - targets.mean(dim=0)).flatten(1)).square() / 12
    assert lost == pytest.approx([float(spectrum[2:].sum()), float(spectrum[5:].sum())])


def test_the_basis_depends_on_the_training_targets_alone_and_all_of_them() -> None:
    train, test = snapshots(12), snapshots(12, seed=1)
    model = prepared(train)
    kept = {name: value.clone() for name, value in model.named_buffers()}
    with torch.no_grad():
        model.train()(torch.randn(4, 1, 9, 8, dtype=DOUBLE))
        model.eval()(test[:, :1])
    assert all(torch.equal(kept[name], value) for name, value in model.named_buffers())
    assert torch.equal(prepared(train).modes, kept["modes"])
    # The inputs have no part in it, nor has the order of the pairs.
    other = build()
    other.prepare(torch.randn(12, 1, 9, 8), train.flip(0))
    torch.testing.assert_close(other.modes, kept["modes"])
    moved = train.clone()
    moved[7] += 1
    assert not torch.allclose(prepared(moved).mean, kept["mean"])
    assert not torch.allclose(prepared(moved).modes, kept["modes"])


def test_channels_share_their_coefficients() -> None:
    # The second channel is the first, scaled: so are its modes, and two modes carry what two did before.
    one = snapshots(12, n_channels=1)
    both = prepared(torch.cat([one, -0.5 * one], dim=1), n_modes=3)
    torch.testing.assert_close(both.modes[:, 1], -0.5 * both.modes[:, 0])
    torch.testing.assert_close(both.modes[:, :1], prepared(one, n_modes=3, out_channels=1).modes)


def test_the_basis_is_saved_and_loaded() -> None:
    model, other = prepared(snapshots(12)), build()
    other.load_state_dict(model.state_dict())
    x = torch.randn(2, 1, 9, 8, dtype=DOUBLE)
    assert torch.equal(other(x), model(x))


@pytest.mark.parametrize("shape", [(16,), (9, 8), (5, 4, 3)])
@pytest.mark.parametrize("nodes", ["periodic", "closed", "centres"])
def test_before_it_is_prepared_the_modes_are_of_full_rank(shape: tuple[int, ...], nodes: Any) -> None:
    boundary = "periodic" if nodes == "periodic" else "neumann"
    n = len(shape)
    grid = Grid(shape=shape, lengths=(1.0,) * n, boundary=(boundary,) * n, nodes=(nodes,) * n)
    n_values = 2 * grid.n_points
    for n_modes in (1, 7, n_values):
        modes = build(grid, n_modes=n_modes).modes
        assert modes.shape == (n_modes, 2, *shape)
        assert torch.linalg.matrix_rank(modes.flatten(1), rtol=1e-4) == n_modes


def test_before_it_is_prepared_the_modes_are_waves() -> None:
    modes = build(Grid.periodic(8, n_dims=1), out_channels=1, n_modes=4).modes[:, 0]
    angle = 2 * math.pi * torch.arange(8, dtype=DOUBLE) / 8
    expected = torch.stack([torch.ones_like(angle), angle.cos(), angle.sin(), (2 * angle).cos()])
    torch.testing.assert_close(modes, expected, atol=1e-6, rtol=0)


# The formula ---------------------------------------------------------------------------------------------------------


def test_equals_its_formula() -> None:
    model = prepared(snapshots(12))
    x = torch.randn(3, 1, 9, 8, dtype=DOUBLE)
    coefficients = model.branch(x)
    expected = model.mean.expand(3, -1, -1, -1).clone()
    for sample in range(3):
        for k in range(4):
            expected[sample] += coefficients[sample, k] * model.modes[k]
    torch.testing.assert_close(model(x), expected)


def test_another_grid_is_given_the_interpolated_prediction() -> None:
    model = prepared(snapshots(12), sensors=(5, 4))
    fine = torch.randn(2, 1, 17, 16, dtype=DOUBLE)
    coarse = fine[..., ::2, ::2]
    torch.testing.assert_close(model(fine), resample(model(coarse), MIXED.nodes, (17, 16)))
    torch.testing.assert_close(model(fine)[..., ::2, ::2], model(coarse))


def test_a_condition_that_all_targets_meet_is_met() -> None:
    targets = snapshots(12)
    targets[:, :, [0, -1]] = -1.75
    output = prepared(targets)(torch.randn(2, 1, 9, 8, dtype=DOUBLE))
    torch.testing.assert_close(output[:, :, [0, -1]], torch.full_like(output[:, :, [0, -1]], -1.75))


# Errors --------------------------------------------------------------------------------------------------------------


def test_fewer_pairs_than_modes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"n_modes=4, but there are only 3 training pairs.*Lower model\.n_modes"):
        prepared(snapshots(3))
    prepared(snapshots(4))


def test_targets_on_another_grid_are_refused() -> None:
    with pytest.raises(ValueError, match=r"have \(2, 9, 8\) channels and nodes, the training targets \(2, 17, 16\)"):
        build().prepare(torch.zeros(12, 1, 17, 16), torch.zeros(12, 2, 17, 16))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_modes": 0}, r"needs model\.n_modes to be at least 1, got 0"),
        ({"n_modes": 842}, r"n_modes=842, but an output has 841 values\. Lower model\.n_modes"),
        ({"width": 0}, r"needs model\.width to be at least 1, got 0"),
        ({"sensors": 0}, r"at least 2 sensors"),
        ({"branch": "fno"}, r"got 'fno'"),
        ({"activation": "sine"}, r"got 'sine'"),
    ],
)
def test_bad_arguments_are_refused_before_any_memory_is_used(options: dict[str, Any], message: str) -> None:
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        PODDeepONet(**({"in_channels": 1, "out_channels": 1, "grid": CLOSED} | options))
