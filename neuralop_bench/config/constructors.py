"""Constructors named in configurations: imported only if they are trusted, checked against their signature, built.

A node is a mapping with ``_target_`` (a dotted name) and the arguments of what it names. A configuration can come from
somebody else, inside a record or a checkpoint, so a name decides what code is run: only the packages in ``TRUSTED``
are imported without being asked for.
"""

from __future__ import annotations

import difflib
import inspect
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, get_args, get_origin, get_type_hints

from beartype import BeartypeConf
from beartype.door import is_bearable
from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate

# Where constructors may come from. Not all of torch: torch.hub.load, for one, downloads code and runs it.
TRUSTED = (
    "data_gen.permeability",
    "data_gen.problems",
    "data_gen.random_fields",
    "neuralop_bench.metrics",
    "neuralop_bench.models",
    "neuralop_bench.training",
    "torch.nn",
    "torch.optim",
)
_INT_IS_FLOAT = BeartypeConf(is_pep484_tower=True)
_DIRECTIVES: dict[str, tuple[Any, ...]] = {
    "_partial_": (True, False),
    "_recursive_": (True, False),
    "_convert_": ("none", "partial", "object", "all"),
}
# No model or problem has more layers, channels or points per axis. A larger number is a slip, and to try it out would
# take the machine's memory or the user's day: a million layers are a million modules, even where they take no memory.
_MOST = 2**16
_LARGEST_SEED = 2**32 - 1


class ConfigError(ValueError):
    """A configuration that can't be run; the message names the key."""


class InapplicableError(ConfigError):
    """Parts that are each right and mean nothing together. A grid of a sweep leaves such a job out."""


def build(node: Mapping[str, Any]) -> Any:
    """Call the constructor of a node that has been checked.

    Raises:
        Exception: whatever the constructor raises.
    """
    try:
        return instantiate(dict(node))
    except InstantiationException as error:
        if isinstance(error.__cause__, ValueError | RuntimeError):
            raise error.__cause__ from None  # the constructor's own words, without Hydra's around them
        raise


def require_trusted(name: str, node: Any, trust: Sequence[str] = (), *, foreign: bool = False) -> None:
    """Refuse constructors from packages that nobody has vouched for. Nothing is imported before they are all known.

    Args:
        name: the node's key, for the message.
        node: any part of a configuration; it is searched to the bottom.
        trust: packages trusted besides ``TRUSTED``.
        foreign: the configuration comes from a record or a checkpoint, so ``target`` (the foreign module of
            ``model=external``) is no wish of the person at the keyboard and has to be trusted as well.

    Raises:
        ConfigError: naming the key and what ``trust`` must hold.
    """
    for key, target in _targets(name, node, ("_target_", "target") if foreign else ("_target_",)):
        if not isinstance(target, str) or not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)+", target):
            raise ConfigError(f"{key} must be a dotted name such as neuralop_bench.models.fno.FNO, got {target!r}.")
        if not _is_below(target, (*TRUSTED, *trust)) or any(part.startswith("_") for part in target.split(".")):
            package = target.split(".")[0]
            raise ConfigError(
                f"{key}={target} isn't among the trusted constructors ({', '.join(TRUSTED)}), and to import it is to "
                f"run its code. If you trust the package, say so: trust=[{package}]."
            )


def check(name: str, node: Any, trust: Sequence[str] = ()) -> None:
    """Check a node against the signature of its ``_target_``: unknown names and wrong types.

    Whole numbers given for floating-point arguments become floats in place, so that lr=1 and lr=1.0 are the same run.

    Raises:
        ConfigError: naming the key, with the closest known name.
    """
    if not isinstance(node, Mapping) or "_target_" not in node:
        raise ConfigError(f"{name} must name a constructor in {name}._target_, got {node!r}.")
    require_trusted(name, node, trust)
    _require_possible_numbers(name, node)
    target = _imported(name, str(node["_target_"]), trust)
    parameters = inspect.signature(target).parameters
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    hints = _hints(target)
    for key, value in node.items():
        if key == "_target_":
            continue
        if key in _DIRECTIVES:
            if not any(type(value) is type(known) and value == known for known in _DIRECTIVES[key]):
                raise ConfigError(f"{name}.{key} must be one of {_DIRECTIVES[key]}, got {value!r}.")
            continue
        if key not in parameters and (not takes_any or str(key).startswith("_")):
            close = suggestion(str(key), list(parameters), name + ".")
            otherwise = f" {node['_target_']} doesn't take it; if a recipe sets it, add ~{name}.{key}."
            raise ConfigError(f"Unknown key {name}.{key}.{close or otherwise}")
        if isinstance(value, Mapping) and "_target_" in value:
            check(f"{name}.{key}", value, trust)
            _require_kind(f"{name}.{key}", value, hints.get(key), trust)
        elif key in hints:
            if not _fits(value, hints[key]):
                raise ConfigError(f"{name}.{key} must be of type {_readable(hints[key])}, got {value!r}.")
            if isinstance(value, Sequence) and not value and parameters[key].default != value:
                raise ConfigError(f"{name}.{key} is empty.")
            if type(value) is int and not is_bearable(value, hints[key]):
                node[key] = float(value)  # pyright: ignore[reportIndexIssue]
    missing = [
        key
        for key, parameter in parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        and key not in node
    ]
    if missing and not node.get("_partial_"):
        raise ConfigError(f"{name} needs {' and '.join(f'{name}.{key}' for key in missing)}.")


def target(node: Mapping[str, Any]) -> Any:
    """The class or function that a checked node names."""
    return get_object(node["_target_"])


def parameters_of(name: str, node: Mapping[str, Any]) -> Iterator[str]:
    """Keys of all arguments that the constructor of a node and of those inside it take, set or not."""
    nodes = {name: node, **{f"{name}.{key}": value for key, value in node.items() if isinstance(value, Mapping)}}
    for prefix, entry in nodes.items():
        if "_target_" in entry:
            yield from (f"{prefix}.{key}" for key in inspect.signature(get_object(entry["_target_"])).parameters)


def suggestion(name: str, known: Sequence[str], prefix: str = "") -> str:
    """ " Did you mean ...?" with the known names that come closest, or nothing."""
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    if not close:
        # The last part may be right and its place wrong: lr is optimizer.lr.
        close = [entry for entry in known if entry.split(".")[-1] == name.split(".")[-1]][:3]
    return f" Did you mean {' or '.join(prefix + entry for entry in close)}?" if close else ""


def _require_possible_numbers(name: str, node: Any) -> None:
    if isinstance(node, Mapping):
        for key, value in node.items():
            _require_possible_numbers(f"{name}.{key}", value)
    elif isinstance(node, list | tuple):
        for index, value in enumerate(node):
            _require_possible_numbers(f"{name}[{index}]", value)
    elif isinstance(node, float) and not math.isfinite(node):
        raise ConfigError(f"{name} must be a finite number, got {node}.")
    elif isinstance(node, int):
        most = _LARGEST_SEED if name.endswith("seed") else _MOST
        if abs(node) > most:
            raise ConfigError(f"{name} must be at most {most}, got {node}.")


def _require_kind(name: str, node: Mapping[str, Any], hint: Any, trust: Sequence[str]) -> None:
    """A nested constructor makes what its place asks for, where a class says what that is."""
    target = _imported(name, str(node["_target_"]), trust)
    if inspect.isclass(hint) and inspect.isclass(target) and not issubclass(target, hint):
        raise ConfigError(f"{name} must be of type {_readable(hint)}, got a {target.__name__}.")


def _targets(name: str, node: Any, keys: Sequence[str]) -> Iterator[tuple[str, Any]]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from ((f"{name}.{key}", value),) if key in keys else _targets(f"{name}.{key}", value, keys)
    elif isinstance(node, list | tuple):
        for index, value in enumerate(node):
            yield from _targets(f"{name}[{index}]", value, keys)


def _is_below(dotted: str, packages: Sequence[str]) -> bool:
    return any(dotted == package or dotted.startswith(f"{package}.") for package in packages)


def _imported(name: str, dotted: str, trust: Sequence[str]) -> Any:
    try:
        target = get_object(dotted)
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{name}._target_={dotted!r} can't be imported: {reason}") from error
    # A trusted module has imported others: neuralop_bench.models.fno.nn.Module is torch's, not ours to vouch for.
    home = getattr(target, "__module__", None) or ""
    if not callable(target) or not _is_below(home, (*TRUSTED, *trust)):
        raise ConfigError(
            f"{name}._target_={dotted!r} is no constructor of a trusted package: it comes from {home or 'nowhere'}."
        )
    return target


def _fits(value: Any, hint: Any) -> bool:
    # A bool is an int to Python, but width=true is a slip.
    flags = [entry for entry in (value if isinstance(value, list) else [value]) if isinstance(entry, bool)]
    if flags and not _admits_flags(hint):
        return False
    if value == "":
        value = "text"  # an empty string is a sequence of anything, so it would pass for a list of numbers
    if isinstance(value, list):
        # YAML has no tuples. Of a list beartype looks at one entry, of a tuple of fixed length at each.
        as_lists = [is_bearable([entry], hint, conf=_INT_IS_FLOAT) for entry in value]
        return all(as_lists) if any(as_lists) else is_bearable(tuple(value), hint, conf=_INT_IS_FLOAT)
    return is_bearable(value, hint, conf=_INT_IS_FLOAT)


def _admits_flags(hint: Any) -> bool:
    if get_origin(hint) is Literal:
        return any(isinstance(value, bool) for value in get_args(hint))
    parts = [part for part in get_args(hint) if part is not Ellipsis]
    return any(_admits_flags(part) for part in parts) if parts else hint not in (int, float) and is_bearable(True, hint)


def _hints(target: Any) -> dict[str, Any]:
    try:
        return get_type_hints(target.__init__ if inspect.isclass(target) else target)
    except (NameError, TypeError, AttributeError):
        return {}  # a foreign callable whose annotations can't be evaluated here


def _readable(hint: Any) -> str:
    return hint.__name__ if inspect.isclass(hint) else str(hint).replace("typing.", "").replace("collections.abc.", "")
