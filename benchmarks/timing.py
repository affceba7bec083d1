"""Times of alternatives measured side by side: interleaved in one process, medians, with what they were measured on."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from neuralop_bench import reproducibility

RESULTS = Path(__file__).parent / "results"


def interleaved(alternatives: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median seconds of each alternative; each runs once before, unmeasured, and then they take turns."""
    for run in alternatives.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in alternatives}
    for _ in range(repeats):
        for name, run in alternatives.items():
            started = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    packages = ("torch", "numpy", "scipy", "exponax", "jax")
    versions = {}
    for name in packages:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "absent"
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **versions,
        "commit": reproducibility.commit()[0],
        "date_utc": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def save(name: str, section: str, result: Mapping[str, Any]) -> None:
    """Put the figures of a section, with the machine's description, into benchmarks/results/<name>.json."""
    path = RESULTS / f"{name}.json"
    everything = json.loads(path.read_text()) if path.exists() else {}
    everything[section] = {**result, "machine": machine()}
    RESULTS.mkdir(exist_ok=True)
    path.write_text(json.dumps(everything, indent=2) + "\n")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
