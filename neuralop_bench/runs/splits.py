"""The data of a configuration: the splits of a run, and further test sets made on demand."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from data_gen.spec import Problem
from neuralop_bench.config.constructors import ConfigError
from neuralop_bench.config.schema import RunConfig, changed, seen
from neuralop_bench.data.imported import ImportedDataset, further_test_sets
from neuralop_bench.data.sources import GeneratedDataset, RegriddedDataset, Source
from neuralop_bench.data.trajectories import Trajectories
from neuralop_bench.runs.parts import built, called, require_offers
from neuralop_bench.runtime.table import Table, show

# The further test set for long rollouts. Of imported data, it is predicted as far as it goes.
LONG = "test_long"


@dataclass(frozen=True)
class Split:
    """A split: the source of its samples, their number, and the number of frames to predict for each."""

    name: str
    source: Source
    n_samples: int
    horizon: int


def split_of(cfg: RunConfig, name: str) -> Split:
    """A split of a configuration by name: train, valid, test, or a further test set.

    Raises:
        ConfigError: there is no such split, or its problem can't be built.
        StoreError: imported files are damaged, or don't fit each other.
        ValueError: its grid can't be derived from that of its source.
    """
    if name in cfg.splits:
        return Split(name, source_of(cfg), cfg.splits[name], cfg.dataset.horizon)
    if name not in further(cfg):
        place = f"dataset.path={cfg.dataset.path}" if cfg.dataset.path else "dataset.test_splits"
        raise ConfigError(
            f"There is no split {name}; there are {', '.join((*cfg.splits, *further(cfg)))}. Choose among these, or "
            f"add it to {place}."
        )
    if cfg.dataset.path is not None:
        imported = ImportedDataset(cfg.dataset.path).further(name)
        held = imported.spec.n_snapshots - cfg.dataset.history
        return Split(name, imported, imported.sizes[name], held if name == LONG else min(cfg.dataset.horizon, held))
    extra = cfg.dataset.test_splits[name]
    horizon = cfg.dataset.horizon if extra.horizon is None else extra.horizon
    n_samples = cfg.splits["test"] if extra.n is None else extra.n
    if extra.source is not None:
        origin = split_of(cfg, extra.source).source
        assert isinstance(origin, GeneratedDataset | RegriddedDataset), "imported data have no further splits"
        return Split(name, RegriddedDataset(origin, extra.source, extra.refine), n_samples, horizon)
    variant = deepcopy(cfg)
    variant.dataset.problem = changed(cfg.dataset.problem, extra.problem)
    if extra.tolerance is not None:
        variant.dataset.tolerance = extra.tolerance
    return Split(name, source_of(variant), n_samples, horizon)


def further(cfg: RunConfig) -> list[str]:
    """Names of the further test sets: ``dataset.test_splits``, or those in the folder of imported data."""
    return list(cfg.dataset.test_splits) if cfg.dataset.path is None else further_test_sets(cfg.dataset.path)


def measured(cfg: RunConfig) -> list[str]:
    """Names of the further test sets that ``evaluator.test_splits`` asks for."""
    return further(cfg) if "all" in cfg.evaluator.test_splits else cfg.evaluator.test_splits


def source_of(cfg: RunConfig) -> Source:
    """The source of a run's data.

    Raises:
        ConfigError: the problem can't be built.
        StoreError: imported files are missing or damaged.
    """
    if cfg.dataset.path is not None:
        return ImportedDataset(cfg.dataset.path)
    problem = cast(Problem, built("dataset.problem", cfg.dataset.problem))
    require_offers("dataset.problem", problem, "simulate", "simulate_refined", "solve", "version")
    called("dataset.problem", lambda: problem.spec)
    return GeneratedDataset(
        problem,
        cfg.dataset.seed,
        Path(cfg.paths.data),
        tolerance=cfg.dataset.tolerance,
        device=cfg.generation.device,
    )


def ensure(split: Split, workers: int | None = None) -> Path:
    """The file of a split, made if it is missing."""
    return split.source.ensure({split.name: split.n_samples}, workers=workers)[split.name]


def opened(cfg: RunConfig, split: Split) -> Trajectories:
    """The samples of a split, made if they are missing."""
    return Trajectories(
        ensure(split, cfg.workers),
        n_samples=split.n_samples,
        history=cfg.dataset.history,
        horizon=split.horizon,
        preload_bytes=int(cfg.preload_gib * 2**30),
        expected=split.source.spec,
        channels=seen(cfg, source_of(cfg).spec).channels,
    )


class Data:
    """The splits that a run needs, made together where they are missing."""

    def __init__(self, cfg: RunConfig, source: Source) -> None:
        self._cfg = cfg
        self._splits = {name: Split(name, source, n, cfg.dataset.horizon) for name, n in cfg.splits.items()}
        source.ensure(cfg.splits, workers=cfg.workers)

    def open(self, split: str) -> Trajectories:
        return opened(self._cfg, self._splits[split])

    def provenance(self, split: str, samples: Trajectories) -> dict[str, Any]:
        """A record's entry for a split of the run, with the numbers that the same data made elsewhere agree with."""
        found = provenance(self._splits[split], samples)
        # Without a measured error there is no tolerance: imported data are compared by their hashes.
        return found if samples.error is None else {**found, "agreement": samples.agreement}


def provenance(split: Split, samples: Trajectories) -> dict[str, Any]:
    """A record's entry for a split."""
    return {
        "file": samples.path.relative_to(split.source.root).as_posix(),
        "sha256": samples.sha256,
        "n": samples.n_samples,
        "version": samples.spec.version,
        "resolution": "x".join(str(n) for n in samples.spec.grid.shape),
        "error": samples.error,
    }


def generate(cfg: RunConfig) -> list[Path]:
    """Make the splits named by ``generation.splits``, or a share of their shards if ``generation.part`` is set.

    With ``dry_run=true`` nothing is made; a table shows what would be.

    Raises:
        ConfigError: there is nothing to generate, e.g. because the data are imported.
        StoreError, CertificateError, GenerationError, WriteError: as their messages say.
    """
    if cfg.dataset.path is not None:
        raise ConfigError("mode=generate has nothing to do: dataset=file uses imported data. Choose another dataset.")
    names = [*cfg.splits, *cfg.dataset.test_splits] if "all" in cfg.generation.splits else cfg.generation.splits
    splits = [split_of(cfg, name) for name in dict.fromkeys(names)]
    if cfg.dry_run:
        show([_table(splits)])
        return []
    if cfg.generation.part is not None:
        for group in _grouped(splits):
            source = group[0].source
            if isinstance(source, GeneratedDataset):  # regridding takes no time and needs its source first
                wanted = {split.name: split.n_samples for split in group}
                source.solve_part(wanted, cfg.generation.part, cfg.generation.n_parts, workers=cfg.workers)
        print(
            f"Part {cfg.generation.part} of {cfg.generation.n_parts} is solved. When all parts are, run the same "
            "command without generation.part to put the files together."
        )
        return []
    paths: list[Path] = []
    for group in _grouped(splits):
        wanted = {split.name: split.n_samples for split in group}
        paths += group[0].source.ensure(wanted, workers=cfg.workers).values()
    for path in paths:
        print(path)
    return paths


def _grouped(splits: Sequence[Split]) -> list[list[Split]]:
    """Splits grouped by dataset, so that its workers solve them in parallel; regridded splits come last."""
    groups: dict[tuple[bool, str, object], list[Split]] = {}
    for split in splits:
        regridded = isinstance(split.source, RegriddedDataset)
        apart = split.name if isinstance(split.source, RegriddedDataset) else _tolerance(split.source)
        groups.setdefault((regridded, str(split.source.folder), apart), []).append(split)
    return [groups[key] for key in sorted(groups, key=lambda key: key[0])]


def _tolerance(source: Source) -> float | None:
    return source.tolerance if isinstance(source, GeneratedDataset) else None


def _table(splits: Sequence[Split]) -> Table:
    rows = []
    for split in splits:
        missing = split.source.n_missing(split.name, split.n_samples)
        how = "regridded" if isinstance(split.source, RegriddedDataset) else "solved"
        grid = "x".join(map(str, split.source.spec.grid.shape))
        state = f"{missing} missing" if missing else "present"
        rows.append((split.name, str(split.n_samples), grid, how, state, str(split.source.folder / split.name)))
    return Table("Data", ("split", "samples", "grid", "made", "state", "folder"), rows)
