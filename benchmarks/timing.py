"""Measure times of alternatives side by side and memory in separate processes, and save the figures."""

from __future__ import annotations

import importlib.metadata
import json
import multiprocessing
import os
import platform
import re
import statistics
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from data_gen.generation.memory import hand_memory_back
from neuralop_bench.metrics import cost
from neuralop_bench.runtime import environment

RESULTS = Path(__file__).parent / "results"
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def interleaved(alternatives: Mapping[str, Callable[[], Any]], repeats: int, warm_up: int = 1) -> dict[str, float]:
    """Median seconds of each alternative. Each first runs ``warm_up`` times unmeasured; then they take turns."""
    for _ in range(warm_up):
        for run in alternatives.values():
            run()
    seconds: dict[str, list[float]] = {name: [] for name in alternatives}
    for _ in range(repeats):
        for name, run in alternatives.items():
            _synchronize()
            started = time.perf_counter()
            run()
            _synchronize()
            seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def _synchronize() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def alone(measure: Callable[..., Any], *arguments: Any) -> Any:
    """The result of a function in a fresh process, without earlier allocations. It must be defined in a module."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["neuralop"])  # takes longest to import
    with context.Pool(1) as pool:
        return pool.apply(measure, arguments)


def peak_megabytes(prepare: Callable[[], Any], run: Callable[[], Any]) -> float:
    """Growth of memory during a call of ``run``, in 10^6 bytes: of tensors on a GPU, otherwise of the process.

    ``prepare`` is called first, so that libraries are loaded and have allocated what they keep.
    """
    hand_memory_back()
    prepare()
    cost.reset_peak_memory(DEVICE)
    before = cost.peak_memory_mb(DEVICE)
    run()
    after = cost.peak_memory_mb(DEVICE)
    if before is None or after is None:
        raise RuntimeError("This system doesn't report how much memory a process takes.")
    return after - before


def machine() -> dict[str, Any]:
    """Hardware and versions that the figures depend on."""
    packages = ("torch", "numpy", "scipy", "h5py", "neuraloperator", "pytorch_optimizer", "exponax", "jax")
    commit, dirty = environment.commit()
    versions = {}
    for name in packages:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "absent"
    return {
        "processor": _processor(),
        **({"gpu": torch.cuda.get_device_name()} if DEVICE.type == "cuda" else {}),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **versions,
        "commit": commit,
        "dirty": dirty,
        "date_utc": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def results() -> Path:
    """The file with all figures of this machine."""
    parts = [_processor(), f"{os.cpu_count()} cores"]
    if DEVICE.type == "cuda":
        parts.append(torch.cuda.get_device_name())
    name = re.sub(r"\((r|tm)\)", "", " ".join(parts).lower())
    return RESULTS / f"{re.sub('[^a-z0-9]+', '-', name).strip('-')}.json"


def save(section: str, result: Mapping[str, Any]) -> None:
    """Save the figures of a section, with the machine's description, in the file of this machine."""
    path = results()
    everything = json.loads(path.read_text()) if path.exists() else {}
    everything[section] = {**result, "machine": machine()}
    RESULTS.mkdir(exist_ok=True)
    path.write_text(json.dumps(dict(sorted(everything.items())), indent=2) + "\n")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
