"""Show what a dataset file holds: ``python scripts/inspect_data.py FILE`` (``--help``)."""

from neuralop_bench.inspection import main

if __name__ == "__main__":
    raise SystemExit(main())
