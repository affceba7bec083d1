"""Convert MATLAB, PDEBench, neuraloperator and The Well files to our format (``--help`` has examples)."""

from data_gen.importing.command import main

if __name__ == "__main__":
    raise SystemExit(main())
