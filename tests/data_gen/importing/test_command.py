"""The command line: what it prints, and how it explains errors."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from data_gen.importing import command
from neuralop_bench.config.compose import compose


def test_the_command_tells_what_it_did_and_assumed(
    darcy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["mat", f"train={darcy}:40", f"test={darcy}", "--name", "d", "--parameter", "contrast=4"]
    assert command.main(arguments) == 0
    printed = capsys.readouterr().out
    for text in (
        "train    40 samples -> imported/d/train/d.hdf5",
        "pressure from permeability",
        "axis y   4 points, length 1, boundary dirichlet, nodes closed",
        "a domain of length 1 is assumed (--lengths)",
        "A run needs valid as well",
    ):
        assert text in printed, text
    assert command.main(arguments) == 1
    assert "Error: imported/d already holds train and test" in capsys.readouterr().err
    assert command.main(["mat", f"valid={darcy}:3", "--name", "d", "--parameter", "contrast=4"]) == 0
    printed = capsys.readouterr().out
    assert "Warning: 3 of 3 samples of valid have the same input" in printed
    assert "python run.py dataset=file dataset.path=imported/d" in printed


@pytest.mark.parametrize(
    "name", ["my data", "nu=0.01,re=5", "données", "数据", "run (1)", "it's", 'a"b', "a\\b", "$HOME"]
)
def test_the_line_to_run_can_be_pasted(
    name: str, darcy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    splits = [f"{split}={darcy}:20" for split in ("train", "valid", "test")]
    assert command.main(["mat", *splits, "--name", "d", "--out", str(tmp_path / name)]) == 0
    line = capsys.readouterr().out.splitlines()[-1].removeprefix("Run: ")
    arguments = subprocess.run(
        ["sh", "-c", line.replace("python run.py", "printf '%s\\n'", 1)], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert compose(*arguments).dataset.path == str(tmp_path / name)


def test_a_seed_for_the_order_is_not_negative(darcy: Path) -> None:
    with pytest.raises(SystemExit):
        command.main(["mat", f"train={darcy}", "--name", "d", "--shuffle-seed=-1"])


@pytest.mark.parametrize("arguments", [["--parameter", "contrast"], ["--parameter", "seed=3"], ["--name", "a/b"]])
def test_bad_arguments_are_explained(darcy: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    name = ["--name", "d"] if "--name" not in arguments else []
    assert command.main(["mat", f"train={darcy}", *name, *arguments]) == 1
    assert capsys.readouterr().err.startswith("Error: --")
