"""Jobs for worker processes, in a module of their own: a worker imports the module of what it does."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from data_gen.problems.ns2d import NavierStokes2D
from data_gen.spec import Samples


def fail(error: Exception) -> None:
    raise error


def fail_with_a_lock() -> None:
    """The error can't be sent to another process."""
    raise ArithmeticError("the step became 0", threading.Lock())


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_in_the_middle_of_the_result() -> bytes:
    """The result has 1 MB, and this process ends when half of it is sent."""
    send = Connection._send

    def send_half(connection: Connection, buffer: bytes) -> None:
        if len(buffer) < 2**20:
            send(connection, buffer)
            return
        send(connection, buffer[: 2**19])
        die()

    Connection._send = send_half
    return bytes(2**20)


def sleep_beyond(last: int, number: int, sign: str) -> int:
    """The number; beyond the last one a long sleep, whose beginning a file tells."""
    if number > last:
        Path(sign).touch()
        time.sleep(600)
    return number


@dataclass(frozen=True)
class Breaking(NavierStokes2D):
    """A solver that breaks down."""

    def simulate(self, rngs: Sequence[np.random.Generator]) -> Samples:
        raise ArithmeticError(f"the solver broke down with {len(rngs)} samples")
