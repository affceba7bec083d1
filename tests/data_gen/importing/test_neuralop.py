"""Files of neuraloperator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.imported_files import convert, random_array

from data_gen.importing.contents import ImportedFileError
from data_gen.importing.convert import About, Part, import_data
from data_gen.store import DatasetFile


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32, torch.float64])
@pytest.mark.parametrize("old", [False, True])
def test_neuraloperator_files(dtype: torch.dtype, old: bool, tmp_path: Path) -> None:
    x, y = (
        torch.from_numpy(random_array(20, 5, 5) > 0).to(dtype),
        torch.from_numpy(random_array(20, 5, 5, seed=1)).float(),
    )
    torch.save({"x": x, "y": y}, tmp_path / "d.pt", _use_new_zipfile_serialization=not old)
    file = convert("neuralop", tmp_path / "d.pt", tmp_path / "out", nodes=("centres",))["train"]
    assert file.spec.grid.nodes == ("centres", "centres")
    assert np.array_equal(file.read_static(slice(None))[:, 0], x.float().numpy())
    assert np.array_equal(file.read_states(slice(None))[:, 0, 0], y.numpy())


_Y = torch.from_numpy(random_array(6, 5, 5, seed=1))
_KINDS = {
    "bfloat16": _Y.bfloat16(),
    "8 bits": _Y.to(torch.float8_e4m3fn),
    "with gradient": _Y.clone().requires_grad_(),
    "parameter": torch.nn.Parameter(_Y),
    "sparse": _Y.to_sparse(),
    "negated": torch._neg_view(_Y),
}


@pytest.mark.parametrize("case", list(_KINDS))
def test_tensors_that_numpy_does_not_know(case: str, tmp_path: Path) -> None:
    y = _KINDS[case]
    torch.save({"x": _Y, "y": y}, tmp_path / "d.pt")
    file = convert("neuralop", tmp_path / "d.pt", tmp_path / "out")["train"]
    expected = y.detach().to_dense().float().numpy()
    assert np.array_equal(file.read_states(slice(None))[:, 0, 0], expected)


def test_a_tensor_without_values_is_refused(tmp_path: Path) -> None:
    torch.save({"x": _Y, "y": _Y.to("meta")}, tmp_path / "d.pt")
    with pytest.raises(ImportedFileError, match="without values"):
        convert("neuralop", tmp_path / "d.pt", tmp_path / "out")


def test_neuraloperators_own_loader_reads_the_same(tmp_path: Path) -> None:
    from neuralop.data.datasets.pt_dataset import PTDataset

    for split, n in (("train", 6), ("test", 4)):
        content = {
            "x": torch.from_numpy(random_array(n, 5, 5, seed=n) > 0),
            "y": torch.from_numpy(random_array(n, 5, 5)),
        }
        torch.save(content, tmp_path / f"darcy_{split}_5.pt")
    theirs = PTDataset(tmp_path, "darcy", 6, [4], 1, [1], 5, [5], encode_output=False)
    parts = [Part(split, tmp_path / f"darcy_{split}_5.pt") for split in ("train", "test")]
    import_data("neuralop", parts, About("darcy"), tmp_path / "out")
    for split, dataset in (("train", theirs.train_db), ("test", theirs.test_dbs[5])):
        with DatasetFile(tmp_path / "out" / split / "darcy.hdf5") as file:
            for index in range(len(dataset)):
                assert np.array_equal(file.read_static(index), dataset[index]["x"].numpy())
                assert np.array_equal(file.read_states(index)[0], dataset[index]["y"].float().numpy())


def test_trajectories_and_channels_in_neuraloperator_files(tmp_path: Path) -> None:
    x, y = torch.from_numpy(random_array(3, 1, 8)), torch.from_numpy(random_array(3, 4, 8, seed=1))
    torch.save({"x": x, "y": y}, tmp_path / "b.pt")
    file = convert("neuralop", tmp_path / "b.pt", tmp_path / "out", interval=0.25)["train"]
    assert file.spec.times == (0.25, 0.5, 0.75, 1.0)
    assert np.array_equal(file.read_states(1)[:, 0], y[1].float().numpy())
    assert np.array_equal(file.read_initial(1)[0], x[1, 0].float().numpy())


def test_pickles_are_not_executed(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "pwned",))

    torch.save({"x": Evil(), "y": torch.zeros(2, 2)}, tmp_path / "evil.pt")
    with pytest.raises(ImportedFileError, match="would run their code"):
        convert("neuralop", tmp_path / "evil.pt", tmp_path / "out")
    assert not (tmp_path / "pwned").exists()
