"""What comes from somebody else is data: no file that is read can run code, unless its package is trusted by name."""

from __future__ import annotations

import ast
import hashlib
import io
import os
import pickle
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
import yaml

from neuralop_bench import __main__ as program
from neuralop_bench import pipeline, predict, verify
from neuralop_bench.config import constructors
from neuralop_bench.config.compose import compose
from neuralop_bench.config.constructors import ConfigError
from neuralop_bench.config.identity import run_directory
from neuralop_bench.config.recorded import for_evaluation, of_record
from neuralop_bench.config.schema import RunConfig
from neuralop_bench.records.record import RecordError, RunRecord
from neuralop_bench.records.run_directory import RunError
from neuralop_bench.runs import plan
from neuralop_bench.surrogate.checkpoint import CheckpointError
from neuralop_bench.surrogate.surrogate import Surrogate

ROOT = Path(__file__).parents[2]
SOURCES = sorted(path for package in ("data_gen", "neuralop_bench") for path in (ROOT / package).rglob("*.py"))

# The sources ---------------------------------------------------------------------------------------------------------

FORBIDDEN = ("eval", "exec", "compile", "__import__")
UNSAFE_MODULES = ("pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve")
UNSAFE_LOADERS = ("load", "load_all", "full_load", "unsafe_load", "full_load_all", "unsafe_load_all")


def unsafe_calls(source: str) -> Iterator[str]:
    """Calls and imports that run what they read."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
            yield from (name for name in names if name.split(".")[0] in UNSAFE_MODULES)
        elif isinstance(node, ast.ImportFrom):
            if (node.module or "").split(".")[0] in UNSAFE_MODULES:
                yield str(node.module)
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            if (
                name in FORBIDDEN
                or name.endswith("read_pickle")
                or (name == "torch.load" and options.get("weights_only") != "True")
                or (name == "np.load" and options.get("allow_pickle", "False") != "False")
                or (name.startswith("yaml.") and name.removeprefix("yaml.") in UNSAFE_LOADERS)
            ):
                yield name


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_source_runs_what_it_reads(path: Path) -> None:
    assert list(unsafe_calls(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "source",
    [
        "eval('1')",
        "exec('x = 1')",
        "__import__('os')",
        "import pickle",
        "from pickle import loads",
        "import joblib.numpy_pickle",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.load(path, weights_only=flag)",
        "np.load(path, allow_pickle=True)",
        "yaml.load(text, Loader)",
        "yaml.unsafe_load(text)",
        "pandas.read_pickle(path)",
    ],
)
def test_the_search_finds_what_it_looks_for(source: str) -> None:
    assert len(list(unsafe_calls(source))) == 1


def test_the_search_lets_safe_readers_pass() -> None:
    safe = "torch.load(p, weights_only=True); np.load(p); np.load(p, allow_pickle=False); yaml.safe_load(t); m.eval()"
    assert list(unsafe_calls(safe)) == []


# Files that would run code -------------------------------------------------------------------------------------------


class Malicious:
    """Unpickling it makes a folder."""

    def __init__(self, canary: Path) -> None:
        self._canary = str(canary)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, (self._canary,)


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    """A folder that code in a file would make; nothing may."""
    path = tmp_path / "canary"
    yield path
    assert not path.exists(), "foreign code was run"


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture
def own_input(tmp_path: Path) -> Path:
    path = tmp_path / "input.hdf5"
    with h5py.File(path, "w") as file:
        file["vorticity"] = np.ones((1, 10, 32, 32), dtype=np.float32)
    return path


@pytest.fixture(params=["load", "evaluate", "verify", "predict"])
def use(request: pytest.FixtureRequest, run: Path, own_input: Path, tmp_path: Path) -> Callable[..., object]:
    """Everything that can be done with somebody else's run."""
    ways: dict[str, Callable[..., object]] = {
        "load": lambda *trust: Surrogate.load(run, trust=trust),
        "evaluate": lambda *trust: pipeline.evaluate_again(
            compose("mode=evaluate", f"run={run}", "force=true", f"trust=[{','.join(trust)}]")
        ),
        "verify": lambda *trust: verify.verify(run, trust=trust),
        "predict": lambda *trust: predict.predict(run, own_input, tmp_path / "out.hdf5", trust=trust),
    }
    return ways[request.param]


def as_plain_pickle(content: Any, path: Path) -> None:
    path.write_bytes(pickle.dumps(content))


def as_checkpoint(content: Any, path: Path) -> None:
    torch.save(content, path)


@pytest.mark.parametrize("write", [as_checkpoint, pytest.param(as_plain_pickle, marks=pytest.mark.exhaustive)])
def test_a_pickle_in_place_of_the_weights_is_refused(
    use: Callable[..., object], run: Path, canary: Path, write: Callable[[Any, Path], None]
) -> None:
    content = torch.load(run / "best.pt", weights_only=True)
    write({**content, "extra": Malicious(canary)}, run / "best.pt")
    with pytest.raises((CheckpointError, RunError), match=r"best\.pt") as raised:
        use()
    assert "weights_only" not in str(raised.value), "torch advises to load it without protection"


def test_the_pickle_would_run_code_if_it_were_trusted(tmp_path: Path) -> None:
    # A canary that can't sing proves nothing.
    as_checkpoint(Malicious(tmp_path / "made"), tmp_path / "best.pt")
    torch.load(tmp_path / "best.pt", weights_only=False)
    assert (tmp_path / "made").is_dir()


@pytest.mark.parametrize("write", [as_plain_pickle, as_checkpoint])
def test_a_run_does_not_go_on_from_a_pickle(
    repeated: RunConfig, canary: Path, write: Callable[[Any, Path], None]
) -> None:
    folder = run_directory(repeated)
    (folder / "record.json").unlink()
    content = torch.load(folder / "last.pt", weights_only=True)
    write({**content, "extra": Malicious(canary)}, folder / "last.pt")
    with pytest.raises(CheckpointError, match=r"last\.pt"):
        pipeline.run(repeated)


@pytest.mark.exhaustive
@pytest.mark.parametrize("whole", [True, pytest.param(False, marks=pytest.mark.exhaustive)])
@pytest.mark.usefixtures("no_figures")
def test_a_pickle_in_place_of_a_shard_is_solved_again(tmp_path: Path, canary: Path, whole: bool) -> None:
    cfg = compose(
        "track=smoke",
        "trainer.epochs=1",
        "splits={train: 4, valid: 2, test: 2}",
        f"paths.data={tmp_path / 'data'}",
        f"paths.outputs={tmp_path / 'outputs'}",
    )
    folder = plan.make(cfg).data_folder
    shard = folder / ".shards" / "train-00000.npz"
    shard.parent.mkdir(parents=True)
    if whole:
        as_plain_pickle(Malicious(canary), shard)
    else:  # an archive with one array of objects, which NumPy stores as a pickle
        array = np.empty(1, dtype=object)
        array[0] = Malicious(canary)
        entry = io.BytesIO()
        np.lib.format.write_array(entry, array, allow_pickle=True)
        with zipfile.ZipFile(shard, "w") as archive:
            archive.writestr("vorticity.npy", entry.getvalue())
    assert pipeline.run(cfg).status == "finished"


# Configurations of others --------------------------------------------------------------------------------------------


def change_record(run: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Rewrite the configuration in a record as somebody would who makes one up: consistent in itself."""
    record = RunRecord.load(run / "record.json")
    change(record.config)
    record.save(run / "record.json")


def change_checkpoint(run: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = torch.load(run / "best.pt", weights_only=True)
    cfg = yaml.safe_load(content["config"])
    change(cfg)
    torch.save({**content, "config": yaml.safe_dump(cfg)}, run / "best.pt")
    record = RunRecord.load(run / "record.json")
    if "best.pt" in record.files:  # its hash is in the record
        digest = hashlib.sha256((run / "best.pt").read_bytes()).hexdigest()
        replace(record, files={**record.files, "best.pt": digest}).save(run / "record.json")


PLACES = {
    "model": lambda cfg, node: cfg.update(model={"label": "fno", **node}),
    "problem": lambda cfg, node: cfg["dataset"].update(problem=node),
    "law of inputs": lambda cfg, node: cfg["dataset"]["problem"].update(initial=node),
    "metric": lambda cfg, node: cfg["evaluator"]["metrics"].update(other=node),
    "list in a metric": lambda cfg, node: cfg["evaluator"]["metrics"]["rel_l2"].update(x=[{"y": [node]}]),
    "tracker": lambda cfg, node: cfg.update(tracker=node),
    "optimizer": lambda cfg, node: cfg["optimizer"].update(x=node),
}


@pytest.mark.parametrize(
    ("place", "target"),
    [
        (place, target)
        if target == "os.mkdir" or place == "model"
        else pytest.param(place, target, marks=pytest.mark.exhaustive)
        for place in PLACES
        for target in ("os.mkdir", "builtins.eval", "neuralop_bench.runtime.environment.subprocess.run")
    ],
)
def test_a_record_that_names_foreign_constructors_is_refused(run: Path, canary: Path, place: str, target: str) -> None:
    node = {"_target_": target, "path": str(canary)}
    change_record(run, lambda cfg: PLACES[place](cfg, node))
    for use in (
        lambda: pipeline.evaluate_again(compose("mode=evaluate", f"run={run}")),
        lambda: verify.verify(run),
    ):
        with pytest.raises(ConfigError, match=rf"_target_={target}.*trust="):
            use()


@pytest.fixture
def hub(tmp_path: Path, canary: Path) -> dict[str, str]:
    """Arguments with which torch.hub.load runs a file that makes the canary."""
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "hubconf.py").write_text(f"import os\nos.mkdir({str(canary)!r})\n")
    return {"repo_or_dir": str(tmp_path / "hub"), "model": "x", "source": "local"}


IDENTITY = {"_target_": "torch.nn.Identity"}
# The name is below a trusted package, the object isn't.
HUB = "neuralop_bench.models.deeponet.torch.hub.load"
HIDDEN: dict[str, Callable[[dict[str, str]], tuple[dict[str, Any], str]]] = {
    "in a mapping": lambda hub: ({**IDENTITY, "a": {"b": {"_target_": HUB, **hub}}}, "isn't a constructor"),
    "in a list": lambda hub: ({**IDENTITY, "a": [[{"c": {"_target_": HUB, **hub}}]]}, "isn't a constructor"),
    "made by a resolver": lambda hub: (
        {**IDENTITY, "a": "${oc.create:{_target_: torch.hub.load, " + str(hub)[1:-1] + "}}"},
        "contains an interpolation",
    ),
    "escaped": lambda hub: (
        {**IDENTITY, "a": "\\${oc.create:{_target_: torch.hub.load, " + str(hub)[1:-1] + "}}"},
        "contains an interpolation",
    ),
    "a name made by a resolver": lambda hub: ({**hub, "_target_": "${oc.env:HOME}"}, "contains an interpolation"),
    "positional": lambda hub: ({**IDENTITY, "a": {**IDENTITY, "_args_": list(hub.values())}}, "Unknown key"),
    "a function of ours": lambda _: ({"_target_": "neuralop_bench.metrics.cost.forward_flops"}, "isn't a constructor"),
    "a function of torch's": lambda _: ({"_target_": "torch.nn.init.normal_"}, "isn't a constructor"),
    "a method": lambda _: ({"_target_": "neuralop_bench.models.external.External.state_dict"}, "isn't a constructor"),
    "too deep": lambda _: ({**IDENTITY, "a": nested(400)}, "nested too deeply"),
}


def nested(depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value


def mostly_exhaustive(cases: Iterable[str], *default: str) -> list[Any]:
    return [case if case in default else pytest.param(case, marks=pytest.mark.exhaustive) for case in cases]


@pytest.mark.parametrize("how", mostly_exhaustive(HIDDEN, "in a mapping", "escaped", "a function of ours"))
def test_a_record_can_hide_no_code(run: Path, own_input: Path, hub: dict[str, str], how: str, tmp_path: Path) -> None:
    node, reason = HIDDEN[how](hub)
    change_record(run, lambda cfg: cfg["evaluator"]["metrics"].update(zz=node))
    for use in (
        lambda: pipeline.evaluate_again(compose("mode=evaluate", f"run={run}")),
        lambda: verify.verify(run),
        lambda: predict.predict(run, own_input, tmp_path / "out.hdf5"),
    ):
        with pytest.raises((ConfigError, RecordError), match=reason):
            use()


@pytest.mark.parametrize("how", mostly_exhaustive(list(HIDDEN)[:4], "in a mapping"))
def test_a_checkpoint_can_hide_no_code(use: Callable[..., object], run: Path, hub: dict[str, str], how: str) -> None:
    node, reason = HIDDEN[how](hub)
    external = {"_target_": "neuralop_bench.models.external.External", "_partial_": True, "target": "torch.nn.Conv2d"}
    change_checkpoint(run, lambda cfg: cfg.update(model={"label": "fno", **external, "arguments": {"a": node}}))
    with pytest.raises(ConfigError, match=reason):
        use()


def test_what_hides_code_would_run_it(hub: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="Cannot find callable x"):
        torch.hub.load(hub["repo_or_dir"], "x", source="local")
    (tmp_path / "canary").rmdir()


def test_what_is_built_is_what_was_checked() -> None:
    # An interpolation that is escaped where it is read stays the text that it is.
    made = constructors.build({**IDENTITY, "a": {"b": [{"_target_": "torch.nn.GELU"}]}, "c": "${oc.env:HOME}"})
    assert isinstance(made, torch.nn.Identity)
    built = constructors.build({"_target_": "collections.OrderedDict", "a": {"b": [IDENTITY]}, "c": "${oc.env:HOME}"})
    assert isinstance(built["a"]["b"][0], torch.nn.Identity)
    assert built["c"] == "${oc.env:HOME}"


def test_a_record_reads_no_secret(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "hunter2")
    for change in (
        lambda cfg: cfg["paths"].update(data="data-${oc.env:SECRET}"),
        lambda cfg: cfg["model"].update(label="${oc.env:SECRET}"),
        lambda cfg: cfg["splits"].update({"${oc.env:SECRET}": 1}),
    ):
        before = (run / "record.json").read_bytes()
        change_record(run, change)
        with pytest.raises(ConfigError, match="contains an interpolation") as raised:
            verify.verify(run)
        assert "hunter2" not in str(raised.value)
        (run / "record.json").write_bytes(before)


def test_the_folders_of_a_record_are_read_but_never_made(run: Path, tmp_path: Path) -> None:
    record = RunRecord.load(run / "record.json")
    own = of_record(record, run)
    assert own.paths.data == record.config["paths"]["data"], "the run's own data are there"
    change_record(
        run,
        lambda cfg: (
            cfg["paths"].update(data=str(tmp_path / "theirs"), outputs=str(tmp_path / "out"), board=str(tmp_path)),
            cfg.update(workers=1000, preload_gib=1e5, force=True),
        ),
    )
    theirs = of_record(RunRecord.load(run / "record.json"), run, data="here")
    assert (theirs.paths.data, theirs.paths.outputs, theirs.paths.board) == ("here", "outputs", None)
    assert (theirs.workers, theirs.preload_gib, theirs.force) == (None, 2.0, False)
    asked = compose("mode=evaluate", f"run={run}", f"paths.data={tmp_path / 'mine'}")
    assert for_evaluation(asked)[0].paths.data == str(tmp_path / "mine")


def bomb(levels: int) -> str:
    """YAML of a few lines that stands for 9 ** levels values."""
    lines = ["a0: &a0 lol"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, levels)]
    return "\n".join(lines) + "\n"


def describe_otherwise(content: dict[str, Any], cfg: dict[str, Any], how: str) -> None:
    """What a checkpoint of somebody else's may say of its model."""
    content["config"] = yaml.safe_dump(cfg)
    if how == "alias bomb":
        content["config"] += "\nextra:\n  " + bomb(20).replace("\n", "\n  ")
    elif how == "no configuration":
        del content["config"]
    elif how == "huge network":
        content["config"] = yaml.safe_dump({**cfg, "model": {**cfg["model"], "width": 60000}})
    elif how == "many layers":
        content["config"] = yaml.safe_dump({**cfg, "model": {**cfg["model"], "n_layers": 65000}})
    elif how == "negative history":
        content["config"] = yaml.safe_dump({**cfg, "dataset": {**cfg["dataset"], "history": -1}})
    elif how == "NaN weights":
        name = next(name for name in content["model"] if name.startswith("operator."))
        content["model"][name] = torch.full_like(content["model"][name], torch.nan)
    elif how in ("few weights", "sparse weights"):
        name = next(name for name in content["model"] if name.startswith("operator."))
        content["model"][name] = torch.zeros(1).expand(2**40) if how == "few weights" else torch.eye(2).to_sparse()


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("alias bomb", "uses the YAML alias"),
        ("no configuration", "config"),
        ("huge network", "doesn't fit the configured architecture"),
        ("many layers", "model.n_layers must be at most 1024"),
        ("negative history", "dataset.history"),
        ("NaN weights", "aren't finite"),
        ("few weights", "fewer numbers are stored"),
        ("sparse weights", "isn't an ordinary tensor"),
    ],
)
def test_a_checkpoint_that_describes_no_possible_model_is_refused_at_once(run: Path, how: str, reason: str) -> None:
    content = torch.load(run / "best.pt", weights_only=True)
    describe_otherwise(content, yaml.safe_load(content["config"]), how)
    torch.save(content, run / "best.pt")
    with pytest.raises((CheckpointError, ConfigError), match=reason):
        Surrogate.load(run)


def test_a_pipe_or_a_compressed_file_is_no_checkpoint(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "best.pt")
    with pytest.raises(CheckpointError, match="isn't a regular file"):
        Surrogate.load(tmp_path)
    (tmp_path / "best.pt").unlink()
    with zipfile.ZipFile(tmp_path / "best.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("best/data.pkl", b"0" * 10**6)
    with pytest.raises(CheckpointError, match="is compressed"):
        Surrogate.load(tmp_path)


def test_a_checkpoint_that_names_a_foreign_constructor_is_refused(
    use: Callable[..., object], run: Path, canary: Path
) -> None:
    change_checkpoint(run, lambda cfg: cfg["model"].update(_target_="os.mkdir", path=str(canary)))
    with pytest.raises(ConfigError, match=r"model\._target_=os\.mkdir.*trust=\[os\]"):
        use()


def test_a_record_cannot_vouch_for_itself_or_for_its_checkpoint(
    use: Callable[..., object], run: Path, foreign: str
) -> None:
    # The record lists the package as trusted, the checkpoint beside it names a constructor there.
    change_checkpoint(run, lambda cfg: cfg.update(model=foreign_model(foreign), trust=[foreign]))
    change_record(run, lambda cfg: cfg.update(trust=[foreign]))
    with pytest.raises(ConfigError, match=rf"_target_={foreign}\.Model.*trust=\[{foreign}\]"):
        use()
    assert foreign not in sys.modules, "to import it is to run its code"


@pytest.fixture
def foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An installed package of somebody else, and one whose name begins alike."""
    for name in ("foreign_package", "foreign_package_two"):
        folder = tmp_path / "site" / name
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text(
            "from neuralop_bench.models.fno import FNO\n\nclass Model(FNO):\n    pass\n"
        )
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    yield "foreign_package"
    for name in ("foreign_package", "foreign_package_two"):
        sys.modules.pop(name, None)


def foreign_model(package: str) -> dict[str, Any]:
    """The smoke track's model, under a foreign name."""
    model = dict(compose("track=smoke").model)
    return {**model, "_target_": f"{package}.Model"}


def test_trust_opens_the_package_it_names_and_no_other(use: Callable[..., object], run: Path, foreign: str) -> None:
    def trusted_or_not(cfg: dict[str, Any]) -> None:
        cfg["model"] = foreign_model(foreign)

    change_checkpoint(run, trusted_or_not)
    change_record(run, trusted_or_not)
    for trust in ((), ("foreign",), (f"{foreign}_two",), ("os",)):
        with pytest.raises(ConfigError, match=rf"trust=\[{foreign}\]"):
            use(*trust)
    use(foreign)


@pytest.mark.parametrize("name", ["foreign_package", "foreign_package_two"])
def test_trust_on_the_command_line_is_for_one_package_as_well(
    smoke: Callable[..., Any], foreign: str, name: str
) -> None:
    override = f"model._target_={name}.Model"
    if name == foreign:
        assert smoke(override, f"trust=[{foreign}]").model["_target_"] == f"{foreign}.Model"
        return
    with pytest.raises(ConfigError, match=rf"trust=\[{name}\]"):
        smoke(override, f"trust=[{foreign}]")


def test_hydra_does_not_run_a_pickle_again(
    canary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    as_plain_pickle(Malicious(canary), tmp_path / "config.pickle")
    for flag in ("--experimental-rerun", "--experimental", "--e"):
        for arguments in ([flag, str(tmp_path / "config.pickle")], [f"{flag}={tmp_path / 'config.pickle'}"]):
            monkeypatch.setattr("sys.argv", ["run.py", *arguments])
            with pytest.raises(SystemExit) as stop:
                program.main()
            assert stop.value.code == 1
            assert "unpickle" in capsys.readouterr().err


@pytest.mark.parametrize(
    "hydra",
    [
        {"callbacks": {"x": {"_target_": "os.mkdir", "path": "CANARY"}}},
        {"callbacks": {"x": {"_target_": "hydra.experimental.callbacks.Callback", "y": {"_target_": "os.mkdir"}}}},
        {"launcher": {"_target_": "os.mkdir"}},
        {"job_logging": {"handlers": {"x": {"()": "os.mkdir", "path": "CANARY"}}, "root": {"handlers": ["x"]}}},
        {"hydra_logging": {"handlers": {"x": {"class": "os.mkdir", "path": "CANARY"}}, "root": {"handlers": ["x"]}}},
    ],
)
def test_an_experiment_file_cannot_hand_code_to_hydra(
    hydra: dict[str, Any],
    canary: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = yaml.safe_dump({"hydra": hydra}).replace("CANARY", str(canary))
    (tmp_path / "files" / "experiment").mkdir(parents=True)
    (tmp_path / "files" / "experiment" / "theirs.yaml").write_text(f"# @package _global_\n{text}")
    files = ("--config-dir", str(tmp_path / "files"))
    for arguments in ((), ("-m", "seed=0,1")):
        flags = [argument for argument in arguments if argument.startswith("-")]
        overrides = [argument for argument in arguments if not argument.startswith("-")]
        command = ["run.py", *files, *flags, "track=smoke", "dry_run=true", "experiment=theirs", *overrides]
        monkeypatch.setattr("sys.argv", command)
        monkeypatch.chdir(tmp_path)
        with pytest.raises(SystemExit) as stop:
            program.main()
        assert stop.value.code == 1
        assert "os.mkdir isn't part of Hydra" in capsys.readouterr().err


@pytest.fixture
def with_experiment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Start a dry run with the text of an experiment file, and return the message with which it is refused."""

    def refused(text: str, *arguments: str) -> str:
        (tmp_path / "files" / "experiment").mkdir(parents=True, exist_ok=True)
        (tmp_path / "files" / "experiment" / "theirs.yaml").write_text(text)
        files = ("--config-dir", str(tmp_path / "files"))
        command = ["run.py", *files, "track=smoke", "dry_run=true", "experiment=theirs", *arguments]
        monkeypatch.setattr("sys.argv", command)
        monkeypatch.chdir(tmp_path)
        with pytest.raises(SystemExit) as stop:
            program.main()
        assert stop.value.code == 1
        return capsys.readouterr().err

    return refused


GLOBAL = "# @package _global_\n"
FILE_HANDLER = "{handlers: {x: {class: logging.FileHandler, filename: VICTIM, mode: w}}, root: {handlers: [x]}}"
EXPERIMENTS = {
    "a log file": (f"hydra: {{job_logging: {FILE_HANDLER}}}", "hydra.job_logging.handlers.x.class"),
    "fileConfig": ("hydra: {job_logging: {filters: {x: {(): logging.config.fileConfig}}}}", "isn't part of Hydra"),
    "an import": ("hydra: {job_logging: {handlers: {x: {stream: 'ext://antigravity'}}}}", "would import code"),
    "a name for later": (
        "hydra: {job_logging: {handlers: {x: {class: '${hydra.runtime.output_dir}'}}}, run: {dir: os.mkdir}}",
        "must be written out",
    ),
    "a function of a plugin": ("hydra: {launcher: {_target_: hydra_plugins.neuralop_bench_sweeper.Any}}", "isn't part"),
    "a search space": ("hydra: {sweeper: {custom_search_space: os.mkdir}}", "custom_search_space=os.mkdir"),
    "an environment": ("hydra: {job: {env_set: {PATH: /theirs}}}", "may only set hydra.mode and hydra.sweeper"),
    "a search path": ("hydra: {searchpath: ['file:///theirs']}", "searchpath"),
    "trust by a sweep": ("hydra: {mode: MULTIRUN, sweeper: {params: {trust: '[os]'}}}", "can only be given on the"),
    "a secret": ("model: {label: '${oc.env:SECRET}'}", "may only refer to another key"),
    "a secret path": ("paths: {data: 'x-${oc.env:SECRET}'}", "may only refer to another key"),
    "a resolver's node": ("optimizer: {x: '${oc.create:{_target_: os.mkdir, path: CANARY}}'}", "os.mkdir"),
    "a node in a list": (
        "defaults: [{override /model: external}]\nmodel:\n  target: torch.nn.Conv2d\n"
        f"  arguments: {{a: [{{_target_: {HUB}, repo_or_dir: HUBDIR, model: x, source: local}}]}}",
        "isn't a constructor",
    ),
    "a foreign model": ("defaults: [{override /model: external}]\nmodel: {target: theirs.Model}", "trust=[theirs]"),
    "an alias bomb": (bomb(20), "uses the YAML alias"),
    "too many references": (
        "optimizer:\n  a0: [1]\n"
        + "\n".join(f"  a{i}: ['${{optimizer.a{i - 1}}}', '${{optimizer.a{i - 1}}}']" for i in range(1, 40)),
        "at most 16",
    ),
}


@pytest.mark.parametrize(
    "what", mostly_exhaustive(EXPERIMENTS, "a log file", "fileConfig", "a secret", "an alias bomb")
)
def test_an_experiment_file_of_others_runs_no_code_and_reads_nothing(
    with_experiment: Callable[..., str],
    what: str,
    canary: Path,
    hub: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SECRET", "hunter2")
    victim = tmp_path / "victim"
    victim.write_text("precious")
    text, reason = EXPERIMENTS[what]
    for name, value in (("CANARY", canary), ("VICTIM", victim), ("HUBDIR", hub["repo_or_dir"])):
        text = text.replace(name, str(value))
    message = with_experiment(GLOBAL + text + "\n")
    assert reason in message
    assert "hunter2" not in message
    assert victim.read_text() == "precious"


def test_a_model_that_was_typed_needs_no_trust(foreign: str) -> None:
    target = f"model.target={foreign}.Model"
    assert compose("track=smoke", "model=external", target).model["target"] == f"{foreign}.Model"
