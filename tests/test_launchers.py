"""torchrun, Slurm, lost workers and a change in the number of ranks."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import lightning as L
import pytest
import torch
from forked import TWO, command
from test_distributed import outcome

from lit_models.__main__ import main
from lit_models.command.run_folder import RUN_DIR_VARIABLE, new_run_id

ROOT = Path(__file__).parent
CONFIG = str(ROOT / "tiny.yaml")
SAME = ["--config", CONFIG, "--trainer.precision", "64-true", "--trainer.max_epochs", "3"]


class Pause(L.Callback):
    """Holds a run up after its first epoch, so that it is there to be killed."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        time.sleep(1.0 if trainer.current_epoch == 1 else 0.0)


def environment(**variables: str) -> dict[str, str]:
    known = {k: v for k, v in os.environ.items() if k != RUN_DIR_VARIABLE}
    return {**known, "PYTHONPATH": f"{ROOT.parent}{os.pathsep}{ROOT}", **variables}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Results and weights of one process."""
    folder = tmp_path_factory.mktemp("alone")
    assert main(["fit", *SAME, "--runs_dir", str(folder), "--run_id", "one"]) == 0
    return outcome(folder / "tiny" / "one")


def assert_equal(first, second):
    for name, value in first[1].items():
        torch.testing.assert_close(value, second[1][name], rtol=0, atol=1e-10)
    assert first[0]["optimizer_steps"] == second[0]["optimizer_steps"]
    for name, value in first[0]["metrics"].items():
        assert second[0]["metrics"][name] == pytest.approx(value, rel=1e-6)


def shell(*words: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words, env=environment(**variables), cwd=cwd, capture_output=True, text=True, timeout=300
    )


def test_torchrun_gives_one_run_equal_to_one_process(tmp_path, alone):
    """Every rank finds the same new folder, though nothing names the job."""
    done = shell(
        *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"),
        *("--master-port", "29611", "-m", "lit_models", "fit", *SAME, *TWO),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("test/mse") == 3  # one table: a row and two notes
    (folder,) = (tmp_path / "runs" / "tiny").iterdir()
    assert re.fullmatch(r"\d{8}-\d{6}-[0-9a-f]{4}", folder.name)
    assert_equal(alone, outcome(folder))


@pytest.mark.slow
def test_the_torchrun_script(tmp_path, alone):
    done = shell(
        *("bash", str(ROOT.parent / "scripts" / "torchrun.sh"), *SAME[1:]),
        cwd=tmp_path,
        PYTHON=sys.executable,
        NPROC="2",
    )
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "runs" / "tiny").iterdir()
    assert folder.name.startswith("torchelastic-")
    assert_equal(alone, outcome(folder))


# 53 rows in batches of 8: 6 steps an epoch; 9 is in the middle of the second of three.
@pytest.mark.parametrize(
    ("before", "after"), [(TWO, []), pytest.param([], TWO, marks=pytest.mark.slow)]
)
def test_resume_on_another_number_of_ranks(tmp_path, alone, before, after):
    same = ["fit", *SAME, "--runs_dir", str(tmp_path), "--model.lr_scheduler.total_steps", "18"]
    parts = (
        ["--run_id", "part", "--trainer.max_steps", "9", *before],
        ["--ckpt_path", str(tmp_path / "tiny/part/checkpoints/last.ckpt"), *after],
    )
    for ranks, part in zip((before, after), parts, strict=True):
        steps = [] if "--run_id" in part else ["--trainer.max_steps", "-1"]
        devices = [] if ranks else ["--trainer.strategy", "auto", "--trainer.devices", "1"]
        argv = [*same, *part, *steps, *devices]
        if ranks:
            command(tmp_path, *argv, ranks=2)
        else:
            assert main(argv) == 0
    assert_equal(alone, outcome(tmp_path / "tiny" / "part"))


def _processes(run_id: str) -> dict[str, int]:
    """Process ids of a run's ranks, by LOCAL_RANK; the first process has none in its variables."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
            variables = (folder / "environ").read_bytes().split(b"\0")
        except (OSError, PermissionError):
            continue
        if run_id.encode() in words:
            given = dict(v.split(b"=", 1) for v in variables if b"=" in v)
            found[given.get(b"LOCAL_RANK", b"0").decode()] = int(folder.name)
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
@pytest.mark.parametrize("victim", ["1", "0"])
def test_a_killed_worker_ends_the_job(tmp_path, victim, strategy):
    run_id = f"doomed-{os.getpid()}-{victim}"
    two = ["--config", strategy, "--trainer.devices", "2"]
    options = ["--trainer.max_epochs", "1000000", "--runs_dir", str(tmp_path), "--run_id", run_id]
    process = subprocess.Popen(
        [sys.executable, "-m", "lit_models", "fit", "--config", CONFIG, *two, *options],
        env=environment(),
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    last = tmp_path / "tiny" / run_id / "checkpoints" / "last.ckpt"
    deadline = time.monotonic() + 200
    while not last.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    ranks = _processes(run_id)
    assert set(ranks) == {"0", "1"}
    os.kill(ranks[victim], signal.SIGKILL)
    started = time.monotonic()
    _, stderr = process.communicate(timeout=60)
    assert process.returncode != 0
    if victim == "1":
        line = stderr.strip().splitlines()[-1]
        assert line.startswith("lit-models: error: process 1 of the job ended with SIGKILL; ")
        assert f"continue with --ckpt_path {last}" in line
        assert "Traceback" not in stderr
    while _processes(run_id) and time.monotonic() < started + 60:
        time.sleep(0.1)
    assert not _processes(run_id)
    # What was saved can be gone on from.
    steps = torch.load(last, weights_only=True)["global_step"]
    more = ["--trainer.max_steps", str(steps + 2), "--trainer.strategy", "auto"]
    argv = ["fit", "--config", CONFIG, "--ckpt_path", str(last), *more, "--trainer.devices", "1"]
    assert main(argv) == 0


_SRUN = """#!/usr/bin/env bash
# Starts two tasks of one node with the variables of a job step.
while [[ $1 == --* ]]; do shift; done
export SLURM_NTASKS=2 SLURM_NNODES=1 SLURM_NODEID=0 SLURM_NODELIST=127.0.0.1 SLURM_JOB_NAME=test
for rank in 0 1; do SLURM_PROCID=$rank SLURM_LOCALID=$rank "$@" & pids+=($!); done
trap 'kill -KILL "${pids[@]}"' TERM
code=0
for pid in "${pids[@]}"; do wait "$pid" || code=$?; done
exit $code
"""


@pytest.fixture
def cluster(tmp_path):
    """A folder with a srun, a scontrol and the command, for the script's PATH."""
    binaries = tmp_path / "bin"
    binaries.mkdir()
    files = {
        "srun": _SRUN,
        "scontrol": f'#!/usr/bin/env bash\necho "$@" >> {tmp_path}/requeued\n',
        "lit-models": f'#!/usr/bin/env bash\nexec {sys.executable} -m lit_models "$@"\n',
    }
    for name, text in files.items():
        (binaries / name).write_text(text)
        (binaries / name).chmod(0o755)
    return {
        "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_JOB_NUM_NODES": "1",
    }


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_a_requeued_slurm_job_goes_on(tmp_path, alone, cluster):
    """Told that its time is up, killed, and run again: as if it had never stopped."""
    words = ["bash", str(ROOT.parent / "scripts" / "slurm.sh"), *SAME[1:]]
    words += ["--model.lr_scheduler.total_steps", "18"]
    slow = ["--trainer.callbacks+=test_launchers.Pause"]
    process = subprocess.Popen(
        [*words, *slow],
        env=environment(**cluster),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    folder = tmp_path / "runs" / "tiny" / f"slurm-{cluster['SLURM_JOB_ID']}"
    last = folder / "checkpoints" / "last.ckpt"
    deadline = time.monotonic() + 200
    while not last.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGUSR1)
    while not (tmp_path / "requeued").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert process.poll() is None, process.communicate()[0]
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert (tmp_path / "requeued").read_text() == f"requeue {cluster['SLURM_JOB_ID']}\n"
    assert 0 < torch.load(last, weights_only=True)["global_step"] < 18

    again = shell(*words, *slow, cwd=tmp_path, **cluster)
    assert again.returncode == 0, again.stderr
    assert [path.name for path in (tmp_path / "runs" / "tiny").iterdir()] == [folder.name]
    assert_equal(alone, outcome(folder))


def test_the_fits_of_one_slurm_job_have_names_of_their_own(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.setenv("SLURM_NTASKS", "1")
    assert len({new_run_id() for _ in range(3)}) == 3
    assert new_run_id().startswith("slurm-77-")
    monkeypatch.setenv("SLURM_NTASKS", "2")  # the same for both tasks of a step
    assert {new_run_id() for _ in range(2)} == {"slurm-77"}
    monkeypatch.setenv("SLURM_STEP_ID", "0")
    assert {new_run_id() for _ in range(2)} == {"slurm-77"}
    monkeypatch.setenv("SLURM_STEP_ID", "1")
    assert {new_run_id() for _ in range(2)} == {"slurm-77-1"}


def test_the_scripts_say_how_they_are_used():
    for name in ("slurm.sh", "torchrun.sh"):
        script = ROOT.parent / "scripts" / name
        assert os.access(script, os.X_OK)
        done = subprocess.run(["bash", str(script)], capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert done.stderr.startswith("usage: ")
