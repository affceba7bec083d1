"""Names of published weights in terms of ours."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from torch import Tensor


def renamed(
    states: Mapping[str, Tensor], rules: Mapping[str, str | Callable[[re.Match[str]], str]]
) -> dict[str, Tensor]:
    """Replace every match of every rule in the names, in the order of the rules.

    >>> import torch
    >>> list(renamed({"blocks.3.fc1.bias": torch.zeros(2)}, {r"fc(\\d)": r"network.\\1", "network.1": "network.0"}))
    ['blocks.3.network.0.bias']
    """
    found = {}
    for name, value in states.items():
        for pattern, new in rules.items():
            name = re.sub(pattern, new, name)
        found[name] = value
    return found
