"""Seeds, devices, and a description of code and machine for records."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from neuralop_bench.runtime.place import ROOT

# Paths with code that computes results. Changes elsewhere (docs, tests) don't make a record dirty.
_COMPUTING = ("neuralop_bench", "data_gen", "configs", "run.py")
# Entries of the environment that decide the last bits of a result on a CPU.
_DECIDE_BITS = ["libraries", "processor", "vector_instructions", "threads", "processes", "precision", "compiled"]
_LIBRARIES = ("torch", "numpy", "scipy", "h5py", "xarray", "hydra-core")


def seed_everything(seed: int) -> None:
    """Seed the generator for initial weights and dropout. NumPy's global generator is never used."""
    torch.manual_seed(seed)


def resolve_device(name: str) -> torch.device:
    """The device for ``cpu``, ``cuda``, ``cuda:1``, or ``auto``: CUDA if there is one, else the CPU.

    Raises:
        ValueError: there is no such device on this machine.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device={name!r} isn't a device: use auto, cpu, cuda or cuda:<index>.") from error
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise ValueError(
                f"device={name} isn't available: {count} CUDA devices can be used here. Use device=cpu or device=auto."
            )
    elif device.type != "cpu":
        raise ValueError(f"device={name} isn't supported: use auto, cpu, cuda or cuda:<index>.")
    return device


def environment(
    device: torch.device, *, processes: int = 1, precision: str = "float32", compiled: bool = False
) -> dict[str, Any]:
    """Versions, device and threads of this process, and everything that decides the last bits of its numbers.

    Args:
        device: device of this process.
        processes: number of processes that shared the work.
        precision: precision of the products in training.
        compiled: whether torch.compile translated the operator.

    ``bit_equal_with_the_same`` names the other entries that must be equal for a repetition to give the same bits. None
    means that even the same machine may give others, since CUDA adds in an order that isn't fixed. With different
    entries, sums are rounded in another order: a difference of 1e-7 in one step, which training amplifies.
    """
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "libraries": {name: importlib.metadata.version(name) for name in _LIBRARIES},
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "processor": _processor(),
        "vector_instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "processes": processes,
        "precision": precision,
        "compiled": compiled,
        "bit_equal_with_the_same": _DECIDE_BITS if device.type == "cpu" else None,
    }


def provenance(
    device: torch.device, *, processes: int = 1, precision: str = "float32", compiled: bool = False
) -> dict[str, Any]:
    """The fields that records, evaluations and verifications share: where, when and by which code they were made.

    The arguments are those of ``environment``.
    """
    code, dirty = commit()
    return {
        "environment": environment(device, processes=processes, precision=precision, compiled=compiled),
        "bench_version": bench_version(),
        "commit": code,
        "dirty": dirty,
        "date_utc": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _processor() -> str:
    """The processor's name, by which libraries choose their code."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def bench_version() -> str:
    return importlib.metadata.version("neuralop-bench")


def commit() -> tuple[str, bool]:
    """Hash of the checked-out commit ("" outside our repository), and whether computing code has changed since."""
    top, head = _git("rev-parse", "--show-toplevel"), _git("rev-parse", "HEAD")
    # If the package is installed inside another repository, the commit would be that repository's.
    if top is None or head is None or Path(top.strip()).resolve() != ROOT:
        return "", False
    return head.strip(), bool((_git("status", "--porcelain", "--", *_COMPUTING) or "").strip())


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout
