"""Handle SIGINT (Ctrl-C) and SIGTERM. Imports nothing slow, so that it works before everything else is loaded."""

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

# ``timeout`` and some schedulers send a signal twice in quick succession.
_SAME_BREATH_SECONDS = 1.0


class Terminated(BaseException):
    """The process was told to end (SIGTERM)."""


@contextmanager
def report_stops() -> Iterator[None]:
    """On SIGINT or SIGTERM, end the block and then the process, with a message that says how to continue.

    A second signal ends the process at once.

    Raises:
        SystemExit: with status 130 or 143.
    """
    if threading.current_thread() is not threading.main_thread():  # only the main thread can handle signals
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

    # Ignored signals stay ignored: that is how a shell starts background jobs.
    handled = [s for s in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(s) is not signal.SIG_IGN]
    before = {signum: signal.signal(signum, stop) for signum in handled}
    try:
        yield
    except BaseException as error:
        # An import or a C library may have turned the signal's exception into another one.
        signum = stops[0][0] if stops else signal.SIGINT if isinstance(error, KeyboardInterrupt) else None
        if signum is None:
            raise
        _say(signum)
        raise SystemExit(128 + signum) from None
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _is_in_an_import(frame: FrameType | None) -> bool:
    """Whether the signal arrived during an import. Then the process must end without an exception.

    A library may take the exception for a missing module and continue with a fallback (PyYAML does so for its C
    parser), so the process wouldn't end. Nothing is lost: see :func:`_say`.
    """
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _say(signum: int) -> None:
    if not is_first():
        return
    again = [argument for argument in sys.argv if not re.fullmatch(r"\+{0,2}force=true", argument, re.IGNORECASE)]
    anew = "" if again == sys.argv else " (force=true would start from scratch)"
    print(
        f"\nStopped by {signal.Signals(signum).name}. Everything up to the last checkpoint is kept; the same "
        f"command continues from there{anew}:\n  {shlex.join([Path(sys.executable).name, *again])}",
        file=sys.stderr,
        flush=True,
    )
