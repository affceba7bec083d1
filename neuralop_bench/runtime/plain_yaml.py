"""YAML that someone else may have written: no aliases, which can stand for billions of values, and no deep nesting."""

from __future__ import annotations

from typing import Any

import yaml

_DEEPEST = 64
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's is faster, but isn't everywhere


def require_plain(text: str, where: str) -> None:
    """Refuse a text that has aliases or is nested too deeply. Other errors are left to the one that loads it.

    Args:
        text: the YAML.
        where: it comes from, for the message.

    Raises:
        ValueError: it isn't plain.
    """
    depth = 0
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent) or depth > _DEEPEST:
                problem = "uses the YAML alias *" + event.anchor if depth <= _DEEPEST else "is nested too deeply"
                raise ValueError(f"{where} {problem}. Write the values out.")
    except yaml.YAMLError:
        return


def load(text: str, where: str) -> Any:
    """The values in a plain text.

    Raises:
        ValueError: it isn't plain.
        yaml.YAMLError: it isn't YAML.
    """
    require_plain(text, where)
    return yaml.safe_load(text)
