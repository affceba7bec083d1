"""Generate data, train, evaluate: the command behind ``run.py``, ``neuralop-bench`` and ``python -m neuralop_bench``.

``--help`` lists the choices.
"""

from __future__ import annotations

import os
import sys

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from neuralop_bench import config


@hydra.main(version_base="1.3", config_path=str(config.CONFIG_DIR), config_name="config")
def _job(cfg: DictConfig) -> None:
    with config.report_job_errors(is_sweep=HydraConfig.get().mode is RunMode.MULTIRUN):
        run = config.from_hydra(cfg)
        from neuralop_bench import pipeline  # torch takes seconds to import: --help and --cfg do without it

        pipeline.execute(run)


def main() -> None:
    """Do what the command line says; exit with status 1 and a message if it can't be done."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # config.report_errors prints errors itself
    sys.argv[1:] = config.escaped(sys.argv[1:])
    with config.report_errors():
        _job()


if __name__ == "__main__":
    main()
