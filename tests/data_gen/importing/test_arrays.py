"""Samples are read on demand, and in whole chunks."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import h5py
import numpy as np
import pytest
from helpers.imported_files import convert, mat_v73, random_array

from data_gen.importing import blocks
from data_gen.importing.contents import Given
from data_gen.importing.formats import open_file


def test_samples_are_not_read_before_they_are_needed(tmp_path: Path) -> None:
    path = mat_v73(tmp_path / "big.mat", {"coeff": random_array(300, 4, 4), "sol": random_array(300, 4, 4)})
    with ExitStack() as files:
        found = open_file("mat", path, Given(), files)
        assert found.n_samples == 300
        assert found.read(np.array([7, 3])).trajectory.shape == (2, 1, 1, 4, 4)


def test_whole_chunks_are_read_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fields = {"coeff": random_array(100, 4, 4), "sol": random_array(100, 4, 4, seed=1)}
    one = convert("mat", mat_v73(tmp_path / "one.mat", fields), tmp_path / "one")["train"].sha256()
    with h5py.File(tmp_path / "chunked.mat", "w") as file:
        for name, values in fields.items():
            made = file.create_dataset(name, data=values.T, chunks=(4, 4, 50), compression="gzip")
            made.attrs["MATLAB_class"] = np.bytes_(b"double")
    monkeypatch.setattr(blocks, "_BLOCK_BYTES", 1)
    assert convert("mat", tmp_path / "chunked.mat", tmp_path / "two")["train"].sha256() == one
    with ExitStack() as files:
        assert open_file("mat", tmp_path / "chunked.mat", Given(), files).n_together == 50
