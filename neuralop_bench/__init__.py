"""Benchmarks for neural PDE surrogates: the public names. ``docs/glossary.md`` explains the terms.

>>> from neuralop_bench import compose
>>> compose("model=fno", "track=smoke").trainer.epochs
2
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neuralop_bench.batch import Batch
    from neuralop_bench.config.compose import compose
    from neuralop_bench.config.identity import run_directory
    from neuralop_bench.pipeline import run
    from neuralop_bench.records.record import RunRecord, load_record
    from neuralop_bench.surrogate.surrogate import Surrogate

__all__ = ["Batch", "RunRecord", "Surrogate", "compose", "load_record", "run", "run_directory"]

_HOMES = {
    "Batch": "batch",
    "RunRecord": "records.record",
    "Surrogate": "surrogate.surrogate",
    "compose": "config.compose",
    "load_record": "records.record",
    "run": "pipeline",
    "run_directory": "config.identity",
}


def __getattr__(name: str) -> Any:
    # Imported on first use (PEP 562): torch takes seconds to import, and --help doesn't need it.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
