"""The contract of every model. A new file in configs/model is tested here without further changes.

Models are built as in a run on the smoke track: from the composed configuration, with its recipe, on the dataset's
grid. ``external`` loads any module; here it loads our own FNO. Modules of other packages are tested in
test_external.py.
"""

import functools
import io
import itertools
import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.cells import GIVEN_AS_FILES, KINDS_OF_DATA, NEEDED, REFUSED
from hydra.utils import instantiate
from torch import Tensor, nn

from data_gen.grids import Grid
from neuralop_bench.config import schema
from neuralop_bench.config.compose import compose
from neuralop_bench.config.constructors import InapplicableError
from neuralop_bench.config.schema import RunConfig
from neuralop_bench.models import pca_regression
from neuralop_bench.runs.rehearsal import rehearse
from neuralop_bench.runtime.place import CONFIG_DIR
from neuralop_bench.surrogate.boosted import Boosted

MODELS = sorted(path.stem for path in (CONFIG_DIR / "model").glob("*.yaml"))
DATASETS = sorted({path.stem for path in (CONFIG_DIR / "task" / "smoke").glob("*.yaml")} - {*GIVEN_AS_FILES})
BATCH = 3
# One of each kind: `make test` runs their contract, `make test-all` that of all.
FIRST = ("deeponet", "external", "fno", "fno_3d", "galerkin", "mgno", "pca_ridge", "persistence", "unet")


@pytest.fixture(scope="module", autouse=True)
def _few_candidates() -> Iterator[None]:
    """The kernel ridge chooses among 4 candidates instead of 81; the contract doesn't depend on their number."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("_KERNEL_ALPHAS", "_LENGTH_SCALES"):
            patch.setattr(pca_regression, name, np.array([1e-2, 1.0]))
        yield


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=[pytest.mark.exhaustive] * (name not in FIRST)) for name in MODELS],
)
def cfg(request: pytest.FixtureRequest) -> RunConfig:
    """The smoke configuration of each model on the default dataset."""
    return smoke(request.param)


@functools.cache
def smoke(model: str, *overrides: str) -> RunConfig:
    return compose(f"model={model}", "track=smoke", *NEEDED.get(model, ()), *overrides)


def grid_of(cfg: RunConfig) -> Grid:
    return instantiate(cfg.dataset.problem).spec.grid


def channels(cfg: RunConfig) -> tuple[int, int]:
    spec = instantiate(cfg.dataset.problem).spec
    return cfg.dataset.history * len(spec.state) + len(spec.static), cfg.surrogate.bundle * len(spec.state)


def build(cfg: RunConfig, *, seed: int = 0, dtype: torch.dtype = torch.float32, prepare: bool = True) -> nn.Module:
    """The model. One without parameters is prepared with 24 made-up training pairs, since it is useless before."""
    in_channels, out_channels = channels(cfg)
    torch.manual_seed(seed)
    constructor = instantiate(schema.constructor(cfg.model))
    operator = constructor(in_channels=in_channels, out_channels=out_channels, grid=grid_of(cfg)).to(dtype)
    if prepare and not list(operator.parameters()) and hasattr(operator, "prepare"):
        made_up = [
            torch.cat([smooth_fields(grid_of(cfg), n, seed=first + i, dtype=dtype) for i in range(8)])
            for n, first in ((in_channels, 100), (out_channels, 200))
        ]
        operator.prepare(*made_up)
    return operator


def trained(cfg: RunConfig) -> RunConfig:
    """The configuration, or a skipped test if the model has no parameters to train."""
    if not list(build(cfg, prepare=False).parameters()):
        pytest.skip("nothing to train; tests/models/test_baselines.py says what it does")
    return cfg


def stirred(model: nn.Module) -> nn.Module:
    """The model with every parameter changed a little, so that none has its initial value, which may be zero."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def smooth_fields(grid: Grid, n_channels: int, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """[BATCH, n_channels, *space]: four waves each up to wavenumber 2, the same functions on any grid of a domain."""
    generator = torch.Generator().manual_seed(seed)
    axes = [torch.from_numpy(x / length) for x, length in zip(grid.coordinates(), grid.lengths, strict=True)]
    mesh = torch.meshgrid(*axes, indexing="ij")
    fields = torch.zeros(BATCH, n_channels, *grid.shape, dtype=torch.float64)
    column = (BATCH, n_channels, *(1,) * grid.n_dims)
    for _ in range(4):
        wavenumbers = [torch.randint(-2, 3, column, generator=generator) for _ in mesh]
        phase = sum(2 * math.pi * k * x for k, x in zip(wavenumbers, mesh, strict=True))
        fields += torch.cos(phase + 2 * math.pi * torch.rand(column, generator=generator))
    return (fields / math.sqrt(2)).to(dtype)


def modules_with_parameters(model: nn.Module) -> list[tuple[str, nn.Module]]:
    return [(name, module) for name, module in model.named_modules() if list(module.parameters(recurse=False))]


def test_there_are_models_and_datasets_to_test() -> None:
    assert "fno" in MODELS
    assert "ns2d" in DATASETS


def _first(model: str, dataset: str) -> bool:
    """Every model once, and one of them on every kind of grid and with two fields."""
    others = ("burgers1d", "burgers2d", "darcy2d", "swift_hohenberg3d") if model == "fno" else ()
    return dataset in ("ns2d", *others)


@pytest.mark.parametrize(
    ("model", "dataset"),
    [
        pytest.param(*cell, marks=() if _first(*cell) else pytest.mark.exhaustive)
        for cell in itertools.product(MODELS, DATASETS)
        if cell[0] == "fno" or cell[1] in KINDS_OF_DATA
    ],
)
def test_maps_fields_to_fields(model: str, dataset: str) -> None:
    if (model, dataset) in REFUSED:
        with pytest.raises(Exception, match=REFUSED[model, dataset]):  # Hydra's error, which wraps the model's
            build(smoke(model, f"dataset={dataset}"))
        return
    cfg = smoke(model, f"dataset={dataset}")
    in_channels, out_channels = channels(cfg)
    operator, x = build(cfg), smooth_fields(grid_of(cfg), in_channels)
    given = x.clone()
    output = operator(x)
    assert output.shape == (BATCH, out_channels, *grid_of(cfg).shape)
    assert output.dtype == torch.float32
    assert torch.isfinite(output).all()
    assert torch.equal(x, given), "the input was changed in place"


def test_single_and_double_precision_agree(cfg: RunConfig) -> None:
    x = smooth_fields(grid_of(cfg), channels(cfg)[0], dtype=torch.float64)
    single = build(cfg).eval()(x.float())
    double = build(cfg, dtype=torch.float64).eval()(x)
    assert double.dtype == torch.float64
    assert (single - double).abs().max() <= 1e-4 * double.abs().max()


def test_states_whether_it_runs_on_other_grids(cfg: RunConfig) -> None:
    assert isinstance(build(cfg).resolution_free, bool)


def test_is_built_without_memory_on_the_meta_device(cfg: RunConfig) -> None:
    # Impossible sizes must fail there, before any data are generated.
    with torch.device("meta"):
        operator = build(cfg, prepare=False)
    models = (operator, build(cfg, prepare=False))
    shapes = [{name: tensor.shape for name, tensor in model.state_dict().items()} for model in models]
    assert shapes[0] == shapes[1]
    assert all(parameter.is_meta for parameter in operator.parameters())


def test_a_gradient_reaches_every_parameter(cfg: RunConfig) -> None:
    operator = stirred(build(trained(cfg))).train()
    x = smooth_fields(grid_of(cfg), channels(cfg)[0]).requires_grad_()
    output = operator(x)
    (output * smooth_fields(grid_of(cfg), output.shape[1], seed=1)).sum().backward()
    assert x.grad is not None
    # Single entries may have no gradient (the imaginary part of a mean mode), but no whole tensor.
    gradients = {"input": x.grad, **{name: p.grad for name, p in operator.named_parameters()}}
    silent = [name for name, g in gradients.items() if g is None or not torch.isfinite(g).all() or not g.any()]
    assert not silent


def test_the_output_depends_on_every_block_and_on_every_input_channel(cfg: RunConfig) -> None:
    operator = stirred(build(trained(cfg), dtype=torch.float64)).eval()
    in_channels = channels(cfg)[0]
    x = smooth_fields(grid_of(cfg), in_channels, dtype=torch.float64)[:1]
    with torch.no_grad():
        output = operator(x)
        scale = output.abs().max()
        for name, module in modules_with_parameters(operator):
            own = [(parameter, parameter.clone()) for parameter in module.parameters(recurse=False)]
            for parameter, _ in own:
                parameter.zero_()
            change = (operator(x) - output).abs().max()
            for parameter, value in own:
                parameter.copy_(value)
            assert change > 1e-6 * scale, f"zeroing {name} changes nothing"
        for channel in range(in_channels):
            without = x.clone()
            without[:, channel] = 0
            assert (operator(without) - output).abs().max() > 1e-6 * scale, f"input channel {channel} has no effect"


@pytest.mark.parametrize(
    "model", [pytest.param(name, marks=[pytest.mark.exhaustive] * (name != "fno")) for name in MODELS]
)
def test_one_batch_is_overfitted(model: str) -> None:
    if model == "sfno":
        pytest.skip("its frames are among 9 functions of time, so that it can't fit unrelated ones")
    # SOAP fits a batch in fewer steps than AdamW, and Transolver in 1500 steps at all.
    points = ("dataset.problem.resolution=16",) if model == "gnot" else ()  # it needs minutes on 32 x 32
    cfg = smoke(model, "optimizer=soap", "optimizer.lr=3e-3", *points)
    operator = build(trained(cfg)).train()
    optimizer = instantiate(cfg.optimizer)(operator.parameters())
    in_channels, out_channels = channels(cfg)
    x = smooth_fields(grid_of(cfg), in_channels)
    # The targets are unrelated to the inputs and to each other. A model that can't tell the samples apart can do no
    # better than their mean, which is wrong by sqrt(2/3) for three samples.
    target = smooth_fields(grid_of(cfg), out_channels, seed=1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1, (1500 - step) / 750))
    errors = []  # relative L2
    for _ in range(1500):
        optimizer.zero_grad()
        loss = (operator(x) - target).square().mean() / target.square().mean()
        loss.backward()
        optimizer.step()
        schedule.step()
        errors.append(float(loss.detach().sqrt()))
        if errors[-1] < 0.01:
            break
    assert errors[0] > 0.5
    assert errors[-1] < 0.01


def test_saving_and_loading_is_the_identity(cfg: RunConfig) -> None:
    operator, other = stirred(build(trained(cfg))), build(cfg, seed=1)
    x = smooth_fields(grid_of(cfg), channels(cfg)[0])
    # A pass in training mode changes what a model keeps beside its parameters (batch statistics).
    operator.train()(x)
    operator.eval()
    other.eval()
    assert not torch.equal(operator(x), other(x))
    file = io.BytesIO()
    torch.save(operator.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(operator(x), other(x))


def test_weights_are_a_function_of_the_seed_and_evaluation_is_deterministic(cfg: RunConfig) -> None:
    first, again, other = (build(cfg, seed=seed).eval() for seed in (0, 0, 1))
    x = smooth_fields(grid_of(cfg), channels(cfg)[0])
    output = first(x)
    assert torch.equal(first(x), output)
    assert torch.equal(again(x), output)
    assert torch.equal(other(x), output) is not bool(list(other.parameters()))


def test_a_prediction_doesnt_depend_on_the_other_samples_of_its_batch(cfg: RunConfig) -> None:
    operator = stirred(build(cfg, dtype=torch.float64)).eval()
    x = smooth_fields(grid_of(cfg), channels(cfg)[0], dtype=torch.float64)
    whole = operator(x)
    single = torch.cat([operator(sample) for sample in x.split(1)])
    torch.testing.assert_close(single, whole, rtol=1e-9, atol=1e-11)


def test_a_resolution_free_model_predicts_the_same_fields_on_other_grids(cfg: RunConfig) -> None:
    grid, (in_channels, out_channels) = grid_of(cfg), channels(cfg)
    operator = build(cfg, dtype=torch.float64).eval()
    if not operator.resolution_free:
        pytest.skip("bound to the grid it is trained on, and says so")

    def predict(other: Grid) -> Tensor:
        with torch.no_grad():
            return operator(smooth_fields(other, in_channels, dtype=torch.float64))

    longer = replace(grid, shape=tuple(n + 1 for n in grid.shape))
    assert predict(longer).shape == (BATCH, out_channels, *longer.shape)
    coarse, fine = predict(grid), predict(grid.refine(2))
    shared = fine[(..., *(slice(None, None, 2),) * grid.n_dims)]
    # Not equal: the activations alias, and linspace coordinates of a periodic grid move a little.
    assert (shared - coarse).square().mean().sqrt() <= 0.1 * coarse.std()


@pytest.mark.parametrize(
    "model", [pytest.param(name, marks=[pytest.mark.exhaustive] * (name != "fno")) for name in MODELS]
)
def test_networks_of_any_kind_are_trained_in_stages_unless_they_are_prepared_or_have_nothing_to_train(
    model: str,
) -> None:
    cfg = smoke(model, "surrogate.stages=2")
    spec = instantiate(cfg.dataset.problem).spec
    if model in ("mean_field", "persistence", "pca_ridge", "pca_kernel_ridge", "pod_deeponet"):
        with pytest.raises(InapplicableError, match=r"Use surrogate\.stages=1"):
            rehearse(cfg, spec)
    else:
        surrogate, _ = rehearse(cfg, spec)
        assert isinstance(surrogate.operator, Boosted)


@pytest.mark.parametrize(
    "model", [pytest.param(name, marks=[pytest.mark.exhaustive] * (name != "fno")) for name in MODELS]
)
def test_networks_of_any_kind_correct_a_solver(model: str) -> None:
    cfg = smoke(model, "surrogate=corrected")
    surrogate, _ = rehearse(cfg, instantiate(cfg.dataset.problem).spec)
    assert surrogate.residual
