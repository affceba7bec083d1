"""Two sweepers for Hydra: a grid, of which only the jobs that aren't done are launched, and a search by halving.

Hydra looks for sweepers only in the namespace ``hydra_plugins``. It imports everything there for every command,
including ``--help``, so this module imports nothing slow.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn

# Under the name of Hydra's own sweeper, so that it is the default; hydra/sweeper=optuna still chooses another one.
ConfigStore.instance().store(
    group="hydra/sweeper",
    name="basic",
    node={"_target_": f"{__name__}.ResumingSweeper", "max_batch_size": None, "params": None},
    provider="neuralop_bench",
)
ConfigStore.instance().store(
    group="hydra/sweeper",
    name="halving",
    node={
        "_target_": f"{__name__}.HalvingSweeper",
        "max_batch_size": None,
        "params": None,
        "rungs": [{"trials": 12, "epochs": 0.125}, {"trials": 3, "epochs": 0.25}],
        "seed": 0,
        "limit": None,
        "memory_gib": math.inf,
        "folder": "outputs/trials",
    },
    provider="neuralop_bench",
)


class ResumingSweeper(BasicSweeper):
    """Runs the jobs of a grid, ``model=a,b seed=0,1``: skips those that are done and reports how the others ended.

    Args:
        max_batch_size: largest number of jobs handed to the launcher together; null for all.
        params: further axes of the grid, written as on the command line; experiments set these.
    """

    def sweep(self, arguments: list[str]) -> Sequence[JobReturn]:
        from neuralop_bench.runs.sweep import Sweep

        assert self.config is not None
        assert self.hydra_context is not None
        assert self.launcher is not None
        loader = self.hydra_context.config_loader
        overrides = OverridesParser.create(config_loader=loader).parse_overrides([*self._parse_config(), *arguments])
        (grid,) = self.split_arguments(overrides, max_batch_size=None)
        sweep = Sweep.composed(self.config, loader, grid)
        if sweep.is_dry:
            sweep.rehearse()
            return []
        launcher: Any = self.launcher
        return sweep.run(launcher.launch, self.max_batch_size)


class HalvingSweeper(BasicSweeper):
    """Searches for hyper-parameters by successive halving; see ``neuralop_bench.runs.search.Search``.

    Args:
        max_batch_size: largest number of trials handed to the launcher together; null for those of a rung. Finished
            trials are listed each time.
        params: the keys to vary, such as ``optimizer.lr: tag(log, interval(1e-3, 1e-2))``. Axes on the command line
            (``dataset=ns2d,darcy2d``) make a search each.
        rungs: number of trials and fraction of the epochs, for each rung.
        seed: of the draws.
        limit: longest time of a whole training, in seconds; null for none.
        memory_gib: most memory of a training, in GiB.
        folder: folder of the lists of trials.
    """

    def __init__(
        self,
        max_batch_size: int | None,
        params: dict[str, str] | None,
        rungs: Sequence[Mapping[str, float]],
        seed: int,
        limit: float | None,
        memory_gib: float,
        folder: str,
    ) -> None:
        super().__init__(max_batch_size=max_batch_size, params=params)
        self._rungs, self._seed, self._folder = rungs, seed, folder
        self._limit, self._memory_gib = limit, memory_gib

    def sweep(self, arguments: list[str]) -> Sequence[JobReturn]:
        from neuralop_bench.runs.search import Rung, Search

        assert self.config is not None
        assert self.hydra_context is not None
        launcher: Any = self.launcher
        loader = self.hydra_context.config_loader
        parser = OverridesParser.create(config_loader=loader)
        (grid,) = self.split_arguments(parser.parse_overrides(arguments), max_batch_size=None)
        for fixed in grid:
            search = Search(
                self.config,
                loader,
                fixed,
                space=parser.parse_overrides(self._parse_config()),
                rungs=[Rung(int(rung["trials"]), rung["epochs"]) for rung in self._rungs],
                seed=self._seed,
                folder=Path(self._folder),
                limit=self._limit,
                memory_gib=self._memory_gib,
            )
            if self.config.dry_run:
                search.first_rung().rehearse()
            else:
                search.run(launcher.launch, self.max_batch_size)
        return []
