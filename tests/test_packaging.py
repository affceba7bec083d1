"""The wheel, the project's own files, and the hooks: what somebody gets who doesn't work in this checkout."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def _run(*command: str | Path, cwd: Path, **variables: str) -> str:
    """Standard output of a command that must succeed, free of what would lead Python back to this checkout."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment = {**kept, "OMP_NUM_THREADS": "1", **variables}
    done = subprocess.run([str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("dist")
    _run(sys.executable, "-m", "build", "--no-isolation", "-o", folder, ".", cwd=ROOT)
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (path,) = built.glob("*.whl")
    return path


def test_the_wheel_holds_the_packages_with_all_configs_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    wanted = _files(ROOT / "data_gen") | _files(ROOT / "neuralop_bench") | _files(ROOT / "hydra_plugins")
    configs = {f"neuralop_bench/{name}" for name in _files(ROOT / "configs")}
    assert "neuralop_bench/configs/config.yaml" in configs
    metadata = {name for name in names if name.startswith(f"neuralop_bench-{PROJECT['version']}.dist-info/")}
    assert names - metadata == wanted | configs


def test_the_wheel_is_the_same_with_and_without_the_detour_over_the_sdist(wheel: Path, tmp_path: Path) -> None:
    _run(sys.executable, "-m", "build", "--no-isolation", "--wheel", "-o", tmp_path, ".", cwd=ROOT)
    assert (tmp_path / wheel.name).read_bytes() == wheel.read_bytes()


def test_the_sdist_holds_every_file_of_the_repository(built: Path) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout, so there is no list of files to compare with")
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    tracked = {name for name in _run("git", "ls-files", cwd=ROOT).splitlines() if (ROOT / name).is_file()}
    assert not tracked - held


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.network
def test_an_empty_environment_with_the_wheel_runs_everything(wheel: Path, tmp_path: Path) -> None:
    # Really empty: the wheel's own list of dependencies must be enough. About 30 seconds with pip's cache filled.
    _run(sys.executable, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    binaries, here = tmp_path / "venv" / "bin", tmp_path / "here"
    here.mkdir()
    python, command = binaries / "python", binaries / "neuralop-bench"
    pip = (python, "-m", "pip", "--disable-pip-version-check", "-q")
    _run(*pip, "install", "--no-compile", "-c", ROOT / "constraints.txt", wheel, cwd=here)
    _run(*pip, "check", cwd=here)

    where = "import data_gen, neuralop_bench.runtime.place as p; print(data_gen.__file__, p.__file__, p.CONFIG_DIR)"
    for path in _run(python, "-c", where, cwd=here).split():
        assert Path(path).is_relative_to(tmp_path / "venv"), "the wheel's code must be tested, not the checkout's"

    assert "model: " in _run(command, "--help", cwd=here)
    composed = _run(command, "--cfg", "job", "track=smoke", cwd=here)
    assert composed == _run(sys.executable, "run.py", "--cfg", "job", "track=smoke", cwd=ROOT)
    assert list(here.iterdir()) == []

    printed = _run(command, "track=smoke", "trainer.epochs=1", cwd=here)
    assert "leaderboard.csv" in printed
    assert {path.name for path in here.iterdir()} == {"data", "outputs"}
    assert len(list((here / "data").glob("ns2d-*/*/ns2d.hdf5"))) == 3
    swept = _run(command, "-m", "track=smoke", "trainer.epochs=1", "seed=0,1", cwd=here)
    assert "1 of 2 runs are done already." in swept
    assert "Sweep: 2 finished" in swept
    _run(python, "-m", "neuralop_bench.leaderboard", "outputs", "-o", "board", cwd=here)
    for board in (here / "outputs" / "leaderboard", here / "board"):
        with open(board / "leaderboard.csv", newline="") as handle:
            (row,) = csv.DictReader(handle)
        assert (row["model"], row["status"], row["bench_version"]) == ("fno", "self", PROJECT["version"])
        assert row["seeds"] == "0;1"
    # Launchers and the search come with extras, and a run shared by several processes does.
    for argument, extra in (("hydra/launcher=slurm", "cluster"), ("hydra/sweeper=optuna", "sweep")):
        done = subprocess.run([command, "-m", argument], cwd=here, capture_output=True, text=True)
        assert done.returncode == 1
        assert f"pip install 'neuralop-bench[{extra}]'" in done.stderr


def test_citation_and_package_agree() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
    assert [author["name"] for author in citation["authors"]] == [author["name"] for author in PROJECT["authors"]]
    assert {"message", "title"} <= citation.keys()


def test_tools_of_the_hooks_are_pinned() -> None:
    pinned = {line.partition("==")[0].lower().replace("_", "-") for line in _lines(ROOT / "constraints.txt")}
    assert {"ruff", "pyright", "import-linter", "pre-commit", "pre-commit-hooks", "build", "hatchling"} <= pinned


@pytest.fixture
def hooked(tmp_path: Path) -> Path:
    """An empty repository with our hooks and this environment as its .venv."""
    folder = tmp_path / "repository"
    folder.mkdir()
    _run("git", "init", "-q", cwd=folder)
    for name in (".pre-commit-config.yaml", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    (folder / ".venv").symlink_to(sys.prefix)
    return folder


def _hooks_that_fail(folder: Path, *files: str) -> set[str]:
    _run("git", "add", "-f", *files, cwd=folder)
    # Import rules and types are checked by make lint and make types; here they would check the wrong repository.
    environment = {**os.environ, "SKIP": "import-rules,pyright", "PRE_COMMIT_HOME": str(folder / ".cache")}
    command = [Path(sys.prefix) / "bin" / "pre-commit", "run", "--verbose", "--files", *files]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    failed = {after.removeprefix("- hook id: ") for line, after in pairwise(lines) if "Failed" in line}
    assert (done.returncode == 0) == (not failed), done.stdout + done.stderr
    return failed


def test_hooks_pass_good_files_and_stop_bad_ones(hooked: Path) -> None:
    (hooked / "good.py").write_text('"""Nothing."""\n')
    assert _hooks_that_fail(hooked, "good.py") == set()
    (hooked / "unused.py").write_text('"""An import that nobody uses."""\n\nimport os\n')
    assert _hooks_that_fail(hooked, "unused.py") == {"ruff-check"}
    (hooked / "spaced.py").write_text('"""A badly set list."""\n\nVALUES = [1,2]\n')
    assert _hooks_that_fail(hooked, "spaced.py") == {"ruff-format"}
    (hooked / "large.bin").write_bytes(bytes(600_000))
    assert _hooks_that_fail(hooked, "large.bin") == {"large-files"}


def test_clean_data_removes_what_was_generated_and_nothing_else(tmp_path: Path) -> None:
    for folder in ("data/ns2d-0123abcd/train", "data/own", "data/ns2d-notahash", "outputs/ns2d-0123abcd"):
        (tmp_path / folder).mkdir(parents=True)
    _run("make", "-f", ROOT / "Makefile", "clean-data", cwd=tmp_path)
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_dir()}
    assert left == {"data", "data/own", "data/ns2d-notahash", "outputs", "outputs/ns2d-0123abcd"}
    _run("make", "-f", ROOT / "Makefile", "clean-data", cwd=tmp_path)


def _files(folder: Path) -> set[str]:
    files = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(ROOT).as_posix() for path in files}


def _lines(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if line and not line.startswith("#")]


def _places(python: str, folder: Path, **environment: str) -> list[str]:
    """What code finds by where its own file lies: the configurations, the command to type, the commit."""
    script = (
        "from neuralop_bench.records.run_directory import command_line;"
        "from neuralop_bench.runtime import environment, place;"
        "print(place.CONFIG_DIR, command_line(['seed=1']), environment.commit()[0], sep='\\n')"
    )
    return _run(python, "-c", script, cwd=folder, **environment).splitlines()


def test_the_package_finds_its_place_in_a_checkout_and_in_a_wheel(wheel: Path, tmp_path: Path) -> None:
    head = _run("git", "rev-parse", "HEAD", cwd=ROOT).strip()
    assert _places(sys.executable, ROOT) == [str(ROOT / "configs"), "python run.py seed=1", head]

    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    configs = str(tmp_path / "site" / "neuralop_bench" / "configs")
    installed = _places(sys.executable, tmp_path, PYTHONPATH=str(tmp_path / "site"))
    assert installed == [configs, "neuralop-bench seed=1", ""]
