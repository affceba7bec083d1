"""A model from any other package."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeGuard

import torch
from jaxtyping import Float
from torch import Tensor, nn

from data_gen.grids import Grid

_DEFAULT_PASS = {"in_channels": "in_channels", "out_channels": "out_channels"}


class External(nn.Module):
    """Any ``nn.Module`` that maps fields to fields, from any installed package.

        python run.py model=external model.target=neuralop.models.TFNO \\
            '+model.arguments={n_modes: [16, 16], hidden_channels: 32}' model.label=tfno

    The class is looked up and must be an ``nn.Module``. It is called with ``arguments``, and with those of in_channels,
    out_channels and grid that ``pass`` names. Nothing else is evaluated. But importing a package runs its code, so name
    only packages that you trust.

    The state dict holds the module's tensors alone; anything else that the module adds to it is left out (neuralop adds
    its constructor's arguments, which no other module can load). The pipeline first builds every model on the ``meta``
    device, to check its hyper-parameters without using memory. A module that can't be built there is built on the CPU.

    Args:
        in_channels, out_channels: channels of the input and output fields.
        grid: the training grid.
        target: dotted path of the class, ``package.Class``.
        arguments: its keyword arguments; a nested ``_target_`` is built first.
        pass: the names under which the class takes in_channels, out_channels and grid; null leaves one out. By default
            it takes the channels under these names, and no grid. ``pass`` is a reserved word in Python: there, write
            ``External(..., **{"pass": {...}})``.

        resolution_free: whether the module can be used on other grids than ``grid``; null for what the module's own
            attribute of this name says, and false if it has none.

    Shapes: [batch, in_channels, *space] to [batch, out_channels, *space].

    Raises:
        ValueError: no target; a target that can't be imported or isn't an ``nn.Module``; an argument given twice;
            arguments that the class refuses.

    >>> conv = External(in_channels=3, out_channels=2, grid=Grid.periodic(8), target="torch.nn.Conv2d",
    ...                 arguments={"kernel_size": 3, "padding": "same"})
    >>> conv(torch.ones(1, 3, 8, 8)).shape
    torch.Size([1, 2, 8, 8])
    """

    # ``pass`` can't be the name of a parameter, so it arrives in ``named``, which may hold nothing else.
    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        grid: Grid,
        target: str | None = None,
        arguments: Mapping[str, Any] | None = None,
        resolution_free: bool | None = None,
        **named: Mapping[str, str | None] | None,
    ) -> None:
        super().__init__()
        given, passed = _mapping("arguments", arguments), _mapping("pass", named.pop("pass", None))
        for name in named:
            raise ValueError(
                f"Unknown key model.{name}: model=external takes target, arguments, pass, resolution_free and label. "
                f"For an argument of the module, write +model.arguments.{name}=<value>."
            )
        known = {"in_channels": in_channels, "out_channels": out_channels, "grid": grid}
        constructor = _resolve(target)
        for name, keyword in (_DEFAULT_PASS | passed).items():
            if name not in known:
                raise ValueError(f"Unknown key model.pass.{name}: the keys are {', '.join(known)}.")
            if keyword is None:
                continue
            if keyword in given:
                raise ValueError(
                    f"{target} is given {keyword} twice. Remove it from model.arguments, or write "
                    f"model.pass.{name}=null."
                )
            given[keyword] = known[name]
        self.module = _build(constructor, given, str(target))
        own = bool(getattr(self.module, "resolution_free", False))
        self.resolution_free = own if resolution_free is None else resolution_free

    def forward(self, x: Float[Tensor, "batch in_channels *space"]) -> Float[Tensor, "batch out_channels *space"]:
        return self.module(x)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        before = set(kwargs.get("destination") or ())
        own = f"{kwargs.get('prefix', '')}module."
        state = super().state_dict(*args, **kwargs)
        for name in [name for name in state if name not in before and not name.startswith(own)]:
            del state[name]
        return state


def _mapping(key: str, value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ValueError(f"model.{key} must map names to values, got {value!r}. Write 'model.{key}={{name: value}}'.")
    return dict(value)


def _resolve(target: str | None) -> type[nn.Module]:
    """The class that a dotted path names."""
    if not target:
        raise ValueError("model=external needs model.target=<package.Class>, e.g. neuralop.models.TFNO.")
    package, _, name = target.rpartition(".")
    if not package:
        raise ValueError(f"model.target={target!r} must be a dotted path, <package.Class>.")
    try:
        module = importlib.import_module(package)
    except Exception as error:  # importing runs foreign code, which may raise anything
        raise ValueError(
            f"model.target={target!r}: {package} can't be imported ({type(error).__name__}: {error}). Check the "
            "spelling, or install the package into this environment."
        ) from error
    classes = {key for key, value in vars(module).items() if _is_module(value)}
    found = getattr(module, name, None)
    if _is_module(found):
        return found
    problem = f"{package} has no {name}" if found is None else "it isn't a class of torch.nn.Module"
    close = [f"{package}.{key}" for key in difflib.get_close_matches(name, classes, cutoff=0.6)]
    hint = f" Did you mean {' or '.join(close)}?" if close else ""
    raise ValueError(f"model.target={target!r} can't be a model: {problem}.{hint}")


def _is_module(value: object) -> TypeGuard[type[nn.Module]]:
    return inspect.isclass(value) and issubclass(value, nn.Module)


def _build(constructor: Callable[..., nn.Module], arguments: dict[str, Any], target: str) -> nn.Module:
    try:
        try:
            return constructor(**arguments)
        except Exception:
            if torch.get_default_device().type != "meta":
                raise
            # Either the arguments are wrong, or the constructor reads values, which meta tensors don't have. A second
            # trial, with values, tells which.
            with torch.device("cpu"):
                return constructor(**arguments).to("meta")
    except Exception as error:
        raise ValueError(
            f"{target} refused its arguments {', '.join(sorted(arguments))}: {type(error).__name__}: {error}. "
            "Change model.arguments, or the names under model.pass."
        ) from error
