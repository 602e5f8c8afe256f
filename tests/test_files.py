"""Files that are there whole or not at all, and nothing that killed processes leave beside them."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from lmeraser_kit.ground.files import clean, replacing

KILLED = """
import os, signal, sys
from lmeraser_kit.ground.files import replacing
with replacing(sys.argv[1]) as partial:
    partial.write_text("private")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_file_that_cannot_be_written_leaves_what_was_there_and_nothing_else(tmp_path):
    path = tmp_path / "folder" / "file.txt"
    with replacing(path, mode=0o600) as partial:
        partial.write_text("first")
    with pytest.raises(ZeroDivisionError), replacing(path) as partial:
        partial.write_text("second")
        raise ZeroDivisionError
    assert path.read_text() == "first" and list(path.parent.iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == 0o600


def test_what_a_killed_process_was_writing_is_taken_away_and_what_another_writes_is_not(tmp_path):
    command = [sys.executable, "-c", KILLED, str(tmp_path / "file")]
    assert subprocess.run(command, cwd=Path(__file__).parents[1]).returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert left.suffix == ".partial"
    with replacing(tmp_path / "another") as partial:
        assert not left.exists()
        partial.write_text("mine")
        thread = threading.Thread(target=clean, args=(tmp_path,))
        thread.start()
        thread.join()
        assert partial.read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["another"]


def test_what_is_in_place_is_on_the_disk_before_its_name_is(tmp_path, monkeypatch):
    calls, sync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: calls.append(os.readlink(f"/proc/self/fd/{file}")) or sync(file))
    monkeypatch.setattr(os, "replace", lambda *paths: calls.append("renamed") or replace(*paths))
    with replacing(tmp_path / "file") as partial:
        partial.write_text("content")
    assert calls == [str(partial), "renamed", str(tmp_path)]
