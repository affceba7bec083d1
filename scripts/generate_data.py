"""Make data and nothing else: ``python scripts/generate_data.py dataset=ns2d track=lite``.

Takes what run.py takes, and ``generation.splits=[train,valid,test,test_long]`` or ``[all]``; what is there already is
left as it is. ``dry_run=true`` tells what would be made. On several machines that share a file system:

    python scripts/generate_data.py -m hydra/launcher=slurm dataset=ns2d track=full \\
        generation.n_parts=8 'generation.part=range(8)'
    python scripts/generate_data.py dataset=ns2d track=full
"""

import sys

from neuralop_bench.__main__ import main

if __name__ == "__main__":
    sys.argv.append("mode=generate")
    main()
