"""Only make data: ``python scripts/generate_data.py dataset=ns2d track=lite``.

Takes the same arguments as run.py. ``generation.splits=[train,valid,test,test_long]`` or ``[all]`` chooses the splits;
existing data are kept. ``dry_run=true`` shows what would be made. To use several machines that share a file system:

    python scripts/generate_data.py -m hydra/launcher=slurm dataset=ns2d track=full \\
        generation.n_parts=8 'generation.part=range(8)'
    python scripts/generate_data.py dataset=ns2d track=full
"""

import sys

from neuralop_bench.__main__ import main

if __name__ == "__main__":
    sys.argv.append("mode=generate")
    main()
