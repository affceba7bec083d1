"""Searches by successive halving: every trial is listed, none is repeated, and the recipe is that of the best."""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from helpers.command import Told, told

from neuralop_bench import compose
from neuralop_bench.config.identity import identity
from neuralop_bench.records.trials import Trial, read_trials, write_trials
from neuralop_bench.runs import search as searching

SPACES = Path(__file__).parents[2] / "configs" / "experiment" / "search"
QUICK = ("track=smoke", "dataset=burgers1d", "hydra.sweeper.rungs=[{trials: 3, epochs: 0.5}, {trials: 1, epochs: 1.0}]")
SMALL = "hydra.sweeper.params={model.width: 'choice(4,8)', optimizer.lr: 'tag(log,interval(1e-3,2e-2))'}"


@pytest.fixture
def search(tmp_path: Path, data_folder: Path) -> Callable[..., Told]:
    """A search in this process."""
    own = (f"paths.data={data_folder}", f"paths.outputs={tmp_path / 'outputs'}", f"hydra.sweeper.folder={tmp_path}")
    return lambda *arguments: told(*arguments, *own)


@pytest.mark.usefixtures("no_figures")
def test_a_search_trains_the_best_for_longer_and_ends_with_a_recipe(
    search: Callable[..., Told], tmp_path: Path
) -> None:
    command = ("experiment=search/fno", *QUICK, SMALL)
    done = search(*command)
    assert done.status == 0, done.err
    listed = tmp_path / "smoke" / "burgers1d_fno.csv"
    long, *short = read_trials(listed)
    assert [trial.epochs for trial in (long, *short)] == [2, 1, 1, 1]
    assert long.settings == short[0].settings, "the best of the first rung"
    assert short == sorted(short, key=lambda trial: trial.valid_rel_l2)
    assert "" in {trial.settings for trial in short}, "the values of the files are one of the trials"
    # The recipe makes of the defaults what was trained.
    text = re.search(r"^# Save this as \S+\n(.*)\Z", done.out, re.DOTALL | re.MULTILINE)
    assert text
    content = yaml.safe_load(text[1])
    assert content.pop("tuning_trials") == 4
    keys = [f"++{part}.{key}={value}" for part, values in content.items() for key, value in values.items()]
    adopted = compose("model=fno", "track=smoke", "dataset=burgers1d", "~recipe", *keys)
    assert identity(adopted).config_hash == long.config_hash
    # Done once, also on another machine, which has the list alone.
    before = listed.read_bytes()
    shutil.rmtree(tmp_path / "outputs")
    again = search(*command)
    assert again.status == 0, again.err
    assert "Training:" not in again.out + again.err
    assert again.out == done.out[-len(again.out) :]
    assert listed.read_bytes() == before
    # A machine that was busy during its last trial doesn't exclude a setting: the fastest trial says how long it takes.
    rate = short[0].seconds / short[0].epochs
    write_trials(listed, [replace(long, seconds=100 * rate * long.epochs), *short])
    assert search(*command, f"hydra.sweeper.limit={1.01 * rate * long.epochs}").out.endswith(text[0])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("hydra.sweeper.params={optimizer.lr: '1e-3'}", "hydra.sweeper.params.optimizer.lr must be a choice"),
        ("hydra.sweeper.params={optimizer.lr: 'interval(1e-2,1e-3)'}", "lower bound comes first"),
        ("hydra.sweeper.params={optimizer.lr: 'tag(log,interval(0.0,1e-3))'}", "must be positive with tag"),
        (
            "hydra.sweeper.params={model.n_modes: 'choice(4000)'}",
            "Only 1 different trials were drawn instead of 3. FNO keeps n_modes=4000",
        ),
        ("hydra.sweeper.memory_gib=1e-6", "Only 1 different trials were drawn instead of 3. Training would need"),
        ("trainer.epochs=none", "trainer.epochs"),
    ],
)
def test_a_search_that_is_impossible_says_which_knob(
    search: Callable[..., Told], monkeypatch: pytest.MonkeyPatch, arguments: str, said: str
) -> None:
    monkeypatch.setattr(searching, "_MOST_DRAWS", 1)
    done = search("experiment=search/fno", *QUICK, *([] if "params" in arguments else [SMALL]), arguments)
    assert done.status == 1
    assert said in done.err
    assert "Traceback" not in done.err


@pytest.mark.usefixtures("no_figures")
def test_a_trial_beyond_the_limit_of_time_is_listed_but_not_chosen(search: Callable[..., Told], tmp_path: Path) -> None:
    done = search("experiment=search/fno", *QUICK, SMALL, "hydra.sweeper.limit=1e-9")
    assert done.status == 1
    assert "None of the 3 trials of 1 epochs finished at a rate of 1e-09 s" in done.err
    assert "Raise hydra.sweeper.limit" in done.err
    assert len(read_trials(tmp_path / "smoke" / "burgers1d_fno.csv")) == 3


def test_a_list_of_trials_is_read_as_it_was_written(tmp_path: Path) -> None:
    good = Trial("optimizer.lr=0.001 model.width=8", 3, 0.125, 10.0, "finished", "0a", "c", "2026-01-01T00:00:00+00:00")
    bad = Trial("", 3, math.inf, 0.0, "diverged", "0b", "c", "2026-01-01T00:00:00+00:00")
    write_trials(tmp_path / "trials.csv", [bad, good])
    assert read_trials(tmp_path / "trials.csv") == [good, bad]


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "model", sorted(path.stem for path in SPACES.glob("*.yaml") if path.stem not in ("equal", "regression"))
)
def test_every_space_has_runs(search: Callable[..., Told], model: str) -> None:
    dataset = "ns2d" if model == "sfno" else "darcy2d"
    few = "hydra.sweeper.rungs=[{trials: 3, epochs: 0.125}]"
    done = search(f"experiment=search/{model}", f"dataset={dataset}", "dry_run=true", few)
    assert done.status == 0, done.err
    assert list(done.states.values()) == ["waiting"] * 3
