"""Processes of the results script: what they run, how they fail and how they are stopped."""

import os
import sys
import threading
import time

import pytest

from scripts.results.processes import Processes, StoppedError, failure_line


def test_failure_line(tmp_path):
    log = tmp_path / "log"
    assert failure_line(log, 3) == "exit code 3 without a word"
    log.write_text("Traceback:\n  File x\nValueError: bad\nwandb: bye\n")
    assert failure_line(log, 1) == "ValueError: bad"
    log.write_text("lit-models: error: no column 'a'\n")
    assert failure_line(log, 2) == "no column 'a'"
    assert failure_line(log, -9) == "killed by SIGKILL"


def test_processes_run_the_command_of_this_tree(tmp_path):
    log = tmp_path / "log"
    assert Processes(1)(["nonsense"], log) == 2
    assert "no command 'nonsense'" in log.read_text()


def test_stop_ends_the_processes(tmp_path, monkeypatch):
    script = tmp_path / "sleeper"
    script.write_text("#!/bin/sh\necho $$\nexec sleep 60\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    processes = Processes()
    ended = []

    def work():
        try:
            processes([], tmp_path / "log")
        except StoppedError:
            ended.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    while not (tmp_path / "log").exists() or not (tmp_path / "log").read_text():
        time.sleep(0.01)
    processes.stop()
    thread.join(10)
    assert ended == [True]
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "log").read_text()), 0)
    with pytest.raises(StoppedError):
        processes([], tmp_path / "log")
