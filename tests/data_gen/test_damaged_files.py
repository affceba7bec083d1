"""Damage where a random flip seldom falls: header text, HDF5's heap of strings, shards kept for a resume."""

from __future__ import annotations

import random
import struct
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from helpers.processes import FORKSERVER

from data_gen import files, store
from data_gen.generation.random_streams import generator
from data_gen.layout import SHARD_SIZE
from data_gen.problems.ns2d import NavierStokes2D
from data_gen.store import DatasetFile, Fields, StoreError
from neuralop_bench import inspection

PROBLEM = NavierStokes2D(viscosity=1e-3, resolution=8, oversampling=1.0, n_snapshots=2)
PROVENANCE = {"generator": "test", "libraries": "test"}


@pytest.fixture(scope="module")
def fields() -> Fields:
    """One shard of samples."""
    return store.to_fields(PROBLEM.spec, PROBLEM.simulate([generator(0, "test", i) for i in range(SHARD_SIZE)]))


@pytest.fixture(scope="module")
def content(fields: Fields, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a small sound file."""
    path = tmp_path_factory.mktemp("sound") / "sound.hdf5"
    store.write(path, PROBLEM.spec, [fields], 3, split="test", seed=0, provenance=PROVENANCE)
    return path.read_bytes()


def _everything(path: Path) -> tuple[object, ...]:
    """All that training and evaluation take from a file."""
    with DatasetFile(path) as file:
        return (
            file.sha256(),
            file.spec,
            file.split,
            file.seed,
            file.n_samples,
            file.read_states(slice(None)).tobytes(),
        )


def test_no_flip_in_the_text_of_the_header_passes(content: bytes, tmp_path: Path) -> None:
    # Names, equation, units and split are text; HDF5's checksums don't reach text of variable length.
    path = tmp_path / "flipped.hdf5"
    path.write_bytes(content)
    sound = _everything(path)
    texts = [PROBLEM.spec.to_json().encode()]
    with h5py.File(path) as file:
        texts += [entry.encode() if isinstance(entry, str) else bytes(entry) for entry in file.attrs["shard_sha256"]]
    rng = random.Random(1)
    for text in texts:
        at = content.index(text)
        for place in rng.sample(range(at, at + len(text)), min(len(text), 60)):
            flipped = bytearray(content)
            flipped[place] ^= 1 << rng.randrange(7)
            path.write_bytes(flipped)
            try:
                found = _everything(path)
            except StoreError:
                continue
            assert found == sound, f"byte {place}, in {content[place - 20 : place + 20]!r}"


@pytest.mark.parametrize("n_flips", [100, pytest.param(400, marks=pytest.mark.exhaustive)])
def test_no_flip_anywhere_passes(content: bytes, tmp_path: Path, n_flips: int) -> None:
    path = tmp_path / "flipped.hdf5"
    path.write_bytes(content)
    sound = _everything(path)
    heap = set(_heap(content))
    rng = random.Random(2)
    places = [place for place in rng.sample(range(len(content)), n_flips) if place not in heap]
    caught = 0
    for place in places:
        flipped = bytearray(content)
        flipped[place] ^= 1 << rng.randrange(8)
        path.write_bytes(flipped)
        try:
            found = _everything(path)
        except StoreError:
            caught += 1
            continue
        assert found == sound, place
    assert caught > n_flips / 8, "most of the bytes that matter must be among those tried"


def test_no_flip_in_a_diagnostic_passes(content: bytes, fields: Fields, tmp_path: Path) -> None:
    # No hash covers them: checksums do, of the chunk that holds them.
    path = tmp_path / "flipped.hdf5"
    for name in [name for name in fields if name.startswith(store.DIAGNOSTICS)]:
        stored = fields[name][:3].tobytes()
        assert content.count(stored) == 1, name
        at = content.index(stored)
        for place in range(at, at + len(stored) + 4):  # the checksum comes after the numbers
            for bit in (0, 5):
                flipped = bytearray(content)
                flipped[place] ^= 1 << bit
                path.write_bytes(flipped)
                with DatasetFile(path) as file:
                    with pytest.raises(StoreError, match="is damaged"):
                        file.read_diagnostics()
                    with pytest.raises(StoreError, match="is damaged"):
                        file.sha256()


@pytest.mark.parametrize("certificate", [[], "x", {"error": "1"}, {"errors": [[0.1], [0.1, 0.2]]}, {"errors": [["x"]]}])
def test_a_certificate_of_others_is_no_traceback(
    certificate: Any,
    fields: Fields,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "a.hdf5"
    monkeypatch.setattr(store, "dict", lambda _: certificate, raising=False)  # write it as it is
    store.write(path, PROBLEM.spec, [fields], 3, split="test", seed=0, provenance=PROVENANCE, certificate={"a": 1})
    monkeypatch.undo()
    if isinstance(certificate, dict) and "error" not in certificate:
        assert inspection.main([str(path), "--samples=0"]) == 0
        assert "certificate: it can't be read" in capsys.readouterr().out
    else:
        with pytest.raises(StoreError):
            DatasetFile(path)


def _open_each(folder: Path) -> None:
    """Open every damaged copy in turn; any answer but a StoreError or the sound content ends the process with 1."""
    sound = _everything(folder / "sound")
    for path in sorted(folder.glob("flipped-*")):
        (folder / "tried").write_text(path.name)
        try:
            found = _everything(path)
        except StoreError:
            continue
        if found != sound:
            sys.exit(1)


def _heap(content: bytes) -> Iterator[int]:
    """Places of the 16-byte headers of the objects in HDF5's global heaps, where strings of variable length lie."""
    at = content.find(b"GCOL")
    while at >= 0:
        (size,) = struct.unpack_from("<Q", content, at + 8)
        entry = at + 16
        while entry + 16 <= at + size:
            index, length = struct.unpack_from("<H6xQ", content, entry)
            yield from range(entry, entry + 16)
            if index == 0:  # the free space that ends a heap
                break
            entry += 16 + (length + 7) // 8 * 8
        at = content.find(b"GCOL", at + 4)


@pytest.mark.parametrize("stride", [5, pytest.param(1, marks=pytest.mark.exhaustive)])
def test_a_damaged_heap_of_strings_neither_hangs_nor_crashes_the_reader(
    content: bytes, tmp_path: Path, stride: int
) -> None:
    # HDF5 walks these headers in a loop that a wrong length keeps running for ever, inside C: hence another process.
    (tmp_path / "sound").write_bytes(content)
    for number, place in enumerate(islice(_heap(content), 0, None, stride)):
        flipped = bytearray(content)
        flipped[place] ^= 1 << (number % 8)
        (tmp_path / f"flipped-{place:06d}").write_bytes(flipped)
    process = FORKSERVER.Process(target=_open_each, args=(tmp_path,))
    process.start()
    process.join(60)
    process.kill()
    process.join(60)
    assert process.exitcode == 0, f"{(tmp_path / 'tried').read_text()} hangs, crashes or passes for sound"


def test_a_surplus_shard_is_left_out(fields: Fields, tmp_path: Path) -> None:
    # "What exceeds n_samples is left out" holds for a whole shard too.
    for name, shards in (("exact", [fields]), ("surplus", [fields, fields])):
        store.write(tmp_path / name, PROBLEM.spec, shards, SHARD_SIZE, split="test", seed=0, provenance=PROVENANCE)
    assert _everything(tmp_path / "surplus") == _everything(tmp_path / "exact")


@pytest.mark.parametrize("damage", ["one frame", "half the axis", "no field", "another name"])
def test_fields_that_do_not_fit_are_refused_and_nothing_is_written(fields: Fields, tmp_path: Path, damage: str) -> None:
    values = fields["vorticity"]
    wrong: dict[str, Fields] = {
        "one frame": {"vorticity": values[:, :1]},  # would be broadcast over the times
        "half the axis": {"vorticity": values[..., :4]},
        "no field": {},
        "another name": {"pressure": values},
    }
    with pytest.raises(ValueError):  # noqa: PT011  (the four messages have nothing in common)
        store.write(
            tmp_path / "d", PROBLEM.spec, [wrong[damage]], SHARD_SIZE, split="test", seed=0, provenance=PROVENANCE
        )
    assert list(tmp_path.iterdir()) == []


def test_static_and_initial_fields_are_indexed_like_states(tmp_path: Path) -> None:
    problem = NavierStokes2D(viscosity=1e-3, resolution=8, n_snapshots=2, first_time=1.0)
    made = problem.simulate([generator(0, "test", i) for i in range(3)])
    shard = store.to_fields(problem.spec, made)
    store.write(tmp_path / "d", problem.spec, [shard], 3, split="test", seed=0, provenance=PROVENANCE)
    initial = made.history[:, -1].astype(np.float32)
    with DatasetFile(tmp_path / "d") as file:
        for index in (1, np.int64(1)):
            assert np.array_equal(file.read_states(index)[:, 0], shard["vorticity"][1])  # pyright: ignore[reportArgumentType]
            assert np.array_equal(file.read_initial(index), initial[1])  # pyright: ignore[reportArgumentType]
            assert file.read_static(index).shape == (0, 8, 8)  # pyright: ignore[reportArgumentType]
        assert np.array_equal(file.read_initial(slice(0, 3, 2)), initial[::2])


@pytest.mark.parametrize("change", ["header", "time", "x"])
def test_a_header_that_was_edited_is_noticed(content: bytes, tmp_path: Path, change: str) -> None:
    # Edited by a program, so that every checksum of HDF5 fits again; another split would pass for this one.
    path = tmp_path / "edited.hdf5"
    path.write_bytes(content)
    with h5py.File(path, "r+") as file:
        if change == "header":
            header = bytes(file.attrs["header"])
            assert b'"test"' in header
            file.attrs["header"] = np.bytes_(header.replace(b'"test"', b'"train"'))
        else:
            file[change][1] += 1e-6  # pyright: ignore[reportIndexIssue]
    with pytest.raises(StoreError, match=r"If run\.py generated it"):
        DatasetFile(path)


def test_split_and_seed_are_read_from_where_they_are_hashed(content: bytes, tmp_path: Path) -> None:
    # The root attributes of the same names are for other readers, and nothing protects them.
    path = tmp_path / "edited.hdf5"
    path.write_bytes(content)
    with h5py.File(path, "r+") as file:
        file.attrs["split"], file.attrs["seed"] = "train", 1
    with DatasetFile(path) as file:
        assert (file.split, file.seed) == ("test", 0)


def test_content_is_flushed_to_the_disk_before_it_takes_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The other order can leave an empty file behind a power cut, where a sound one had been.
    events: list[str] = []
    flush, replace = files.os.fsync, files.os.replace
    monkeypatch.setattr(files.os, "fsync", lambda descriptor: (events.append("flush"), flush(descriptor)))
    monkeypatch.setattr(files.os, "replace", lambda *paths: (events.append("replace"), replace(*paths)))
    with files.replacing(tmp_path / "d") as temporary:
        temporary.write_text("new")
    assert events == ["flush", "replace"]
    assert (tmp_path / "d").read_text() == "new"
