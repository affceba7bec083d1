"""Hydra's grid of jobs, of which those alone are launched that aren't done.

Hydra finds sweepers in the namespace ``hydra_plugins`` alone. It imports all that lies there whatever it is asked for,
``--help`` included: so nothing is imported here that takes time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn

# Under the name of Hydra's own, so that every sweep has it that doesn't ask for another one (hydra/sweeper=optuna).
ConfigStore.instance().store(
    group="hydra/sweeper",
    name="basic",
    node={"_target_": f"{__name__}.ResumingSweeper", "max_batch_size": None, "params": None},
    provider="neuralop_bench",
)


class ResumingSweeper(BasicSweeper):
    """The jobs of a grid, ``model=a,b seed=0,1``: leaves out those that are done, tells what became of the others.

    Args:
        max_batch_size: most jobs that are handed to the launcher together; null for all.
        params: further axes, as the command line would give them; an experiment sets these.
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
