"""Hydra's grid sweeper, except that only jobs that aren't done are launched.

Hydra looks for sweepers only in the namespace ``hydra_plugins``. It imports everything there for every command,
including ``--help``, so this module imports nothing slow.
"""

from __future__ import annotations

from collections.abc import Sequence
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
