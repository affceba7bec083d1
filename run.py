"""Generate data, train, evaluate: ``python run.py model=fno dataset=ns2d`` (``--help`` lists the choices)."""

import os

import hydra
from omegaconf import DictConfig

from neuralop_bench import config


@hydra.main(version_base="1.3", config_path="configs", config_name="config")
def main(cfg: DictConfig) -> None:
    from neuralop_bench import pipeline  # torch takes seconds to import: --help and --cfg do without it

    pipeline.run(config.from_hydra(cfg))


if __name__ == "__main__":
    os.environ["HYDRA_FULL_ERROR"] = "1"  # config.report_errors prints errors itself
    with config.report_errors():
        main()
