"""The fits behind the results page: which there are, which have finished, and running the rest."""

import json
import shlex
import shutil
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from datamodules.files.whole_file import whole_file
from scripts.bars import Results, Trial
from scripts.results.processes import failure_line
from scripts.results.summary import Outcome, flaw, portable_command, publishable


class Runner(Protocol):
    """What runs a command of ``lit-models``."""

    def __call__(self, args: Sequence[str], log: Path) -> int:
        """Runs the command, its output in a file; returns the exit code."""

    def stop(self) -> None:
        """Ends what runs."""


@dataclass(frozen=True)
class Fit:
    """One fit: a seed of a trial, or the pre-training that its seeds start from.

    Attributes:
        trial: The trial.
        seed: The seed; None for the pre-training.
        runs_dir: Work folder of all trials.
    """

    trial: Trial
    seed: int | None
    runs_dir: Path

    @property
    def name(self) -> str:
        """Name for people."""
        part = "pre-training" if self.seed is None else f"seed {self.seed}"
        return f"{self.trial.name} {part}"

    @property
    def folder(self) -> Path:
        """Run folder of the fit."""
        experiment, run_id = self.trial.experiment, str(self.seed)
        if self.seed is None:
            experiment, run_id = self.trial.pretraining[1], "pretraining"
        return self.runs_dir / self.trial.name / experiment / run_id

    @property
    def log(self) -> Path:
        """What the command printed."""
        return self.folder.with_name(f"{self.folder.name}.log")

    @property
    def record(self) -> Path:
        """How the command ended."""
        return self.folder.with_name(f"{self.folder.name}.fit.json")

    @property
    def args(self) -> list[str]:
        """Arguments of ``lit-models``."""
        if self.seed is None:
            args = ["fit", *self.trial.pretraining]
        else:
            args = self.trial.command(self.seed)
            if self.trial.pretraining:
                start = Fit(self.trial, None, self.runs_dir).folder / "checkpoints" / "best.ckpt"
                args += ["--model.pretrained", str(start)]
        runs_dir = str(self.runs_dir / self.trial.name)
        return [*args, "--runs_dir", runs_dir, "--run_id", self.folder.name]

    @property
    def command(self) -> str:
        """The command in portable form: equal for equal fits."""
        return portable_command(["lit-models", *self.args])

    def outcome(self) -> Outcome | None:
        """How this fit ended; None if it did not, or if the folder is of another command."""
        record, results = read_json(self.record), read_json(self.folder / "results.json")
        if record is not None and record.get("command") != self.command:
            record = None
        if record is not None and record["exit_code"] != 0:
            return Outcome(self.seed, error=record["error"])
        if results is None or self.command != _portable(results):
            return None
        error = "" if self.seed is None else flaw(self.trial, results)
        if error:
            return Outcome(self.seed, error=error)
        side_by_side = None if record is None else record["num_jobs"]
        return Outcome(self.seed, {**publishable(results), "num_jobs": side_by_side})

    def finished(self) -> bool:
        """Whether there is nothing left to do."""
        outcome = self.outcome()
        return outcome is not None and outcome.results is not None

    def clear(self) -> None:
        """Removes what an earlier attempt has left."""
        shutil.rmtree(self.folder, ignore_errors=True)
        for path in (self.record, self.log):
            path.unlink(missing_ok=True)
        self.folder.parent.mkdir(parents=True, exist_ok=True)


def read_json(path: Path) -> dict[str, Any] | None:
    """A file that a killed process may have left half-written, or not at all."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _portable(results: Results) -> str:
    return portable_command(shlex.split(results.get("command", "")))


def stages(trials: Iterable[Trial], num_seeds: int | None, runs_dir: Path) -> list[list[Fit]]:
    """All fits: first the pre-trainings, then what may start from them."""
    chosen = list(trials)
    pretrainings = [Fit(trial, None, runs_dir) for trial in chosen if trial.pretraining]
    seeds = [
        Fit(trial, seed, runs_dir)
        for trial in chosen
        for seed in range(num_seeds or trial.num_seeds)
    ]
    return [pretrainings, seeds]


class Session:
    """Runs fits, some of them side by side, and says what is going on.

    Args:
        runner: Runs a command line.
        num_jobs: Fits at a time.
    """

    def __init__(self, runner: Runner, num_jobs: int) -> None:
        self.runner, self.num_jobs = runner, num_jobs
        self.num_done, self.num_fits, self.began = 0, 0, time.monotonic()

    def run(self, stages: Sequence[Sequence[Fit]]) -> None:
        """Runs all fits that have not finished; a stage begins when the one before has ended."""
        self._drop_stale(stages)
        waiting = [[fit for fit in stage if not fit.finished()] for stage in stages]
        total = sum(map(len, stages))
        self.num_fits = sum(map(len, waiting))
        there = total - self.num_fits
        print(f"{there} of {total} fits are there, {self.num_fits} to run", flush=True)
        for stage in waiting:
            with ThreadPoolExecutor(self.num_jobs) as pool:
                futures = [pool.submit(self._fit, fit) for fit in stage]
                try:
                    self._watch(futures)
                except BaseException:
                    pool.shutdown(wait=False, cancel_futures=True)
                    self.runner.stop()
                    raise

    @staticmethod
    def _drop_stale(stages: Sequence[Sequence[Fit]]) -> None:
        """Fits that started from a checkpoint which is about to be made anew."""
        pretrainings, seeds = stages
        renewed = {fit.trial.name for fit in pretrainings if not fit.finished()}
        for fit in seeds:
            if fit.trial.name in renewed:
                fit.clear()

    def _watch(self, futures: Sequence["Future[str]"]) -> None:
        for future in as_completed(futures):
            line = future.result()
            self.num_done += 1
            spent = time.monotonic() - self.began
            left = spent / self.num_done * (self.num_fits - self.num_done)
            rest = f", about {_duration(left)} left" if left else ""
            print(f"[{self.num_done}/{self.num_fits}] {line}{rest}", flush=True)

    def _fit(self, fit: Fit) -> str:
        """Runs one fit and records how it ended; returns what to tell."""
        fit.clear()
        began = time.monotonic()
        if fit.seed is not None and fit.trial.pretraining:
            pretraining = Fit(fit.trial, None, fit.runs_dir).outcome()
            if pretraining is None or pretraining.results is None:
                return self._record(fit, 1, "its pre-training failed", began)
        code = self.runner(fit.args, fit.log)
        if code == 0:
            return self._record(fit, code, "", began)
        return self._record(fit, code, failure_line(fit.log, code), began)

    def _record(self, fit: Fit, code: int, error: str, began: float) -> str:
        seconds = time.monotonic() - began
        record = {"command": fit.command, "exit_code": code, "error": error}
        record |= {"seconds": round(seconds, 1), "num_jobs": self.num_jobs}
        write_file(fit.record, json.dumps(record, indent=2) + "\n")
        outcome = fit.outcome()
        if outcome is None:
            error = "left no results.json of its command"
            write_file(fit.record, json.dumps({**record, "exit_code": 1, "error": error}) + "\n")
            outcome = Outcome(fit.seed, error=error)
        if outcome.results is None:
            return f"{fit.name} FAILED: {outcome.error}"
        return f"{fit.name}: {_headline(fit.trial, outcome.results)}, {_duration(seconds)}"


def _headline(trial: Trial, results: Results) -> str:
    metrics = results["metrics"]
    name = next((bar.metric for bar in trial.bars if bar.metric in metrics), next(iter(metrics)))
    return f"{name} {metrics[name]:.5g}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def write_file(path: Path, text: str) -> None:
    """Replaces a file in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as file:
        file.write(text)
