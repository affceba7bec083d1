"""Generate data, train, evaluate: ``python run.py model=fno dataset=ns2d`` (``--help`` lists the choices)."""

from neuralop_bench.__main__ import main

if __name__ == "__main__":
    main()
