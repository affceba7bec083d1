"""model=external: any nn.Module of any package. Tried with two models of the neuralop package."""

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from torch import Tensor, nn

from data_gen.grids import Grid
from neuralop_bench import pipeline
from neuralop_bench.config import schema
from neuralop_bench.config.compose import compose as composed
from neuralop_bench.config.identity import identity, run_directory
from neuralop_bench.config.schema import RunConfig
from neuralop_bench.metrics.cost import count_parameters
from neuralop_bench.models.external import External
from neuralop_bench.models.fno import FNO
from neuralop_bench.surrogate.normalization import Normalizer
from neuralop_bench.surrogate.rollout import rollout
from neuralop_bench.surrogate.surrogate import Surrogate
from neuralop_bench.training.losses import relative_l2

GRID = Grid.periodic(16)

TFNO = (
    "model.target=neuralop.models.TFNO",
    "+model.arguments={n_modes: [16, 16], hidden_channels: 32}",
    "model.label=tfno",
)
UNO = (
    "model.target=neuralop.models.UNO",
    "model.arguments={hidden_channels: 12, lifting_channels: 24, projection_channels: 24, n_layers: 4, "
    "uno_out_channels: [12, 24, 24, 12], uno_n_modes: [[12, 12], [6, 6], [6, 6], [12, 12]], "
    "uno_scalings: [[1.0, 1.0], [0.5, 0.5], [1.0, 1.0], [2.0, 2.0]], channel_mlp_skip: linear}",
    "model.label=uno",
)
FOREIGN = pytest.mark.parametrize("overrides", [TFNO, UNO], ids=["tfno", "uno"])


def compose(*overrides: str) -> RunConfig:
    return composed("model=external", "track=smoke", *overrides)


def build(cfg: RunConfig) -> External:
    """The operator as the pipeline builds it for smoke Navier-Stokes: ten snapshots to one."""
    problem = instantiate(cfg.dataset.problem)
    return instantiate(schema.constructor(cfg.model))(
        in_channels=cfg.dataset.history, out_channels=cfg.surrogate.bundle, grid=problem.spec.grid
    )


def external(target: str, arguments: dict[str, Any] | None = None, **options: Any) -> External:
    return External(in_channels=3, out_channels=2, grid=GRID, target=target, arguments=arguments, **options)


def surrogate_of(operator: nn.Module) -> Surrogate:
    one, none = torch.ones(1, dtype=torch.float64), torch.empty(0, dtype=torch.float64)
    return Surrogate(operator, Normalizer(0 * one, one, none, none, torch.empty(0, 1, dtype=torch.float64)))


# Models of another package -------------------------------------------------------------------------------------------


@FOREIGN
def test_a_foreign_model_maps_fields_and_every_parameter_is_reached(overrides: tuple[str, ...]) -> None:
    torch.manual_seed(0)
    operator = build(compose(*overrides))
    x = torch.randn(2, 10, 32, 32, requires_grad=True)
    output = operator(x)
    assert output.shape == (2, 1, 32, 32)
    output.square().sum().backward()
    gradients = {"input": x.grad, **{name: p.grad for name, p in operator.named_parameters()}}
    assert not [name for name, g in gradients.items() if g is None or not torch.isfinite(g).all() or not g.any()]


@FOREIGN
def test_a_foreign_model_is_tried_without_memory(overrides: tuple[str, ...]) -> None:
    with torch.device("meta"):
        operator = build(compose(*overrides))
    assert all(parameter.is_meta for parameter in operator.parameters())
    assert count_parameters(operator) == count_parameters(build(compose(*overrides)))


@FOREIGN
def test_a_foreign_model_is_trained_through_a_surrogate(overrides: tuple[str, ...]) -> None:
    cfg = compose(*overrides)
    torch.manual_seed(0)
    surrogate = surrogate_of(build(cfg))
    optimizer = instantiate(cfg.optimizer)(surrogate.parameters())
    history, static = torch.randn(4, 10, 1, 32, 32), torch.empty(4, 0, 32, 32)
    target = torch.randn(4, 2, 1, 32, 32)
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        loss = relative_l2(rollout(surrogate, history, static, 2), target)
        loss.backward()
        nn.utils.clip_grad_norm_(surrogate.parameters(), cfg.trainer.clip_norm)
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]


@FOREIGN
def test_the_state_of_a_foreign_model_is_tensors_and_can_be_loaded(overrides: tuple[str, ...]) -> None:
    first, other = (surrogate_of(build(compose(*overrides))).eval() for _ in range(2))
    history, static = torch.randn(1, 10, 1, 32, 32), torch.empty(1, 0, 32, 32)
    assert not torch.equal(first(history, static), other(history, static))
    state = first.state_dict()
    assert all(isinstance(value, Tensor) for value in state.values())
    # What isn't the module's is still there.
    assert any(name.startswith("normalizer.") for name in state)
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(first(history, static), other(history, static))


def test_complex_weights_count_as_two_real_numbers() -> None:
    operator = build(compose(*TFNO))
    n_complex = sum(p.numel() for p in operator.parameters() if p.is_complex())
    assert n_complex > 0
    assert count_parameters(operator) == sum(p.numel() for p in operator.parameters()) + n_complex
    assert surrogate_of(operator).n_parameters == count_parameters(operator)


@pytest.mark.exhaustive
def test_a_whole_run(smoke) -> None:
    small = "+model.arguments={n_modes: [8, 8], hidden_channels: 8}"
    cfg = smoke("model=external", "model.target=neuralop.models.TFNO", small, "model.label=tfno")
    assert pipeline.run(cfg).status == "finished"
    assert run_directory(cfg).parent.parent.name == "tfno"


def test_the_board_shows_the_label_and_the_hash_knows_the_target() -> None:
    tfno, uno = identity(compose(*TFNO)), identity(compose(*UNO))
    assert (tfno.model, uno.model) == ("tfno", "uno")
    assert identity(compose()).model == "external"
    assert len({tfno.config_hash, uno.config_hash, identity(compose()).config_hash}) == 3


# Arguments -----------------------------------------------------------------------------------------------------------


class Recorder(nn.Module):
    def __init__(self, **given: Any) -> None:
        super().__init__()
        self.given = given


RECORDER = f"{__name__}.Recorder"


@pytest.mark.parametrize(
    ("passed", "expected"),
    [
        ({}, {"in_channels": 3, "out_channels": 2}),
        ({"in_channels": "n_in", "out_channels": "n_out"}, {"n_in": 3, "n_out": 2}),
        ({"in_channels": None, "grid": "domain"}, {"out_channels": 2, "domain": GRID}),
        ({"in_channels": None, "out_channels": None}, {}),
    ],
)
def test_pass_says_what_the_module_is_given(passed: dict[str, str | None], expected: dict[str, Any]) -> None:
    given = external(RECORDER, {"depth": 4}, **{"pass": passed}).module.given
    assert given == {"depth": 4, **expected}


def test_pass_and_arguments_from_the_command_line() -> None:
    cfg = compose("model.target=torch.nn.Conv2d", "model.arguments={kernel_size: 1}", "model.pass.grid=g")
    assert cfg.model["arguments"] == {"kernel_size": 1}
    # What isn't mentioned stays as it is by default.
    assert cfg.model["pass"] == {"in_channels": "in_channels", "out_channels": "out_channels", "grid": "g"}
    cfg = compose("model.target=x.Y", "model.pass={in_channels: n_in, out_channels: null}")
    assert cfg.model["pass"] == {"in_channels": "n_in", "out_channels": None, "grid": None}


def test_our_own_model_through_the_door_is_the_same_model() -> None:
    arguments = {"n_modes": 3, "width": 4}
    models = []
    for make in (
        lambda: FNO(in_channels=3, out_channels=2, grid=GRID, **arguments),
        lambda: external("neuralop_bench.models.fno.FNO", arguments, **{"pass": {"grid": "grid"}}),
    ):
        torch.manual_seed(0)
        models.append(make())
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(models[0](x), models[1](x))
    assert models[1].resolution_free is True
    assert external("torch.nn.Conv2d", {"kernel_size": 1}).resolution_free is False


def test_arguments_are_not_shared_with_the_configuration() -> None:
    arguments = {"kernel_size": 1}
    external("torch.nn.Conv2d", arguments)
    assert arguments == {"kernel_size": 1}


class ReadsValues(nn.Module):
    """Can't be built on the meta device: it looks at its own weights."""

    def __init__(self, in_channels: int, out_channels: int, scale: float = 1.0) -> None:
        super().__init__()
        self.linear = nn.Linear(in_channels, out_channels)
        self.norm = scale / float(self.linear.weight.detach().norm())


def test_a_module_that_reads_values_while_it_is_built_survives_the_trial() -> None:
    with torch.device("meta"), pytest.raises((RuntimeError, NotImplementedError)):
        ReadsValues(3, 2)
    with torch.device("meta"):
        operator = external(f"{__name__}.ReadsValues", {"scale": 2.0})
        assert all(parameter.is_meta for parameter in operator.parameters())
        with pytest.raises(ValueError, match=r"refused its arguments.*unexpected keyword argument 'shift'"):
            external(f"{__name__}.ReadsValues", {"shift": 2.0})


# Errors --------------------------------------------------------------------------------------------------------------


def test_a_missing_target_is_asked_for() -> None:
    with pytest.raises(ValueError, match=r"model=external needs model\.target=<package\.Class>"):
        build(compose())


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("TFNO", "'TFNO' must be a dotted path"),
        (
            "no_such_package.Net",
            r"no_such_package can't be imported \(ModuleNotFoundError.*Check the spelling, or insta",
        ),
        ("neuralop.models.TFON", r"neuralop\.models has no TFON\. Did you mean neuralop\.models\.TFNO"),
        ("torch.nn.functional.relu", "isn't a class of torch.nn.Module"),
        ("os.system", "isn't a class of torch.nn.Module"),
        ("builtins.eval", "isn't a class of torch.nn.Module"),
        ("torch.nn.functional", "isn't a class of torch.nn.Module"),
    ],
)
def test_what_is_no_model_is_refused_before_anything_is_called(target: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        external(target)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ({"kernel": 1}, {}, r"Conv2d refused its arguments in_channels, kernel, out_channels: TypeError.*'kernel'"),
        ({"kernel_size": 1, "in_channels": 5}, {}, r"given in_channels twice.*model\.pass\.in_channels=null"),
        ({"kernel_size": 1}, {"pass": {"gird": "grid"}}, r"Unknown key model\.pass\.gird: .*out_channels, grid"),
        ({"kernel_size": 1}, {"pass": 3}, r"model\.pass must map names to values, got 3"),
        (3, {}, r"model\.arguments must map names to values, got 3"),
        ({}, {"kernel_size": 1}, r"model\.kernel_size: .*write \+model\.arguments\.kernel_size=<value>"),
    ],
)
def test_arguments_that_cant_be_used_are_refused(arguments: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        external("torch.nn.Conv2d", arguments, **options)


def test_a_target_whose_import_fails_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_package.py").write_text("raise RuntimeError('no licence')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=r"broken_package can't be imported \(RuntimeError: no licence\)"):
        external("broken_package.Net")


def test_an_output_of_another_shape_is_refused_by_the_surrogate() -> None:
    surrogate = surrogate_of(external("torch.nn.Conv2d", {"kernel_size": 3}))
    with pytest.raises(ValueError, match=r"returned fields of shape \(1, 2, 14, 14\), expected \(1, 1, 16, 16\)"):
        surrogate(torch.zeros(1, 3, 1, 16, 16), torch.empty(1, 0, 16, 16))


def test_a_module_can_be_declared_resolution_free() -> None:
    options = {"arguments": {"kernel_size": 1}}
    assert [
        external("torch.nn.Conv2d", **options, resolution_free=given).resolution_free for given in (True, None)
    ] == [
        True,
        False,
    ]
    target = ("model.target=torch.nn.Conv2d", "model.arguments={kernel_size: 1}")
    assert build(compose(*target, "model.resolution_free=true")).resolution_free is True
    assert build(compose(*target)).resolution_free is False
    # Runs made before the key existed keep their names; a declared one can be measured on other grids and is another.
    before, declared = compose(*target), compose(*target, "model.resolution_free=true")
    old = compose(*target)
    del old.model["resolution_free"]
    assert identity(before).config_hash == identity(old).config_hash != identity(declared).config_hash
