"""Where this package is: in a checkout, or installed."""

from __future__ import annotations

from pathlib import Path

import neuralop_bench

_PACKAGE = Path(neuralop_bench.__file__).resolve().parent
# The top folder of the checkout; for an installation, the folder of all packages.
ROOT = _PACKAGE.parent
# A wheel contains the configurations inside the package, a checkout beside it.
IN_CHECKOUT = not (_PACKAGE / "configs").is_dir()
CONFIG_DIR = (ROOT if IN_CHECKOUT else _PACKAGE) / "configs"
