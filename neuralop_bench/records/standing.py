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
    - ``disputed``: at least one verification found other numbers, whatever the others found.

    Verifications of other records don't count, nor do those of an earlier record of the same name, which has another
    fingerprint. Those made with uncommitted changes count neither for nor against a record, since the code can't be
    looked up. Neither do those that allowed more than 1e-3.

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
    ]
    if not counted:
        return "self"
    if not all(entry.confirmed for entry in counted):
        return "disputed"
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
