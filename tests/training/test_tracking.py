"""Trackers: what they store, and that a failing tracker never harms a run."""

from __future__ import annotations

import importlib.util
import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from neuralop_bench.runtime.table import Table
from neuralop_bench.training.tensorboard_tracker import TensorBoardTracker
from neuralop_bench.training.tracking import Guarded, NoTracker, ResultTable, Tracker
from neuralop_bench.training.wandb_tracker import WandbTracker

ROOT = Path(__file__).parents[2]
CONFIG = {"seed": 3, "model": {"width": 7, "label": "fno"}}
TABLES = [Table("Errors on test", ("metric", "value"), [("relative L2", "0.25")])]


def _row(epoch: int) -> dict[str, float]:
    return {
        "epoch": epoch,
        "train_loss": 1 / epoch,
        "valid_rel_l2": 2 / epoch,
        "learning_rate": 1e-3,
        "seconds": 0.5 * epoch,
    }


@pytest.fixture
def figure(tmp_path: Path) -> Path:
    path = tmp_path / "spectra.png"
    Figure(figsize=(0.5, 0.5)).savefig(path)
    return path


def _follow(tracker: Tracker, folder: Path, epochs: Sequence[int], figures: Sequence[Path] = ()) -> None:
    tracker.start("smoke-ns2d-fno-abc-s3", folder, CONFIG)
    for epoch in epochs:
        tracker.log(_row(epoch))
    tracker.finish({"rel_l2": 0.25, "spec_high": None}, TABLES, figures)


# The guard -----------------------------------------------------------------------------------------------------------


class _Failing:
    """A tracker that fails at one step and counts its calls."""

    def __init__(self, step: str) -> None:
        self.step, self.calls = step, []

    def start(self, run_id: str, folder: Path, config: Mapping[str, Any]) -> None:
        del run_id, folder, config
        self._do("start")

    def log(self, row: dict[str, float]) -> None:
        del row
        self._do("log")

    def finish(
        self, metrics: Mapping[str, float | None], tables: Sequence[ResultTable], figures: Sequence[Path]
    ) -> None:
        del metrics, tables, figures
        self._do("finish")

    def _do(self, step: str) -> None:
        self.calls.append(step)
        if step == self.step:
            raise OSError("no space left\nand more lines")


@pytest.mark.parametrize(
    ("step", "calls"),
    [
        ("start", ["start"]),
        ("log", ["start", "log"]),
        ("finish", ["start", "log", "log", "finish"]),
        ("", ["start", "log", "log", "finish"]),
    ],
)
def test_a_failing_tracker_is_one_warning_and_then_left_alone(
    step: str, calls: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tracker = _Failing(step)
    guarded = Guarded(tracker)
    _follow(guarded, tmp_path, [1, 2])
    assert tracker.calls == calls
    assert guarded.failed is bool(step)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("Warning") == (1 if step else 0)
    if step:
        assert f"_Failing.{step} failed: OSError: no space left\n" in printed.err
        assert "tracker=none" in printed.err


def test_an_interrupt_is_not_a_failure(tmp_path: Path) -> None:
    class Interrupted(NoTracker):
        def log(self, row: dict[str, float]) -> None:
            del row
            raise KeyboardInterrupt

    guarded = Guarded(Interrupted())
    guarded.start("name", tmp_path, {})
    with pytest.raises(KeyboardInterrupt):
        guarded.log(_row(1))


def test_no_tracker_leaves_nothing(tmp_path: Path) -> None:
    _follow(NoTracker(), tmp_path, [1])
    assert list(tmp_path.iterdir()) == []


# Weights & Biases ----------------------------------------------------------------------------------------------------


def _environment(home: Path, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    return {**kept, "HOME": str(home), "OMP_NUM_THREADS": "1", **more}


def _in_process(code: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """W&B hooks into the process that imports it; these tests give it one of its own, elsewhere."""
    for name in ("home", "cwd"):
        (folder / name).mkdir(exist_ok=True)
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder / "cwd",
        env={**_environment(folder / "home"), "PYTHONPATH": f"{ROOT}:{Path(__file__).parent}", **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )


_FOLLOW = """
from pathlib import Path
from neuralop_bench.training.tracking import Guarded
from neuralop_bench.training.wandb_tracker import WandbTracker
import test_tracking as here
here._follow(Guarded(WandbTracker({arguments})), Path({folder!r}), {epochs}, [Path(p) for p in {figures!r}])
"""


def _records(path: Path) -> Iterator[Any]:
    """The records of a .wandb file: LevelDB's log format (blocks of 32 KiB, pieces with a header of 7 bytes) after a
    header of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, at, whole = path.read_bytes(), 7, b""
    while at + 7 <= len(content):
        if 32768 - at % 32768 < 7:  # too short for a piece: padding
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack("<IHB", content[at : at + 7])
        if kind == 0:
            break
        whole += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or last piece
            yield Record.FromString(whole)
            whole = b""


def _items(items: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def test_an_offline_run_holds_config_curve_table_and_figure(tmp_path: Path, figure: Path) -> None:
    folder = tmp_path / "run"
    for epochs in ([1, 2], [3]):  # interrupted and resumed
        done = _in_process(
            _FOLLOW.format(arguments="", folder=str(folder), epochs=epochs, figures=[str(figure)]), tmp_path
        )
        assert (done.stdout, done.stderr) == ("", "")
    assert not list((tmp_path / "cwd").iterdir())
    assert not list((tmp_path / "home").rglob("*wandb*"))
    first, second = sorted(folder.glob("wandb/offline-run-*/*.wandb"))
    assert first.name == second.name, "a resumed run is the same run"
    records = list(_records(first))
    (run,) = [record.run for record in records if record.HasField("run")]
    assert (run.project, run.display_name) == ("neuralop-bench", "smoke-ns2d-fno-abc-s3")
    config = _items(run.config.update)
    assert (config["seed"], config["model"]) == (3, {"width": 7, "label": "fno"})
    history = [_items(record.history.item) for record in records if record.HasField("history")]
    assert [row["_step"] for row in history] == [1, 2]
    for epoch, row in enumerate(history, 1):
        assert {name: row[name] for name in _row(epoch)} == _row(epoch)
    last = history[-1]
    shown = json.loads((first.parent / "files" / last["tables/Errors on test/path"]).read_text())
    assert (shown["columns"], shown["data"]) == (["metric", "value"], [["relative L2", "0.25"]])
    assert (first.parent / "files" / last["figures/spectra/path"]).read_bytes() == figure.read_bytes()
    summary: dict[str, Any] = {}
    for record in records:
        summary.update(_items(record.summary.update))
    assert summary["rel_l2"] == 0.25
    assert "spec_high" not in summary
    assert [_items(r.history.item)["epoch"] for r in _records(second) if r.HasField("history")] == [3]


def test_a_run_that_is_repeated_is_another_run(tmp_path: Path) -> None:
    from neuralop_bench.training.wandb_tracker import _own_id

    one = _own_id("name", tmp_path / "one")
    assert one == _own_id("name", tmp_path / "one")
    assert one != _own_id("name", tmp_path / "two")
    assert one.startswith("name-")
    (tmp_path / "one" / "wandb" / "run-id.txt").write_text("")  # a full disk
    assert _own_id("name", tmp_path / "one").startswith("name-")
    assert len(_own_id("n" * 500, tmp_path / "long")) <= 128


@pytest.mark.slow
def test_an_unreachable_server_is_a_warning(tmp_path: Path) -> None:
    # A listener that never answers is the worst case: a refused connection is known at once.
    server = subprocess.Popen(
        [sys.executable, "-c", _SILENT_SERVER], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        code = _FOLLOW.format(arguments="mode='online'", folder=str(tmp_path / "run"), epochs=[1, 2], figures=[])
        done = _in_process(
            "from neuralop_bench.training import wandb_tracker; wandb_tracker._INIT_SECONDS = 1.0\n"
            + code
            + "print('the run went on')",
            tmp_path,
            WANDB_API_KEY="a" * 40,
            WANDB_BASE_URL=f"http://127.0.0.1:{int(server.stdout.readline())}",
        )
    finally:
        server.kill()
        server.communicate()
    assert done.stdout == "the run went on\n"
    assert done.stderr.count("\n") == 2, done.stderr
    assert "Warning: WandbTracker.start failed" in done.stderr
    assert "tracker=none" in done.stderr


_SILENT_SERVER = """
import socket, sys
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
sys.stdin.read()
"""


def test_results_that_a_server_does_not_take_are_abandoned() -> None:
    # The thread that waits is a daemon; a real server that goes silent in the middle needs far more than a test.
    import threading

    from neuralop_bench.training.wandb_tracker import _within

    held = threading.Event()
    with pytest.raises(TimeoutError, match="wandb sync"):
        _within(0.01, lambda: held.wait() and None)
    held.set()
    with pytest.raises(OSError, match="its own"):
        _within(60.0, _raise)
    _within(60.0, lambda: None)


def _raise() -> None:
    raise OSError("its own")


def test_online_without_a_key_is_a_warning_and_asks_nobody(tmp_path: Path) -> None:
    code = _FOLLOW.format(arguments="mode='online'", folder=str(tmp_path / "run"), epochs=[1], figures=[])
    done = _in_process(code, tmp_path)
    assert "No API key configured" in done.stderr
    assert done.stderr.count("Warning") == 1


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(ValueError, match=r"tracker\.mode must be offline or online, got 'sometimes'"):
        WandbTracker(mode="sometimes")  # pyright: ignore[reportArgumentType]


@pytest.mark.exhaustive
def test_a_tracking_library_is_imported_only_when_a_run_starts(tmp_path: Path) -> None:
    code = (
        "import sys; from hydra.utils import instantiate; from neuralop_bench import compose, pipeline\n"
        "for option in ('none', 'wandb', 'tensorboard'):\n"
        "    instantiate(compose('track=smoke', f'tracker={option}').tracker)\n"
        "print([name for name in ('wandb', 'tensorboard') if name in sys.modules])"
    )
    assert _in_process(code, tmp_path).stdout == "[]\n"


# TensorBoard ---------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="TensorBoard is not installed")
def test_tensorboard_holds_config_curve_table_and_figure(tmp_path: Path, figure: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    _follow(TensorBoardTracker(), tmp_path, [1, 2])
    _follow(TensorBoardTracker(), tmp_path, [3], [figure])
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("training/valid_rel_l2")] == [
        (1, pytest.approx(2)),
        (2, pytest.approx(1)),
        (3, pytest.approx(2 / 3)),
    ]
    assert events.Scalars("test/rel_l2")[-1].value == 0.25
    assert "test/spec_high" not in events.Tags()["scalars"]
    (image,) = events.Images("figures/spectra")
    assert (image.width, image.height) == (50, 50)
    table = events.Tensors("tables/Errors on test/text_summary")[-1].tensor_proto.string_val[0].decode()
    assert table == "| metric | value |\n| --- | --- |\n| relative L2 | 0.25 |"
    config = events.Tensors("config/text_summary")[-1].tensor_proto.string_val[0].decode()
    assert '"width": 7' in config


def test_without_tensorboard_the_warning_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    _follow(Guarded(TensorBoardTracker()), tmp_path, [1])
    printed = capsys.readouterr().err
    assert printed.count("Warning") == 1
    assert "pip install tensorboard" in printed
