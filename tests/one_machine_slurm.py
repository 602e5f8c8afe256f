"""`make slurm-test`: `make slurm` on a SLURM of this one machine, and what came of it against `make reproduce`.

    python tests/one_machine_slurm.py                 # all of it
    python tests/one_machine_slurm.py -- COMMAND ...  # a command while the daemons run

On Debian and Ubuntu, as root of a container or a virtual machine: apt-get install slurmctld slurmd slurm-client munge.
The daemons work in a folder of their own and end with the command. SLURM looks for /etc/slurm/slurm.conf: that is
written, removed again, and this refuses to start where there is one.
"""

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import psutil

from lmeraser_kit.experiments.agreement import differences
from lmeraser_kit.experiments.results import PROJECT

CONFIG = Path("/etc/slurm/slurm.conf")
QUEUE = ["squeue", "--noheader", "--format=%.6i %.60k %.2t %.6m"]
SETTINGS = """ClusterName=one
SlurmctldHost={host}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmctldPort=16817
SlurmdPort=16818
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
JobAcctGatherParams=OverMemoryKill
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SlurmdParameters=config_overrides
MpiDefault=none
ReturnToService=2
MinJobAge=600
NodeName={host} CPUs={cores} RealMemory={memory} State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


@contextmanager
def slurm():
    """The daemons, as long as the block lasts; yields their folder."""
    if missing := [name for name in ("munged", "slurmctld", "slurmd", "sbatch") if not shutil.which(name)]:
        sys.exit(f"{', '.join(missing)} missing: apt-get install slurmctld slurmd slurm-client munge")
    if CONFIG.exists() or os.geteuid() != 0:
        sys.exit(f"This needs root, and a machine without a SLURM of its own ({CONFIG} must not be there).")
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    folder.chmod(0o755)
    (folder / "state").mkdir(), (folder / "spool").mkdir()
    (folder / "munge.key").write_bytes(os.urandom(1024))
    (folder / "munge.key").chmod(0o600)
    memory = psutil.virtual_memory().total // 2**20 * 3 // 4
    settings = SETTINGS.format(folder=folder, host=socket.gethostname(), cores=os.cpu_count(), memory=memory)
    CONFIG.parent.mkdir(exist_ok=True)
    CONFIG.write_text(settings)
    munge = [f"--{what}={folder}/munge.{what[:4]}" for what in ("socket", "pid-file", "log-file", "seed-file")]
    munge[0] = f"--socket={folder}/munge.sock"
    started = []
    try:
        for command in (
            ["munged", "--foreground", "--force", f"--key-file={folder}/munge.key", *munge],
            ["slurmctld", "-D"],
            ["slurmd", "-D"],
        ):
            started.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
            time.sleep(2)
        for _ in range(30):
            if " idle " in f" {subprocess.run(['sinfo', '-ho', '%t'], capture_output=True, text=True).stdout.strip()} ":
                break
            time.sleep(1)
        else:
            sys.exit(f"SLURM did not come up: {(folder / 'slurmctld.log').read_text()[-2000:]}")
        yield folder
    finally:
        CONFIG.unlink(missing_ok=True)
        for process in reversed(started):
            process.send_signal(signal.SIGTERM)
            process.wait(60)
        shutil.rmtree(folder, ignore_errors=True)


def make(*words):
    """Run make, and note what the queue shows meanwhile. Returns the exit status, its text and the queue's lines."""
    seen = {}
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(["make", *words], cwd=PROJECT, stdout=said, stderr=subprocess.STDOUT)
        while process.poll() is None:
            for line in subprocess.run(QUEUE, capture_output=True, text=True).stdout.splitlines():
                seen[line.split()[0]] = line.strip()
            time.sleep(1)
        said.seek(0)
        return process.returncode, said.read(), list(seen.values())


def unequal(mine, theirs):
    """Tables of two runs of a profile, those that are not equal, and the hashes in their runs' metrics."""
    names = {path.name for root in (mine, theirs) for path in (root / "tables").glob("*.csv")}
    pairs = {name: [pd.read_csv(root / "tables" / name) for root in (mine, theirs)] for name in sorted(names)}
    tables = [name for name, pair in pairs.items() if differences(*pair)["difference"].ne(0).any()]
    return names, tables, [hashes_of(root) for root in (mine, theirs)]


def hashes_of(root):
    """Hashes of states, data and weights in the metrics of a profile's runs."""
    found = {}
    for path in sorted(root.glob("runs/*/*/metrics.json")):
        metrics = json.loads(path.read_text())
        values = metrics["metrics"] | {name: metrics["context"].get(name) for name in ("data", "weights")}
        found |= {
            f"{path.parent.relative_to(root)} {name}": value
            for name, value in values.items()
            if isinstance(value, str) and len(value) == 64
        }
    return found


def main():
    """Run the command that is given, or the test."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", nargs="*")
    given = parser.parse_args()
    with slurm():
        if given.command:
            return subprocess.run(given.command).returncode
        started, there = time.monotonic(), PROJECT / "results" / "tiny-slurm"
        status, said, queue = make("slurm", "PROFILE=tiny", "NAME=tiny-slurm")
        print(said[-3000:], "\nThe queue, as it was:", *queue, sep="\n")
        if status:
            return status
        print(f"make slurm: {time.monotonic() - started:.0f} s")
        shutil.rmtree(there / "runs" / "02_clusters")  # once more, with too little memory at first
        (there / "report.html").unlink()  # or Snakemake has all that it was asked for
        status, said, queue = make("slurm", "PROFILE=tiny", "NAME=tiny-slurm", "MEMORY=0.7")
        print("\nWith 0.7 GiB for 02_clusters:", *queue, sep="\n")
        tries = [line for line in queue if "02_clusters" in line]
        logs = [path.read_text() for path in (there / "logs").glob("rule_notebook/02_clusters*/*.log")]
        if status or len(tries) < 2 or not any("memory" in log for log in logs):
            print(said[-3000:])
            print("FAILED: nothing was killed for its memory and tried again")
            return 1
        started = time.monotonic()
        status, said, _ = make("reproduce", "PROFILE=tiny", "NAME=tiny-here", "CORES=1")
    print(f"make reproduce: {time.monotonic() - started:.0f} s, exit {status}")
    names, tables, hashes = unequal(there, PROJECT / "results" / "tiny-here")
    print(f"{len(names)} tables, unequal: {tables or 'none'}; {len(hashes[0])} hashes, equal: {hashes[0] == hashes[1]}")
    return int(bool(status or tables or not names or not hashes[0] or hashes[0] != hashes[1]))


if __name__ == "__main__":
    sys.exit(main())
