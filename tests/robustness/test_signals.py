"""SIGINT and SIGTERM: one message with the command that goes on, no traceback from anybody, little work lost."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from conftest import ROOT, Place, Runs, workers_of
from neuralop_bench import pipeline
from neuralop_bench.config.identity import run_directory
from neuralop_bench.config.schema import RunConfig
from neuralop_bench.runtime.signals import Terminated, report_stops
from neuralop_bench.status import states
from neuralop_bench.training import trainer


def _command(err: str) -> list[str]:
    """The command of the message, which ends the output."""
    assert re.search(r"Stopped by SIG\w+\. Everything up to the last checkpoint is kept", err), err
    assert "Traceback" not in err
    assert "Error" not in err
    return shlex.split(err.strip().splitlines()[-1])


@pytest.mark.parametrize(
    ("signum", "status"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.exhaustive)]
)
def test_a_stopped_training_says_how_to_go_on_and_that_completes_it(
    runs: Runs, alone: Place, place: Place, signum: int, status: int
) -> None:
    stop = ("stop_at_step", {"count": 21, "signum": signum})
    run = runs.finish(*place.arguments("force=true"), strikes=(stop,))
    assert run.status == status
    (where,) = states(place.outputs).values()
    assert (where.progress, where.reason) == ("resumable", "1 of 2 epochs done")
    command = _command(run.err)
    assert "force=true" not in command, "it would start anew"
    run = runs.finish(*command[2:])
    assert run.status == 0, run.err
    # A checkpoint after every step: the 20 that were done are 16 of the first epoch and 4 of the second.
    assert re.search(r"Resuming \S+ after 1 epochs and 4 steps", run.out), run.out
    assert place.record.metrics == alone.record.metrics


@pytest.mark.parametrize(
    ("last", "error"),
    [
        pytest.param(last, error, marks=[pytest.mark.exhaustive] * (last not in (2, 17)))
        for last in (2, 6, 9, 17, 23, 31)
        for error in (KeyboardInterrupt, Terminated)
    ],
)
def test_no_more_than_one_checkpoint_interval_is_lost(
    smoke: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch, last: int, error: type[BaseException]
) -> None:
    # A clock that each step moves by one second.
    clock, step = [0.0], trainer.Trainer._step

    def timed(*arguments: object) -> float:
        clock[0] += 1
        if clock[0] == last:
            raise error
        return step(*arguments)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(trainer, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(trainer.Trainer, "_step", timed)
    cfg = smoke("trainer.checkpoint_seconds=3")
    with pytest.raises(error):
        pipeline.run(cfg)
    path = run_directory(cfg) / "last.pt"
    kept = 0
    if path.exists():
        progress = torch.load(path, weights_only=True)["progress"]
        kept = 16 * progress["epoch"] + progress["batch"]
    assert last - 1 - 4 < kept <= last - 1


def _typed(place: Place, *overrides: str) -> subprocess.Popen[str]:
    """``python run.py ...``, typed in a terminal of its own."""
    return subprocess.Popen(
        [sys.executable, str(ROOT / "run.py"), *place.arguments(*overrides)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def _loaded(process: subprocess.Popen[str], library: str) -> bool:
    return library in Path(f"/proc/{process.pid}/maps").read_text()


def _stop_when(process: subprocess.Popen[str], seen: Callable[[], bool], signum: int, *, group: bool) -> str:
    deadline = time.monotonic() + 120
    while not seen():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    (os.killpg if group else os.kill)(process.pid, signum)
    # The pipes close when nobody holds them any more: workers that went on would let this time out.
    return process.communicate(timeout=60)[1]


@pytest.mark.slow
@pytest.mark.parametrize("library", ["_yaml", "libtorch_cpu"])
def test_ctrl_c_during_the_imports_is_answered_as_well(place: Place, library: str) -> None:
    process = _typed(place)
    err = _stop_when(process, lambda: _loaded(process, library), signal.SIGINT, group=True)
    assert _command(err)[1:] == [str(ROOT / "run.py"), *place.arguments()]
    assert process.returncode == 130
    assert not place.outputs.exists()


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("signum", "status", "group", "delay"),
    [
        # From the moment at which workers are started, over their imports, to their work.
        (signal.SIGINT, 130, True, 0.0),
        (signal.SIGINT, 130, True, 0.3),
        (signal.SIGINT, 130, True, 1.5),
        (signal.SIGINT, 130, True, None),
        (signal.SIGTERM, 143, False, 0.3),
        (signal.SIGTERM, 143, True, None),
    ],
)
def test_a_stopped_generation_takes_its_workers_with_it(
    place: Place, signum: int, status: int, group: bool, delay: float | None
) -> None:
    process = _typed(place, "workers=2", "splits.train=640", "trainer.epochs=1")
    begun: list[float] = []

    def seen() -> bool:
        if delay is None:
            return any(place.data.rglob("train-*.npz"))
        if not begun and any(place.data.rglob(".shards")):
            begun.append(time.monotonic())
        return bool(begun) and time.monotonic() - begun[0] >= delay

    err = _stop_when(process, seen, signum, group=group)
    _command(err)
    assert process.returncode == status
    (where,) = states(place.outputs).values()
    assert where.progress == "resumable"
    assert not any(place.data.rglob("*.hdf5")), "stopped in the middle"


@pytest.mark.exhaustive
@pytest.mark.slow
def test_workers_that_hear_ctrl_c_first_say_nothing(place: Place) -> None:
    # It reaches them at their imports, or at work, and in any order.
    process = _typed(place, "workers=2", "splits.train=640", "trainer.epochs=1")
    struck: list[float] = []

    def heard() -> bool:
        if not struck and len(workers := workers_of(process.pid)) == 2:
            for worker in workers:
                os.kill(worker, signal.SIGINT)
            struck.append(time.monotonic())
        return bool(struck) and time.monotonic() - struck[0] > 0.5

    err = _stop_when(process, heard, signal.SIGINT, group=True)
    _command(err)
    assert process.returncode == 130


@pytest.mark.exhaustive
@pytest.mark.slow
@pytest.mark.parametrize(
    ("signum", "status"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.exhaustive)]
)
def test_processes_that_load_data_go_silently(place: Place, signum: int, status: int) -> None:
    process = _typed(place, "trainer.workers=2", "preload_gib=0", "trainer.epochs=50")
    err = _stop_when(process, lambda: any(place.outputs.rglob("curve.csv")), signum, group=True)
    _command(err)
    assert process.returncode == status


def test_a_second_signal_ends_the_process_at_once() -> None:
    code = (
        "import time\n"
        "from neuralop_bench.runtime import signals\n"
        "signals._SAME_BREATH_SECONDS = 0.0\n"
        "with signals.report_stops():\n"
        "    try:\n"
        "        print('ready', flush=True)\n"
        "        time.sleep(60)\n"
        "    finally:\n"
        "        print('tidying up', flush=True)\n"
        "        time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        for line in ("ready\n", "tidying up\n"):
            assert process.stdout.readline() == line
            process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130


@contextmanager
def _interrupted_import() -> Iterator[None]:
    try:
        yield
    except Terminated:
        raise ImportError("half a module") from None


def test_a_signal_that_a_library_made_an_error_of_is_still_a_stop(capsys: pytest.CaptureFixture[str]) -> None:
    # An interrupted import in C ends as an ImportError, for one.
    with pytest.raises(SystemExit) as raised, report_stops(), _interrupted_import():
        signal.raise_signal(signal.SIGTERM)
    assert raised.value.code == 143
    assert "Stopped by SIGTERM" in capsys.readouterr().err


def test_a_library_that_takes_a_stop_for_a_missing_module_does_not_go_on(tmp_path: Path) -> None:
    (tmp_path / "parser_in_c.py").write_text("import signal\nsignal.raise_signal(signal.SIGINT)\n")
    library = "try:\n    import parser_in_c\nexcept BaseException:\n    pass\n"
    (tmp_path / "library.py").write_text(library)
    program = "from neuralop_bench.runtime.signals import report_stops\n"
    program += "with report_stops():\n    import library\n    print('on')"
    run = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (run.returncode, run.stdout) == (130, "")
    assert "Stopped by SIGINT" in run.stderr
    assert "Traceback" not in run.stderr


def test_what_a_background_job_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with report_stops():
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
