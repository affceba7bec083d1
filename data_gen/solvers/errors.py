"""The error of a solver that can't deliver the promised accuracy."""


class SolverError(RuntimeError):
    """A solver left its region of validity; the message names the sample, the reason and the parameter to change."""
