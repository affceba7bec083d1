"""Shards that an earlier run left: used if they are intact, solved again if not."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from data_gen import files, store
from data_gen.generation import cache, shards
from data_gen.layout import SHARD_SIZE
from data_gen.problems.allen_cahn1d import AllenCahn1D
from data_gen.problems.ns2d import NavierStokes2D
from data_gen.spec import SolverError
from data_gen.store import Fields

PROBLEM = NavierStokes2D(viscosity=1e-3, resolution=8, oversampling=1.0, n_snapshots=2)


def test_a_flip_in_a_diagnostic_of_a_kept_shard_is_found(tmp_path: Path) -> None:
    problem, splits = PROBLEM, {"test": 20}
    cache.solve_part(problem, splits, 0, tmp_path, part=1, n_parts=2, workers=1)
    (shard,) = tmp_path.rglob("test-00000.npz")
    with np.load(shard) as archive:
        noted = archive["diagnostics/step_ratio"].tobytes()
    content = bytearray(shard.read_bytes())
    content[content.index(noted) + 3] ^= 1
    shard.write_bytes(content)
    path = cache.ensure(problem, splits, 0, tmp_path, workers=1)["test"]
    whole = cache.ensure(problem, splits, 0, tmp_path / "whole", workers=1)["test"]
    assert path.read_bytes() == whole.read_bytes(), "it was solved again"


@pytest.mark.exhaustive
def test_no_damage_of_a_kept_shard_reaches_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Whatever a crash or a bad disk made of a shard: it is used as it was written, or it is solved again.
    original = tmp_path / "sound.npz"
    cache._solve_shard(PROBLEM, 0, "train", 0, original)
    content = original.read_bytes()
    sound = cache.ensure(PROBLEM, {"train": SHARD_SIZE}, 0, tmp_path / "whole", workers=1)["train"].read_bytes()
    solved: list[int] = []

    def solving(problem: NavierStokes2D, seed: int, split: str, shard: int, path: Path) -> None:
        del problem, seed, split
        solved.append(shard)
        path.write_bytes(content)

    monkeypatch.setattr(cache, "_solve_shard", solving)
    monkeypatch.setattr(files.os, "fsync", lambda _: None)  # hundreds of files that need not survive a power cut
    rng = random.Random(3)
    # Densely in the headers of zip and npy at both ends, and anywhere; and cut short at several lengths.
    ends = [*range(0, 160, 2), *range(len(content) - 320, len(content), 2)]
    flips = [(place, 1 << rng.randrange(8)) for place in [*ends, *rng.sample(range(len(content)), 40)]]
    # In the header of the first array: its type (float32 to float16 and others), its shape, a bracket left open.
    place = content.index(b"<f4") + 2
    flips += [(place, mask) for mask in (2, 4, 16, 32)]
    place = content.index(b"(16, 2, 8, 8)")
    flips += [(place + offset, mask) for offset, mask in ((0, 1), (2, 2), (2, 4), (5, 1), (8, 1), (11, 8), (12, 1))]
    damaged = [content[:place] + bytes([content[place] ^ mask]) + content[place + 1 :] for place, mask in flips]
    damaged += [content[: int(share * len(content))] for share in (0.0, 0.1, 0.5, 0.9, 0.999)]
    root = tmp_path / "data"
    shard = cache.folder(PROBLEM, 0, root) / ".shards" / "train-00000.npz"
    for variant in damaged:
        shard.parent.mkdir(parents=True, exist_ok=True)
        shard.write_bytes(variant)
        path = cache.ensure(PROBLEM, {"train": SHARD_SIZE}, 0, root, workers=1)["train"]
        assert path.read_bytes() == sound
        path.unlink()
    assert len(damaged) / 3 < len(solved) < len(damaged)


def test_a_shard_of_other_fields_is_solved_again(tmp_path: Path) -> None:
    # A readable archive that isn't this dataset's shard must not reach the file.
    whole = cache.ensure(PROBLEM, {"train": 16}, 0, tmp_path / "whole", workers=1)["train"].read_bytes()
    scratch = cache.folder(PROBLEM, 0, tmp_path / "cut") / ".shards"
    scratch.mkdir(parents=True)
    fields: Fields = {"vorticity": np.zeros((16, 1, 8, 8), dtype=np.float32)}
    np.savez(scratch / "train-00000.npz", vorticity=fields["vorticity"], seconds=0.0, sha256=store.hash_fields(fields))
    path = cache.ensure(PROBLEM, {"train": 16}, 0, tmp_path / "cut", workers=1)["train"]
    assert path.read_bytes() == whole


def test_a_blow_up_names_dataset_split_samples_time_and_knob() -> None:
    problem = AllenCahn1D(resolution=32, interval=8.0, first_step=8.0, max_step=8.0)
    expected = (
        r"allen_cahn1d, test, batch of samples 32 to 47: Sample \d+ of the batch .* before t=\d+\. Lower .*max_step"
    )
    with pytest.raises(SolverError, match=expected):
        shards.solve(problem, seed=0, split="test", shard=2)
