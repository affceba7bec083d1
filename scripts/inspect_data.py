"""Show the contents of a dataset file: ``python scripts/inspect_data.py FILE`` (see ``--help``)."""

from neuralop_bench.inspection import main

if __name__ == "__main__":
    raise SystemExit(main())
