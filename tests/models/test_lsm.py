"""LSM: published parameter counts, the neural spectral block by hand, invariants and errors."""

import math

import pytest
import torch
from torch import Tensor, nn

from data_gen.grids import Grid
from neuralop_bench.models.lsm import LSM, NeuralSpectralBlock

DARCY = Grid((85, 85), (1.0, 1.0), ("dirichlet", "dirichlet"), ("closed", "closed"))
# The published blocks have a weight for sin(0), which is zero: one per channel, on five scales. Ours don't.
SINE_OF_ZERO = 64 + 128 + 256 + 512 + 512


def n_parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


# Sizes ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("grid", "in_channels", "patch", "published"),
    [
        pytest.param(DARCY, 1, 6, 19_187_457, id="darcy"),
        pytest.param(Grid.periodic(64), 10, 4, 19_188_033, id="ns"),
    ],
)
def test_published_parameter_counts_less_the_weights_of_sin_0(
    grid: Grid, in_channels: int, patch: int, published: int
) -> None:
    with torch.device("meta"):
        model = LSM(in_channels=in_channels, out_channels=1, grid=grid, width=64, patch=patch, normalization="batch")
    assert SINE_OF_ZERO == 1_472
    assert n_parameters(model) == published - SINE_OF_ZERO
    assert n_parameters(model.backbone.blocks) == 1_876_544 - SINE_OF_ZERO
    assert n_parameters(model.backbone.blocks[0]) == 14_272 - 64


def test_the_count_of_a_block_follows_the_closed_form() -> None:
    block = NeuralSpectralBlock(12, patch=3, n_tokens=5, n_basis=7, n_heads=4)
    assert n_parameters(block) == 12 * 5 + 12 * (2 * 7 - 1) + (12 + 1) * 24 + (12 + 1) * 12


@pytest.mark.parametrize("shape", [(85, 85), (33, 40), (64, 64), (33,), (85,)])
@pytest.mark.parametrize("nodes", ["periodic", "closed"])
def test_the_output_lies_on_the_grid_of_the_input(shape: tuple[int, ...], nodes: str) -> None:
    n = len(shape)
    grid = Grid(shape, (1.0,) * n, ("periodic" if nodes == "periodic" else "dirichlet",) * n, (nodes,) * n)
    model = LSM(in_channels=2, out_channels=3, grid=grid, width=4, n_scales=3, patch=3, n_heads=2)
    output = model(torch.randn(2, 2, *shape))
    assert output.shape == (2, 3, *shape)
    assert torch.isfinite(output).all()


# The block -----------------------------------------------------------------------------------------------------------


def block_by_hand(block: NeuralSpectralBlock, x: Tensor) -> Tensor:
    """One sample, one patch, one head and one number at a time. x: [channel, n, m]."""
    n_channels, p = x.shape[0], block.patch
    per_head = n_channels // block.n_heads
    out = x.clone()
    for row in range(0, x.shape[1], p):
        for column in range(0, x.shape[2], p):
            points = x[:, row : row + p, column : column + p].reshape(n_channels, p * p)
            key, value = (block.key_value.weight @ points + block.key_value.bias[:, None]).chunk(2)
            query = block.query.weight @ points + block.query.bias[:, None]
            for head in range(block.n_heads):
                own = slice(head * per_head, (head + 1) * per_head)
                tokens = block.tokens[own]  # [channel, token]
                z = tokens + value[own] @ torch.softmax(tokens.T @ key[own], dim=1).T
                mapped = z.clone()
                for i in range(per_head):
                    constant, *others = block.weight[own][i]
                    n_waves = block.n_basis - 1
                    mapped[i] += constant
                    for k, (c, s) in enumerate(zip(others[:n_waves], others[n_waves:], strict=True), start=1):
                        angle = math.pi * k / block.n_basis * z[i]
                        mapped[i] += c * torch.cos(angle) + s * torch.sin(angle)
                update = mapped @ torch.softmax(mapped.T @ query[own], dim=0)
                out[own, row : row + p, column : column + p] += update.reshape(per_head, p, p)
    return out


def test_a_block_equals_its_formula() -> None:
    torch.manual_seed(0)
    block = NeuralSpectralBlock(6, patch=2, n_tokens=3, n_basis=4, n_heads=2).double()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.normal_()
    x = torch.randn(2, 6, 4, 6, dtype=torch.float64)
    torch.testing.assert_close(block(x), torch.stack([block_by_hand(block, sample) for sample in x]))


def test_a_line_is_a_plane_whose_rows_are_patches_of_their_own() -> None:
    # Four points of a line in two rows of two are one patch of 2 x 2: the order of points in a patch doesn't matter.
    torch.manual_seed(0)
    line, plane = NeuralSpectralBlock(8, patch=4), NeuralSpectralBlock(8, patch=2)
    plane.load_state_dict(line.state_dict())
    x = torch.randn(3, 8, 12)
    as_plane = x.unflatten(2, (3, 2, 2)).movedim(2, 3).flatten(3)  # [.., 2, 3 patches x 2]
    expected = plane(as_plane).unflatten(3, (3, 2)).movedim(3, 2).flatten(2)
    torch.testing.assert_close(line(x), expected)


@pytest.mark.parametrize("shape", [(12,), (12, 8), (4, 8, 4)])
def test_a_patch_doesnt_see_the_others(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    block = NeuralSpectralBlock(8, patch=4)
    x = torch.randn(2, 8, *shape)
    patch = (0, slice(None), *(slice(0, 4) for _ in shape))
    changed = x.clone()
    changed[patch] += torch.randn_like(changed[patch])
    difference = (block(changed) - block(x)).detach()
    assert difference[patch].abs().min() > 0
    difference[patch] = 0
    assert not difference.any()


def test_without_values_and_sines_a_point_gains_a_mean_of_the_tokens() -> None:
    torch.manual_seed(0)
    block = NeuralSpectralBlock(6, patch=4, n_tokens=2, n_heads=3).double()
    with torch.no_grad():
        block.weight.zero_()
        block.tokens.normal_()
        block.key_value.weight[6:] = 0
        block.key_value.bias[6:] = 0
    x = torch.randn(2, 6, 8, 8, dtype=torch.float64)
    first, second = block.tokens[:, 0], block.tokens[:, 1]
    gain = (block(x) - x).movedim(1, -1)
    share = ((gain - second) / (first - second)).unflatten(-1, (3, 2))  # per head and channel of it
    assert (share > 0).all()
    assert (share < 1).all()
    torch.testing.assert_close(share[..., 0], share[..., 1])  # one weight for all channels of a head
    assert share[..., 0].std() > 0.01


def test_a_constant_patch_adds_its_value_to_every_token() -> None:
    # The weights of a patch's points sum to one, whatever the keys.
    torch.manual_seed(0)
    block = NeuralSpectralBlock(8, patch=2, n_tokens=3).double()
    sample = torch.randn(1, 8, 1, dtype=torch.float64)
    value = (block.key_value.weight[8:] @ sample[0] + block.key_value.bias[8:, None]).flatten()
    z = block._encode(sample[..., None].expand(1, 8, 5, 4))  # 5 patches of 4 points
    torch.testing.assert_close(z, (value[:, None] + block.tokens)[:, None, None].expand(8, 1, 5, 3))


def test_every_sine_and_cosine_has_a_gradient() -> None:
    # In the published code the weights of sin(0) have none.
    torch.manual_seed(0)
    block = NeuralSpectralBlock(8, patch=4).double()
    block(torch.randn(2, 8, 8, 8, dtype=torch.float64)).square().sum().backward()
    assert block.weight.grad is not None
    assert block.weight.shape == (8, 2 * 12 - 1)
    assert (block.weight.grad.abs() > 1e-9).all()


def test_gradients_agree_with_finite_differences() -> None:
    torch.manual_seed(0)
    block = NeuralSpectralBlock(4, patch=2, n_tokens=2, n_basis=3, n_heads=2).double()
    x = torch.randn(1, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda u, *_: block(u), (x, *block.parameters()))
    assert torch.autograd.gradgradcheck(lambda u, *_: block(u), (x, *block.parameters()), fast_mode=True)


def test_starts_with_small_positive_tokens_and_weights() -> None:
    torch.manual_seed(0)
    block = NeuralSpectralBlock(64, patch=4)
    for parameter in (block.tokens, block.weight):
        assert parameter.min() >= 0
        assert 0.9 / 64 < parameter.max() < 1 / 64


# The model -----------------------------------------------------------------------------------------------------------


def test_the_state_holds_all_there_is_and_training_equals_evaluation() -> None:
    torch.manual_seed(0)
    build = {"in_channels": 2, "out_channels": 1, "grid": Grid.periodic(16), "n_scales": 3, "width": 8}
    model, other = LSM(**build), LSM(**build)
    for module in model.modules():
        held = {**module._parameters, **module._buffers}
        assert [name for name, value in vars(module).items() if isinstance(value, Tensor) and name not in held] == []
    other.load_state_dict(model.state_dict())
    x = torch.randn(2, 2, 16, 16)
    assert torch.equal(model.train()(x), other.eval()(x))


def test_hyper_parameters_reach_the_block_of_every_scale() -> None:
    sizes = {"width": 6, "n_scales": 4, "patch": 3, "n_tokens": 5, "n_basis": 2, "n_heads": 3}
    model = LSM(in_channels=1, out_channels=1, grid=Grid.periodic(24), **sizes)
    channels = [6, 12, 24, 24]
    blocks = list(model.backbone.blocks)
    assert [block.tokens.shape for block in blocks] == [(n, 5) for n in channels]
    assert [block.weight.shape for block in blocks] == [(n, 3) for n in channels]
    assert {(block.patch, block.n_heads) for block in blocks} == {(3, 3)}


def test_commutes_with_shifts_by_patches_of_the_coarsest_grid_without_coordinates() -> None:
    torch.manual_seed(0)
    model = LSM(in_channels=1, out_channels=1, grid=Grid.periodic(16), width=8, n_scales=2, patch=4).double()
    x = torch.randn(1, 1, 16, 16, dtype=torch.float64)
    with torch.no_grad():
        model.lifting.weight[:, 1:] = 0

    def defect(shift: int) -> float:
        return float((model(x.roll(shift, -1)) - model(x).roll(shift, -1)).abs().max().detach())

    assert defect(8) < 1e-12
    assert defect(2) > 1e-6  # patches and pairs begin elsewhere


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("width", 0, "needs model.width to be at least 1, got 0"),
        ("patch", 0, "needs model.patch to be at least 1, got 0"),
        ("n_tokens", 0, "needs model.n_tokens to be at least 1, got 0"),
        ("n_basis", 0, "needs model.n_basis to be at least 1, got 0"),
        ("n_heads", 0, "needs model.n_heads to be at least 1, got 0"),
        (
            "max_width",
            20,
            "n_heads=8 heads, but max_width=20 isn't a multiple of that. Change model.max_width or model.n_h",
        ),
        ("projection_width", -1, "needs model.projection_width to be at least 1, got -1"),
        ("width", 20, "n_heads=8 heads, but width=20 isn't a multiple of that. Change model.width or model.n_heads"),
        ("n_scales", 1, "needs model.n_scales to be at least 2, got 1"),
        ("normalization", "group", "model.normalization to be one of .*got 'group'"),
    ],
)
def test_impossible_options_are_refused_with_the_knob_to_turn(name: str, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LSM(in_channels=1, out_channels=1, grid=Grid.periodic(32), **{name: value})


def test_patches_of_one_point_can_leave_nothing_to_average_over() -> None:
    grid = Grid.periodic(16)
    with pytest.raises(ValueError, match=r"halves a grid of shape \(16, 16\) down to one point"):
        LSM(in_channels=1, out_channels=1, grid=grid, width=8, patch=1, normalization="instance")
    LSM(in_channels=1, out_channels=1, grid=grid, width=8, patch=2, normalization="instance")(torch.ones(1, 1, 16, 16))


def test_one_basis_pair_is_a_constant() -> None:
    block = NeuralSpectralBlock(8, patch=2, n_basis=1)
    z = torch.randn(8, 3)
    torch.testing.assert_close(block._map(z), z + block.weight)
