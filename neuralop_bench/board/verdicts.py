"""What a group of rows shows, in plain sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence

from neuralop_bench.board.rows import Entry, Group
from neuralop_bench.board.text import interval_text, text
from neuralop_bench.records.record import DATA_ERROR_MARGIN

# A model with an error more than this many times that of the best isn't compared with it: a prediction that hardly
# follows the truth is easily stable.
_COMPARABLE = 5


def verdicts(group: Group) -> list[str]:
    """Sentences: which model is best and how certain that is, how it does by scale, beside the solver and on other
    inputs."""
    rated = [entry for entry in group.entries if _number(entry, "rel_l2_mean") is not None]
    if not rated:
        return ["No run has finished."]
    sentences = [*_accuracy(group, rated), *_spectrum(rated[0]), *_solver(rated), *_shifted(rated), *_far_ahead(rated)]
    return [sentence for sentence in sentences if sentence]


def _accuracy(group: Group, rated: Sequence[Entry]) -> list[str]:
    best = rated[0]
    ends = f", 95 % interval {interval_text(best.cells)}" if best.seeds.interval is not None else ""
    n = int(_number(best, "n_seeds") or 0)
    found = [
        f"{best.name} has the lowest error: relative L2 {text(best.cells['rel_l2_mean'])} "
        f"({n} seed{'' if n == 1 else 's'}{ends})."
    ]
    first = [entry for entry in rated if entry.cells["rank"] == 1]
    others = len(group.ranked) - len(first)
    if len(first) == 1 and others and first[0] is best:
        found.append(f"It is significantly better than {'the other model' if others == 1 else f'all {others} others'}.")
    elif len(first) > 1:
        found.append(
            f"{_listed([entry.name for entry in first])} share the first rank: no model is significantly better."
        )
    if any(entry.seeds.interval is not None and not entry.seeds.interval.counts_seeds for entry in group.ranked):
        found.append("Rows with a single seed (†) don't cover another training: more seeds may change their ranks.")
    if n_vanishing := max(entry.seeds.n_vanishing for entry in rated):
        found.append(
            f"{n_vanishing} references on test (sample and channel) vanish or are below 1 % of their channel's size. "
            "Errors there are relative to this 1 %, so the mean says little about the others: compare medians, too."
        )
    data_error, error = _number(best, "data_error"), _number(best, "rel_l2_mean")
    if data_error and error and error < DATA_ERROR_MARGIN * data_error:
        found.append(
            f"Its error is less than {DATA_ERROR_MARGIN:g} times that of the data themselves ({text(data_error)}): "
            "finer differences can't be resolved."
        )
    return found


def _spectrum(best: Entry) -> list[str]:
    low, mid, high = (_number(best, f"spec_{band}") for band in ("low", "mid", "high"))
    if low is None:
        return []
    parts = [f"{_percent(low)} for structures of 1 to 3 cycles per domain"]
    parts += [f"{_percent(mid)} for 4 to 11"] if mid is not None else []
    parts += [f"{_percent(high)} for 12 or more"] if high is not None else []
    return [f"By scale, its error is {_listed(parts)}."]


def _solver(rated: Sequence[Entry]) -> list[str]:
    known = [(entry, speedup) for entry in rated if (speedup := _number(entry, "speedup_at_equal_error"))]
    if not known:
        return []
    # A bound may leave open which is faster: the model's error is above, or below, that of the solver on every grid.
    coarser = [entry for entry, speedup in known if speedup > 1 and entry.cells["speedup_is_bound"] == "<"]
    finer = [entry for entry, speedup in known if speedup <= 1 and entry.cells["speedup_is_bound"] == ">"]
    winners = [entry for entry, speedup in known if speedup > 1 and entry not in coarser]
    losers = [(entry, 1 / speedup) for entry, speedup in known if speedup <= 1 and entry not in finer]
    found = []
    if winners:
        found.append(
            f"For the same error, {_listed([_with_speed(entry) for entry in winners])} "
            f"{'is' if len(winners) == 1 else 'are'} faster than the dataset's own solver on a coarser grid."
        )
    if losers:
        lead = "The solver" if winners else "For the same error, the dataset's own solver on a coarser grid"
        who = _listed([entry.name for entry, _ in losers])
        found.append(f"{lead} is faster than {who}{_range([factor for _, factor in losers])}.")
    for open_ones, words in (
        (coarser, "less accurate than the solver on its coarsest"),
        (finer, "more accurate than the solver on its finest"),
    ):
        if open_ones:
            who = f"{_listed([entry.name for entry in open_ones])} {'is' if len(open_ones) == 1 else 'are'}"
            found.append(f"{who} {words} grid, so there is no comparison at equal error.")
    paying = [(entry, number) for entry in winners if (number := _number(entry, "breakeven_solves"))]
    if paying:
        entry, number = min(paying, key=lambda pair: pair[1])
        found.append(
            f"Data and training pay for themselves after {_round(number)} predictions at the earliest ({entry.name})."
        )
    return found


def _with_speed(entry: Entry) -> str:
    speedup = _number(entry, "speedup_at_equal_error") or 0.0
    sign = "more than " if entry.cells["speedup_is_bound"] == ">" else ""
    factor = text(float(f"{speedup:.2g}"))
    return f"{entry.name} (error {_percent(_number(entry, 'rel_l2_mean') or math.nan)}; {sign}{factor} times)"


def _shifted(rated: Sequence[Entry]) -> list[str]:
    # The errors themselves, not their growth: a model with a large error on test can hardly get worse.
    errors = {
        entry.name: error * factor
        for entry in rated
        if (error := _number(entry, "rel_l2_mean")) is not None and (factor := _number(entry, "ood_factor")) is not None
    }
    best = rated[0].name
    if best not in errors:
        return []
    times = text(float(f"{_number(rated[0], 'ood_factor'):.2g}"))
    share = _percent(errors[best])
    own = f"On shifted inputs (geometric mean over the test sets) its error is {share}, {times} times as large"
    least = min(errors, key=errors.__getitem__)
    if least == best:
        return [f"{own}; no other model has a lower one." if len(errors) > 1 else f"{own}."]
    return [f"{own}; {least} has the lowest error there ({_percent(errors[least])})."]


def _far_ahead(rated: Sequence[Entry]) -> list[str]:
    stable = _number(rated[0], "stable_fraction")
    error = _number(rated[0], "rel_l2_mean")
    if stable is None or error is None:
        return []
    if stable == 1:
        return ["Over four times the horizon, all its trajectories stay bounded."]
    share = "none" if stable == 0 else _percent(stable)
    own = f"Over four times the horizon, {share} of its trajectories {'stays' if stable == 0 else 'stay'} bounded"
    others = [
        entry.name
        for entry in rated[1:]
        if _number(entry, "stable_fraction") == 1 and (_number(entry, "rel_l2_mean") or math.inf) <= _COMPARABLE * error
    ]
    if not others:
        return [f"{own}."]
    return [f"{own}; among models with up to {_COMPARABLE} times its error, all trajectories of {_listed(others)} do."]


def _number(entry: Entry, column: str) -> float | None:
    value = entry.cells[column]
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _percent(share: float) -> str:
    """
    >>> _percent(0.0233), _percent(0.4), _percent(1.3)
    ('2.3 %', '40 %', '130 %')
    """
    return f"{float(f'{100 * share:.2g}'):g} %"


def _range(factors: Sequence[float]) -> str:
    if not factors:
        return ""
    low, high = (f"{float(f'{value:.2g}'):g}" for value in (min(factors), max(factors)))
    return f" ({low} times)" if low == high else f" ({low} to {high} times)"


def _round(number: float) -> str:
    """
    >>> _round(17345678.0), _round(8120.0), _round(12.0)
    ('17 million', '8,100', '12')
    """
    for size, word in ((1e9, " billion"), (1e6, " million")):
        if number >= size:
            return f"{float(f'{number / size:.2g}'):g}{word}"
    return f"{float(f'{number:.2g}'):,.0f}"


def _listed(parts: Sequence[str]) -> str:
    """
    >>> _listed(["a"]), _listed(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
