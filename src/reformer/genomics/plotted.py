"""Which bases a report shows."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from reformer.errors import UserError
from reformer.genomics.coordinates import Interval

if TYPE_CHECKING:
    from reformer.data.tokens import TokenArray

_SHOWN_BASES = 30_000


def shown_region(array: TokenArray, text: str | None) -> Interval:
    """The region asked for, or the middle of the longest record.

    Args:
        array: the genome.
        text: "NAME:FIRST-LAST", counted from 1; None for none.

    Raises:
        UserError: it is not of that form, or not in the genome.
    """
    records = {record.name: record for record in array.records}
    if text is None:
        longest = max(array.records, key=lambda record: record.length)
        start = max((longest.length - _SHOWN_BASES) // 2, 0)
        return Interval(longest.name, start, min(start + _SHOWN_BASES, longest.length))
    match = re.fullmatch(r"(.+):([\d,]+)-([\d,]+)", text)
    if match is None:
        raise UserError(f"--region {text!r}: expected NAME:FIRST-LAST")
    name, first, last = match[1], *(int(number.replace(",", "")) for number in match.groups()[1:])
    if name not in records:
        raise UserError(f"--region {text!r}: no sequence {name!r} in the genome")
    if not 1 <= first <= last <= records[name].length:
        raise UserError(f"--region {text!r}: expected bases of 1 to {records[name].length:,}")
    return Interval.from_closed(name, first, last)
