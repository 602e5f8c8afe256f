"""Let the disk of a store fail: `python tests/faults.py` (`make fault-test`; needs a C compiler).

A fit, a forget, an add and a batch of two requests (those of kill.py) are made again and again. Each time, one call
that changes a file of the store or of its tombstones fails, or all from it on (faults.c):

- full: no room from there on (ENOSPC); readonly: nothing can be written from there on (EROFS);
- broken: this one call fails (EIO), flushing included; unreadable: one call that reads does (an image that cannot be
  read when its owner leaves has no tombstone of its own, with a warning; that of its uid there is);
- torn: half of what was to be written is, and the process is gone;
- power: it is gone at some point, and of what had not been flushed until then some is on the disk, and some is not, in
  any order, whole or in part;
- memory: there is little of it, and no more is given (RLIMIT_AS);
- clock: it jumps by ten years, forward or back, and is right again afterwards;
- together: two processes begin at the same moment.

So is what a fit and a batch write elsewhere (file_trials.py): an eraser's file, features that are kept, and dropped
when somebody leaves, and the folder of a run.

Then the disk is well again, the store is opened once more, and it must be as kill.py says: what was acknowledged has
been done, what was not recorded has left nothing, the state is bit for bit that of a fresh fit, and who was to leave
has left.
"""

import argparse
import ctypes
import errno
import os
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import contextmanager, nullcontext, suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from file_trials import FileTrials
from kill import Trials
from tqdm import tqdm

from lmeraser_kit.ground.determinism import keep_freed_memory
from lmeraser_kit.store import ledger
from lmeraser_kit.store.tombstones import beside

COUNT, ONCE, FROM, TORN, LOG, READ = range(1, 7)
ACKNOWLEDGED, CREATE, WRITE, SYNC, RENAME, UNLINK, MKDIR, TRUNCATE, RMDIR = range(9)
FAULTS = {
    "full": (FROM, errno.ENOSPC),
    "readonly": (FROM, errno.EROFS),
    "broken": (ONCE, errno.EIO),
    "unreadable": (READ, errno.EIO),
    "torn": (TORN, 0),
}
OTHERS = ("power", "memory", "clock", "together")
POINTS = {"memory": 2400, "clock": 20, "together": 6}  # blocks of memory, uses of the clock, turns
SHIM = "LMERASER_FAULTS"  # the library that is preloaded


class Disk:
    """What was written down of a task, to be played again up to a power cut."""

    def __init__(self, log):
        content, at, self.steps = Path(log).read_bytes(), 0, []
        while at < len(content):
            kind, at = content[at], at + 1
            if kind == ACKNOWLEDGED:
                self.steps.append((kind, "", "", 0, b""))
                continue
            *lengths, offset = struct.unpack_from("=IIIq", content, at)
            at, parts = at + 20, []
            for length in lengths:
                parts.append(content[at : at + length])
                at += length
            self.steps.append((kind, os.fsdecode(parts[0]), os.fsdecode(parts[1]), offset, parts[2]))

    def cut(self, roots, until, rng):
        """Bring folders into a state that a disk may be in if the power goes after a step.

        Args:
            roots: The folders, as they were before the task.
            until: How many steps were made.
            rng: Draws what of that which was not flushed is there.

        Returns:
            Whether the request had been acknowledged.
        """
        folders = {str(path) for root in roots for path in (root, *root.rglob("*")) if path.is_dir()}
        files = [path for root in roots for path in root.rglob("*") if path.is_file()]
        names, contents = {}, []
        for path in files:
            names[str(path)] = len(contents)
            contents.append(bytearray(path.read_bytes()))
        made = dict(names)  # the names as the process saw them
        pending_data, pending_names = [], []  # (inode or folder, what to do)
        done = []
        for kind, path, other, offset, data in self.steps[:until]:
            folder = str(Path(path).parent)
            if kind == SYNC and path not in made and f"{folder}/.tmp" in (own := str(next(reversed(made), ""))):
                made[path] = made.pop(own)  # safetensors renames its own file by a system call that is not seen
            if kind == CREATE:
                made[path] = len(contents)
                contents.append(bytearray())
                pending_names.append((folder, ("name", path, made[path])))
            elif kind in (WRITE, TRUNCATE) and path in made:
                pending_data.append((made[path], (kind, offset, data)))
            elif kind == RENAME:  # into another folder: the one that it comes to has to be flushed
                made[other] = made.pop(path, None)
                pending_names.append((str(Path(other).parent), ("rename", path, other, made[other])))
            elif kind == UNLINK:
                made.pop(path, None)
                pending_names.append((folder, ("drop", path)))
            elif kind in (MKDIR, RMDIR):
                pending_names.append((folder, ("folder", path, kind == MKDIR)))
            elif kind == SYNC:  # of a file, or of a folder
                here, keep = made.get(path), []
                for one in pending_data:
                    self._write(contents, one) if one[0] == here else keep.append(one)
                pending_data = keep
                settled = [one for one in pending_names if one[0] == path]
                pending_names = [one for one in pending_names if one[0] != path]
                for one in settled:
                    self._name(names, folders, one)
            done.append(kind)
        for one in pending_names:
            if rng.random() < 0.5:
                self._name(names, folders, one)
        for inode, (kind, offset, data) in pending_data:
            if (drawn := rng.random()) < 0.7:
                part = data if drawn < 0.5 else data[: int(rng.integers(0, len(data) + 1)) // 512 * 512]
                self._write(contents, (inode, (kind, offset, part)))
        for root in roots:
            shutil.rmtree(root, ignore_errors=True)
        for folder in sorted(folders):
            Path(folder).mkdir(parents=True, exist_ok=True)
        for path, inode in names.items():
            if str(Path(path).parent) in folders and inode is not None:
                Path(path).write_bytes(contents[inode])
        return ACKNOWLEDGED in done

    @staticmethod
    def _write(contents, one):
        inode, (kind, offset, data) = one
        if kind == TRUNCATE:
            contents[inode] = contents[inode][:offset].ljust(offset, b"\0")
        else:
            grown = contents[inode].ljust(offset, b"\0")
            grown[offset : offset + len(data)] = data
            contents[inode] = grown

    @staticmethod
    def _name(names, folders, one):
        _, (what, path, *rest) = one
        if what == "name":
            names[path] = rest[0]
        elif what == "rename":
            names.pop(path, None)
            names[rest[0]] = rest[1]
        elif what == "drop":
            names.pop(path, None)
        else:
            (folders.add if rest[0] else folders.discard)(path)


@contextmanager
def little_memory(blocks):
    """So many blocks of 64 KiB, and no more: all else that the process has, or may ask for, is taken."""
    keep_freed_memory(False)
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + 2**24, now + 2**24))
    taken = []
    for size in (2**16, 2**13, 2**10):
        with suppress(MemoryError):
            while True:
                taken.append(bytearray(size))
    del taken[:blocks]
    yield


@contextmanager
def jumping(at):
    """The clock that stores go by jumps at its n-th use, forward or back."""
    calls, clock = iter(range(1, 10**6)), ledger.clock

    def jumped():
        return clock() + timedelta(days=3650 if at % 2 else -3650) * (next(calls) >= (at + 1) // 2)

    with mock.patch.object(ledger, "clock", jumped):
        yield


def together(shim, task, at):
    """Run a task in two forked processes that begin at the same moment."""
    answers, moment = [], time.monotonic() + 0.05

    def waiting(at):
        while time.monotonic() < moment:
            pass
        task(at)

    def one():
        answers.append(failing(shim, waiting, at, COUNT))

    threads = [threading.Thread(target=one) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    acknowledged, said, _ = zip(*answers, strict=True)
    return any(acknowledged), "; ".join(filter(None, said)), 0


def failing(shim, task, at, mode, point=0, number=0, log="", around=nullcontext):
    """Run a task in a forked process on a disk that fails. Returns (acknowledged, what it said, calls)."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        tqdm.set_lock(threading.RLock())
        said = b""
        try:
            with around():
                shim.faults_arm(os.fsencode(at), mode, point, number, os.fsencode(log))
                task(at)
                shim.faults_mark()
        except Exception as error:
            said = f"{type(error).__name__}: {error}".encode()[:60_000]
        calls = shim.faults_disarm()
        os.write(write, struct.pack("=?I", not said, calls) + said)
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    if not answer:
        return False, "", 0
    acknowledged, calls = struct.unpack_from("=?I", answer)
    return acknowledged, answer[5:].decode(), calls


def built():
    """Build the library, and start again with it preloaded."""
    folder = tempfile.mkdtemp(prefix="faults-")
    target = f"{folder}/faults.so"
    source = Path(__file__).with_name("faults.c")
    if shutil.which("cc") is None:
        sys.exit("There is no C compiler (cc) here: apt-get install gcc libc6-dev")
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", target, str(source), "-ldl"], check=True)
    environment = {**os.environ, "LD_PRELOAD": target, SHIM: target}
    status = subprocess.run([sys.executable, *sys.argv], env=environment).returncode
    shutil.rmtree(folder)
    sys.exit(status)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=40, help="points of each fault in each request, at most")
    parser.add_argument("--seed", type=int, default=0, help="of the points")
    parser.add_argument("--faults", nargs="*", default=[*FAULTS, *OTHERS], help="which of them")
    options = parser.parse_args()
    if SHIM not in os.environ:
        built()
    shim = ctypes.CDLL(os.environ[SHIM])
    os.environ.pop("LD_PRELOAD")  # children of children need none
    torch.set_num_threads(1)  # threads do not survive a fork
    rng, rows, bad, began = np.random.default_rng(options.seed), [], [], time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        log, everything = f"{folder}/log", (Trials(folder, options.seed), FileTrials(folder, options.seed))

        def look(trials, name, at, acknowledged, point):
            try:
                return (
                    "recorded"
                    if trials.look(name, at, acknowledged, point, point[1] != "unreadable")
                    else "not recorded"
                )
            except Exception as error:
                bad.append(f"{point}: {type(error).__name__}: {error}")
                return "WRONG"

        for trials, name, task in [(part, name, task[0]) for part in everything for name, task in part.tasks.items()]:
            for fault in options.faults:
                if fault == "clock" and isinstance(trials, FileTrials):
                    continue  # no time is read there
                mode, number = FAULTS.get(fault, (LOG if fault == "power" else COUNT, 0))
                at = trials.copy(name)
                count = mode if mode in (LOG, READ) else COUNT
                calls = failing(shim, task, at, count, 0, 0, log if mode == LOG else "")[2]
                disk = Disk(log) if mode == LOG else None
                calls = POINTS.get(fault, len(disk.steps) if disk else calls)
                points = 1 + np.sort(rng.permutation(calls)[: options.points])
                found = Counter()
                for point in tqdm(points.tolist(), desc=f"{name}, {fault}", leave=False):
                    at, said = trials.copy(name), ""
                    if disk:
                        acknowledged = disk.cut([root for root in (at, beside(at)) if root.exists()], point, rng)
                    elif fault == "together":
                        acknowledged, said, _ = together(shim, task, at)
                    elif fault in OTHERS:
                        around = {"memory": little_memory, "clock": jumping}[fault]
                        around = partial(around, point)
                        acknowledged, said, _ = failing(shim, task, at, COUNT, around=around)
                    else:
                        acknowledged, said, _ = failing(shim, task, at, mode, point, number)
                    found[look(trials, name, at, acknowledged, (name, fault, point, said[:300]))] += 1
                    found["acknowledged"] += acknowledged
                    found["said"] += bool(said)
                rows.append(
                    (
                        name,
                        fault,
                        calls,
                        len(points),
                        *(found[k] for k in ("acknowledged", "said", "recorded", "not recorded", "WRONG")),
                    )
                )
                print(rows[-1], flush=True)
    heads = (
        "request",
        "fault",
        "calls",
        "points",
        "acknowledged",
        "said an error",
        "recorded",
        "not recorded",
        "wrong",
    )
    print("\n| " + " | ".join(heads) + " |\n|" + "---|" * len(heads))
    print("\n".join("| " + " | ".join(map(str, row)) + " |" for row in rows))
    print(f"{sum(row[3] for row in rows)} points in {time.monotonic() - began:.0f} s, wrong: {len(bad)}")
    print(*bad[:20], sep="\n")
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
