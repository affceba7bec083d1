"""How well a record is confirmed by later evaluations of its checkpoint, as a word that boards show."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from neuralop_bench.records.record import RunRecord, Verification

Standing = Literal["disputed", "self", "reproduced", "verified"]

# Relative differences that a verification allows on the kind of device that made the record, and on another.
SAME_DEVICE, OTHER_DEVICE = 1e-6, 1e-3

_WEAKEST_FIRST: tuple[Standing, ...] = ("disputed", "self", "reproduced", "verified")


def standing(record: RunRecord, verifications: Iterable[Verification]) -> Standing:
    """The word for one record.

    - ``verified``: repeated to 1e-6, on the kind of device that made the record;
    - ``reproduced``: repeated to 1e-3, on another kind of device;
    - ``self``: reported by its author only;
    - ``disputed``: at least one verification found other values, whatever the others found.

    A verification counts only for the record it was made from, which the fingerprint identifies: if anything in the
    record was changed since, the word is ``self``. Some verifications count neither for nor against a record: those
    made with uncommitted changes, since the code can't be looked up; those that allowed more than 1e-3; and those that
    contradict themselves.

    Ranks are computed from errors per sample. A record without them (formats 1 to 3) isn't ``verified`` or
    ``reproduced``, because a verification can't compare what ranks it.

    Verifications aren't signed: the word says what was compared, not who compared it.

    Args:
        record: of any format that can be read.
        verifications: of any records.
    """
    counted = [
        entry
        for entry in verifications
        if (entry.run_id, entry.fingerprint) == (record.run_id, record.fingerprint)
        and not entry.dirty
        and entry.tolerance <= OTHER_DEVICE
        and entry.confirmed == (entry.difference <= entry.tolerance)
    ]
    if not all(entry.confirmed for entry in counted):
        return "disputed"
    if not counted or not record.samples:
        return "self"
    return "verified" if min(entry.tolerance for entry in counted) <= SAME_DEVICE else "reproduced"


def weakest(standings: Iterable[str]) -> Standing:
    """The word for several seeds: that of the least confirmed record.

    Raises:
        ValueError: there are none, or one isn't a word of ``standing``.

    >>> weakest(["verified", "self", "reproduced"])
    'self'
    """
    found = set(standings)
    unknown = sorted(found.difference(_WEAKEST_FIRST))
    if unknown or not found:
        raise ValueError(
            f"Expected at least one of {', '.join(_WEAKEST_FIRST)}, got {', '.join(unknown) or 'nothing'}. Give what "
            "standing() says of each record."
        )
    return next(word for word in _WEAKEST_FIRST if word in found)
