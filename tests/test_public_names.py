"""The names that a program imports from ``neuralop_bench`` itself."""

from __future__ import annotations

import subprocess
import sys

import pytest

import neuralop_bench


@pytest.mark.parametrize("name", neuralop_bench.__all__)
def test_every_name_has_its_home(name: str) -> None:
    found = getattr(neuralop_bench, name)
    assert found.__name__ == name
    assert found.__module__.startswith("neuralop_bench.")


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'train'"):
        _ = neuralop_bench.train  # pyright: ignore[reportAttributeAccessIssue]


def test_torch_is_imported_only_for_what_needs_it() -> None:
    script = "import sys; from neuralop_bench import RunRecord, compose; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
