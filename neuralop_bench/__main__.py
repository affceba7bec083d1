"""Generate data, train, evaluate: the command behind ``run.py``, ``neuralop-bench`` and ``python -m neuralop_bench``.

``--help`` lists the choices.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

# Nothing else here: Ctrl-C during the other imports is answered as at any other time.
from neuralop_bench.runtime.signals import report_stops

if TYPE_CHECKING:
    from omegaconf import DictConfig


def _job(cfg: DictConfig) -> float | None:
    """What a search minimises: the error on valid."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from neuralop_bench.config.compose import from_hydra
    from neuralop_bench.config.messages import report_and_end, report_job_errors
    from neuralop_bench.runtime import process_group

    hydra = HydraConfig.get()
    is_sweep = hydra.mode is RunMode.MULTIRUN
    # Our own sweeper draws the board when all jobs have ended; after a trial of a search nobody else does.
    draws = not (is_sweep and str(hydra.sweeper._target_).endswith(".ResumingSweeper"))
    with report_job_errors(is_sweep=is_sweep):
        run = from_hydra(cfg)
        from neuralop_bench import pipeline
        from neuralop_bench.runtime import processes  # torch takes seconds to import: --help and --cfg do without

        try:
            return pipeline.execute(run, draws=draws)
        except Exception as error:
            if not process_group.is_first():
                report_and_end(error)  # at once: the others wait for what this one would have given
            raise
        finally:
            if not is_sweep:
                processes.leave()
    return None


def main() -> None:
    """Do what the command line says; exit with status 1 and a message if it can't be done."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # config.report_errors prints errors itself
    with report_stops():
        from neuralop_bench.runtime import command_line

        if sys.argv[1:] in (["--help"], ["-h"]):
            _print(command_line.help_text())
            return
        import hydra

        from neuralop_bench.config.messages import report_errors
        from neuralop_bench.runtime import place

        sys.argv[1:] = command_line.escaped(sys.argv[1:])
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
