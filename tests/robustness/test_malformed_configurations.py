"""Malformed command lines and configuration files: each ends in a message that names what is wrong, before any data is
generated, any memory taken or any folder made."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest
from helpers.command import Told, told
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_gen.generation import cache
from neuralop_bench.config.compose import compose
from neuralop_bench.runs import plan

ROOT = Path(__file__).parents[2]
HUGE = 10**12
# A case may take this much more memory than those before it took at most. Importing and composing need some, too.
MOST_MIB = 400


@dataclass
class CommandLine:
    """The program in this process, in a folder of its own."""

    folder: Path
    files: Path
    generated: list[Any] = field(default_factory=list)

    def run(self, *arguments: str, dry: bool = True) -> Told:
        """What a command line comes to. As a dry run, a valid one does nothing either."""
        with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a process prints them; only here are they errors
            patch.chdir(self.folder)
            patch.setattr(cache, "ensure", lambda *given, **_: self.generated.append(given))
            patch.setattr(plan, "_seconds_of_one", lambda _: 1.0)
            return told(*arguments, *(["dry_run=true"] if dry else []))

    def with_experiment(self, text: str | bytes, *arguments: str) -> Told:
        """The same with an experiment file of the user's."""
        file = self.files / "experiment" / "mine.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.encode() if isinstance(text, str) else text)
        return self.run("--config-dir", str(self.files), "track=smoke", "experiment=mine", *arguments)

    def require_harmless(self, outcome: Told, memory_before: int) -> None:
        """It was accepted, or refused in words; and it left nothing behind."""
        shown = outcome.err
        assert list(self.folder.iterdir()) == [], f"files were left: {shown}"
        assert self.generated == [], f"data would have been generated: {shown}"
        assert (_most_memory() - memory_before) / 2**20 < MOST_MIB, shown
        assert outcome.status in (0, 1, 2), shown
        if outcome.status == 1:
            assert shown.startswith("Error: "), shown
            assert len(shown) > len("Error: ") + 10, shown
        elif outcome.status == 2:  # argparse's
            assert "error:" in shown
        assert "\x1b" not in shown
        for word in ("Traceback", "(debug=true shows where)", "HYDRA_FULL_ERROR", "_dummy_:"):
            assert word not in shown
        assert shown.count("\n") <= 3 or outcome.status != 1, f"too long: {shown}"


def _most_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.fixture
def line(tmp_path: Path) -> CommandLine:
    folder = tmp_path / "here"
    folder.mkdir()
    return CommandLine(folder, tmp_path / "files")


@pytest.fixture(scope="module")
def shared_line(tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    """One for many generated examples, each of which leaves it empty."""
    base = tmp_path_factory.mktemp("generated")
    (base / "here").mkdir()
    # What is imported and computed once isn't the examples' own.
    line = CommandLine(base / "here", base / "files")
    assert line.run("track=smoke").status == 0
    return line


# The core, set by hand -----------------------------------------------------------------------------------------------

MALFORMED = [
    # Names
    ("modle=fno", "Unknown key modle"),
    ("model=fmo", "Did you mean fno"),
    ("experiment=nope", "no experiment 'nope'"),
    ("task=../../x", "no task ../../x"),
    ("+trainer.lr=3", "Unknown key trainer.lr. Did you mean optimizer.lr"),
    # The grammar of the command line
    ("model.width=[", "'model.width=[' can't be read"),
    ("~optimizer", "optimizer must name a constructor"),
    # Interpolations
    ("model.width=${oops}", "model.width=${oops} has no value"),
    # Types
    ("seed=1.5", "seed: Value '1.5'"),
    ("dataset.problem.initial=3", "dataset.problem.initial must be of type InitialLaw"),
    ("tracker._target_=torch.nn.Identity", "tracker makes a Identity"),
    # Values
    ("model.n_modes=17", "n_modes must be at most 16"),
    ("model.label=../../x", "model.label must be"),
    ("trainer.epochs=0", "trainer.epochs must be at least 1"),
    ("evaluator.test_splits=[test_haf]", "Did you mean test_half"),
    ("optimizer.lr=-1", "optimizer: Invalid learning rate"),
    # Huge values, which must cost neither memory nor time
    (f"splits.train={HUGE}", "splits.train must be at most"),
    (f"model.width={2**16}", "of memory"),
    ("dataset.problem.resolution=50000", "dataset.problem.resolution=50000"),
    # Constructors that nobody has vouched for
    ("model._target_=os.system", "trust=[os]"),
    ("+model.padding={_target_: os.system, command: ls}", "model.padding._target_=os.system"),
    ("+hydra.callbacks.x={_target_: os.system, command: ls}", "hydra.callbacks.x._target_=os.system"),
    ("hydra.job_logging.handlers.console.class=os.system", "hydra.job_logging.handlers.console.class=os.system"),
]

# The same checks at other keys.
MORE = [
    # Names
    ("paths.data='/dev/null/\x1b[2J'", "/dev/null"),
    ("+splits.foo=3", "Unknown split splits.foo"),
    ("hydra.foo=3", "Unknown key hydra.foo"),
    ("choices={model: fno}", "choices"),
    ("track=", "Unknown track ''"),
    ("recipe=smoke/ns2d_nope", "no recipe 'smoke/ns2d_nope'"),
    ("model=../model/fno", "model must be the name of an option"),
    ("+foo.bar=1", "Unknown key foo"),
    ("model@elsewhere=fno", "model@elsewhere"),
    ("hydra/launcher=nope", "hydra/launcher 'nope'"),
    ("hydra.mode=NOPE", "hydra.mode"),
    ("run=outputs/x", "mode=evaluate"),
    ("dataset=ns2", "Did you mean ns2d"),
    ("optimizer=sgd", "Known: adam, adamw"),
    ("task=foo", "no task foo"),
    ("dataset=../dataset/ns2d", "no task smoke/../dataset/ns2d"),
    ("model=fno.yaml", "model must be the name of an option"),
    ("+paths.foo=1", "Unknown key paths.foo"),
    ("model.width.depth=3", "Unknown key model.width.depth"),
    ("+tracker.foo=1", "Unknown key tracker.foo"),
    ("+model._args_=[1]", "Unknown key model._args_"),
    ("+choices.dataset=../../x", "choices can't be set"),
    ("overrides=[a]", "overrides can't be set"),
    # The grammar of the command line
    ("~splits.test", "splits lacks ['test']"),
    ("=3", "=3"),
    ("++", "'++' can't be read"),
    ("model.label=ä", "'model.label=ä' can't be read"),
    ("paths.data=~/x", "paths.data=~/x"),
    ("model=3", "model=3"),
    ("~model._target_", "model._target_"),
    ("~evaluator.metrics.rel_l2", "lacks rel_l2"),
    ("+=", "Hydra can't compose 'track=smoke' '+='"),
    ("tracker=[[]]", "'tracker=[[]]'"),
    ("model.width={a", "'model.width={a' can't be read"),
    ("model.width='3", "can't be read"),
    ("model.width=(3", "can't be read"),
    ("model.width=3,4", "model.width=3,4"),
    ("model.width=range(3)", "model.width=range(3)"),
    ("model=null", "model=null"),
    ("model=[fno,fno_3d]", "model, dataset and track each need the name of one option"),
    ("~model", "model, dataset and track each need the name of one option"),
    ("~trainer", "trainer"),
    ("~model.label", "model.label"),
    # Interpolations
    ("trainer.epochs=???", "trainer.epochs isn't set"),
    ("model.width=${model.width}", "model.width=${model.width} has no value"),
    ("model.width=${oc.env:NOWHERE_SET}", "model.width=${oc.env:NOWHERE_SET} has no value"),
    ("+model.again=${model}", "model.again"),
    ("seed=${eval:1+1}", "seed=${eval:1+1} has no value"),
    ("model.label=${oc.env:HOME}", "model.label must be"),
    # Types
    ("trust=[1]", "trust must list names of packages"),
    ("model.width=", "model.width must be of type int, got ''"),
    ("model.n_modes=[8,8,8]", "model"),
    ("evaluator.metrics.rel_l2=3", "evaluator.metrics.rel_l2 must name a constructor"),
    ("model._target_=neuralop_bench.models.fno.FNOO", "model._target_"),
    ("seed=null", "seed must have a value"),
    ("surrogate.residual=maybe", "surrogate.residual:"),
    ("model.n_modes=[]", "model.n_modes is empty"),
    ("model.label=[a]", "model.label must be"),
    ("model._partial_=banana", "model._partial_ must be one of"),
    ("optimizer.lr={a: 1}", "optimizer.lr must be of type"),
    ("+dataset.problem._partial_=true", "dataset.problem"),
    ("evaluator.metrics.rel_l2._target_=neuralop_bench.metrics.relative.VRMSE", "must be the metric rel_l2"),
    ("model._target_=torch.optim.Adam", "Unknown key model.n_modes"),
    ("trainer=3", "trainer:"),
    ("trainer=null", "trainer must have a value"),
    ("splits=[1,2]", "splits:"),
    ("splits.train=true", "splits.train:"),
    ("dry_run=maybe", "dry_run:"),
    ("workers=abc", "workers:"),
    ("trust=os", "trust:"),
    ("device=null", "device must have a value"),
    ("paths.data=[a]", "paths.data:"),
    ("model.width=null", "model.width must be of type int, got None"),
    ("model.width={a: 1}", "model.width must be of type int"),
    ("+model.width.a=1", "model.width must be of type int"),
    ("model.n_modes={}", "model.n_modes must be of type"),
    ("model.n_modes=true", "model.n_modes must be of type"),
    ("model.n_modes=[8,x]", "model.n_modes must be of type"),
    ("model.n_modes=[8,8.0]", "model.n_modes must be of type"),
    ("model.label=null", "model.label must be"),
    ("model._partial_=1", "model._partial_ must be one of"),
    ("model._partial_=false", "model needs model.in_channels"),
    ("model._convert_=banana", "model._convert_ must be one of"),
    ("+optimizer.betas=[0.9]", "optimizer.betas must be of type"),
    ("dataset.problem.initial=null", "dataset.problem.initial must be of type InitialLaw"),
    ("~dataset.problem.initial._target_", "dataset.problem.initial must be of type InitialLaw"),
    ("dataset.problem.initial._target_=torch.nn.Identity", "dataset.problem.initial must be of type"),
    ("evaluator.metrics.vrmse._target_=torch.nn.Identity", "evaluator.metrics.vrmse makes a Identity"),
    ("+evaluator.rollout_metrics.x={_target_: torch.nn.Identity}", "evaluator.rollout_metrics.x makes a MetricContext"),
    ("loss._target_=torch.nn.MSELoss", "loss"),
    # Values
    ("paths.outputs=/dev/null/x", "paths.outputs: /dev/null is a file"),
    ("device=tpu", "device='tpu'"),
    ("trainer.clip_norm=nan", "trainer.clip_norm must be positive"),
    ("surrogate.bundle=7", "trainer.unroll=7"),
    ("optimizer.lr=nan", "optimizer.lr must be a finite number"),
    ("dataset.problem.viscosity=-1", "dataset.problem.viscosity must be positive"),
    ("paths.data=", "paths.data must name a folder"),
    (f"paths.outputs={'x' * 300}", "paths.outputs"),
    ("mode=nonsense", "mode must be one of run, evaluate"),
    ("trainer.unroll=11", "trainer.unroll"),
    ("trainer.pushforward=-1", "trainer.pushforward must be at least 0"),
    ("trainer.prepare_copies=0", "trainer.prepare_copies must be at least 1"),
    ("surrogate.stages=0", "surrogate.stages must be at least 1"),
    ("surrogate.stages=3", "can't be divided equally among surrogate.stages=3"),
    ("trainer.residual_weight=1", "trainer.residual_weight=1.0 needs a problem with a residual"),
    ("trainer.data_weight=0", "trainer.data_weight=0.0 only weighs the loss"),
    ("trainer.diverted=true", "trainer.pushforward of at least 1"),
    ("surrogate.solver=0.01", "surrogate.solver=0.01: the solver of ns2d doesn't work"),
    ("surrogate.solver=2", "surrogate.solver must be at most 1"),
    ("surrogate.solver_steps=2", "surrogate.solver_steps=2.0 has no effect without surrogate.solver"),
    ("surrogate.cutoff=0", "surrogate.cutoff must be at least"),
    ("init_from=nowhere", "init_from=nowhere is neither a file of weights nor the directory of a finished run"),
    ("dataset.ladder=[1,0]", "dataset.ladder[1] must be at least"),
    ("preload_gib=nan", "preload_gib must be at least 0"),
    ("scheduler.warmup=2", "scheduler: Expected float between 0 and 1"),
    ("dataset.problem.first_time=1e300", "dataset.problem: Snapshot times must increase"),
    ("model.width=0", "model.width"),
    ("model.label=-x", "model.label must be"),
    ("paths.outputs=", "paths.outputs must name a folder"),
    ("paths.data=/dev/null", "paths.data: /dev/null is a file"),
    ("device=cuda:-1", "device='cuda:-1'"),
    ("trainer.workers=-1", "trainer.workers must be at least 0"),
    ("trainer.pushforward=10", "trainer.pushforward"),
    ("trainer.checkpoint_seconds=0", "trainer.checkpoint_seconds must be positive"),
    ("evaluator.batch_size=0", "evaluator.batch_size must be at least 1"),
    ("evaluator.test_splits=[train]", "evaluator.test_splits contains 'train'"),
    ("dataset.ladder=[17]", "dataset.ladder[0] must be at most 16"),
    ("dataset.history=-1", "dataset.history must be at least 0"),
    ("dataset.horizon=0", "dataset.horizon must be at least 1"),
    ("dataset.seed=-1", "dataset.seed must be at least 0"),
    ("preload_gib=inf", "preload_gib must be at most"),
    ("workers=0", "workers must be at least 1"),
    ("+optimizer.betas=[2,3]", "optimizer: Invalid beta"),
    ("+loss.eps=inf", "loss.eps must be a finite number"),
    ("+scheduler.start_factor=0", "scheduler can't be used as it is configured"),
    ("dataset.problem.viscosity=nan", "dataset.problem.viscosity must be a finite number"),
    ("dataset.problem.interval=0", "dataset.problem.interval must be positive"),
    ("dataset.problem.first_time=-1", "dataset.problem.first_time must be"),
    ("dataset.problem.forcing.sine=nan", "dataset.problem.forcing.sine must be a finite number"),
    ("dataset.problem.cfl_safety=2", "dataset.problem.cfl_safety must be in (0, 1]"),
    ("dataset.problem.oversampling=inf", "dataset.problem.oversampling must be a finite number"),
    ("dataset.problem.inner_batch=0", "dataset.problem.inner_batch must be at least 1"),
    ("dataset.problem.initial.tau=-1", "dataset.problem.initial"),
    # Huge values, which must cost neither memory nor time
    (f"seed={10**30}", "seed must be at most"),
    (f"splits.train={10**9}", "paths.data"),
    (f"model.width={10**9}", "model.width must be at most"),
    (f"dataset.problem.resolution={10**6}", "dataset.problem.resolution must be at most"),
    (f"trainer.epochs={HUGE}", "trainer.epochs must be at most"),
    (f"trainer.batch_size={HUGE}", "trainer.batch_size must be at most"),
    (f"trainer.workers={HUGE}", "trainer.workers must be at most"),
    (f"workers={HUGE}", "workers must be at most"),
    (f"dataset.history={10**9}", "dataset.history"),
    (f"dataset.horizon={HUGE}", "dataset.horizon must be at most"),
    (f"dataset.seed={10**30}", "dataset.seed must be at most"),
    (f"model.n_layers={HUGE}", "model.n_layers must be at most"),
    ("model.n_layers=65000", "model.n_layers must be at most 1024"),
    ("dataset.horizon=1000000", "dataset.horizon must be at most 65536"),
    (f"model.projection_width={10**24}", "model.projection_width must be at most"),
    ("dataset.problem.oversampling=1e9", "dataset.problem.oversampling=1000000000.0"),
    (f"dataset.problem.n_snapshots={HUGE}", "dataset.problem.n_snapshots must be at most"),
    (f"dataset.problem.inner_batch={HUGE}", "dataset.problem.inner_batch must be at most"),
    # Constructors that nobody has vouched for
    ("model._target_=neuralop_bench.runtime.environment.subprocess.run", "trusted constructors"),
    ("+model.activation=[{a: [{_target_: os.system}]}]", "model.activation[0].a[0]._target_=os.system"),
    ("model._target_=torch.hub.load", "model._target_=torch.hub.load"),
    ("loss._target_=neuralop_bench.training.losses.Tensor", "isn't a constructor of a trusted package"),
    ("model._target_=[os.system]", "model._target_ must be a dotted name"),
    ("+evaluator.metrics.x=[{_target_: os.system}]", "evaluator.metrics.x"),
    ("model._target_=subprocess.run", "trust=[subprocess]"),
    ("model._target_=builtins.eval", "trust=[builtins]"),
    ("model._target_=data_gen.store.h5py.File", "trusted constructors"),
    ("model._target_=neuralop_bench.models.fno.FNO.__init__", "trusted constructors"),
    ("loss._target_=neuralop_bench.training.losses._relative", "trusted constructors"),
    ("model._target_=", "model._target_ must be a dotted name"),
    ("dataset.problem.initial._target_=os.system", "dataset.problem.initial._target_=os.system"),
    ("evaluator.metrics.vrmse._target_=os.system", "evaluator.metrics.vrmse._target_=os.system"),
    ("tracker._target_=os.system", "tracker._target_=os.system"),
    ("hydra.launcher._target_=os.system", "hydra.launcher._target_=os.system"),
]


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        *(pytest.param(*case, id=case[0][:60]) for case in MALFORMED),
        *(pytest.param(*case, id=case[0][:60], marks=pytest.mark.exhaustive) for case in MORE),
    ],
)
def test_a_malformed_argument_is_refused_in_words_that_name_it(line: CommandLine, argument: str, expected: str) -> None:
    before = _most_memory()
    outcome = line.run("track=smoke", argument)
    line.require_harmless(outcome, before)
    assert outcome.status == 1, outcome.out
    assert expected in outcome.err


SEVERAL = [
    (("model=external",), "model.target=<package.Class>"),
    (("model=external", "model.target=nothing.Here"), "model.target='nothing.Here'"),
    (("model=external", "model.target=os.system"), "model.target='os.system' can't be a model"),
    (("model=external", "model.target=torch.nn.Conv2d", "+model.arguments={nope: 1}"), "model.arguments"),
    (("model=external", "model.target=torch.nn.Conv2d", "+model.arguments={x: {_target_: os.system}}"), "trust=[os]"),
    (("model=external", "model.target=torch.nn.Conv2d", f"+model.arguments={{kernel_size: {HUGE}}}"), "kernel_size"),
    (("scheduler=step_decay", "scheduler.every=0"), "scheduler can't be used"),
    (("augmentation=symmetries", "dataset.problem.resolution=30"), "augmentation=none"),
    (("tracker=wandb", "tracker.mode=nope"), "tracker.mode"),
    (("model=fno", "model=fno_3d", "surrogate.bundle=1"), "surrogate.bundle"),
    (("trust=[os]", "model._target_=os.system"), "isn't a constructor of a trusted package"),
    (("seed=0", "seed=abc"), "seed: Value 'abc'"),
    (("--config-name=nope",), "nope"),
    (("--config-dir=nowhere",), "nowhere"),
    (("--experimental-rerun=config.pickle",), "unpickle"),
    (("--experim", "config.pickle"), "unpickle"),
    (("--resolve",), "--resolve"),
    (("--cfg", "job", "model.width=["), "'model.width=['"),
    (("--nonsense",), "unrecognized arguments"),
    (("--cfg", "nope"), "invalid choice"),
]


@pytest.mark.parametrize(("arguments", "expected"), SEVERAL, ids=[" ".join(case[0])[:60] for case in SEVERAL])
def test_arguments_that_are_wrong_together_are_refused_as_well(
    line: CommandLine, arguments: tuple[str, ...], expected: str
) -> None:
    before = _most_memory()
    outcome = line.run(*arguments, "track=smoke")
    line.require_harmless(outcome, before)
    assert outcome.status != 0
    assert expected in outcome.err


EVALUATE = [
    ((), "mode=evaluate needs the directory"),
    (("run=",), "record.json"),
    (("run=nowhere",), "record.json"),
    (("run=${oops}",), "run=${oops}"),
    (("run=/dev/null",), "record.json"),
    (("run=nowhere", "model.width=8"), "model.width"),
    (("run=nowhere", "+splits.test_x=3"), "splits.test_x"),
    (("run=nowhere", "dry_run=true"), "dry_run"),
    (("run=nowhere", "evaluator=nope"), "Unknown evaluator 'nope'"),
]


@pytest.mark.parametrize(("arguments", "expected"), EVALUATE)
def test_an_evaluation_of_nothing_is_refused(line: CommandLine, arguments: tuple[str, ...], expected: str) -> None:
    before = _most_memory()
    outcome = line.run("mode=evaluate", *arguments, dry=False)
    line.require_harmless(outcome, before)
    assert outcome.status == 1
    assert expected in outcome.err


GLOBAL = "# @package _global_\n"
FILES = [
    (b"\x00\x01\xff\xfe junk", "experiment=mine"),
    (b"\x80\x81 not UTF-8", "experiment=mine"),
    (GLOBAL + "model:\n\twidth: 8\n", "mine.yaml"),
    (GLOBAL + "model: {width: 8\n", "mine.yaml"),
    (GLOBAL + "model: {width: 8}\nmodel: {width: 9}\n", "duplicate key model"),
    (GLOBAL + "model: &a {width: *a}\n", "experiment=mine"),
    (GLOBAL + "- model\n- width\n", "experiment=mine"),
    (GLOBAL + "just words\n", "Unknown key just words"),
    (GLOBAL + "3\n", "experiment=mine"),
    (GLOBAL + "!!python/object/apply:os.system ['touch canary']\n", "mine.yaml"),
    ("model: {width: 8}\n", "Unknown key experiment"),
    (GLOBAL + "model: {widht: 8}\n", "Unknown key model.widht"),
    (GLOBAL + "model: {width: abc}\n", "model.width must be of type int"),
    (GLOBAL + "model: 3\n", "model"),
    (GLOBAL + "splits: {a: {a: {a: 1}}}\n", "splits.a"),
    (GLOBAL + "model: [1, 2]\n", "experiment=mine"),
    (GLOBAL + "1: 2\n", "Unknown key 1"),
    (GLOBAL + "trainer: {epochs: [1]}\n", "trainer.epochs"),
    (GLOBAL + "trainer: {epoch: 1}\n", "Unknown key trainer.epoch"),
    (GLOBAL + 'paths: {data: "a\\0b"}\n', "paths.data must name a folder"),
    (GLOBAL + "model: {_target_: os.system}\n", "trust=[os]"),
    (GLOBAL + "trust: [os]\nmodel: {_target_: os.system}\n", "trust can only be given on the command line"),
    (GLOBAL + "model: {width: '${oops}'}\n", "model.width=${oops} has no value"),
    (GLOBAL + "defaults: [mine]\n", "experiment=mine"),
    (GLOBAL + "defaults: [/experiment/mine]\n", "experiment=mine"),
    (GLOBAL + "defaults: [{override /model: nope}]\n", "Unknown model 'nope'"),
    (GLOBAL + "defaults: {model: fno}\n", "defaults"),
    (GLOBAL + "defaults: 3\n", "defaults"),
    (GLOBAL + "defaults: [{a: {b: 1}}]\n", "experiment=mine"),
    (GLOBAL + "defaults: [verride /optimizer: adam]\n", "optimizer"),
    (GLOBAL + "defaults: [o @verride /optimizer: adam]\n", "experiment=mine"),
    (GLOBAL + "hydra: {callbacks: {x: {_target_: os.system, command: touch canary}}}\n", "hydra.callbacks.x._target_"),
    (
        GLOBAL + "hydra: {callbacks: {x: '${optimizer.x}'}}\noptimizer: {x: {_target_: os.system}}\n",
        "hydra.callbacks.x._target_",
    ),
    (GLOBAL + "hydra: {job_logging: {handlers: {x: {(): os.system, command: touch canary}}}}\n", "hydra.job_logging"),
]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(*case, id=str(case[0])[:70], marks=[] if case in FILES[::3] else pytest.mark.exhaustive)
        for case in FILES
    ],
)
def test_a_malformed_experiment_file_is_refused(line: CommandLine, text: str | bytes, expected: str) -> None:
    before = _most_memory()
    outcome = line.with_experiment(text)
    line.require_harmless(outcome, before)
    assert outcome.status == 1, outcome.out
    assert expected in outcome.err


def test_one_key_may_take_its_value_from_another(line: CommandLine) -> None:
    outcome = line.run("track=smoke", "scheduler.warmup=${optimizer.weight_decay}")
    assert outcome.status == 0, outcome.err


def test_two_experiment_files_that_name_each_other_are_refused(line: CommandLine) -> None:
    (line.files / "experiment").mkdir(parents=True)
    (line.files / "experiment" / "other.yaml").write_text(GLOBAL + "defaults: [mine]\n")
    before = _most_memory()
    outcome = line.with_experiment(GLOBAL + "defaults: [other]\n")
    line.require_harmless(outcome, before)
    assert outcome.status == 1
    assert "experiment=mine" in outcome.err


def test_a_good_experiment_file_is_accepted(line: CommandLine) -> None:
    outcome = line.with_experiment(GLOBAL + "defaults: [{override /optimizer: adam}]\nmodel: {width: 8}\n")
    assert outcome.status == 0, outcome.err
    assert "track smoke" in outcome.out


# Generated -----------------------------------------------------------------------------------------------------------

# Deterministic, so that a failure here is the same failure everywhere.
EXAMPLES = settings(
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=70,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
VALID = [
    "model=fno",
    "model.width=8",
    "model.n_modes=[8,4]",
    "+model.activation=relu",
    "optimizer=adam",
    "optimizer.lr=1e-3",
    "scheduler=step_decay",
    "dataset.problem.viscosity=2e-3",
    "dataset.problem.initial.tau=5",
    "splits={train: 8, valid: 2, test: 2}",
    "trainer.epochs=3",
    "augmentation=symmetries",
    "surrogate.residual=false",
    "evaluator.metrics.vrmse={_target_: neuralop_bench.metrics.relative.VRMSE, _partial_: true}",
    "tracker=wandb",
    "device=cpu",
    "seed=${dataset.seed}",
    "~recipe",
]
# No control characters: an argument can't hold a NUL, and the others say nothing new.
TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=8)
GRAMMAR = st.text("[]{}()<>=,:+~@$.'\"\\ -_/*#?!|\t0aeé∂", max_size=6)
VALUES = st.one_of(
    st.sampled_from(
        ["", "null", "true", "nan", "-inf", "???", "[]", "{}", "[[]]", "{a: {b: [1]}}", "${seed}", "1e400"]
    ),
    st.integers(-(10**30), 10**30).map(str),
    st.integers(-3, 40).map(str),
    st.floats().map(str),
    TEXT,
    GRAMMAR,
    st.recursive(
        st.sampled_from(["1", "x", "null", "1.5"]),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3).map(lambda entries: f"[{','.join(entries)}]"),
            st.dictionaries(st.sampled_from(["a", "_target_", "lr"]), inner, max_size=2).map(
                lambda entries: f"{{{','.join(f'{key}: {value}' for key, value in entries.items())}}}"
            ),
        ),
        max_leaves=5,
    ),
)


def _keys(node: Any, prefix: str = "") -> Iterator[str]:
    for key, value in node.items():
        yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _keys(value, f"{prefix}{key}.")


KEYS = sorted(_keys(asdict(compose("track=smoke"))))


@st.composite
def mutated(draw: st.DrawFn, text: str) -> str:
    """The text with one to three characters or pieces removed, exchanged or inserted."""
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(text)))
        cut = draw(st.integers(0, 2))
        text = text[:at] + draw(st.one_of(st.just(""), GRAMMAR, TEXT)) + text[at + cut :]
    return text


ARGUMENTS = st.one_of(
    st.sampled_from(VALID).flatmap(mutated),
    st.builds(
        lambda sign, key, value: f"{sign}{key}={value}", st.sampled_from(["", "+", "++"]), st.sampled_from(KEYS), VALUES
    ),
    st.builds(lambda key: f"~{key}", st.sampled_from(KEYS)),
    st.builds(lambda sign, key, value: f"{sign}{key}={value}", st.sampled_from(["", "+"]), TEXT, VALUES),
).filter(lambda argument: not argument.startswith("-"))  # flags are another matter: some start a sweep


@pytest.mark.exhaustive
@pytest.mark.slow
@EXAMPLES
@given(arguments=st.lists(ARGUMENTS, min_size=1, max_size=3))
def test_generated_command_lines_are_accepted_or_refused_in_words(
    shared_line: CommandLine, arguments: list[str]
) -> None:
    before = _most_memory()
    shared_line.require_harmless(shared_line.run("track=smoke", *arguments), before)


@pytest.mark.exhaustive
@pytest.mark.slow
@EXAMPLES
@given(key=st.sampled_from(KEYS), value=VALUES)
def test_any_value_for_any_key_is_accepted_or_refused_in_words(shared_line: CommandLine, key: str, value: str) -> None:
    before = _most_memory()
    shared_line.require_harmless(shared_line.run("track=smoke", f"{key}={value}"), before)


EXPERIMENT = """# @package _global_
defaults:
  - override /optimizer: adam
  - _self_
model: {width: 8, n_modes: [8, 8]}
optimizer:
  lr: 1.0e-3
splits: {train: 8}
trainer: {batch_size: 4}
seed: 3
"""


@pytest.mark.slow
@pytest.mark.exhaustive
@EXAMPLES
@given(text=mutated(EXPERIMENT))
def test_generated_experiment_files_are_accepted_or_refused_in_words(shared_line: CommandLine, text: str) -> None:
    before = _most_memory()
    shared_line.require_harmless(shared_line.with_experiment(text), before)


@pytest.mark.slow
@pytest.mark.exhaustive
@EXAMPLES
@given(content=st.binary(max_size=40))
def test_any_bytes_as_an_experiment_file_are_refused_in_words(shared_line: CommandLine, content: bytes) -> None:
    before = _most_memory()
    shared_line.require_harmless(shared_line.with_experiment(GLOBAL.encode() + content), before)


# As processes --------------------------------------------------------------------------------------------------------

PROCESSES = [
    ("model=fmo", "Did you mean fno"),
    ("model.width=[", "can't be read"),
    ("model._target_=os.system", "trust=[os]"),
    ("seed=${oops}", "seed=${oops}"),
    ("+trainer.lr=1", "Unknown key trainer.lr"),
    ("paths.outputs=/dev/null/x", "is a file"),
    ("--experimental-rerun=x", "unpickle"),
    ("+hydra.callbacks.x._target_=os.system", "hydra.callbacks.x._target_"),
    ("dataset.problem.viscosity=-1", "dataset.problem.viscosity"),
    ("optimizer.lr=-1", "learning rate"),
    # With 8 GiB of address space: what these ask for would not fit.
    (f"model.n_layers={HUGE}", "model.n_layers"),
    (f"dataset.problem.n_snapshots={HUGE}", "dataset.problem.n_snapshots"),
    ("dataset.problem.resolution=60000", "dataset.problem.resolution"),
    ("model.width=65536", "of memory"),
]


def _process(folder: Path, *arguments: str, flag: str = "--run") -> subprocess.CompletedProcess[str]:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (8 * 2**30, 8 * 2**30))

    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "run.py"), flag, "track=smoke", *arguments]  # flags come first
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, preexec_fn=limit
    )


# Each has been tried above, in this process.
FIRST = "--experimental-rerun=x"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("argument", "expected"),
    [case if case[0] == FIRST else pytest.param(*case, marks=pytest.mark.exhaustive) for case in PROCESSES],
)
def test_a_process_ends_with_the_same_words(tmp_path: Path, argument: str, expected: str) -> None:
    done = _process(tmp_path, argument)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: ")
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.exhaustive
def test_a_bad_job_of_a_sweep_and_bad_runs_leave_nothing_that_blocks_a_good_run(tmp_path: Path) -> None:
    for bad in ("model.n_modes=17", "paths.data=/dev/null/x", "model.width=65536"):
        assert _process(tmp_path, bad).returncode == 1
    sweep = _process(tmp_path, "model.width=abc,def", flag="-m")
    assert sweep.returncode == 1
    assert "2 of 2 jobs didn't finish" in sweep.stderr
    assert sweep.stderr.count(": model.width must be of type int") == 2
    assert not list(tmp_path.rglob("record.json"))
    done = _process(tmp_path, "trainer.epochs=1", "splits={train: 8, valid: 4, test: 4}")
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.rglob("record.json"))) == 1
