"""Which recorded requests to carry out together, and when: deadlines are met, and waiting saves what it can."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd

from lmeraser_kit import checks
from lmeraser_kit.ground.html import card, some_of
from lmeraser_kit.store.asked import Requests
from lmeraser_kit.store.certificate import Certificate
from lmeraser_kit.store.ledger import Ledger
from lmeraser_kit.store.recorded import Recorded
from lmeraser_kit.store.schedules import TimedRequest, at_latest, expected_waiting_cost, schedule_cost
from lmeraser_kit.store.times import moment_of, text_of
from lmeraser_kit.unlearning.base import BaseEraser
from lmeraser_kit.unlearning.state import State

WAITS = (0, 1, 7, 14, 30, 45, 90)  # days, of a plan's curve
DAY = timedelta(days=1)
MARGIN = timedelta(minutes=1)  # ahead of a deadline, beside twice the time that a batch should take


@dataclass(frozen=True)
class Batch:
    """Requests that are to be carried out together.

    Attributes:
        start: When to start, UTC: early enough for this batch and all that come after it to take twice as long as they
            should, and a minute more.
        deadline: The first of its deadlines; None if it holds a request that is to be carried out at once.
        requests: Their numbers.
        clusters: Clusters that are learned again (of exact sums: buckets whose rows are written).
        samples: How many samples these have left. Not counted: what requests to add learn, which have not been routed.
        seconds: How long that takes, by the certificates so far.
    """

    start: datetime
    deadline: datetime | None
    requests: list[int]
    clusters: list[int]
    samples: int
    seconds: float

    def shown(self) -> dict:
        """A row of a table: times as text, numbers of requests, and how many clusters."""
        times = {"start": text_of(self.start), "deadline": text_of(self.deadline) if self.deadline else "at once"}
        listed = {"requests": some_of(map(str, self.requests), len(self.requests)), "clusters": len(self.clusters)}
        return times | listed | {"samples": self.samples, "seconds": round(self.seconds, 1)}


@dataclass(frozen=True)
class Plan:
    """When to carry out what has been recorded. `Store.run(within=...)` follows it.

    Attributes:
        now: When it was made, UTC.
        batches: What to carry out, in order.
        late: Numbers of the requests whose deadlines cannot be met.
        samples: Samples learned again by this plan.
        samples_at_once: Samples learned again if each request were carried out by itself.
        summed: Whether samples are held as rows of exact sums: nobody is learned again then, and these are rows.
        curve: What a request will cost on average, in samples learned again, if people wait so many days
            (`schedules.expected_waiting_cost`): a row for each `wait`; none if the rate is unknown.
    """

    now: datetime
    batches: list[Batch]
    late: list[int]
    samples: int
    samples_at_once: int
    summed: bool
    curve: pd.DataFrame = field(repr=False)

    def due(self, within: float) -> list[int]:
        """Numbers of the requests in batches that are to start within so many days from now."""
        return [number for one in self.batches if one.start <= self.now + within * DAY for number in one.requests]

    def frame(self) -> pd.DataFrame:
        """A row for each batch."""
        rows = [one.shown() for one in self.batches]
        return pd.DataFrame(rows, columns=list(Batch.__dataclass_fields__))

    def warn_if_late(self) -> None:
        """Warn if a deadline cannot be met."""
        if self.late:
            warnings.warn(
                f"the deadline of request {', '.join(map(str, self.late))} cannot be met, going by how long requests "
                "took so far. It is recorded: store.run() carries it out as soon as can be",
                stacklevel=3,
            )

    def __str__(self) -> str:
        if not self.batches:
            return f"{text_of(self.now)}: no request is waiting"
        what = "rows of sums are written" if self.summed else "samples are learned again"
        saved = f"{self.samples:,} {what}, {self.samples_at_once:,} if each went by itself"
        late = f"\ncannot be met: the deadline of request {', '.join(map(str, self.late))}" if self.late else ""
        return f"{text_of(self.now)}: {saved}{late}\n{self.frame().to_string(index=False)}"

    def _repr_html_(self) -> str:
        facts = {
            "made": text_of(self.now),
            "rows of sums written" if self.summed else "samples learned again": f"{self.samples:,}",
            "if each went by itself": f"{self.samples_at_once:,}",
            "deadlines that cannot be met": some_of(map(str, self.late), len(self.late)) or "none",
        }
        curve = self.curve.to_html(index=False) if len(self.curve) else ""
        return card("Plan", facts, self.frame().to_html(index=False) + curve)


def planned(
    ledger: Ledger, requests: Requests, eraser: BaseEraser, rate: float | None = None, now: datetime | None = None
) -> Plan:
    """When to carry out recorded requests.

    Args:
        ledger: Requests, and certificates of what was carried out so far.
        requests: Whom each request that waits names.
        eraser: What is held. If its partition is fitted again at every request, each learns everything again.
        rate: Requests to forget a sample that arrive in a day, for the curve; by default as many as have arrived.
        now: The time; that of the clock by default.

    Raises:
        ValueError: If the rate is no number from 0.
        StoreError: If the clock has been set back.
    """
    recorded, now = ledger.requests(), now or ledger.now()
    rate = rate_of(recorded) if rate is None else checks.number("rate", rate)
    pending, certificates = [one for one in recorded if one.certificate is None], ledger.certificates()
    state, refits = eraser.state_, eraser.choices().partition.refits
    sizes = {0: len(state)} if refits else {k: len(part) for k, part in state.members.items()}
    gone = set[str]()  # who leaves, is added again and leaves again is one sample less
    timed = [_timed(one, requests, state, now, refits, gone) for one in pending]
    times = dict(zip([one.id for one in pending], at_latest(timed, sizes).tolist(), strict=True))
    for one in reversed(pending):  # who names the same samples goes no later
        for earlier in requests.with_earlier([one.id]):
            times[earlier] = min(times[earlier], times[one.id])
    grouped: dict[float, list[int]] = {}
    for number, time in times.items():
        grouped.setdefault(time, []).append(number)
    hit, left, batches = dict(zip(times, timed, strict=True)), dict(sizes), []
    for time, numbers in sorted(grouped.items()):
        leaving = sum((Counter(hit[number].leaving) for number in numbers), Counter())
        clusters = sorted({k for number in numbers for k in hit[number].leaving})
        left |= {k: left[k] - leaving[k] for k in clusters}
        n = sum(left[k] for k in clusters)
        batches.append((time, numbers, clusters, n, seconds_for(n, certificates)))
    deadlines = {one.id: moment_of(one.deadline) if _waits(one) else None for one in pending}
    timetable = _timetable(batches, deadlines, now)
    late, samples = _late(timetable, deadlines, now), sum(one.samples for one in timetable)
    summed = eraser.choices().sums_alone
    return Plan(now, timetable, late, samples, _by_themselves(timed, sizes), summed, _curve(sizes, rate))


def rate_of(recorded: Iterable[Recorded]) -> float:
    """Requests to forget that arrived in a day, from the first request on; 0 if none did in a day at least."""
    recorded = list(recorded)
    days = (moment_of(recorded[-1].recorded) - moment_of(recorded[0].recorded)) / DAY
    return sum(one.action == "forget" for one in recorded) / days if days >= 1 else 0.0


def seconds_for(samples: int, certificates: list[Certificate]) -> float:
    """How long a transaction takes that learns so many samples again: the fit's rate, and the slowest request's rest.

    Args:
        samples: How many.
        certificates: From the fit on.
    """
    learned = [(sum(one.clusters_tuned.values()), one.seconds) for one in certificates]
    rate = learned[0][1] / max(learned[0][0], 1)
    return rate * samples + max([0.0, *(seconds - rate * n for n, seconds in learned[1:])])


def _waits(one: Recorded) -> bool:
    return one.deadline is not None and not one.begun


def _curve(sizes: Mapping[int, int], rate: float) -> pd.DataFrame:
    """What a request costs on average if people wait so many days, at a rate of requests a day."""
    if not (rate and sum(sizes.values())):
        return pd.DataFrame(columns=["wait", "samples"])
    return pd.DataFrame([{"wait": w, "samples": expected_waiting_cost(sizes, rate, w)} for w in WAITS])


def _timed(
    one: Recorded, requests: Requests, state: State, now: datetime, refits: bool, gone: set[str]
) -> TimedRequest:
    """A recorded request in days from now; one without a deadline, or begun, is to be carried out now.

    `gone`: uids that earlier requests forget; those of this one are added.
    """
    due = max(0.0, (moment_of(one.deadline) - now) / DAY) if _waits(one) else 0.0
    found = state.find(list(requests.uids[one.id]))
    leaving = dict.fromkeys(found.values(), 0)
    if one.action == "forget":
        leaving |= Counter(k for uid, k in found.items() if uid not in gone)
        gone.update(found)
    return TimedRequest(0.0, due, {0: sum(leaving.values())} if refits else leaving)


def _timetable(batches: list[tuple], deadlines: Mapping[int, datetime | None], now: datetime) -> list[Batch]:
    """Batches with their starts, from the last to the first: each has to be done before the next starts."""
    timetable, following = list[Batch](), datetime.max.replace(tzinfo=UTC)
    for time, numbers, clusters, n, seconds in reversed(batches):
        due = [deadlines[number] for number in numbers]
        at_once = None in due or time == 0
        following = now if at_once else min(now + time * DAY, following) - timedelta(seconds=2 * seconds) - MARGIN
        timetable.insert(0, Batch(following, None if at_once else min(due), sorted(numbers), clusters, n, seconds))
    return timetable


def _late(batches: list[Batch], deadlines: Mapping[int, datetime | None], now: datetime) -> list[int]:
    """Requests whose deadlines pass, although every batch starts in time, or at once."""
    late, end = list[int](), now
    for one in batches:
        end = max(end, one.start) + timedelta(seconds=one.seconds)
        late += [i for i in one.requests if deadlines[i] is not None and deadlines[i] < end]
    return sorted(late)


def _by_themselves(timed: list[TimedRequest], sizes: Mapping[int, int]) -> int:
    """Samples learned again if each request is carried out by itself, one after the other."""
    return schedule_cost(timed, np.arange(len(timed)) * 1e-6, sizes)["samples"]
