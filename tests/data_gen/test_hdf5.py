"""Whole files that can't be read are never called damaged, and files that refer to other files are refused."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from helpers.imported_files import centres, convert, pdebench, random_array, well

from data_gen import hdf5
from data_gen.importing.contents import ImportedFileError
from data_gen.store import DatasetFile, StoreError
from neuralop_bench import inspection
from neuralop_bench.predict import InputError, read_inputs

_KEEP_OPEN = "import h5py, sys; f = h5py.File(sys.argv[1], 'a'); print(flush=True); sys.stdin.read()"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A dataset file of our own, which can also be imported in The Well's format."""
    source = pdebench(tmp_path / "a.hdf5", {"tensor": random_array(4, 3, 8), "x-coordinate": centres(8)})
    return convert("pdebench", source, tmp_path / "out")["train"].path


def _readers(path: Path, tmp_path: Path) -> list[tuple[type[Exception], Callable[[], object]]]:
    with DatasetFile(path) as file:
        spec = file.spec
    return [
        (StoreError, lambda: DatasetFile(path)),
        (ImportedFileError, lambda: convert("well", path, tmp_path / "again")),
        (InputError, lambda: read_inputs(path, spec, n_history=1, resolution_free=False)),
    ]


def _refused(readers: list[tuple[type[Exception], Callable[[], object]]], message: str) -> None:
    for kind, read in readers:
        with pytest.raises(kind, match=message) as raised:
            read()
        assert "damaged" not in str(raised.value)
        assert "elete" not in str(raised.value)


def test_files_that_are_being_written_or_were_not_closed(path: Path, tmp_path: Path) -> None:
    readers = _readers(path, tmp_path)
    for file in tmp_path.rglob("*.hdf5"):
        file.chmod(0o600)
    with subprocess.Popen(
        [sys.executable, "-c", _KEEP_OPEN, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        _refused(readers, "another program has it open for writing")
        writer.kill()
    _refused(readers, "h5clear -s FILE")


def test_files_without_permission(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readers = _readers(path, tmp_path)

    def refuse(*_: object, **__: object) -> None:  # root may read everything
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(h5py, "File", refuse)
    _refused(readers, "lack the permission")


def _external_storage(file: h5py.File) -> None:
    file.create_dataset("extra", (16,), np.uint8, external=[("/etc/passwd", 0, 16)])


def _virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((10,), float)
    layout[:] = h5py.VirtualSource("missing.hdf5", "a", (10,))
    file.create_virtual_dataset("group/extra", layout)


def _linked(file: h5py.File) -> None:
    file["group/extra"] = h5py.ExternalLink("other.hdf5", "/a")


def _unwritten(file: h5py.File) -> None:
    file.create_dataset("extra", (2**40, 8), np.float32, chunks=(1, 8))


def _unknown_filter(file: h5py.File) -> None:
    created = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    created.set_chunk((4,))
    created.set_filter(333, h5py.h5z.FLAG_OPTIONAL)
    h5py.h5d.create(file.id, b"extra", h5py.h5t.NATIVE_FLOAT, h5py.h5s.create_simple((4,)), created)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_external_storage, "dataset extra lie in other files"),
        (_virtual, "dataset group/extra lie in other files"),
        (_linked, r"group/extra is a link to the file 'other\.hdf5'"),
        (_unwritten, "but only 0 bytes are stored"),
        (_unknown_filter, r"compressed with filter 333 .*pip install hdf5plugin"),
    ],
)
def test_files_that_need_something_else(
    path: Path, tmp_path: Path, change: Callable[[h5py.File], None], message: str
) -> None:
    readers = _readers(path, tmp_path)
    with h5py.File(path, "r+") as file:
        change(file)
    _refused(readers, message)


@pytest.mark.parametrize("kind", ["pdebench", "mat"])
def test_the_other_formats_refuse_them_too(kind: str, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "f", "w") as file:
        file.create_dataset("tensor", (2, 3, 8), np.uint8, external=[("/etc/passwd", 0, 48)])
    _refused([(ImportedFileError, lambda: convert(kind, tmp_path / "f", tmp_path / "out"))], "lie in other files")


def test_pipes_do_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.hdf5")
    _refused([(ImportedFileError, lambda: convert("pdebench", tmp_path / "a.hdf5", tmp_path / "o"))], "regular file")
    _refused([(ImportedFileError, lambda: convert("well", tmp_path, tmp_path / "o"))], "regular file")


@pytest.mark.parametrize("content", ["text", "foreign HDF5", "cut"])
def test_inspection_never_advises_to_delete_data_of_others(
    content: str, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if content == "text":
        path.write_text("my only copy")
    elif content == "cut":
        path.write_bytes(path.read_bytes()[:3000])
    else:
        well(path)
    assert inspection.main([str(path)]) == 1
    told = capsys.readouterr().err
    if content == "foreign HDF5":
        assert "not a dataset file" in told
        assert "elete" not in told
    else:
        assert "If run.py generated it, delete it" in told
        assert "Otherwise import or copy it again" in told


def test_damage_has_no_other_cause() -> None:
    assert hdf5.why(OSError("truncated file: eof = 3000")) is None
    assert hdf5.why(KeyError("spec")) is None
