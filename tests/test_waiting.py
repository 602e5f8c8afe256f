"""A request's life: arrival, deadline, the batch it goes with, tombstones, and a report that others can check."""

import json
import math
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lmeraser_kit import HashClusters, HierarchicalClusters, RidgeEraser, Samples, Store
from lmeraser_kit.evaluation.costs import expected_request_cost
from lmeraser_kit.store import StoreError, Tombstones, check_report
from lmeraser_kit.store.files import DamagedError
from lmeraser_kit.store.schedules import (
    TimedRequest,
    at_latest,
    at_once,
    cheapest,
    expected_waiting_cost,
    in_periods,
    least_cost,
    schedule_cost,
    stream_of_owners,
    waiting_curve,
)
from lmeraser_kit.store.times import deadline_of

NOON = datetime(2030, 1, 31, 12, tzinfo=UTC)


@pytest.fixture
def clock(monkeypatch):
    """The time that stores go by: `clock.now` is set by tests."""

    class Clock:
        now = NOON

    monkeypatch.setattr("lmeraser_kit.store.ledger.clock", lambda: Clock.now)
    return Clock


@pytest.fixture
def store(make_eraser, private, split, tmp_path, clock):
    """A store of 60 samples in 12 shards: numbers of two digits, heads alone."""
    eraser = make_eraser(HashClusters(12), recipe={"epochs": 1, "prompt": "none"})
    with Store.create(tmp_path / "store", eraser, private[:60], split.public[:60], tombstones=True) as made:
        yield made


@pytest.fixture
def fresh_hash(make_eraser, split):
    def fresh(samples):
        eraser = make_eraser(HashClusters(12), recipe={"epochs": 1, "prompt": "none"})
        return eraser.fit(samples, split.public[:60]).state_hash()

    return fresh


def reopened(store, **options):
    store.close()
    return Store.open(store.folder, verbose=False, **options)


def by_cluster(store):
    """The uids of each cluster, the largest first."""
    groups = [part.uids.tolist() for part in store.eraser.state_.members.values()]
    return sorted(groups, key=len, reverse=True)


# --- schedules, in numbers


@st.composite
def streams(draw, several):
    sizes = {k: draw(st.integers(12, 40)) for k in range(3)}
    requests = []
    for _ in range(draw(st.integers(1, 5))):
        arrival = draw(st.floats(0, 60))
        clusters = draw(st.sets(st.sampled_from(range(3)), min_size=1, max_size=3 if several else 1))
        length = draw(st.sampled_from([1, 7, 30, 45]))
        requests.append(TimedRequest(arrival, arrival + length, {k: draw(st.integers(1, 2)) for k in clusters}))
    return requests, sizes


def cost(requests, times, sizes):
    return schedule_cost(requests, times, sizes)["samples"]


@settings(max_examples=150, deadline=None)
@given(streams(several=False))
def test_waiting_is_the_optimum_where_a_request_hits_one_cluster(stream):
    requests, sizes = stream
    mine = cost(requests, at_latest(requests, sizes), sizes)
    assert mine == cost(requests, cheapest(requests, sizes), sizes) == least_cost(requests, sizes)


TOGETHER = [TimedRequest(0.0, 1.0, {0: 1}), TimedRequest(0.0, 7.0, {0: 1, 1: 1, 2: 1})]  # come at one moment


@settings(max_examples=150, deadline=None)
@given(streams(several=True))
@example((TOGETHER, {0: 12, 1: 12, 2: 37}))  # at once they are one batch of three clusters, by the plan two of four
def test_owners_meet_their_deadlines_between_the_bound_and_each_by_itself(stream):
    requests, sizes = stream
    times = at_latest(requests, sizes)
    found, best = schedule_cost(requests, times, sizes), cost(requests, cheapest(requests, sizes), sizes)
    assert not found["missed"] and found["longest_wait"] <= 45 + 1e-9
    assert least_cost(requests, sizes) <= best <= found["samples"]
    assert found["clusters"] <= sum(len(one.leaving) for one in requests)  # each by itself
    assert not schedule_cost(requests, in_periods(requests, 30), sizes)["missed"]


def test_a_schedule_knows_nothing_of_what_comes():
    sizes = {0: 30, 1: 30}
    first = [TimedRequest(0, 10, {0: 1}), TimedRequest(1, 5, {1: 1})]
    later = [TimedRequest(11, 12, {0: 1}), TimedRequest(20, 30, {1: 2})]
    assert at_latest(first + later, sizes)[:2].tolist() == at_latest(first, sizes).tolist() == [10, 5]


def test_costs_by_hand():
    sizes, requests = {0: 10, 1: 20}, [TimedRequest(0, 4, {0: 1}), TimedRequest(2, 9, {0: 2, 1: 3})]
    assert cost(requests, at_once(requests), sizes) == 9 + (7 + 17)
    together = schedule_cost(requests, [4, 4], sizes)
    assert together == {
        "samples": 7 + 17,
        "clusters": 2,
        "batches": 1,
        "mean_wait": 3.0,
        "longest_wait": 4.0,
        "missed": 0,
    }
    assert schedule_cost(requests, [5, 5], sizes)["missed"] == 1


def test_the_formula_of_waiting_is_what_a_simulation_gives():
    rng, sizes, rate, wait = np.random.default_rng(0), {k: 2000 + 500 * k for k in range(5)}, 2.0, 3.0
    n = sum(sizes.values())
    arrivals = np.cumsum(rng.exponential(1 / rate, 4000))
    clusters = rng.choice(5, len(arrivals), p=[sizes[k] / n for k in range(5)])
    # nobody leaves, as in the formula: a request hits its cluster, and takes no sample from it
    requests = [TimedRequest(t, t + wait, {int(k): 0}) for t, k in zip(arrivals.tolist(), clusters, strict=True)]
    measured = cost(requests, at_latest(requests, sizes), sizes) / len(requests)
    assert measured == pytest.approx(expected_waiting_cost(sizes, rate, wait), rel=0.03)
    assert expected_waiting_cost(sizes, rate, 0) == pytest.approx(expected_request_cost(sizes) + 1)


def test_a_year_with_bursts_costs_less_the_longer_people_wait():
    owners = np.repeat([f"person-{i}" for i in range(200)], 3)
    clusters = np.random.default_rng(0).integers(0, 20, 600)
    sizes = {k: int(n) for k, n in enumerate(np.bincount(clusters))}
    requests = stream_of_owners(owners, clusters, 150, within=45, bursts=3, seed=1)
    assert len(requests) == 150 and sorted(one.arrival for one in requests) == [one.arrival for one in requests]
    curve = waiting_curve(requests, sizes, [0, 7, 45])
    assert curve["missed"].tolist() == [0, 0, 0] and curve["samples"].is_monotonic_decreasing
    assert curve["samples"][0] == cost(requests, at_once(requests), sizes)
    assert curve["samples"][2] < 0.7 * curve["samples"][0] and curve["samples"][2] >= least_cost(requests, sizes)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: TimedRequest(3, 2, {0: 1}), "deadline is 2, before the arrival at 3"),
        (lambda: TimedRequest(math.nan, 2, {0: 1}), "arrival is nan"),
        (lambda: at_latest([TimedRequest(0, 1, {0: 3})], {0: 2}), "3 samples leave cluster 0, which has 2"),
        (lambda: at_latest([TimedRequest(0, 1, {0: 3})], [2]), "expected samples by cluster"),
        (lambda: schedule_cost([TimedRequest(1, 2, {0: 1})], [0.5], {0: 2}), "before its request arrives"),
        (lambda: in_periods([], 0), "days is 0"),
        (lambda: cheapest([TimedRequest(0, 50 + i, {0: 1}) for i in range(12)], {0: 99}), "schedules to try"),
        (lambda: stream_of_owners(["a"], [0], 2), "n_requests is 2, expected a whole number from 0 to 1"),
    ],
)
def test_impossible_schedules_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()


# --- deadlines


def test_deadlines_by_law_by_days_and_by_date():
    assert deadline_of("gdpr", NOON, NOON) == datetime(2030, 2, 28, 12, tzinfo=UTC)  # a month; there is no 31st
    assert deadline_of("delete-act", NOON, NOON) == NOON + timedelta(days=45)
    assert deadline_of(0.5, NOON, NOON) == deadline_of(timedelta(hours=12), NOON, NOON) == NOON + timedelta(hours=12)
    elsewhere = NOON.astimezone(tz=datetime.now().astimezone().tzinfo) + timedelta(days=2)
    assert deadline_of(elsewhere, NOON, NOON) == NOON + timedelta(days=2)
    assert deadline_of("gdpr", NOON - timedelta(days=20), NOON) == datetime(2030, 2, 11, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ({"deadline": 1, "arrived": NOON - timedelta(days=2)}, "has passed, for it is 2030-01-31T12:00:00Z: leave"),
        ({"deadline": NOON}, "has passed"),
        ({"deadline": "gpdr"}, "Did you mean 'gdpr'"),
        ({"deadline": datetime(2031, 1, 1)}, "with its time zone"),
        ({"deadline": True}, "expected gdpr, delete-act, a number of days"),
        ({"deadline": math.inf}, "deadline is inf"),
        ({"arrived": NOON + timedelta(hours=1)}, "cannot come from later"),
        ({"arrived": "yesterday"}, "arrived is 'yesterday', expected a datetime"),
    ],
)
def test_impossible_times_are_refused_and_nothing_is_recorded(store, private, times, message):
    before, held = store.requests(), store.eraser.state_hash()
    with pytest.raises(ValueError, match=message):
        store.request_forget(private.uids[0], **times)
    with pytest.raises(ValueError, match=message):
        store.request_rectify(private[:1], **times)
    assert store.requests() == before and not list((store.folder / "staged").iterdir())
    assert store.run() is None and store.eraser.state_hash() == held


@pytest.mark.parametrize("back", [timedelta(hours=1), timedelta(days=3650)])
def test_by_a_clock_that_was_set_back_nothing_waits_and_everybody_can_leave(back, store, private, clock, fresh_hash):
    """Whether it was wrong then (and a deadline is years too late), or is wrong now, the store cannot tell."""
    store.request_forget(private.uids[0], deadline=2)
    clock.now = NOON - back
    with pytest.raises(StoreError, match=r"the clock says 20.*: set the clock right.*without a deadline"):
        store.request_forget(private.uids[1], deadline="gdpr")
    with pytest.raises(StoreError, match="set the clock right"):
        store.plan()
    assert len(store.requests()) == 2
    with pytest.warns(UserWarning, match="the clock says 20.*set the clock right"):
        store.forget(private.uids[2])
    assert store.eraser.state_hash() == fresh_hash(private[[1, *range(3, 60)]])
    assert store.certificates()[-1].finished == "2030-01-31T12:00:00Z"  # no earlier than what came before
    clock.now = NOON
    store.request_forget(private.uids[3], deadline=2)
    clock.now = NOON - back
    store = reopened(store)
    assert store.recovered is not None and store.eraser.state_hash() == fresh_hash(private[[1, *range(4, 60)]])
    clock.now = NOON - timedelta(seconds=20)  # as time servers set clocks
    store.forget(private.uids[1])
    assert store.requests()[-1]["recorded"] == "2030-01-31T12:00:00Z"
    store.close()


def test_requests_wait_across_openings_until_their_time_comes(store, private, clock, fresh_hash):
    store.request_forget(private.uids[0], deadline="delete-act")
    store = reopened(store)
    assert store.recovered is None and len(store.eraser.state_) == 60
    assert [one["state"] for one in store.requests()] == ["done", "waiting"]
    clock.now = NOON + timedelta(days=45, seconds=-59)
    store = reopened(store)
    assert store.recovered.requests == [2] and not store.recovered.missed
    assert store.eraser.state_hash() == fresh_hash(private[1:60])
    store.request_forget(private.uids[1], deadline=1)
    clock.now += timedelta(days=3)  # nobody has opened the store in time
    store = reopened(store)
    assert store.recovered.missed == [3] and "after the deadline: request 3" in str(store.recovered)
    store.close()


def test_a_plan_puts_together_what_hits_the_same_clusters(store, private, clock, fresh_hash):
    first, second = by_cluster(store)[:2]
    store.request_forget(first[0], deadline=10)
    store.request_forget(second[0], deadline=20)
    store.request_forget(first[1], deadline=30)
    plan = store.plan(rate=2)
    assert "2, 4" in str(plan) and "samples are learned again" in str(plan) and "Plan" in plan._repr_html_()
    assert [batch.requests for batch in plan.batches] == [[2, 4], [3]] and not plan.late
    assert [batch.samples for batch in plan.batches] == [len(first) - 2, len(second) - 1]
    assert plan.samples_at_once == plan.samples + len(first) - 1
    starts = [batch.start for batch in plan.batches]
    assert NOON + timedelta(days=9.9) < starts[0] <= NOON + timedelta(days=10) < starts[1] < NOON + timedelta(days=20)
    assert plan.curve["samples"].is_monotonic_decreasing
    assert store.run(within=5) is None and store.run(within=10).requests == [2, 4]
    assert store.run(within=10) is None and store.run().requests == [3]
    left = [uid not in {first[0], first[1], second[0]} for uid in private.uids[:60].tolist()]
    assert store.eraser.state_hash() == fresh_hash(private[:60][np.array(left)])


def test_a_request_at_once_takes_along_who_costs_nothing_more(store):
    first, second = by_cluster(store)[:2]
    store.request_forget(first[0], deadline=10)
    store.request_forget(second[0], deadline=10)
    assert store.forget(first[1]).requests == [2, 4] and store.requests()[2]["state"] == "waiting"


def test_who_names_the_same_samples_keeps_the_order(store, private, fresh_hash):
    everybody = fresh_hash(private[:60])
    store.request_forget(private.uids[0], deadline=30)
    assert store.add(private[:1], again=True).requests == [2, 3]  # it could not be added before it has left
    assert store.eraser.state_hash() == everybody
    one_of_each = [group[0] for group in by_cluster(store)]
    store.request_forget(one_of_each, deadline=30)
    assert store.add(private[private.positions(one_of_each[-1:])], again=True).requests == [4, 5]
    store.request_add(private[60:61])
    store.request_forget(private.uids[60], deadline=1)
    assert [batch.requests for batch in store.plan().batches] == [[6], [7]]


def test_who_leaves_is_added_again_and_leaves_again_is_one_sample_less(store, private, fresh_hash):
    smallest = by_cluster(store)[-1]
    store.request_forget(smallest, deadline=30)
    store.request_add(private[private.positions(smallest)], again=True)
    store.request_forget(smallest, deadline=30)
    assert sum(batch.samples for batch in store.plan().batches) == 0
    store = reopened(store)
    store.run()
    assert store.eraser.state_hash() == fresh_hash(private[:60].without(smallest))
    store.close()


def test_a_deadline_that_cannot_be_met_is_said_when_it_arrives(store, private, monkeypatch):
    monkeypatch.setattr("lmeraser_kit.store.waiting.seconds_for", lambda samples, certificates: 7200.0)
    with pytest.warns(UserWarning, match="deadline of request 2 cannot be met"):
        store.request_forget(private.uids[0], deadline=0.05)
    assert store.plan().late == [2] and store.plan().due(0) == [2]


def test_an_interrupted_batch_is_finished_although_it_could_wait(store, private, monkeypatch, fresh_hash):
    store.request_forget(private.uids[0], deadline=40)
    store.request_forget(private.uids[1], deadline=41)
    with monkeypatch.context() as patch:
        patch.setattr(store._ledger, "commit", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            store.run(within=40.5)
    states = [one["state"] for one in store.requests()]
    assert states[1] == "begun"
    store = reopened(store)
    assert store.recovered is not None and store.requests()[1]["state"] == "done"
    store.run()
    assert store.eraser.state_hash() == fresh_hash(private[2:60])
    store.close()


@settings(max_examples=5, deadline=None)
@given(data=st.data())
def test_any_schedule_ends_where_a_fresh_fit_does(data, private, split, backbone, tmp_path_factory):
    folder = tmp_path_factory.mktemp("store") / "store"
    eraser, held = RidgeEraser(backbone, verbose=False), {*private.uids[:40].tolist()}
    with Store.create(folder, eraser, private[:40], split.public[:60]) as store:
        for _ in range(data.draw(st.integers(1, 8))):
            step = data.draw(st.sampled_from(["forget", "add", "run", "later"]))
            if step == "forget" and held:
                uid = data.draw(st.sampled_from(sorted(held)))
                store.request_forget(uid, deadline=data.draw(st.sampled_from([None, 1, 30])))
                held.remove(uid)
            elif step == "add" and len(held) < 40:
                uid = data.draw(st.sampled_from(sorted({*private.uids[:40].tolist()} - held)))
                store.request_add(private[private.positions([uid])])
                held.add(uid)
            elif step != "forget":
                store.run(within=None if step == "run" else 2)
        store.run()
        expected = RidgeEraser(backbone, verbose=False).fit(private[private.positions(sorted(held))], split.public[:60])
        assert store.eraser.state_hash() == expected.state_hash()


# --- tombstones


def test_who_was_forgotten_is_not_added_again_unknowingly(store, private, fresh_hash):
    gone, everybody = private[:1], store.eraser.state_hash()
    store.forget(gone.uids)
    renamed = Samples(gone.images, gone.labels, ["another name"], gone.n_classes)
    other = gone.images.copy()
    other[0, 0, 0, 0] ^= 1
    changed = Samples(other, gone.labels, ["one pixel"], gone.n_classes)
    same_name = Samples(other, gone.labels, gone.uids, gone.n_classes)
    before, state = store.requests(), store.eraser.state_hash()
    for back in (gone, renamed, same_name):
        with pytest.raises(ValueError, match=r"1 of the samples were forgotten here.*again=True"):
            store.add(back)
    with pytest.raises(ValueError, match="forgotten here, by name or by image"):
        store.rectify(Samples(gone.images, gone.labels, private.uids[1:2], gone.n_classes))
    assert store.requests() == before and store.eraser.state_hash() == state
    store.add(changed)  # another image, as far as a hash can tell
    store.forget(changed.uids)
    assert store.add(gone, again=True).n_added == 1 and store.requests()[-1]["again"]
    assert store.eraser.state_hash() == everybody == fresh_hash(private[:60])
    store.forget(private.uids[5])
    assert not store.requests()[-1]["again"]
    reopened(store).close()  # nobody is held who has a tombstone


def test_an_old_copy_of_a_store_meets_its_tombstones(store, private, tmp_path, fresh_hash):
    store.close()
    subprocess.run(["cp", "-r", store.folder, tmp_path / "copy"], check=True)
    with Store.open(store.folder, verbose=False) as opened:
        opened.forget(private.uids[:2].tolist())
    subprocess.run(["rm", "-r", store.folder], check=True)
    subprocess.run(["cp", "-r", tmp_path / "copy", store.folder], check=True)
    for readonly in (False, True):
        with pytest.raises(StoreError, match="2 samples are held that have been forgotten: this is an older copy"):
            Store.open(store.folder, verbose=False, readonly=readonly)
    with Store.open(store.folder, verbose=False, forget_again=True) as mended:
        assert mended.eraser.state_hash() == fresh_hash(private[2:60])
    with pytest.raises(StoreError, match="the tombstones of this store are missing"):
        Store.open(tmp_path / "copy")


def test_tombstones_are_written_for_requests_that_a_crash_cut_off(store, private, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Tombstones, "bury", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            store.request_forget(private.uids[0])
    store = reopened(store)
    assert store.recovered.n_forgotten == 1
    with pytest.raises(ValueError, match="forgotten here"):
        store.add(private[:1])
    store.close()


def test_a_new_key_starts_a_generation_and_a_lost_one_is_blind(store, private):
    folder = store.folder.with_name("store-tombstones")
    assert not (folder / "key-1").stat().st_mode & 0o077
    store.forget(private.uids[0])
    assert Tombstones(folder).new_generation() == 2
    store = reopened(store)
    store.forget(private.uids[1])
    for i in (0, 1):
        with pytest.raises(ValueError, match="forgotten here"):
            store.add(private[i : i + 1])
    written = (folder / "tombstones").read_text()
    assert private.uids[0] not in written and written.count("\n") == 4
    (folder / "key-1").unlink()
    with pytest.warns(UserWarning, match="2 tombstones in .* have lost their key"):
        store = reopened(store)
    assert store.add(private[:1]).n_added == 1
    store.close()


def test_a_torn_or_strange_line_of_tombstones(store, private):
    folder = store.folder.with_name("store-tombstones")
    store.forget(private.uids[0])
    with open(folder / "tombstones", "a") as file:
        file.write("+ 1 uid 0123")  # cut off by a crash
    store = reopened(store)
    store.forget(private.uids[1])
    assert len(Tombstones(folder)) == 4
    with open(folder / "tombstones", "a") as file:
        file.write("nonsense\n")
    store.close()
    with pytest.raises(StoreError, match="tombstones; restore it from a copy"):
        Store.open(store.folder)


def test_a_new_store_refuses_who_was_forgotten_in_one_before(store, private, split, make_eraser):
    store.forget(private.uids[0])
    store.close()
    subprocess.run(["rm", "-r", store.folder], check=True)
    with pytest.raises(ValueError, match="1 of the samples have tombstones"):
        Store.create(store.folder, make_eraser(HashClusters(12)), private[:60], split.public[:60], tombstones=True)
    assert not store.folder.exists()


# --- the audit report


@pytest.fixture
def report(store, private, clock, tmp_path):
    """A report with deadlines kept, missed and waiting, and the salts that were given."""
    salts = store.request_forget(private.uids[0], deadline=3)
    clock.now += timedelta(days=1)
    store.run()
    store.request_forget(private.uids[1], deadline=1)
    clock.now += timedelta(days=2)
    store = reopened(store)  # too late
    store.rectify(private[2:3])
    store.request_forget(private.uids[3], deadline="gdpr")
    with store:
        page = store.report(tmp_path / "audit")
        assert page.is_file() and page.name == "report.html"
    return json.loads(page.with_suffix(".json").read_text()), salts, page


def test_a_report_says_what_was_kept_and_missed(report, private):
    content, _, page = report
    assert content["deadlines"] == {"kept": 1, "missed": [3], "waiting": 1, "overdue": []}
    assert content["verification"]["n_samples"] == content["samples_held"] == 58
    assert not check_report.problems(content)
    html = page.read_text()
    assert "Deadlines missed: 1 (requests: 3); kept: 1." in html and "It does not prove" in html
    assert not any(uid in html or uid in json.dumps(content) for uid in private.uids[:4].tolist())


def run_checker(path, *arguments):
    program = Path(check_report.__file__)
    command = [sys.executable, "-I", "-S", program, path, *arguments]  # with no package in reach
    return subprocess.run(command, capture_output=True, text=True, cwd=path.parent)


def test_the_checker_needs_nothing_of_the_kit_and_finds_what_a_person_was_given(report, private):
    content, salts, page = report
    (uid, salt), path = *salts.items(), page.with_suffix(".json")
    given = content["certificates"][1]["hash"]
    done = run_checker(path, "--hash", given, "--name", uid, "--salt", salt)
    assert done.returncode == 0 and "5 requests and 4 certificates: consistent" in done.stdout
    assert f"certificates about {uid!r}: 2" in done.stdout
    assert run_checker(path, "--name", uid, "--salt", "another").returncode == 1
    assert run_checker(path, "--hash", "0" * 64).returncode == 1
    path.write_text("{}")
    assert "no audit report" in run_checker(path).stdout


def rehashed(content, chained=True):
    """The report, with each certificate's hash made anew, and those of the ones before, if `chained`."""
    previous = ""
    for one in content["certificates"]:
        if chained:
            one["record"]["previous"] = previous
        one["hash"] = previous = check_report.digest("certificate", json.dumps(one["record"], sort_keys=True))
    return content


def forged(content):
    """Reports that were changed, by what was done to them."""

    def copy():
        return json.loads(json.dumps(content))

    one = copy()  # a certificate is taken out, and the others numbered anew
    del one["certificates"][1]
    yield "taken out", one
    one = copy()  # a missed deadline is said to have been kept
    one["deadlines"] = {"kept": 2, "missed": [], "waiting": 1, "overdue": []}
    yield "said to be kept", one
    one = copy()  # the same, with the deadline moved in the list of requests
    one["requests"][2]["deadline"] = "2030-03-01T00:00:00Z"
    yield "deadline moved", one
    one = copy()  # the same, with the deadline moved in the certificate, too
    one["requests"][2]["deadline"] = one["certificates"][2]["record"]["deadlines"][0] = "2030-03-01T00:00:00Z"
    one["deadlines"] = {"kept": 2, "missed": [], "waiting": 1, "overdue": []}
    yield "deadline moved everywhere", one
    one = copy()  # nobody is said to have been forgotten
    one["certificates"][1]["record"]["n_forgotten"] = 0
    yield "count changed", one
    one = copy()  # the same, with all hashes made anew
    one["certificates"][1]["record"]["n_forgotten"] = 0
    yield "count changed everywhere", rehashed(one)
    one = copy()  # a certificate is another, and has its own right hash
    one["certificates"][1]["record"]["seconds"] = one["costs"]["seconds"] = 0.0
    for record in (each["record"] for each in one["certificates"][2:]):
        one["costs"]["seconds"] += record["seconds"]
    yield "another certificate", rehashed(one, chained=False)
    one = copy()  # a request is dropped that waits
    del one["requests"][4]
    one["deadlines"]["waiting"] = 0
    one["requests"].append({**one["requests"][3], "id": 6, "certificate": 4})
    yield "a request renumbered", one
    one = copy()  # something else was verified
    one["verification"]["root"] = "0" * 64
    yield "verification", one
    one = copy()
    one["costs"]["seconds"] /= 2
    yield "cost", one


def test_the_checker_rejects_forged_reports(report):
    content, _, page = report
    path = page.with_suffix(".json")
    for what, forgery in forged(content):
        path.write_text(json.dumps(forgery))
        done = run_checker(path)
        assert done.returncode == 1 and "WRONG" in done.stdout, what


def test_a_report_made_anew_as_a_whole_meets_a_hash_from_elsewhere(report):
    content, _, page = report
    given = content["certificates"][-1]["hash"]
    content["requests"][2]["deadline"] = content["certificates"][2]["record"]["deadlines"][0] = "2030-03-01T00:00:00Z"
    content["deadlines"] = {"kept": 2, "missed": [], "waiting": 1, "overdue": []}
    path = page.with_suffix(".json")
    path.write_text(json.dumps(rehashed(content)))
    assert run_checker(path).returncode == 0  # consistent in itself
    assert run_checker(path, "--hash", given).returncode == 1


def test_a_report_does_not_go_into_the_store(store):
    with pytest.raises(StoreError, match="lies in the store's folder"):
        store.report(store.folder / "audit")


def test_exact_sums_wait_as_well(private, split, backbone, tmp_path, clock):
    eraser = RidgeEraser(backbone, HierarchicalClusters(4), verbose=False)
    with Store.create(tmp_path / "ridge", eraser, private[:60], split.public[:60]) as store:
        store.request_forget(private.uids[:3].tolist(), deadline=30)
        assert len(store.plan().batches) == 1 and store.run(within=1) is None
        assert store.run(within=30).n_forgotten == 3 and store.verify().n_samples == 57


def test_who_waits_and_asks_again_is_told_how_and_goes_at_once(store, private, fresh_hash):
    store.request_forget(private.uids[:2], deadline="gdpr")
    store.request_forget(private.uids[2], deadline="gdpr")
    with pytest.raises(ValueError, match=r"waits to be forgotten already until 20.*, by request 2: store.hasten\(2\)"):
        store.forget(private.uids[1])
    for wrong, message in ((1, "request is 1, and those that wait are 2, 3"), ("2", "request is '2'")):
        with pytest.raises(ValueError, match=message):
            store.hasten(wrong)
    assert 2 in store.hasten(2).requests
    assert not {*private.uids[:2]} & set(store.eraser.state_.owners_by_uid())
    store.run()
    assert store.eraser.state_hash() == fresh_hash(private[3:60])
    with pytest.raises(ValueError, match="those that wait are none"):
        store.hasten(3)


def test_threads_of_a_server_may_use_a_store_one_after_another(store, private, fresh_hash):
    with ThreadPoolExecutor(2) as pool:
        pool.submit(store.request_forget, private.uids[0]).result()
        pool.submit(store.run).result()
    store.forget(private.uids[1])
    assert store.eraser.state_hash() == fresh_hash(private[2:60])


def test_a_reader_is_told_that_who_was_there_has_left(store, private):
    store.close()
    with Store.open(store.folder, readonly=True, verbose=False) as reader:
        assert not reader.outdated
        with Store.open(store.folder, verbose=False) as writer:
            writer.forget(private.uids[:3])
        assert reader.outdated
        with pytest.raises(
            DamagedError, match=r"somebody who was in it has left since \(store.outdated\): open it again"
        ):
            [np.asarray(part.images) for part in reader.eraser.state_.members.values()]
