"""Kill a store at random points, open it again, and look: `python tests/kill.py --points 240` (`make kill-test`).

A fit, a forget, an add, and a batch of two requests with deadlines, one of an owner, are killed by SIGKILL: half of
them before a random line of the code that writes (every line between two system calls is such a point), half after a
random time. Every third time the process that opens the store again is killed as well. Then it is opened once more,
and it must hold that

- what was acknowledged (the call had returned) or recorded (it is in the ledger) has been done;
- what was not recorded has left nothing behind;
- the state is, bit for bit, that of a fresh fit;
- every file is as it was written, and none is there that the store does not name;
- who was to be forgotten, by what is recorded, has a tombstone, and nobody else.
"""

import argparse
import contextlib
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

import lmeraser_kit
from lmeraser_kit import Backbone, HierarchicalClusters, LMEraser, Recipe, Store, load_dataset
from lmeraser_kit.store.files import FOLDERS, StoreError
from lmeraser_kit.store.tombstones import Tombstones, beside

WRITERS = tuple(str(Path(lmeraser_kit.__file__).parent / name) for name in ("store", "ground/files.py"))
TINY = {"img_size": 16, "embed_dim": 32, "depth": 2, "num_heads": 2}


def in_child(task, die_at=None, die_after=None):
    """Run a task in a forked process. Returns (acknowledged, killed, lines of the writers that ran, seconds)."""
    read, write = os.pipe()
    started, child = time.perf_counter(), os.fork()
    if not child:
        code, lines = 1, 0

        def on_line(frame, event, _):
            nonlocal lines
            if event == "line":
                lines += 1
                if lines == die_at:
                    os.kill(os.getpid(), signal.SIGKILL)
            return on_line

        def on_call(frame, event, _):
            return on_line if frame.f_code.co_filename.startswith(WRITERS) else None

        tqdm.set_lock(threading.RLock())  # its own: the shared one stays locked when who holds it is killed
        try:
            sys.settrace(on_call)
            task()
            sys.settrace(None)
            os.write(write, lines.to_bytes(8, "little"))
            code = 0
        finally:
            os._exit(code)
    os.close(write)
    if die_after is not None:
        time.sleep(die_after)
        os.kill(child, signal.SIGKILL)
    acknowledged = os.read(read, 8)
    os.close(read)
    status = os.waitpid(child, 0)[1]
    if not os.WIFSIGNALED(status) and os.WEXITSTATUS(status):
        raise AssertionError("the task failed by itself")
    return (
        bool(acknowledged),
        os.WIFSIGNALED(status),
        int.from_bytes(acknowledged, "little"),
        time.perf_counter() - started,
    )


class Trials:
    """The requests, what is expected of them, and a store to start from."""

    def __init__(self, folder, seed):
        self.folder, self.rng = Path(folder), np.random.default_rng(seed)
        split = load_dataset("digits", seed=0)
        backbone = Backbone.train(split.public, epochs=2, seed=0, **TINY)
        private, public = split.private[:60], split.public[:120]
        private = private.with_owners(["anna"] * 5 + private.uids[5:].tolist())
        self.leaving, newcomers = private.uids[[3, 17, 40]], split.private[60:66]

        def eraser():
            return LMEraser(backbone, HierarchicalClusters(5), Recipe(epochs=2, slices=2), seed=3, verbose=False)

        def fitted(samples):
            return eraser().fit(samples, public=public).state_hash()

        before = fitted(private)
        self.start = self.folder / "start"
        Store.create(self.start, eraser(), private, public, tombstones=True).close()
        self.tasks = {
            "fit": (lambda at: Store.create(at, eraser(), private, public, tombstones=True).close(), None, before),
            "forget": (self.request("forget", self.leaving), before, fitted(private.without(self.leaving))),
            "add": (self.request("add", newcomers), before, fitted(private + newcomers)),
        }
        anna, others = private.uids[:5], private.uids[[30, 50]]
        gone = [private.uids[:0], anna, np.concatenate([anna, others])]
        self.batch = [(fitted(private.without(uids)), uids.tolist()) for uids in gone]  # by how many are recorded
        self.tasks["batch"] = (self.wait(others), before, self.batch[-1][0])
        self.lines, self.seconds = {}, {}
        for name, (task, _, _) in self.tasks.items():
            at = self.copy(name)
            _, _, self.lines[name], self.seconds[name] = in_child(lambda task=task, at=at: task(at))

    @staticmethod
    def request(name, what):
        def task(at):
            with Store.open(at, verbose=False) as store:
                getattr(store, name)(what)

        return task

    @staticmethod
    def wait(others):
        def task(at):
            with Store.open(at, verbose=False) as store:
                store.request_forget(owner="anna", deadline=10)
                store.request_forget(others, deadline=20)
                store.run(within=15)

        return task

    def copy(self, name):
        at = self.folder / "trial"
        for mine, start in ((at, self.start), (beside(at), beside(self.start))):
            shutil.rmtree(mine, ignore_errors=True)
            if name != "fit":
                shutil.copytree(start, mine)
        return at

    def trial(self, i):
        """One kill, perhaps a second one, and what is there after it. Returns what happened, for the summary."""
        name = ("fit", "forget", "add", "batch")[i % 4]
        task = self.tasks[name][0]
        at = self.copy(name)
        point = {"die_at": int(self.rng.integers(1, self.lines[name] + 1))}
        if i // 4 % 2:
            point = {"die_after": self.rng.uniform(0, self.seconds[name])}
        acknowledged, killed, _, _ = in_child(lambda: task(at), **point)
        if i % 12 < 4:
            in_child(lambda: self.reopen(at), die_at=int(self.rng.integers(1, self.lines["forget"])))
        return name, killed, acknowledged, self.look(name, at, acknowledged, point)

    def look(self, name, at, acknowledged, point, images_read=True):
        """Open the store of a trial once more, and see that all is well. Returns whether the request was recorded."""
        _, before, after = self.tasks[name]
        try:
            store = Store.open(at, verbose=False)
        except StoreError as error:
            assert name == "fit" and not acknowledged and "no store" in str(error), (name, point, error)
            self.tasks["fit"][0](at)  # what was not recorded does not stand in the way
            store = Store.open(at, verbose=False)
            recorded = False
        else:
            recorded = name == "fit" or store.requests()[-1]["action"] == {"batch": "forget"}.get(name, name)
        with store:
            store.check()
            if name == "batch":  # what has time, and was not begun, waits
                store.run()
            found = store.eraser.state_hash()
            expected = after if name == "fit" or recorded else before
            gone = self.leaving.tolist() if name == "forget" and recorded else []
            if name == "batch":
                expected, gone = self.batch[len(store.requests()) - 1]
            assert found == expected, (name, point, "recorded" if recorded else "not recorded")
            assert recorded or not acknowledged, (name, point, "acknowledged and lost")
            assert all(row["certificate"] for row in store.requests())
        stones = Tombstones(beside(at))
        assert stones.forgotten_names(gone) == gone, (name, point, "tombstones")
        assert len(stones) == 2 * len(gone) or (not images_read and len(stones) >= len(gone)), (
            name,
            point,
            "tombstones",
        )
        there = {path.name for path in at.iterdir()}
        assert there == {"ledger.sqlite", "ledger.seal", "lock", *FOLDERS}, (name, point, there)
        assert not list((at / "staged").iterdir()) and not list(at.rglob("*.partial"))
        return recorded

    @staticmethod
    def reopen(at):
        with contextlib.suppress(StoreError):
            Store.open(at, verbose=False).close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=240, help="how many kills, over all kinds of requests")
    parser.add_argument("--seed", type=int, default=None, help="of the random points; by default another every time")
    options = parser.parse_args()
    torch.set_num_threads(1)  # threads do not survive a fork
    seed = int(time.time()) if options.seed is None else options.seed
    print(f"seed {seed}")
    with tempfile.TemporaryDirectory() as folder:
        trials, outcomes = Trials(folder, seed), []
        print("lines of the code that writes, in one request:", trials.lines)
        i = 0
        while sum(killed for _, killed, _, _ in outcomes) < options.points:
            outcomes.append(trials.trial(i))
            i += 1
            if i % 24 == 0:
                print(f"{sum(killed for _, killed, _, _ in outcomes)} of {options.points} killed, all well", flush=True)
    for name in ("fit", "forget", "add", "batch"):
        mine = [outcome for outcome in outcomes if outcome[0] == name and outcome[1]]
        print(f"{name}: {len(mine)} killed; {sum(o[3] for o in mine)} had been recorded and were carried out")
    print(f"{sum(killed for _, killed, _, _ in outcomes)} kills, nothing lost, nothing left behind")


if __name__ == "__main__":
    main()
