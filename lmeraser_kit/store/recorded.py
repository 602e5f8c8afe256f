"""What a ledger writes of requests: its tables, and a row as it is read."""

from __future__ import annotations

from dataclasses import dataclass

TABLES = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE certificates (id INTEGER PRIMARY KEY, record TEXT NOT NULL);
CREATE TABLE requests (
    id INTEGER PRIMARY KEY, action TEXT NOT NULL, n INTEGER NOT NULL, arrived TEXT NOT NULL, recorded TEXT NOT NULL,
    deadline TEXT, -- none for what is to be done at once
    again INTEGER NOT NULL, -- whether who was forgotten is added all the same
    begun INTEGER NOT NULL DEFAULT 0, -- whether it is being carried out
    staged TEXT, -- the file that says what is asked for; none when it has been done
    certificate INTEGER REFERENCES certificates
);
"""
RECORD = """
INSERT INTO requests (action, n, arrived, recorded, deadline, again, staged) VALUES (?, ?, ?, ?, ?, ?, ?)
"""


@dataclass(frozen=True)
class Recorded:
    """A request, as the ledger has it.

    Attributes:
        id: Its number, from 1.
        action: `fit`, `forget`, `add`, `rectify` or `repair`.
        n: How many samples it names.
        arrived: When it came, and `recorded`, when it was written down: UTC, as text.
        deadline: By when it has to be carried out; None for at once.
        again: Whether samples that were forgotten are added all the same.
        begun: Whether it was being carried out, and a crash may have interrupted that.
        staged: The file that says what is asked for; None when it has been done.
        certificate: That of the transaction that has carried it out, by its number; None while it waits.
    """

    id: int
    action: str
    n: int
    arrived: str
    recorded: str
    deadline: str | None
    again: bool
    begun: bool
    staged: str | None
    certificate: int | None

    @property
    def state(self) -> str:
        """`waiting`, `begun` or `done`."""
        return "done" if self.certificate is not None else "begun" if self.begun else "waiting"

    def public(self) -> dict:
        """What may be told of it: all but its file, and its state."""
        names = ("id", "action", "n", "arrived", "recorded", "deadline", "again", "state", "certificate")
        return {name: getattr(self, name) for name in names} | {"again": bool(self.again)}
