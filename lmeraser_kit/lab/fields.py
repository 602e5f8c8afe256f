"""Numbers of the page "press Forget": what is typed into its fields, and how those that have no bound are shown."""

from __future__ import annotations

MOST_DIGITS = 18
LIMIT = 20.0  # a log ratio or a distance beyond it is shown as "more than" it


def whole_number(name: str, typed: str, least: int, most: int, about: str = "") -> int:
    """A whole number as it was typed; no other one is put in its place.

    Args:
        name: What it is, for the message.
        typed: The field's text.
        least: The smallest number allowed.
        most: The largest.
        about: What comes after the range in the message, such as what it counts.

    Raises:
        ValueError: If it is none, or not in this range.
    """
    digits = typed.strip()
    plain = digits.isascii() and digits.isdecimal() and len(digits) <= MOST_DIGITS
    if not plain or not least <= int(digits) <= most:
        shown = f"{digits[:20]}…" if len(digits) > 20 else digits
        given = f"is “{shown}”" if shown else "is empty"
        raise ValueError(f"{name} {given}, expected a whole number from {least} to {most}{about}")
    return int(digits)


def limited(value: float, digits: int, signed: bool = False) -> str:
    """A number, or that it is more than LIMIT; with a sign, less than -LIMIT, too."""
    if value > LIMIT:
        return f"more than {'+' * signed}{LIMIT:.0f}"
    if value < -LIMIT:
        return f"less than -{LIMIT:.0f}"
    return f"{value:{'+' * signed}.{digits}f}"
