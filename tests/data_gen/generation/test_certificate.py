"""Certificates: the measured error is the true one, decides what passes for data, and is a function of the data."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from data_gen import store
from data_gen.generation import cache, certificate
from data_gen.generation.certificate import Certificate, CertificateError
from data_gen.generation.random_streams import generator
from data_gen.grids import Grid
from data_gen.spec import DatasetSpec, FieldSpec, Problem, Samples
from data_gen.store import DatasetFile

TIMES = (0.0, 0.5, 2.0)
# The error of each stored time in units of ``Known.error``, and how much smaller the first field's is.
GROWTH, FIRST_FIELD = np.array([0.125, 1.0, 0.5]), 0.25


@dataclass(frozen=True)
class Known:
    """Samples whose true solution and error are known: ``simulate`` gives (1 + error) times the truth.

    Attributes:
        error: relative error of the worst field at the worst time in a sample whose draw is 1.
        gap: where a snapshot of the refined solution isn't a number.
    """

    error: float = 1e-3
    gap: bool = False
    steady: bool = False

    version: ClassVar[int] = 1

    @property
    def spec(self) -> DatasetSpec:
        return DatasetSpec(
            name="known",
            version=self.version,
            equation="",
            grid=Grid.periodic(4),
            times=() if self.steady else TIMES,
            state=(FieldSpec("first", "a field"), FieldSpec("second", "another")),
            diagnostics=(FieldSpec("signed", "a number of either sign"),),
        )

    def simulate(self, rngs: Sequence[np.random.Generator]) -> Samples:
        truth, sizes = self._draw(rngs)
        error = self.error * np.multiply.outer(sizes, np.multiply.outer(GROWTH, [FIRST_FIELD, 1.0]))
        noted = {"signed": np.where(sizes > 0.5, -sizes, sizes)}
        return self._samples(truth * (1 + error[:, : self.spec.n_snapshots, :, None, None]), noted)

    def simulate_refined(self, rngs: Sequence[np.random.Generator]) -> Samples:
        truth, sizes = self._draw(rngs)
        if self.gap:
            truth[:, 1, 0, 2, 2] = np.nan
        return self._samples(truth, {"signed": sizes})

    def expected(self, split: str, indices: Sequence[int]) -> np.ndarray:
        """The true errors, [sample, time]; the refined solution is the truth."""
        sizes = self._draw([generator(0, split, index) for index in indices])[1]
        return self.error * np.multiply.outer(sizes, GROWTH)

    def solve(self, history: np.ndarray, static: np.ndarray, n_steps: int) -> Samples:
        raise NotImplementedError

    def at(self, grid: Grid) -> Known:
        raise NotImplementedError

    def relaxed(self, factor: float) -> Known:
        raise NotImplementedError

    def _draw(self, rngs: Sequence[np.random.Generator]) -> tuple[np.ndarray, np.ndarray]:
        sizes = np.array([rng.random() for rng in rngs])
        shape = (self.spec.n_snapshots, 2, 4, 4)
        return np.array([rng.standard_normal(shape) for rng in rngs]), sizes

    def _samples(self, trajectory: np.ndarray, noted: Mapping[str, np.ndarray]) -> Samples:
        history = trajectory[:, : 0 if self.steady else 1]
        return Samples(history, np.empty((len(trajectory), 0, 4, 4)), trajectory, noted)


PROBLEM = Known()


def _ensure(
    root: Path, problem: Problem = PROBLEM, workers: int = 1, tolerance: float | None = None, **splits: int
) -> dict[str, Path]:
    return cache.ensure(problem, splits, 0, root, workers=workers, tolerance=tolerance)


def _stored(path: Path) -> Certificate:
    with DatasetFile(path) as file:
        return Certificate.from_dict(file.certificate)


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What this process solves: shards by number, and certificates."""
    calls: list[str] = []

    solve, measure = cache._solve_shard, cache._measure

    def recording_solve(problem: Problem, seed: int, split: str, shard: int, path: Path) -> None:
        calls.append(f"{split} {shard}")
        solve(problem, seed, split, shard, path)

    def recording_measure(work: cache._Request, split: str) -> object:
        calls.append(f"{split} certificate")
        return measure(work, split)

    monkeypatch.setattr(cache, "_solve_shard", recording_solve)
    monkeypatch.setattr(cache, "_measure", recording_measure)
    return calls


# The measurement -----------------------------------------------------------------------------------------------------


class Given(Known):
    """A problem with given solutions."""

    def __init__(self, coarse: np.ndarray, fine: np.ndarray) -> None:
        object.__setattr__(self, "_solutions", (coarse, fine))

    def simulate(self, rngs: Sequence[np.random.Generator]) -> Samples:
        del rngs
        return self._samples(self._solutions[0], {})

    def simulate_refined(self, rngs: Sequence[np.random.Generator]) -> Samples:
        del rngs
        return self._samples(self._solutions[1], {})


def test_errors_are_relative_to_the_finer_snapshot_and_the_worst_field_counts() -> None:
    fine = np.zeros((1, 2, 2, 4, 4))  # [sample, time, field, x, y]
    fine[0, 0, 0, 1, 1], fine[0, 0, 1, 2, 3] = 2.0, 10.0
    fine[0, 1, 0, 0, 0], fine[0, 1, 1] = 5.0, 3.0  # the latter of norm 12
    coarse = fine.copy()
    coarse[0, 0, 0, 3, 3] += 0.3  # 0.15 of field 0 at the first time
    coarse[0, 0, 1, 0, 0] += 0.4  # 0.04 of field 1
    coarse[0, 1, 1, 0, :2] += [3.0, 4.0]  # 5/12 of field 1 at the second time
    (errors,) = certificate.measure(Given(coarse, fine), [], [])
    assert errors == pytest.approx([0.15, 5 / 12], rel=1e-14)


def test_fields_that_vanish_in_both_solutions_have_no_error() -> None:
    nothing = np.zeros((1, 1, 2, 4, 4))
    assert certificate.measure(Given(nothing, nothing), [], []) == [[0.0]]
    assert certificate.measure(Given(nothing + 1e-3, nothing), [], [])[0][0] > 1e100


def test_the_stored_error_is_the_true_one(tmp_path: Path) -> None:
    paths = _ensure(tmp_path, train=20, test=6)
    for split, path in paths.items():
        found = _stored(path)
        expected = PROBLEM.expected(split, range(certificate.N_CHECKED))
        np.testing.assert_allclose(found.errors, expected, rtol=1e-10)
        assert found.error == pytest.approx(expected.max(), rel=1e-10)
        with DatasetFile(path) as file:
            assert file.certificate["error"] == found.error
            noted = file.read_diagnostics()["signed"]
        worst = noted[np.abs(noted).argmax()]
        assert worst < 0, "the sign of the worst is kept"
        assert found.diagnostics["signed"] == {"worst": worst, "mean": pytest.approx(noted.mean())}
        assert noted.dtype == np.float64
        assert not np.array_equal(noted, noted.astype(np.float32))


def test_a_file_shorter_than_what_is_checked_has_the_same_errors(tmp_path: Path) -> None:
    one, many = (_stored(_ensure(tmp_path / str(n), test=n)["test"]) for n in (1, 40))
    assert one.errors == many.errors
    assert len(one.errors) == certificate.N_CHECKED
    assert one.diagnostics["signed"]["mean"] != many.diagnostics["signed"]["mean"]


def test_a_steady_problem_has_one_error_per_sample(tmp_path: Path) -> None:
    path = _ensure(tmp_path, replace(PROBLEM, steady=True), test=2)["test"]
    assert np.shape(_stored(path).errors) == (certificate.N_CHECKED, 1)
    assert "over time" not in _stored(path).describe(replace(PROBLEM, steady=True).spec)


# The tolerance --------------------------------------------------------------------------------------------------------


def test_too_large_an_error_leaves_no_data_behind(tmp_path: Path, done: list[str]) -> None:
    error = float(PROBLEM.expected("test", range(certificate.N_CHECKED)).max())
    with pytest.raises(CertificateError, match=rf"known-\w+, test: .*dataset\.tolerance={error * 0.99:g}\."):
        _ensure(tmp_path, test=3, tolerance=error * 0.99)
    assert done == ["test certificate"], "nothing is solved that would be refused"
    assert not list(tmp_path.rglob("*.hdf5"))
    done.clear()
    with pytest.raises(CertificateError):
        _ensure(tmp_path, test=3, tolerance=error * 0.99)
    assert done == [], "what has been measured isn't measured again"
    path = _ensure(tmp_path, test=3, tolerance=error * 1.01)["test"]
    assert done == ["test 0"]
    fresh = _ensure(tmp_path / "fresh", test=3)["test"]
    assert path.read_bytes() == fresh.read_bytes(), "the tolerance isn't part of the data"


def test_one_split_that_is_too_inaccurate_keeps_all_from_being_solved(tmp_path: Path, done: list[str]) -> None:
    worst = {split: float(PROBLEM.expected(split, range(4)).max()) for split in ("train", "valid", "test")}
    ordered = sorted(worst, key=lambda split: worst[split])
    with pytest.raises(CertificateError, match=rf", {ordered[-1]}: "):
        _ensure(tmp_path, tolerance=(worst[ordered[1]] + worst[ordered[2]]) / 2, **dict.fromkeys(ordered, 2))
    assert done == [f"{split} certificate" for split in ordered]
    assert not list(tmp_path.rglob("*.hdf5"))


def test_shards_that_were_solved_serve_a_higher_tolerance(tmp_path: Path, done: list[str]) -> None:
    cache.solve_part(PROBLEM, {"train": 40}, 0, tmp_path, part=1, n_parts=2, workers=1, tolerance=1e-9)
    assert done == ["train 0", "train 2"]
    with pytest.raises(CertificateError):
        _ensure(tmp_path, train=40, tolerance=1e-9)
    assert len(list(tmp_path.rglob("*.npz"))) == 2
    done.clear()
    path = _ensure(tmp_path, train=40, tolerance=1.0)["train"]
    assert done == ["train 1"]
    assert path.read_bytes() == _ensure(tmp_path / "fresh", train=40)["train"].read_bytes()


def test_a_file_that_exists_is_held_to_a_lower_tolerance(tmp_path: Path, done: list[str]) -> None:
    path = _ensure(tmp_path, test=3, tolerance=1.0)["test"]
    before, error = path.read_bytes(), _stored(path).error
    done.clear()
    for n in (3, 40):  # as it is, and to be made longer
        with pytest.raises(CertificateError, match=r"test/known\.hdf5: .*dataset\.tolerance"):
            _ensure(tmp_path, test=n, tolerance=error * 0.999)
    assert _ensure(tmp_path, test=3, tolerance=error) == {"test": path}
    assert done == []
    assert path.read_bytes() == before


def test_a_file_without_a_certificate_satisfies_no_tolerance(tmp_path: Path) -> None:
    path = cache.folder(PROBLEM, 0, tmp_path) / "test" / "known.hdf5"
    fields = store.to_fields(PROBLEM.spec, PROBLEM.simulate([generator(0, "test", 0)]))
    store.write(path, PROBLEM.spec, [fields], 1, split="test", seed=0, provenance={})
    assert _ensure(tmp_path, test=1) == {"test": path}
    with pytest.raises(CertificateError, match="measured error inf"):
        _ensure(tmp_path, test=1, tolerance=1.0)


def test_an_error_that_is_no_number_satisfies_no_tolerance(tmp_path: Path) -> None:
    broken = replace(PROBLEM, gap=True)
    with pytest.raises(CertificateError, match="measured error nan"):
        _ensure(tmp_path, broken, test=3, tolerance=1.0)
    path = _ensure(tmp_path, broken, test=3)["test"]
    # The first and the last snapshot of every sample have an error; one between has none.
    assert np.isnan(_stored(path).errors).any(axis=0).tolist() == [False, True, False]
    assert math.isnan(_stored(path).error)
    with pytest.raises(CertificateError, match="measured error nan"):
        _ensure(tmp_path, broken, test=3, tolerance=1.0)


@pytest.mark.parametrize("tolerance", [None, 0.5, 0.7])
def test_an_error_at_the_tolerance_passes(tolerance: float | None) -> None:
    certificate.require(0.5, tolerance, "data")
    if tolerance is not None:
        with pytest.raises(CertificateError, match=r"^data: "):
            certificate.require(np.nextafter(tolerance, 1), tolerance, "data")


# A function of the data -----------------------------------------------------------------------------------------------


def test_a_generation_that_was_cut_short_keeps_what_it_measured(
    tmp_path: Path, done: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    solve = cache._solve_shard

    def dying(problem: Problem, seed: int, split: str, shard: int, path: Path) -> None:
        if shard == 1:
            raise KeyboardInterrupt
        solve(problem, seed, split, shard, path)

    monkeypatch.setattr(cache, "_solve_shard", dying)
    with pytest.raises(KeyboardInterrupt):
        _ensure(tmp_path, train=20)
    monkeypatch.setattr(cache, "_solve_shard", solve)
    done.clear()
    path = _ensure(tmp_path, train=20)["train"]
    assert done == ["train 1"]
    assert path.read_bytes() == _ensure(tmp_path / "fresh", train=20)["train"].read_bytes()
    left = {entry.name for entry in path.parent.parent.iterdir()} - {".lock"}
    assert left == {"train", "generation.json"}


@pytest.mark.parametrize(
    "content", [b"", b"[[0.0, 0.0]", b"[[0.0, 0.0, 0.0]]", b'{"a": 1}', b"\xff\xfe", b"[[1], [2, 3]]"]
)
def test_a_damaged_measurement_is_made_again(tmp_path: Path, done: list[str], content: bytes) -> None:
    with pytest.raises(CertificateError):
        _ensure(tmp_path, test=2, tolerance=1e-9)
    (path,) = tmp_path.rglob("test-errors.json")
    path.write_bytes(content)
    done.clear()
    found = _stored(_ensure(tmp_path, test=2)["test"])
    assert done == ["test certificate", "test 0"]
    np.testing.assert_allclose(found.errors, PROBLEM.expected("test", range(4)), rtol=1e-10)


def test_a_longer_file_keeps_the_errors_that_were_measured(tmp_path: Path, done: list[str]) -> None:
    short = _stored(_ensure(tmp_path, train=20)["train"])
    done.clear()
    longer = _ensure(tmp_path, train=40)["train"]
    assert done == ["train 1", "train 2"], "no certificate"
    assert _stored(longer).errors == short.errors
    # The diagnostics are those of all samples, also of those that were kept.
    assert longer.read_bytes() == _ensure(tmp_path / "fresh", train=40)["train"].read_bytes()


def test_what_one_process_prints_is_the_certificate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = _ensure(tmp_path, test=2)["test"]
    text = capsys.readouterr().err
    assert f"{path}: 2 samples" in text
    assert "  error: " in text
    for line in _stored(path).describe(PROBLEM.spec).splitlines():
        assert f"  {line}\n" in text


# What people and programs see ----------------------------------------------------------------------------------------

MADE_UP = Certificate(((1e-6, 2.346e-3, 1e-3), (3e-6, 1e-3, 1.5)), {"signed": {"worst": -12.3456, "mean": 0.012345}})


def test_a_certificate_survives_json() -> None:
    values = json.loads(json.dumps(MADE_UP.to_dict()))
    assert values["error"] == 1.5
    assert Certificate.from_dict(values) == MADE_UP
    for useless in ({}, {"errors": 3, "diagnostics": {}}, {"errors": [[0.1]]}):
        with pytest.raises((KeyError, TypeError)):
            Certificate.from_dict(useless)


def test_the_file_shows_it_to_every_reader(tmp_path: Path) -> None:
    path = _ensure(tmp_path, test=2)["test"]
    with store.to_xarray(path) as dataset:
        assert Certificate.from_dict(json.loads(dataset.attrs["certificate"])) == _stored(path)


def test_the_description_names_numbers_times_and_diagnostics() -> None:
    assert MADE_UP.describe(PROBLEM.spec).splitlines() == [
        "error: 1.5 at most, measured on 2 samples solved again",
        "  over time: t=0 3e-06, t=0.5 0.0023, t=2 1.5",
        "signed: -12.3 at most, 0.012 on average (a number of either sign)",
    ]


def test_the_description_of_many_times_shows_five_of_them() -> None:
    spec = replace(PROBLEM.spec, times=tuple(float(t) for t in range(1, 21)), diagnostics=())
    errors = (tuple(t / 100 for t in range(1, 21)),)
    line = Certificate(errors, {}).describe(spec).splitlines()[1]
    assert line == "  over time: t=1 0.01, t=6 0.06, t=11 0.11, t=16 0.16, t=20 0.2"
