"""How a process answers SIGINT (Ctrl-C) and SIGTERM. Imports nothing that takes time: it is in force before the rest
is loaded."""

from __future__ import annotations

import os
import re
import shlex
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from neuralop_bench.runtime.process_group import is_first

# ``timeout`` and some schedulers send a signal twice in one breath.
_SAME_BREATH_SECONDS = 1.0


class Terminated(BaseException):
    """The process was asked to end (SIGTERM)."""


@contextmanager
def report_stops() -> Iterator[None]:
    """SIGINT and SIGTERM end the block, and the process with a word about how to go on; a second one at once.

    Raises:
        SystemExit: with status 130 or 143.
    """
    if threading.current_thread() is not threading.main_thread():  # signals are for the main thread
        yield
        return
    stops: list[tuple[int, float]] = []

    def stop(signum: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if stops and now - stops[0][1] > _SAME_BREATH_SECONDS:
            _say(signum)
            os._exit(128 + signum)
        if not stops:
            stops.append((signum, now))
            if _is_in_an_import(frame):
                _say(signum)
                os._exit(128 + signum)
            raise KeyboardInterrupt if signum == signal.SIGINT else Terminated

    # What is ignored stays ignored: a shell starts background jobs so.
    handled = [s for s in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(s) is not signal.SIG_IGN]
    before = {signum: signal.signal(signum, stop) for signum in handled}
    try:
        yield
    except BaseException as error:
        # An import or a library in C may have made another exception of it.
        signum = stops[0][0] if stops else signal.SIGINT if isinstance(error, KeyboardInterrupt) else None
        if signum is None:
            raise
        _say(signum)
        raise SystemExit(128 + signum) from None
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _is_in_an_import(frame: FrameType | None) -> bool:
    """An exception there may be taken for a missing module, for which a library has a second choice (PyYAML goes on
    without its parser in C), and the process would go on. Nothing is lost: see :func:`_say`."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _say(signum: int) -> None:
    if not is_first():
        return
    again = [argument for argument in sys.argv if not re.fullmatch(r"\+{0,2}force=true", argument, re.IGNORECASE)]
    anew = "" if again == sys.argv else " (force=true would start anew)"
    print(
        f"\nStopped by {signal.Signals(signum).name}. What was done until the last checkpoint is kept; the same "
        f"command goes on from there{anew}:\n  {shlex.join([Path(sys.executable).name, *again])}",
        file=sys.stderr,
        flush=True,
    )
