"""Generate data, train, evaluate: the command behind ``run.py``, ``neuralop-bench`` and ``python -m neuralop_bench``.

``--help`` lists the choices.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

# No other imports here, so that Ctrl-C is handled as usual even while they are loading.
from neuralop_bench.runtime.signals import report_stops

if TYPE_CHECKING:
    from omegaconf import DictConfig


def _job(cfg: DictConfig) -> float | None:
    """Run one job. Returns the value that a search minimises: the error on valid."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from neuralop_bench.config.compose import from_hydra
    from neuralop_bench.config.messages import report_and_end, report_job_errors
    from neuralop_bench.runtime import process_group

    hydra = HydraConfig.get()
    is_sweep = hydra.mode is RunMode.MULTIRUN
    # Our own sweeper draws the board when all jobs have ended. A search has no such step, so each of its trials does.
    draws = not (is_sweep and str(hydra.sweeper._target_).endswith(".ResumingSweeper"))
    with report_job_errors(is_sweep=is_sweep):
        run = from_hydra(cfg)
        from neuralop_bench import pipeline
        from neuralop_bench.runtime import processes  # torch takes seconds to import; --help and --cfg don't need it

        try:
            return pipeline.execute(run, draws=draws)
        except Exception as error:
            if not process_group.is_first():
                report_and_end(error)  # at once: the other processes are waiting for this one
            raise
        finally:
            if not is_sweep:
                processes.leave()
    return None


def main() -> None:
    """Run the command line; exit with status 1 and a message if that fails."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # report_errors prints errors itself
    with report_stops():
        from neuralop_bench.runtime import command_line

        if sys.argv[1:] in (["--help"], ["-h"]):
            _print(command_line.help_text())
            return
        import hydra

        from neuralop_bench.config.messages import report_errors
        from neuralop_bench.runtime import place

        sys.argv[1:] = command_line.overrides_first(command_line.escaped(sys.argv[1:]))
        with report_errors(), command_line.guarded_composition():
            command_line.refuse_pickles(sys.argv[1:])
            hydra.main(version_base="1.3", config_path=str(place.CONFIG_DIR), config_name="config")(_job)()


def _print(text: str) -> None:
    try:
        print(text, flush=True)
    except BrokenPipeError:  # "| head" has read enough
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  (the interpreter flushes it at the end)


if __name__ == "__main__":
    main()
