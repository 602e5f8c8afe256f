"""`make slurm`: what is asked for, what is refused, and what is said of runs that did not finish."""

import json
import os
import time

import pytest
import yaml

from lmeraser_kit.experiments import reproduce, results, runs, slurm
from lmeraser_kit.experiments.profiles import planned_runs


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """SLURM's commands, and no others, which do nothing."""
    for name in ("sbatch", "squeue", "scancel", "sinfo"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))  # and nothing else
    return tmp_path


def test_every_run_asks_for_what_the_estimate_says_or_for_what_one_says(monkeypatch):
    config = yaml.safe_load(results.profile_file("tiny").read_text())
    asked = slurm.needs(config)
    assert set(asked) == {f"{notebook}/{run}" for notebook, run in planned_runs("tiny")}
    table = slurm.estimate(config)
    for minutes, gib, one in zip(table["minutes"], table["GiB"], asked.values(), strict=True):
        assert one["mem_mb"] == pytest.approx(1024 * (slurm.PROCESS_GIB + 2 * gib), abs=1)
        assert one["runtime"] >= 20 and one["runtime"] > minutes
        assert (one["gpu"], one["cpus_per_task"]) == (0, 1)
    said = slurm.needs(config, gpus=2, cores=4, memory=1.5)
    assert {tuple(one.values()) for one in said.values()} == {(1536, 0, 2, 4)}  # with GPUs, the partition's time
    assert {one["runtime"] for one in slurm.needs(config, gpus=1, minutes=90).values()} == {90}


def test_options_of_snakemake_say_where_and_for_whom(tmp_path, cluster, monkeypatch):
    words = slurm.command(tmp_path / "my run", {}, "gpu", "us")
    assert words[words.index("--default-resources") + 1 :] == ["slurm_partition=gpu", "slurm_account=us"]
    assert words[words.index("--slurm-jobname-prefix") + 1] == "my-run"
    assert json.loads((tmp_path / "my run" / "slurm.json").read_text()) == {}
    words = slurm.command(tmp_path / "mine", {}, None, "")
    assert "--default-resources" not in words and words[-1] == "--slurm-no-account"
    assert words[words.index("--slurm-status-command") + 1] == "squeue"  # no sacct here
    (cluster / "sacct").write_text("#!/bin/sh\nexit ${FAILS:-0}\n")
    (cluster / "sacct").chmod(0o755)
    assert "--slurm-status-command" not in slurm.command(tmp_path / "mine", {}, None, "")
    monkeypatch.setenv("FAILS", "1")  # accounting is off
    assert "--slurm-status-command" in slurm.command(tmp_path / "mine", {}, None, "")


@pytest.mark.parametrize(
    "option, message",
    [
        (["--gpus", "one"], "GPUS is 'one', expected a whole number from 0"),
        (["--memory", "0"], "MEMORY is '0', expected a number from 0.1"),
        (["--minutes", "1.5"], "MINUTES is '1.5', expected a whole number from 1"),
        (["--cores", "0"], "RUN_CORES is '0', expected a whole number from 1"),
    ],
)
def test_bad_numbers_are_refused_before_anything_is_asked(option, message, capsys):
    assert reproduce.main(["tiny", "--name", "nothing", "--slurm", *option]) == 2
    assert message in capsys.readouterr().err and not (results.PROJECT / "results" / "nothing").exists()


def test_where_there_is_no_slurm_it_says_what_is_missing(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="no sbatch, squeue, scancel here: make slurm is given on a login node"):
        slurm.ready()
    monkeypatch.setattr(slurm, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'lmeraser-kit\[batch,slurm\]'"):
        slurm.ready()


def test_a_slurm_that_does_not_answer_is_said(cluster):
    slurm.ready()
    (cluster / "sinfo").write_text("#!/bin/sh\necho no controller >&2; exit 1\n")
    with pytest.raises(ValueError, match="SLURM does not answer here: no controller"):
        slurm.ready()


def test_what_did_not_finish_is_said_with_the_end_of_its_log(tmp_path):
    planned = [
        ("02_clusters", "seed-0"),
        ("02_clusters", "seed-1"),
        ("02_clusters", "seed-2"),
        ("02_clusters", "seed-3"),
    ]
    done, failed = (tmp_path / "runs" / notebook / run for notebook, run in planned[:2])
    for folder in (done, failed):
        folder.mkdir(parents=True)
    (done / "executed.ipynb").write_text("{}")
    (failed / "manifest.json").write_text(json.dumps({"status": "failed", "error": "ValueError: too few"}))
    logs = tmp_path / "logs" / "rule_notebook" / "02_clusters_seed-2"
    logs.mkdir(parents=True)
    (logs / "7.log").write_text("of the first attempt")
    os.utime(logs / "7.log", (1, 1))
    (logs / "8.log").write_text("\n".join(map(str, range(20))) + "\nslurmstepd: error: exceeded memory limit\n\n")
    said = "\n".join(slurm.unfinished(tmp_path, planned))
    assert "02_clusters/seed-1: ValueError: too few" in said
    assert "02_clusters/seed-2: ended by the cluster" in said and "    slurmstepd: error: exceeded memory limit" in said
    assert "8.log" in said and "first attempt" not in said and "    4\n" not in said
    assert "seed-0" not in said and "seed-3" not in said
    assert not slurm.unfinished(tmp_path, planned, since=time.time() + 60)  # it is of an earlier call


def test_jobs_that_a_call_has_left_are_cancelled_and_no_others(cluster, tmp_path):
    lines = f"7 my-run_0-1 {slurm.PROJECT}\n8 my-run_0-1 /elsewhere\n9 other_0-1 {slurm.PROJECT}\n"
    (cluster / "squeue").write_text(f"#!/bin/sh\nprintf '{lines}'\n")
    (cluster / "scancel").write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/cancelled\n')
    assert slurm.cancel(tmp_path / "my run") == 1 and (tmp_path / "cancelled").read_text() == "7\n"
    assert slurm.cancel(tmp_path / "mine") == 0


@pytest.mark.parametrize("error, again", [("ValueError", False), ("MemoryError", True)])
def test_a_cell_that_failed_is_not_tried_again_unless_memory_was_short(error, again, tmp_path, monkeypatch):
    notebook = results.PROJECT / "notebooks" / "experiments" / "01_backbone.ipynb"
    failure = runs.PapermillExecutionError(0, 1, "x", error, "so it is", [])

    def fails(*arguments, **options):
        raise failure

    monkeypatch.setattr(runs.papermill, "execute_notebook", fails)
    arguments = [str(notebook), str(tmp_path / "run"), "--checked"]
    assert runs.main(arguments) == 1
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["error"] == f"{error}: so it is" and manifest["lasting"] != again
    tried = []
    monkeypatch.setattr(runs, "run_notebook", lambda *arguments: tried.append(1) or {"seconds": 1})
    assert runs.main([*arguments, "--attempt", "2"]) == (0 if again else 1)
    assert len(tried) == again
    assert runs.main(arguments) == 0  # asked for anew, it is
