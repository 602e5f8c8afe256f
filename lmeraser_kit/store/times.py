"""When a request arrives, and by when it has to be carried out: UTC, in whole seconds, as text that sorts."""

from __future__ import annotations

import difflib
import numbers
from datetime import UTC, datetime, timedelta

import pandas as pd

from lmeraser_kit import checks

LAWS = {
    "gdpr": pd.DateOffset(months=1),  # Regulation (EU) 2016/679, Article 12(3)
    "delete-act": pd.DateOffset(days=45),  # California Civil Code, 1798.99.86
}
SLACK = timedelta(minutes=1)  # by which a clock may be set back unnoticed, as time servers do
TEXT = "%Y-%m-%dT%H:%M:%SZ"
Deadline = str | float | timedelta | datetime


def clock() -> datetime:
    """The time now."""
    return datetime.now(UTC).replace(microsecond=0)


def text_of(moment: datetime) -> str:
    """A moment as text."""
    return moment.strftime(TEXT)


def moment_of(text: str) -> datetime:
    """The moment that `text_of` has written."""
    return datetime.strptime(text, TEXT).replace(tzinfo=UTC)


def arrival_of(given: datetime | None, now: datetime) -> datetime:
    """When a request arrived: now by default. Raises ValueError for what is no moment, or has yet to come."""
    arrived = now if given is None else _moment("arrived", given)
    if arrived > now:
        raise ValueError(f"arrived is {text_of(arrived)}, and it is {text_of(now)}: a request cannot come from later")
    return arrived


def deadline_of(given: Deadline, arrived: datetime, now: datetime) -> datetime:
    """By when a request has to be carried out.

    Args:
        given: `gdpr` for a month, `delete-act` for 45 days, a number of days or a timedelta, all from the arrival; or
            the moment itself, with its time zone.
        arrived: When the request arrived.
        now: The time now.

    Raises:
        ValueError: If it is none of these, or has passed.
    """
    wanted = f"{', '.join(LAWS)}, a number of days, a timedelta, or a datetime with its time zone"
    if isinstance(given, str) and given not in LAWS:
        near = "".join(f". Did you mean {one!r}?" for one in difflib.get_close_matches(given, LAWS, 1))
        raise ValueError(f"deadline is {given!r:.80}, expected {wanted}{near}")
    if isinstance(given, str):
        deadline = (pd.Timestamp(arrived) + LAWS[given]).to_pydatetime()
    elif isinstance(given, datetime):
        deadline = _moment("deadline", given)
    elif isinstance(given, timedelta) or (isinstance(given, numbers.Real) and not isinstance(given, bool)):
        length = given if isinstance(given, timedelta) else timedelta(days=checks.number("deadline", given, most=36500))
        deadline = arrived + length
    else:
        raise ValueError(f"deadline is {given!r:.80}, expected {wanted}")
    if deadline <= now:
        raise ValueError(
            f"the deadline {text_of(deadline)} has passed, for it is {text_of(now)}: leave deadline out, and the "
            "request is carried out at once"
        )
    return deadline


def _moment(name: str, given: datetime) -> datetime:
    """A moment in UTC, in whole seconds. Raises ValueError if it is none, or has no time zone."""
    if not isinstance(given, datetime) or given.tzinfo is None:
        wanted = "a datetime with its time zone, such as datetime.now(UTC)"
        raise ValueError(f"{name} is {given!r:.80}, expected {wanted}")
    return given.astimezone(UTC).replace(microsecond=0)
