"""What a solver raises when it can't keep its promise."""


class SolverError(RuntimeError):
    """A solver left its region of validity; the message names the sample, what went wrong, and the knob to turn."""
