"""Our models equal their plain forms in benchmarks/references: outputs, gradients and numbers of parameters."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
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
from benchmarks.references.shared import translated
from benchmarks.references.sinenet import PlainSineNet
from benchmarks.references.spectral_conv import PlainSpectralConv
from benchmarks.references.transolver import PlainTransolver
from benchmarks.references.uno import PlainUNO
from data_gen.grids import Grid
from neuralop_bench.layers.attention import LinearAttention
from neuralop_bench.layers.spectral_conv import SpectralConv
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

TOLERANCE = 1e-11


def grid_of(kind: str, *shape: int) -> Grid:
    n_dims = len(shape)
    boundary = "periodic" if kind == "periodic" else "dirichlet"
    return Grid(shape, (1.0,) * n_dims, (boundary,) * n_dims, (kind,) * n_dims)


def varied(model: nn.Module) -> nn.Module:
    """In double precision, with no parameter left at a zero or one where its place in the formula wouldn't show."""
    model.double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def outputs_and_gradients(model: nn.Module, *inputs: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """The output, and the gradients of the sum of its squares with respect to the first input and the parameters."""
    first = inputs[0].clone().requires_grad_()
    output = model(first, *inputs[1:])
    output.square().sum().backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert len(gradients) == len(list(model.parameters()))
    assert first.grad is not None
    return output.detach(), first.grad, gradients


def n_real_parameters(model: nn.Module) -> int:
    return sum(p.numel() * (2 if p.is_complex() else 1) for p in model.parameters())


def assert_equal(actual: Tensor, expected: Tensor, name: str, at_least: float = 0.0) -> None:
    """Equal up to a fraction of the largest number, or of ``at_least`` if that is larger."""
    assert actual.shape == expected.shape, name
    assert actual.dtype == expected.dtype, name
    scale = float(expected.abs().max())
    assert scale > 0, name
    error = float((actual - expected).abs().max()) / max(scale, at_least)
    assert error < TOLERANCE, f"{name}: {error:.1e}"


def assert_equal_to_its_plain_form(
    ours: nn.Module, with_weights_of: Callable[[Any], nn.Module], *inputs: Tensor
) -> None:
    varied(ours)
    plain = with_weights_of(ours)
    assert n_real_parameters(plain) == n_real_parameters(ours)
    output, by_input, by_parameter = outputs_and_gradients(ours, *inputs)
    plain_output, plain_by_input, plain_by_parameter = outputs_and_gradients(plain, *inputs)
    assert_equal(output, plain_output, "output")
    assert_equal(by_input, plain_by_input, "gradient by the input")
    expected = translated(by_parameter, plain)
    assert expected.keys() == plain_by_parameter.keys()
    # Where the terms of a gradient cancel, as those of queries do among nearly equal tokens, their rounding remains.
    at_least = 1e-3 * max(float(gradient.abs().max()) for gradient in plain_by_parameter.values())
    for name, gradient in plain_by_parameter.items():
        assert_equal(expected[name], gradient, f"gradient by {name}", at_least)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def fields(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


@pytest.mark.parametrize(
    ("shape", "n_modes"),
    [
        ((16,), (5,)),
        ((15,), (7,)),
        ((12, 10), (3, 5)),
        ((12, 10), (6, 2)),
        ((13, 9), (4, 4)),
        ((6, 7, 8), (2, 3, 4)),
    ],
)
def test_spectral_convolution(shape: tuple[int, ...], n_modes: tuple[int, ...]) -> None:
    ours = SpectralConv(3, 4, n_modes)
    assert_equal_to_its_plain_form(ours, PlainSpectralConv.with_weights_of, fields(2, 3, *shape))


@pytest.mark.parametrize("kind", ["periodic", "closed"])
@pytest.mark.parametrize(("shape", "n_modes"), [((16,), 5), ((15,), 5), ((12, 10), (3, 5)), ((11, 13), (4, 3))])
def test_fno(shape: tuple[int, ...], n_modes: Any, kind: str) -> None:
    ours = FNO(
        in_channels=2,
        out_channels=3,
        grid=grid_of(kind, *shape),
        n_modes=n_modes,
        width=6,
        n_layers=3,
        projection_width=7,
    )
    assert_equal_to_its_plain_form(ours, PlainFNO.with_weights_of, fields(2, 2, *shape))


@pytest.mark.parametrize("kind", ["periodic", "closed"])
@pytest.mark.parametrize("share_weights", [False, True])
@pytest.mark.parametrize(("shape", "n_modes"), [((16,), 5), ((15,), 7), ((12, 10), (3, 5)), ((11, 13), (4, 3))])
def test_ffno(shape: tuple[int, ...], n_modes: Any, share_weights: bool, kind: str) -> None:
    ours = FFNO(
        in_channels=2,
        out_channels=3,
        grid=grid_of(kind, *shape),
        n_modes=n_modes,
        width=6,
        n_layers=3,
        expansion=2,
        share_weights=share_weights,
        projection_width=7,
    )
    assert_equal_to_its_plain_form(ours, PlainFFNO.with_weights_of, fields(2, 2, *shape))


@pytest.mark.parametrize("n_steps", [2, 5])
@pytest.mark.parametrize("history", [1, 9])
@pytest.mark.parametrize("shape", [(12,), (11,), (10, 9)])
def test_sfno(shape: tuple[int, ...], history: int, n_steps: int) -> None:
    ours = SFNO(
        in_channels=history,
        out_channels=n_steps,
        grid=grid_of("periodic", *shape),
        n_steps=n_steps,
        history=history,
        n_modes=4,
        n_time_modes=3,
        width=6,
        n_layers=2,
        hidden_width=7,
        latent_steps=7,
    )
    assert_equal_to_its_plain_form(ours, PlainSFNO.with_weights_of, fields(2, history, *shape))


@pytest.mark.parametrize("scales", [(0.75, 0.5), (0.5, 0.3)], ids=str)
@pytest.mark.parametrize("shape", [(24,), (23,), (24, 20), (21, 27)])
def test_uno(shape: tuple[int, ...], scales: tuple[float, float]) -> None:
    ours = UNO(
        in_channels=2,
        out_channels=3,
        grid=grid_of("periodic", *shape),
        width=4,
        widths=(5, 6),
        scales=scales,
        n_modes=(4, 3),
        projection_width=7,
    )
    assert_equal_to_its_plain_form(ours, PlainUNO.with_weights_of, fields(2, 2, *shape))


@pytest.mark.parametrize(
    ("kind", "edges"), [("closed", "zeros"), ("closed", "reflect"), ("periodic", "zeros")], ids=lambda name: name
)
@pytest.mark.parametrize("shape", [(16, 16), (24, 16), (17, 21)])
@pytest.mark.parametrize("n_smoothing", [[1, 1, 2], [2, 1, 1, 3], [3]], ids=str)
def test_mgno(shape: tuple[int, int], kind: str, edges: Any, n_smoothing: list[int]) -> None:
    ours = MgNO(
        in_channels=2,
        out_channels=3,
        grid=grid_of(kind, *shape),
        width=5,
        n_layers=2,
        n_smoothing=n_smoothing,
        edges=edges,
    )
    assert_equal_to_its_plain_form(ours, PlainMgNO.with_weights_of, fields(2, 2, *shape))


@pytest.mark.parametrize("kind", ["periodic", "closed"])
@pytest.mark.parametrize("shape", [(24, 12), (13, 21)])
@pytest.mark.parametrize("max_width", [None, 12])
def test_lsm(shape: tuple[int, int], kind: str, max_width: int | None) -> None:
    ours = LSM(
        in_channels=2,
        out_channels=3,
        grid=grid_of(kind, *shape),
        width=6,
        max_width=max_width,
        n_scales=3,
        patch=3,
        n_tokens=4,
        n_basis=5,
        n_heads=2,
        projection_width=7,
    )
    assert_equal_to_its_plain_form(ours, PlainLSM.with_weights_of, fields(2, 2, *shape))


@pytest.mark.parametrize("kind", ["periodic", "closed"])
@pytest.mark.parametrize(("shape", "n_levels"), [((16,), 3), ((13,), 2), ((8, 12), 2), ((7, 13), 2)])
def test_sinenet(shape: tuple[int, ...], n_levels: int, kind: str) -> None:
    ours = SineNet(
        in_channels=2,
        out_channels=3,
        grid=grid_of(kind, *shape),
        width=4,
        n_waves=2,
        n_levels=n_levels,
        growth=1.3,
    )
    assert_equal_to_its_plain_form(ours, PlainSineNet.with_weights_of, fields(2, 2, *shape))


@pytest.mark.parametrize("kind", ["periodic", "closed"])
@pytest.mark.parametrize(("shape", "n_levels"), [((24, 12), 2), ((13, 21), 3), ((16, 9), 4)])
def test_mwt(shape: tuple[int, int], n_levels: int, kind: str) -> None:
    ours = MWT(
        in_channels=2,
        out_channels=3,
        grid=grid_of(kind, *shape),
        k=2,
        channels=2,
        n_modes=3,
        n_levels=n_levels,
        projection_width=7,
    )
    assert_equal_to_its_plain_form(ours, PlainMWT.with_weights_of, fields(2, 2, *shape))


@pytest.mark.parametrize("kind", ["periodic", "closed"])
@pytest.mark.parametrize(("shape", "n_levels"), [((16,), 1), ((35,), 3), ((16, 12), 1), ((17, 21), 2)])
def test_cno(shape: tuple[int, ...], n_levels: int, kind: str) -> None:
    ours = CNO(
        in_channels=2,
        out_channels=3,
        grid=grid_of(kind, *shape),
        width=3,
        n_levels=n_levels,
        n_blocks=2,
        n_neck_blocks=1,
        lift_width=5,
    )
    assert_equal_to_its_plain_form(ours, PlainCNO.with_weights_of, fields(2, 2, *shape))


@pytest.mark.parametrize("kind", ["periodic", "closed"])
@pytest.mark.parametrize(("shape", "n_levels"), [((16,), 1), ((35,), 3), ((16, 12), 1), ((17, 21), 2)])
def test_convnext_unet(shape: tuple[int, ...], n_levels: int, kind: str) -> None:
    ours = ConvNeXtUNet(
        in_channels=2,
        out_channels=3,
        grid=grid_of(kind, *shape),
        width=3,
        n_levels=n_levels,
        n_blocks=2,
        n_neck_blocks=1,
        kernel=5,
    )
    assert_equal_to_its_plain_form(ours, PlainConvNeXtUNet.with_weights_of, fields(2, 2, *shape))


@pytest.mark.parametrize("kind", ["periodic", "closed"])
@pytest.mark.parametrize("n_frames", [1, 3])
@pytest.mark.parametrize("shape", [(16,), (13,), (12, 8), (11, 13)])
def test_dpot(shape: tuple[int, ...], n_frames: int, kind: str) -> None:
    sizes = {"width": 16, "n_layers": 2, "n_heads": 2, "mlp_ratio": 2, "embed_width": 5, "out_width": 6}
    grid, in_channels = grid_of(kind, *shape), 2 * n_frames + 1
    ours = DPOT(in_channels=in_channels, out_channels=2, grid=grid, n_frames=n_frames, patch=3, **sizes)
    assert_equal_to_its_plain_form(ours, PlainDPOT.with_weights_of, fields(2, in_channels, *shape))


@pytest.mark.parametrize("kind", ["periodic", "closed"])
def test_factformer(kind: str) -> None:
    sizes = {"width": 6, "n_layers": 2, "n_heads": 2, "head_width": 5, "kernel_width": 4, "projection_width": 7}
    ours = FactFormer(in_channels=2, out_channels=3, grid=grid_of(kind, 9, 8), **sizes)
    assert_equal_to_its_plain_form(ours, PlainFactFormer.with_weights_of, fields(2, 2, 9, 8))


@pytest.mark.parametrize("kind", ["periodic", "closed"])
@pytest.mark.parametrize(("n", "window", "depth"), [(32, 4, 2), (29, 4, 3), (32, 8, 1)])
def test_poseidon(n: int, window: int, depth: int, kind: str) -> None:
    sizes = {"patch": 2, "width": 6, "n_stages": 3, "n_heads": 2, "kernel": 5, "mlp_ratio": 2, "bias_width": 5}
    grid = grid_of(kind, n, n)
    ours = Poseidon(in_channels=2, out_channels=3, grid=grid, window=window, depth=depth, **sizes)
    assert_equal_to_its_plain_form(ours, PlainPoseidon.with_weights_of, fields(2, 2, n, n))


@pytest.mark.parametrize("kind", ["periodic", "closed"])
@pytest.mark.parametrize(
    ("shape", "sensors"), [((16,), 16), ((16,), 8), ((15,), 6), ((12, 10), (12, 10)), ((12, 10), 5), ((13, 9), (7, 11))]
)
def test_deeponet(shape: tuple[int, ...], sensors: Any, kind: str) -> None:
    ours = DeepONet(
        in_channels=2,
        out_channels=3,
        grid=grid_of(kind, *shape),
        sensors=sensors,
        n_basis=5,
        width=6,
        n_branch_layers=3,
        n_trunk_layers=4,
        harmonics=3,
    )
    assert_equal_to_its_plain_form(ours, PlainDeepONet.with_weights_of, fields(2, 2, *shape))


@pytest.mark.parametrize("kind", ["periodic", "closed"])
@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("shape", [(16,), (15,), (8, 6), (7, 9)])
def test_transolver(shape: tuple[int, ...], kernel: int, kind: str) -> None:
    ours = Transolver(
        in_channels=2,
        out_channels=3,
        grid=grid_of(kind, *shape),
        width=6,
        n_layers=2,
        n_heads=2,
        n_slices=5,
        ffn_width=7,
        kernel=kernel,
        reference_points=3,
    )
    # Slices that differ: where all are nearly the same, the gradients of queries and keys are rounding errors.
    with torch.no_grad():
        for name, parameter in ours.blocks.named_parameters():
            if not name.endswith("temperature"):  # at a bound it would have no gradient
                parameter.add_(0.3 * torch.randn_like(parameter))
    assert_equal_to_its_plain_form(ours, PlainTransolver.with_weights_of, fields(2, 2, *shape))


@pytest.mark.parametrize("kind", ["periodic", "closed"])
@pytest.mark.parametrize("shape", [(16,), (15,), (8, 6), (7, 9)])
def test_gnot(shape: tuple[int, ...], kind: str) -> None:
    sizes = {"width": 6, "n_layers": 2, "n_heads": 2, "ffn_width": 5, "n_experts": 3}
    ours = GNOT(in_channels=2, out_channels=3, grid=grid_of(kind, *shape), **sizes)
    with torch.no_grad():  # points that differ, as above
        for parameter in ours.parameters():
            parameter.add_(torch.randn_like(parameter))
    assert_equal_to_its_plain_form(ours, PlainGNOT.with_weights_of, fields(2, 2, *shape))


@pytest.mark.parametrize(("n_heads", "n_dims"), [(1, 2), (4, 1), (3, 2)])
@pytest.mark.parametrize("n", [16, 17])
def test_galerkin_attention(n: int, n_heads: int, n_dims: int) -> None:
    ours = LinearAttention(width=12, n_heads=n_heads, n_dims=n_dims)
    positions = torch.rand(n, n_dims, dtype=torch.float64)
    assert_equal_to_its_plain_form(ours, PlainGalerkinAttention.with_weights_of, fields(2, n, 12), positions)


def test_softmax_attention_is_its_formula_with_the_affine_maps_of_ours() -> None:
    ours = varied(LinearAttention(width=12, n_heads=3, n_dims=2))
    assert isinstance(ours, LinearAttention)
    x, positions = fields(2, 9, 12), torch.rand(9, 2, dtype=torch.float64)
    heads = []
    for head in range(3):
        query, key, value = (
            torch.cat([positions.expand(2, 9, 2), linear(x)[..., 4 * head : 4 * head + 4]], dim=-1)
            for linear in (ours.query, ours.key, ours.value)
        )
        heads.append(torch.softmax(query @ key.mT / 6**0.5, dim=-1) @ value)
    expected = ours.merge(torch.cat(heads, dim=-1)).detach()
    assert_equal(SoftmaxAttention.with_weights_of(ours)(x, positions).detach(), expected, "output")


CLOSED = grid_of("closed", 16, 16)
MIXED = Grid((16, 16), (1.0, 1.0), ("periodic", "dirichlet"), ("periodic", "closed"))


@pytest.mark.parametrize("kind", ["periodic", "closed"])
@pytest.mark.parametrize(
    ("ours", "plain"),
    [
        (FNO, PlainFNO),
        (FFNO, PlainFFNO),
        (MWT, PlainMWT),
        (MgNO, PlainMgNO),
        (LSM, PlainLSM),
        (DeepONet, PlainDeepONet),
        (DPOT, PlainDPOT),
        (Transolver, PlainTransolver),
        (GNOT, PlainGNOT),
        (CNO, PlainCNO),
        (ConvNeXtUNet, PlainConvNeXtUNet),
        (FactFormer, PlainFactFormer),
    ],
)
def test_default_options(ours: Callable[..., nn.Module], plain: Any, kind: str) -> None:
    model = ours(in_channels=3, out_channels=2, grid=grid_of(kind, 48, 48)).double()
    copy = plain.with_weights_of(model)
    assert n_real_parameters(copy) == n_real_parameters(model)
    x = fields(2, 3, 48, 48)
    with torch.no_grad():
        assert_equal(model(x), copy(x), "output")


def test_the_plain_form_has_copies_of_the_parameters() -> None:
    ours = FNO(in_channels=1, out_channels=1, grid=CLOSED, n_modes=3, width=4)
    plain = PlainFNO.with_weights_of(ours)
    x = torch.randn(1, 1, 16, 16)
    before = plain(x)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.zero_()
    assert torch.equal(plain(x), before)


@pytest.mark.parametrize(
    ("ours", "plain", "message"),
    [
        (lambda **kw: FNO(n_modes=3, width=4, padding=0.1, **kw), PlainFNO, "no padding"),
        (lambda **kw: FNO(n_modes=3, width=4, activation="relu", **kw), PlainFNO, "GELU"),
        (lambda **kw: FNO(n_modes=3, width=4, normalization="batch", **kw), PlainFNO, "norms"),
        (lambda **kw: FNO(n_modes=3, width=4, factorization="cp", **kw), PlainFNO, "factors"),
        (lambda **kw: FFNO(n_modes=3, width=4, padding=0.2, **kw), PlainFFNO, "no padding"),
        (lambda **kw: FFNO(n_modes=3, width=4, weight_norm=False, **kw), PlainFFNO, "parametrizations"),
        (lambda **kw: MgNO(n_smoothing=[1, 1], bias=True, **kw), PlainMgNO, "bias"),
        (lambda **kw: MgNO(n_smoothing=[1, 1], activation="relu", **kw), PlainMgNO, "GELU"),
        (lambda **kw: MgNO(n_smoothing=[1, 1], prolongation_kernel=3, **kw), PlainMgNO, "4 points"),
        (lambda **kw: UNO(n_modes=[2, 1], **kw), PlainUNO, "periodic axes"),
        (lambda **kw: SFNO(history=1, n_steps=2, **kw | {"out_channels": 2}), PlainSFNO, "periodic axes"),
        (lambda **kw: LSM(width=8, n_scales=2, normalization="batch", **kw), PlainLSM, "layer normalisation"),
        (lambda **kw: MWT(n_levels=2, details="diagonal", **kw), PlainMWT, "all bands"),
        (lambda **kw: MWT(n_levels=2, coordinates="distances", **kw), PlainMWT, "coordinates of the nodes"),
        (lambda **kw: MWT(n_levels=2, lifting_width=8, **kw), PlainMWT, "affine lifting"),
        (lambda **kw: CNO(n_levels=2, exact_shifts=False, **kw), PlainCNO, "exact shifts"),
        (lambda **kw: CNO(n_levels=2, normalization="none", **kw), PlainCNO, "norm"),
        (lambda **kw: FactFormer(shared=True, **kw), PlainFactFormer, "weights of their own"),
        (lambda **kw: FactFormer(axes="parallel", **kw), PlainFactFormer, "chained"),
        (lambda **kw: SineNet(activation="relu", **kw), PlainSineNet, "GELU"),
        (lambda **kw: DeepONet(activation="tanh", **kw), PlainDeepONet, "GELU"),
        (lambda **kw: DeepONet(hard_dirichlet=True, **kw), PlainDeepONet, "hard boundary"),
        (lambda **kw: DeepONet(branch="cnn", **kw), PlainDeepONet, "dense branch"),
        (lambda **kw: FNO(n_modes=3, width=4, **kw | {"grid": MIXED}), PlainFNO, "all periodic or all closed"),
        (lambda **kw: MgNO(n_smoothing=[1, 1], **kw | {"grid": MIXED}), PlainMgNO, "the same edges"),
    ],
)
def test_options_without_a_plain_form_are_refused(ours: Callable[..., nn.Module], plain: Any, message: str) -> None:
    with pytest.raises((ValueError, RuntimeError), match=message):
        plain.with_weights_of(ours(in_channels=1, out_channels=1, grid=CLOSED))
