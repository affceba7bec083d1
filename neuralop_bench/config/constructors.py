"""Constructors named in configurations: import them if they are trusted, check their arguments, build them.

A node is a mapping with ``_target_`` (a dotted name) and the arguments of the constructor it names. A configuration can
come from someone else, inside a record or a checkpoint, and its names decide which code is run. So only the packages in
``TRUSTED`` are imported without the user's permission.

What is checked is what is built: ``check`` and ``build`` walk through the same mappings and lists, and a name is looked
up in the same way. ``build`` resolves nothing.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from beartype import BeartypeConf
from beartype.door import is_bearable
from hydra.utils import get_object

# Modules of training whose functions are constructors, too. Elsewhere only classes are: a function may take a path, a
# name or code.
_WITH_FUNCTIONS = tuple(
    f"neuralop_bench.training.{name}" for name in ("augmentation", "losses", "optimizers", "schedules")
)
_OWN = (
    "data_gen.cosine_fields",
    "data_gen.permeability",
    "data_gen.problems",
    "data_gen.random_fields",
    "neuralop_bench.metrics",
    "neuralop_bench.models",
    *_WITH_FUNCTIONS,
    *(f"neuralop_bench.training.{name}" for name in ("tensorboard_tracker", "tracking", "wandb_tracker")),
)
# Packages that constructors may come from. Not all of torch: torch.hub.load, for example, downloads code and runs it.
TRUSTED = (*_OWN, "torch.nn", "torch.optim")
# Of torch, only the classes that have one of these bases.
_TORCHS = (
    "torch.nn.modules.module.Module",
    "torch.optim.optimizer.Optimizer",
    "torch.optim.lr_scheduler.LRScheduler",
)
_INT_IS_FLOAT = BeartypeConf(is_pep484_tower=True)
# ``_convert_`` is Hydra's, and part of every configuration's hash. Here, lists and mappings are always plain ones.
_DIRECTIVES: dict[str, tuple[Any, ...]] = {
    "_partial_": (True, False),
    "_convert_": ("none", "partial", "object", "all"),
}
_NOT_ARGUMENTS = ("_target_", *_DIRECTIVES)
# No model or problem has more channels or points per axis. A larger number is a typing error, and building it would
# exhaust memory or take hours.
_MOST = 2**16
# Every layer is a module, which takes time even on a device that takes no memory: a thousand take seconds.
_MOST_MODULES = 2**10
_COUNTS_MODULES = re.compile(r"(^|[_.])(layers|levels|blocks|scales|smoothing|depth)(\[\d+\])?$")
_LARGEST_SEED = 2**32 - 1
# No configuration is nested more deeply.
_DEEPEST = 32


class ConfigError(ValueError):
    """A configuration that can't be run; the message names the key."""


class InapplicableError(ConfigError):
    """Parts that are each valid but make no sense together. A sweep leaves such a job out."""


def build(node: Mapping[str, Any]) -> Any:
    """Call the constructor of a node that has been checked, after those of the nodes inside it.

    Raises:
        Exception: any exception of the constructor.
    """
    return _built(node)


def _built(value: Any) -> Any:
    if isinstance(value, Mapping):
        is_node = "_target_" in value
        made = {key: _built(entry) for key, entry in value.items() if not is_node or key not in _NOT_ARGUMENTS}
        if not is_node:
            return made
        constructor = get_object(value["_target_"])
        return functools.partial(constructor, **made) if value.get("_partial_") else constructor(**made)
    return [_built(entry) for entry in value] if isinstance(value, list | tuple) else value


def require_plain(name: str, value: Any, depth: int = 0) -> None:
    """Refuse a value of a configuration from someone else that isn't what it says: nothing there is resolved.

    Args:
        name: the value's key, for the message.
        value: any part of a configuration; it is searched recursively.
        depth: how deeply it is nested.

    Raises:
        ConfigError: a text or a key contains an interpolation (``${...}``), or the value is nested too deeply.
    """
    if depth > _DEEPEST:
        raise ConfigError(f"{name[:80]} is nested too deeply: at most {_DEEPEST} levels are read.")
    if isinstance(value, Mapping):
        for key, entry in value.items():
            require_plain(name, key, depth + 1)
            require_plain(f"{name}.{key}", entry, depth + 1)
    elif isinstance(value, list | tuple):
        for index, entry in enumerate(value):
            require_plain(f"{name}[{index}]", entry, depth + 1)
    elif isinstance(value, str) and "${" in value:
        raise ConfigError(
            f"{name} contains an interpolation, {value[:80]!r}. A record or a checkpoint holds values alone: this one "
            "was changed by someone, and isn't used."
        )


def require_trusted(name: str, node: Any, trust: Sequence[str] = (), *, foreign: bool = False) -> None:
    """Refuse constructors from packages that aren't trusted. Nothing is imported before all of them are checked.

    Args:
        name: the node's key, for the message.
        node: any part of a configuration; it is searched recursively.
        trust: packages trusted besides ``TRUSTED``.
        foreign: the configuration comes from a record or a checkpoint. Then it must be plain (``require_plain``). The
            user didn't type ``target`` (the foreign module of ``model=external``), so it has to be trusted as well.

    Raises:
        ConfigError: a constructor isn't trusted, or a foreign configuration isn't plain. The message names the key,
            and what ``trust`` must contain.
    """
    if foreign:
        require_plain(name, node)
    for key, target in targets(name, node, ("_target_", "target") if foreign else ("_target_",)):
        if not isinstance(target, str) or not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)+", target):
            raise ConfigError(f"{key} must be a dotted name such as neuralop_bench.models.fno.FNO, got {target!r}.")
        if not _is_below(target, (*TRUSTED, *trust)) or any(part.startswith("_") for part in target.split(".")):
            package = target.split(".")[0]
            raise ConfigError(
                f"{key}={target} isn't among the trusted constructors ({', '.join(TRUSTED)}), and importing it would "
                f"run its code. If you trust the package, add trust=[{package}]."
            )


def check(name: str, node: Any, trust: Sequence[str] = ()) -> None:
    """Check the names and types of a node's arguments against the signature of its ``_target_``.

    Nodes inside its arguments are checked in the same way, also within mappings and lists. Whole numbers given for
    floating-point arguments become floats in place, so that lr=1 and lr=1.0 are the same run.

    Raises:
        ConfigError: an argument is wrong. The message names the key and the closest known name.
    """
    if not isinstance(node, Mapping) or "_target_" not in node:
        raise ConfigError(f"{name} must name a constructor in {name}._target_, got {node!r}.")
    require_trusted(name, node, trust)
    _require_possible_numbers(name, node)
    _check(name, node, trust)


def _check(name: str, node: Mapping[str, Any], trust: Sequence[str]) -> None:
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
            _check(f"{name}.{key}", value, trust)
            _require_kind(f"{name}.{key}", value, hints.get(key), trust)
            continue
        _check_within(f"{name}.{key}", value, trust)
        if key in hints:
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


def _check_within(name: str, value: Any, trust: Sequence[str]) -> None:
    """Check the nodes in the mappings and lists of an argument."""
    if isinstance(value, Mapping):
        if "_target_" in value:
            _check(name, value, trust)
        else:
            for key, entry in value.items():
                _check_within(f"{name}.{key}", entry, trust)
    elif isinstance(value, list | tuple):
        for index, entry in enumerate(value):
            _check_within(f"{name}[{index}]", entry, trust)


def target(node: Mapping[str, Any]) -> Any:
    """The class or function that a checked node names."""
    return get_object(node["_target_"])


def parameters_of(name: str, node: Mapping[str, Any]) -> Iterator[str]:
    """Keys of all arguments that the constructors of a node and of its nested nodes accept, whether set or not."""
    nodes = {name: node, **{f"{name}.{key}": value for key, value in node.items() if isinstance(value, Mapping)}}
    for prefix, entry in nodes.items():
        if "_target_" in entry:
            yield from (f"{prefix}.{key}" for key in inspect.signature(get_object(entry["_target_"])).parameters)


def suggestion(name: str, known: Sequence[str], prefix: str = "") -> str:
    """ " Did you mean ...?" with the closest known names, or an empty string."""
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    if not close:
        # The last part may be right but in the wrong place: lr is optimizer.lr.
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
        most = _LARGEST_SEED if name.endswith("seed") else _MOST_MODULES if _COUNTS_MODULES.search(name) else _MOST
        if abs(node) > most:
            raise ConfigError(f"{name} must be at most {most}, got {node}.")


def _require_kind(name: str, node: Mapping[str, Any], hint: Any, trust: Sequence[str]) -> None:
    """Check that a nested constructor makes an instance of the annotated class, or of one of several."""
    target = _imported(name, str(node["_target_"]), trust)
    kinds = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    if all(map(inspect.isclass, kinds)) and inspect.isclass(target) and not issubclass(target, kinds):
        advice = ""
        if hint in (int, float):
            advice = " Give a number: all samples share it. Only parameters of the equation can have a law."
        readable = " or ".join(kind.__name__ for kind in kinds)
        raise ConfigError(f"{name} must be of type {readable}, got a {target.__name__}.{advice}")


def targets(name: str, node: Any, keys: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """The values of some keys at every depth of a node, each with its full key."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from ((f"{name}.{key}", value),) if key in keys else targets(f"{name}.{key}", value, keys)
    elif isinstance(node, list | tuple):
        for index, value in enumerate(node):
            yield from targets(f"{name}[{index}]", value, keys)


def _is_below(dotted: str, packages: Sequence[str]) -> bool:
    return any(dotted == package or dotted.startswith(f"{package}.") for package in packages)


def _imported(name: str, dotted: str, trust: Sequence[str]) -> Any:
    try:
        target = get_object(dotted)
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{name}._target_={dotted!r} can't be imported: {reason}") from error
    home = getattr(target, "__module__", None) or ""
    if not _is_constructor(dotted, target, trust):
        raise ConfigError(
            f"{name}._target_={dotted!r} isn't a constructor of a trusted package: it comes from {home or 'nowhere'}."
        )
    return target


def _is_constructor(dotted: str, found: Any, trust: Sequence[str]) -> bool:
    """Whether the object that a name led to may be called.

    A name alone says little, since a trusted module imports others: neuralop_bench.models.fno.nn.Module is torch's.
    """
    home, own_name = getattr(found, "__module__", None) or "", getattr(found, "__qualname__", "")
    if _is_below(home, trust):
        return callable(found)
    if inspect.isclass(found) and _is_below(home, ("torch.nn.modules", "torch.optim")):
        return any(f"{base.__module__}.{base.__qualname__}" in _TORCHS for base in found.__mro__)
    if dotted != f"{home}.{own_name}" or "." in own_name:
        return False
    return _is_below(home, _OWN) if inspect.isclass(found) else inspect.isfunction(found) and home in _WITH_FUNCTIONS


def _fits(value: Any, hint: Any) -> bool:
    # In Python a bool is an int, but width=true is a mistake.
    flags = [entry for entry in (value if isinstance(value, list) else [value]) if isinstance(entry, bool)]
    if flags and not _admits_flags(hint):
        return False
    if value == "":
        value = "text"  # an empty string is a sequence of anything, so it would be accepted as a list of numbers
    if isinstance(value, list):
        # YAML has no tuples. beartype checks one entry of a list, but every entry of a tuple of fixed length.
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
