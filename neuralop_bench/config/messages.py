"""Error messages that say which key to change."""

from __future__ import annotations

import errno
import os
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from hydra.errors import HydraException, InstantiationException, MissingConfigException, OverrideParseException
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, MissingMandatoryValue, OmegaConfBaseException
from yaml import YAMLError

from data_gen.progress import plain
from neuralop_bench.config import constructors
from neuralop_bench.config.compose import base_of_command_line, first_line, known_keys
from neuralop_bench.config.constructors import ConfigError, suggestion
from neuralop_bench.config.schema import RunConfig, components
from neuralop_bench.runtime import streams
from neuralop_bench.runtime.place import CONFIG_DIR
from neuralop_bench.runtime.process_group import OtherProcessFailed, n_processes
from neuralop_bench.runtime.signals import report_stops

# Options that come from Hydra's plugins, and the extra that installs each. Our slurm and local build on submitit's.
_LAUNCHERS = ("joblib", "slurm", "slurm_gpu", "local", "submitit_slurm", "submitit_local")
_EXTRAS = {**{f"hydra/launcher/{name}": "cluster" for name in _LAUNCHERS}, "hydra/sweeper/optuna": "sweep"}

# What decides the memory that a part of the code needs; the first entry that fits counts.
_MEMORY_REMEDIES = {
    "data_gen.importing": "Import fewer samples at a time",
    "data_gen.generation": "Lower workers or dataset.problem.resolution",
    "data_gen.problems": "Lower workers or dataset.problem.resolution",
    "neuralop_bench.data": "Lower preload_gib",
    "neuralop_bench.evaluation": "Lower evaluator.batch_size",
    "neuralop_bench.metrics": "Lower evaluator.batch_size",
    "neuralop_bench.runs.scoring": "Lower evaluator.batch_size",
    "neuralop_bench.training": "Lower trainer.batch_size or model.width",
    "neuralop_bench.predict": "Divide the input into files of fewer samples",
}


class JobReported(Exception):
    """A job of a sweep failed and its error message has been printed."""


@contextmanager
def report_errors() -> Iterator[None]:
    """Print an error as a message with a suggestion and exit with status 1; a traceback only with ``debug=true``.

    SIGINT and SIGTERM end the process with a message that says how to continue.
    """
    try:
        with streams.kept_open(), report_stops():
            yield
    except BrokenPipeError:  # "| head" has read enough
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  (the interpreter flushes it at the end)
        raise SystemExit(1) from None
    except Exception as error:
        if not any(isinstance(cause, JobReported) for cause in _chain(error)):
            _report(error)
        raise SystemExit(1) from None


@contextmanager
def report_job_errors(*, is_sweep: bool) -> Iterator[None]:
    """Print the error of a job at once. In a sweep the other jobs continue, so exiting here would end them too."""
    try:
        yield
    except BrokenPipeError:
        raise
    except Exception as error:
        if not isinstance(error, OtherProcessFailed):
            _report(error)
        if is_sweep:
            raise JobReported(describe(error)) from error
        raise SystemExit(1) from None


def report_and_end(error: Exception) -> NoReturn:
    """Print an error, unless another process has printed it, and end this process at once with status 1."""
    if not isinstance(error, OtherProcessFailed):
        _report(error)
    os._exit(1)


def _report(error: Exception) -> None:
    if any(argument.replace(" ", "").lower() in ("debug=true", "+debug=true") for argument in sys.argv):
        traceback.print_exception(error)
    print(f"Error: {plain(describe(error))}", file=sys.stderr, flush=True)


def describe(error: BaseException) -> str:
    """The message for an error; for those of Hydra and OmegaConf with the known names closest to what was typed."""
    chain = list(_chain(error))
    for cause in chain:
        if isinstance(cause, ConfigError):
            return str(cause)
        if isinstance(cause, MissingConfigException) and cause.missing_cfg_file:
            return _describe_missing(cause)
        if isinstance(cause, OverrideParseException):
            return (
                f"The argument {cause.override!r} can't be read: {first_line(cause)} Write key=value. Put quotes "
                "around a value that contains anything but letters, digits and ._/:-+ : 'key=\"value\"'."
            )
        if isinstance(cause, YAMLError):
            return _describe_yaml(cause)
        if isinstance(cause, UnicodeDecodeError | RecursionError) or "Invalid loaded object type" in str(cause):
            return f"{_chosen()} can't be read as a configuration: {first_line(cause)}"
    for cause in chain:
        if isinstance(cause, OmegaConfBaseException):
            return _describe_omegaconf(cause)
    root = next((cause for cause in chain if not isinstance(cause, InstantiationException)), chain[0])
    if isinstance(root, MemoryError) or _is_torchs_memory_error(root):
        return (
            f"Out of memory. {_memory_remedy(root)}, or use a machine with more memory. A run whose configuration "
            "stays the same resumes from its last checkpoint."
        )
    if n_processes() > 1 and re.search("gloo|nccl|peer|DistBackend", f"{type(root).__name__} {root}", re.IGNORECASE):
        return "Another process of this run has ended. Its own message, or that of its launcher, says why."
    if isinstance(root, HydraException) or re.match("Config group override must be|Unsupported .* defaults", str(root)):
        return _describe_hydra(root)
    if isinstance(root, ValueError | RuntimeError):
        return str(root).strip() or type(root).__name__
    if isinstance(root, OSError) and root.errno is not None:
        return _describe_os(root)
    return f"{type(root).__name__}: {root} (debug=true shows where)"


def _is_torchs_memory_error(error: BaseException) -> bool:
    return type(error).__name__ == "OutOfMemoryError" or "allocate memory" in str(error).partition("\n")[0]


def _memory_remedy(error: BaseException) -> str:
    """The option that decides how much the code that failed needs: that of the innermost part that has one."""
    modules = [str(frame.f_globals.get("__name__")) for frame, _ in traceback.walk_tb(error.__traceback__)]
    for module in reversed(modules):
        for part, remedy in _MEMORY_REMEDIES.items():
            if f"{module}.".startswith(f"{part}."):
                return remedy
    return "Lower trainer.batch_size, model.width or preload_gib"


def _describe_os(error: OSError) -> str:
    remedies = {
        errno.EACCES: "Choose folders that you may write with paths.data and paths.outputs.",
        errno.EROFS: "Choose folders that can be written with paths.data and paths.outputs.",
        errno.ENOSPC: "Free some space, or choose another disk with paths.data and paths.outputs.",
        errno.ENOTDIR: "A file stands where a folder is needed: choose others with paths.data and paths.outputs.",
        errno.ENAMETOOLONG: "Choose shorter names with paths.data and paths.outputs.",
        errno.EEXIST: "A file stands where a folder is needed: choose others with paths.data and paths.outputs.",
    }
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{os.strerror(error.errno or 0)}. {remedies.get(error.errno or 0, '(debug=true shows where)')}"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()  # "raise cause from None" inside an exception handler can make the chain circular
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _describe_missing(error: MissingConfigException) -> str:
    group, _, option = str(error.missing_cfg_file).rpartition("/")
    options = list(error.options or [])
    if group.split("/")[0] == "task":
        # A task belongs to a pair of track and dataset: the file is missing because the track lacks this dataset.
        known = sorted(path.stem for path in (CONFIG_DIR / group).glob("[!.]*.yaml"))
        offers = ", ".join(known) or "no dataset yet"
        return (
            f"There is no task {str(error.missing_cfg_file).removeprefix('task/')}: this track offers {offers}. "
            "Choose a track and a dataset instead of the task."
        )
    known = f" Known: {', '.join(options)}." if options else ""
    if extra := _EXTRAS.get(str(error.missing_cfg_file)):
        return f"{group}={option} needs the extra {extra!r}: pip install 'neuralop-bench[{extra}]'.{known}"
    return f"Unknown {group or 'option'} {option!r}.{suggestion(option, options)}{known}"


def _describe_hydra(error: BaseException) -> str:
    text = " ".join(line.strip() for line in str(error).splitlines() if "https://" not in line)
    if "Config group override must be" in text:
        groups = {path.name for path in CONFIG_DIR.iterdir() if path.is_dir()} | {""}
        given = [a for a in sys.argv[1:] if "=" in a and a.lstrip("+").partition("=")[0].partition("@")[0] in groups]
        return f"A group takes the name of one of its options, as in model=fno. Look at {' '.join(given)}."
    return f"{text} Look at {_chosen()}." if "in defaults" in text else text or type(error).__name__


def _describe_yaml(error: YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    where = f"{mark.name}, line {mark.line + 1}" if mark is not None else "A configuration file"
    return f"{where}: this isn't valid YAML ({getattr(error, 'problem', None) or first_line(error)})."


def _describe_omegaconf(error: OmegaConfBaseException) -> str:
    key = str(error.full_key or error.key or "")
    first = first_line(error)
    if isinstance(error, ConfigAttributeError | ConfigKeyError):
        base = base_of_command_line()
        if key in _accepted(base):
            return f"{key} is not set by the configuration, but its constructor accepts it: write +{key}=<value>."
        return f"Unknown key {key}.{suggestion(key, known_keys(base))}"
    if key == "_dummy_":  # where Hydra resolves the names of files
        return f"model, dataset and track each need the name of one option, as in model=fno. {first}"
    if isinstance(error, MissingMandatoryValue):
        return f"{key} isn't set: write {key}=<value>."
    if "is not Optional" in first:
        return f"{key} must have a value, got null."
    return f"{key or _chosen()}: {first}"


def _chosen() -> str:
    """The options chosen on the command line: an error that names no file is in one of them."""
    groups = [argument for argument in sys.argv[1:] if re.match(r"\+?[a-z/]+(@[^=]*)?=[A-Za-z_/\[]", argument)]
    return " or ".join(groups) or "config.yaml"


def _accepted(base: RunConfig) -> set[str]:
    """Arguments that the configured constructors accept, whether set or not."""
    return {key for name, node in components(base).items() for key in constructors.parameters_of(name, node)}
