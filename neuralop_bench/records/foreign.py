"""Files that anybody may have written: how they are opened, and what their values may be.

Records travel between people. Everything that is read from one is checked here, once, against the types below. The code
behind it relies on them: a name is safe in a path, in a terminal and in a table, a number can be averaged and plotted,
and nothing is nested deeply.
"""

from __future__ import annotations

import json
import math
import os
import stat
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from neuralop_bench.runtime.table import plain

# A record of 10,000 test samples and 100 steps takes 5 MB.
MOST_BYTES = 2**25
# Of an array in a profile: 10,000 test samples and 400 steps.
MOST_NUMBERS = 2**22
_MOST_ENTRIES = 1000  # of a table
_MOST_TEST_SETS = 100
_DEEPEST = 24
# Sums and squares of such numbers are finite.
_LARGEST, _LARGEST_INTEGER = 1e150, 2**63
_MOST_NAMED = 3  # faults in one message


class ForeignFileError(ValueError):
    """A file can't be read, or isn't what it should be; the message says why."""


# Opening -------------------------------------------------------------------------------------------------------------


def content(path: Path, n_bytes: int | None = None) -> bytes:
    """A whole file, or its first ``n_bytes``. Pipes and devices are refused before they can block or never end.

    Raises:
        ForeignFileError: it isn't a regular file, or it is larger than ``MOST_BYTES``.
        OSError: it can't be opened.
    """
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as handle:
        if not stat.S_ISREG(os.fstat(handle.fileno()).st_mode):
            raise ForeignFileError("it isn't a regular file")
        found = handle.read(MOST_BYTES + 1 if n_bytes is None else n_bytes)
    if len(found) > MOST_BYTES:
        raise ForeignFileError(f"it is larger than {MOST_BYTES // 2**20} MiB")
    return found


def json_content(path: Path) -> dict[str, Any]:
    """The JSON object in a file, with finite numbers only.

    Raises:
        ForeignFileError: as for ``content``; or it isn't such an object.
        OSError: it can't be opened.
    """
    try:
        values = json.loads(content(path).decode("utf-8"), parse_constant=_refuse)
    except RecursionError:
        raise ForeignFileError("it is nested too deeply") from None
    if not isinstance(values, dict):
        raise ForeignFileError("it doesn't hold a JSON object")
    return values


def check(schema: TypeAdapter[Any], values: Any) -> None:
    """Compare values with a schema.

    Raises:
        ForeignFileError: they don't fit; the message names where.
    """
    try:
        schema.validate_python(values)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        named = [f"{plain('.'.join(map(str, fault['loc'])))}: {fault['msg']}" for fault in faults[:_MOST_NAMED]]
        more = f"; and {len(faults) - _MOST_NAMED} more faults" if len(faults) > _MOST_NAMED else ""
        raise ForeignFileError("; ".join(named) + more) from None


def _refuse(constant: str) -> NoReturn:
    raise ForeignFileError(f"{constant} isn't valid JSON")


# Types ---------------------------------------------------------------------------------------------------------------


def _date(text: str) -> str:
    datetime.fromisoformat(text)
    return text


def _tree(value: Any, depth: int = 0) -> None:
    """Values of any kind, as configurations hold them."""
    if type(value) is str:
        if not value.isprintable() and plain(value) != value:
            raise ValueError("a text has characters that can't be printed")
    elif type(value) is dict or type(value) is list:
        if depth == _DEEPEST:
            raise ValueError("it is nested too deeply")
        if type(value) is dict:
            _tree("".join(value))
            value = value.values()
        for entry in value:
            if entry is not None:
                _tree(entry, depth + 1)
    elif not -_LARGEST <= value <= _LARGEST:
        raise ValueError("a number is too large")


def _plain_tree(values: dict[str, Any]) -> dict[str, Any]:
    _tree(values)
    return values


def _in_range(table: dict[str, float | None]) -> dict[str, float | None]:
    for name, value in table.items():
        if value is not None and not (abs(value) <= _LARGEST or value == math.inf):
            raise ValueError(f"{plain(name)} is too large")
    error = table.get("rel_l2")
    if error is not None and error < 0:
        raise ValueError("rel_l2 is negative")
    return table


def _errors_in_range(table: dict[str, list[float]]) -> dict[str, list[float]]:
    for values in table.values():
        if any(_LARGEST < value < math.inf for value in values):
            raise ValueError("a number is too large")
    return table


# Part of file names. Letters of other alphabets can look like these, and invisible ones look like nothing.
Name = Annotated[str, StringConstraints(strict=True, max_length=50, pattern=r"^[A-Za-z0-9_][A-Za-z0-9=._+-]*$")]
RunId = Annotated[str, StringConstraints(strict=True, max_length=250, pattern=r"^[A-Za-z0-9_][A-Za-z0-9=._+-]*$")]
# One line, without characters that steer a terminal or can't be seen.
Words = Annotated[str, StringConstraints(strict=True, max_length=400, pattern=r"^[^\p{C}]*$")]
Text = Annotated[str, StringConstraints(strict=True, max_length=100_000, pattern=r"^(?:[^\p{C}]|[\n\t])*$")]
# As isoformat writes it in UTC, so that later dates are larger texts.
DateUtc = Annotated[
    str,
    StringConstraints(strict=True, pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00$"),
    AfterValidator(_date),
]
Flag = Annotated[bool, Field(strict=True)]
Count = Annotated[int, Field(strict=True, ge=0, lt=_LARGEST_INTEGER)]
Number = Annotated[float, Field(strict=True, ge=-_LARGEST, le=_LARGEST)]
NotNegative = Annotated[float, Field(strict=True, ge=0, le=_LARGEST)]
Positive = Annotated[float, Field(strict=True, gt=0, le=_LARGEST)]
# Infinite if something diverged.
Error = Annotated[float, Field(strict=True, ge=0)]

Numbers = Annotated[
    dict[Words, Annotated[float, Field(strict=True)] | None],
    Field(max_length=_MOST_ENTRIES),
    AfterValidator(_in_range),
]
TestSets = Annotated[dict[Words, Numbers], Field(max_length=_MOST_TEST_SETS)]
Versions = Annotated[dict[Words, Count], Field(max_length=_MOST_ENTRIES)]
Texts = Annotated[dict[Words, Text], Field(max_length=_MOST_ENTRIES)]
Samples = Annotated[
    dict[Words, Annotated[list[Error], Field(max_length=MOST_NUMBERS)]],
    Field(max_length=_MOST_ENTRIES),
    AfterValidator(_errors_in_range),
]


class _Known(BaseModel):
    """The keys of an open table that boards rely on. All may be missing, and there may be others."""

    model_config = ConfigDict(strict=True, protected_namespaces=())


class _Split(_Known):
    file: Text = ""
    sha256: Words = ""
    n: Count = 0
    n_fresh: Count | None = None
    version: Count = 0
    resolution: Annotated[str, StringConstraints(pattern=r"^(\d{1,9}(x\d{1,9}){0,3})?$")] = ""
    error: NotNegative | None = None


class _Environment(_Known):
    device: Words | None = None
    processor: Words | None = None
    precision: Words | None = None
    threads: Count | None = None
    libraries: Texts = {}


class _Problem(_Known):
    interval: Number | None = None
    first_time: Number = 0.0


class _Dataset(_Known):
    problem: _Problem | None = None
    path: Text | None = None
    history: Count | None = None
    horizon: Count | None = None


class _Trainer(_Known):
    epochs: Count | None = None


class _Published(_Known):
    id: Words | None = None
    value: Number | None = None
    source: Text | None = None


class _Config(_Known):
    dataset: _Dataset = _Dataset()
    trainer: _Trainer = _Trainer()
    published: _Published | None = None
    tuning_trials: Count | None = None
    overrides: list[Text] = []


class _Rung(_Known):
    model_config = ConfigDict(extra="forbid")

    resolution: Words
    relaxation: Positive
    rel_l2: NotNegative
    latency_seconds: Positive
    seconds: Positive
    inputs: Words = ""
    batch_size: Count = 0
    precision: Literal["float64", "float32"] = "float64"


class _Packed(_Known):
    shape: Annotated[list[Annotated[int, Field(ge=1, le=MOST_NUMBERS)]], Field(min_length=1, max_length=2)]
    dtype: Literal["<f4", "<f8"]
    zlib_base64: str


class _Quantised(_Packed):
    dtype: Literal["<u2", "|u1"]  # pyright: ignore[reportIncompatibleVariableOverride]
    low: Number
    high: Number


class _Fields(_Known):
    name: Words
    unit: Words
    time: Number | None
    lengths: Annotated[list[Positive], Field(min_length=1, max_length=2)]
    reference: _Quantised
    error: _Quantised | None


class _Profile(_Known):
    times: _Packed
    step_errors: _Packed
    cycles: _Packed
    energy_target: _Packed
    energy_prediction: _Packed
    energy_error: _Packed
    fields: _Fields


def _with(known: type[_Known]) -> AfterValidator:
    return AfterValidator(lambda values: known.model_validate(values))


# These are open: what boards rely on has its type, and the rest is a tree of plain values.
Config = Annotated[dict[str, Any], AfterValidator(_plain_tree), _with(_Config)]
Environment = Annotated[dict[str, Any], AfterValidator(_plain_tree), _with(_Environment)]
Splits = Annotated[
    dict[Words, Annotated[dict[str, Any], AfterValidator(_plain_tree), _with(_Split)]], Field(max_length=_MOST_ENTRIES)
]
Rungs = Annotated[list[Annotated[dict[str, Any], _with(_Rung)]], Field(max_length=_MOST_ENTRIES)]
# Empty if the evaluator measured no spectra.
Packed = Annotated[dict[str, Any], AfterValidator(lambda values: values and _Profile.model_validate(values))]
