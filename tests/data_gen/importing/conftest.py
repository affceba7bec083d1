"""A file for the tests of several modules."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.imported_files import mat_v5, random_array, zero_at_walls


@pytest.fixture
def darcy(tmp_path: Path) -> Path:
    coeff, sol = random_array(60, 4, 4), zero_at_walls(random_array(60, 4, 4, seed=1))
    return mat_v5(tmp_path / "darcy.mat", {"coeff": coeff, "sol": sol})
