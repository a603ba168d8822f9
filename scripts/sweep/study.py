"""The trials of a sweep: an Optuna study in a file, workers, and a run for each trial."""

import math
import multiprocessing
import multiprocessing.connection
import os
import secrets
import shlex
import signal
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
import optuna
import torch
from lightning.pytorch.loggers import WandbLogger
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.exc import DatabaseError

from callbacks.run.interrupt import GracefulInterrupt
from datamodules.errors import InputError
from lit_models.command.arguments import CommandLine
from lit_models.command.cli import LitCLI
from lit_models.command.run import DIVERGED, run
from lit_models.command.run_folder import RunFolder
from scripts.sweep.space import Sweep, read_sweep

_DONE = (TrialState.COMPLETE, TrialState.PRUNED)
# A trial whose process has not been heard of for this long has died.
_HEARTBEAT_SECONDS = 30


class TrialError(Exception):
    """A trial that ended with an exit code, its message printed.

    Args:
        code: The exit code.
    """

    def __init__(self, code: int) -> None:
        super().__init__(f"exit code {code}")
        self.code = code


class TrialReport(L.Callback):
    """Tells a trial its metric after every validation, and stops a trial that falls behind.

    Args:
        trial: The trial.
        metric: Name of the metric.
        direction: ``minimize`` or ``maximize``.

    Attributes:
        best: Best value so far, the one of ``best.ckpt``; None before the first validation.
        pruned: Whether the trial was stopped, or left the finite numbers.
    """

    def __init__(self, trial: Trial, metric: str, direction: str) -> None:
        self.trial, self.metric = trial, metric
        self.better = min if direction == "minimize" else max
        self.best: float | None = None
        self.pruned = False
        self._count = 0

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Reports the validation."""
        if self.metric not in trainer.callback_metrics:
            known = ", ".join(sorted(trainer.callback_metrics))
            raise InputError(f"a validation has no metric {self.metric!r}; it has {known}")
        value = float(trainer.callback_metrics[self.metric])
        self._count += 1
        if math.isfinite(value):
            self.best = value if self.best is None else self.better(self.best, value)
            self.trial.report(value, self._count)
        self.pruned = not math.isfinite(value) or self.trial.should_prune()
        if self.pruned:
            # Not by an exception: checkpoints, logs and the tracked run close as in a whole fit.
            trainer.should_stop = True
            for logger in trainer.loggers:
                if isinstance(logger, WandbLogger):
                    logger.experiment.tags = (*(logger.experiment.tags or ()), "pruned")


class TrialCLI(LitCLI):
    """The command of a trial: a fit that reports to its trial.

    Args:
        command_line: The prepared command line.
        interrupt: Callback that handles Ctrl-C.
        folder: The run's folder.
        report: Callback that reports to the trial.
    """

    def __init__(
        self,
        command_line: CommandLine,
        interrupt: GracefulInterrupt,
        folder: RunFolder,
        report: TrialReport,
    ) -> None:
        self.trial_report = report
        super().__init__(command_line, interrupt, folder)

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """Builds the trainer of one process, with the report."""
        trainer = super().instantiate_trainer(**kwargs)
        if trainer.world_size > 1:
            raise InputError("a trial is one process; leave --trainer.devices out and use --jobs")
        trainer.callbacks.insert(0, self.trial_report)  # type: ignore[attr-defined]
        self.trial_report.trial.set_user_attr("run_dir", str(self.run_dir))
        return trainer


@dataclass(frozen=True)
class Study:
    """A search in a file; plain data, so that every worker opens the file itself.

    Attributes:
        file: SQLite file of the study.
        sweep_file: Sweep file or packaged name.
        extra: Further options of every trial.
        seed: Seed of the search; None draws one.
    """

    file: Path
    sweep_file: str
    extra: Sequence[str] = ()
    seed: int | None = None

    def sweep(self) -> Sweep:
        """What the sweep file asks for."""
        return read_sweep(self.sweep_file)

    def open(self, worker: int = 0) -> optuna.Study:
        """Opens the study, made by the first call.

        Raises:
            InputError: If the file holds another search, or is no study.
        """
        sweep = self.sweep()
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        # Without a heartbeat, a trial whose process was killed would run for ever.
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        self.file.parent.mkdir(parents=True, exist_ok=True)
        try:
            storage = optuna.storages.RDBStorage(
                f"sqlite:///{self.file}",
                engine_kwargs={"connect_args": {"timeout": 60}},
                heartbeat_interval=_HEARTBEAT_SECONDS,
            )
            study = self._claimed(storage, sweep)
        except DatabaseError as error:
            raise InputError(f"{self.file} is no study file; choose another --study") from error
        # A resumed search must not repeat the random trials it began with.
        offset = 1000 * len(study.get_trials(deepcopy=False)) + worker
        study.sampler = sweep.sampler(None if self.seed is None else self.seed + offset)
        return study

    def _claimed(self, storage: optuna.storages.RDBStorage, sweep: Sweep) -> optuna.Study:
        """The study of this search; one without results gives way to it."""
        make = partial(
            optuna.create_study,
            storage=storage,
            study_name="sweep",
            direction=sweep.direction,
            load_if_exists=True,
            pruner=sweep.pruner(),
        )
        asked = {
            "command": shlex.join([*sweep.command, *self.extra]),
            "metric": sweep.metric,
            "direction": sweep.direction,
            "constants": {name: str(value) for name, value in sweep.constants.items()},
            "space": {name: repr(value) for name, value in sweep.space.items()},
        }
        study = make()
        known = study.user_attrs.get("asked", asked)
        if known != asked:
            if study.get_trials(deepcopy=False, states=_DONE):
                key = next(key for key in asked if known[key] != asked[key])
                raise InputError(f"{self.file} was made with another {key}; choose another --study")
            optuna.delete_study(study_name="sweep", storage=storage)
            study = make()
        if "asked" not in study.user_attrs:
            study.set_user_attr("group", f"{self.file.stem}-{secrets.token_hex(2)}")
            study.set_user_attr("asked", asked)
        return study

    def objective(self, trial: Trial) -> float:
        """Runs one trial; its value is that of the best validation."""
        sweep, group = self.sweep(), trial.study.user_attrs["group"]
        options = [*sweep.options(sweep.suggest(trial)), *self.extra]
        name = f"{group}-{trial.number:04d}"
        own = ["--run_id", name, "--wandb.name", name, "--wandb.group", group]
        # The test set judges the chosen values once; it must not choose them.
        own += ["--test_after_fit=false", "--trainer.enable_progress_bar=false"]
        report = TrialReport(trial, sweep.metric, sweep.direction)
        code = run(["fit", *options, *own], partial(TrialCLI, report=report))
        if code not in (0, DIVERGED):
            raise TrialError(code)
        if report.pruned or code == DIVERGED:
            raise optuna.TrialPruned
        if report.best is None:
            raise InputError(f"a trial ended without a validation; give it more steps: {options}")
        return report.best


def _announce(study: optuna.Study, trial: FrozenTrial) -> None:
    state = "pruned" if trial.state == TrialState.PRUNED else f"{trial.value:.6g}"
    values = "  ".join(f"{name}={_short(value)}" for name, value in trial.params.items())
    sys.stdout.write(f"trial {trial.number:4d}  {state:>10}  {values}\n")
    sys.stdout.flush()


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _work(study: Study, worker: int, tickets: Any) -> None:
    """Runs trials until no ticket is left."""
    device = device_of(worker, os.environ.get("CUDA_VISIBLE_DEVICES"), torch.cuda.device_count())
    if device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = device
    opened = study.open(worker)
    while tickets.acquire(block=False):
        opened.optimize(study.objective, n_trials=1, callbacks=[_announce])


def _work_alone(study: Study, worker: int, jobs: int, tickets: Any) -> None:
    """As :func:`_work`, in a process of its own: what ends it is an exit code, in one line."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    torch.set_num_threads(max((os.cpu_count() or 1) // jobs, 1))
    try:
        _work(study, worker, tickets)
    except InputError as error:
        sys.stderr.write(f"sweep: error: {error}\n")
        sys.exit(2)
    except TrialError as error:
        sys.exit(error.code)
    except KeyboardInterrupt:
        sys.exit(130)


def device_of(worker: int, visible: str | None, count: int) -> str | None:
    """The accelerator a worker sees: they take turns; None where there is none."""
    names = visible.split(",") if visible else [str(index) for index in range(count)]
    return names[worker % len(names)] if count else None


def search(study: Study, num_trials: int, jobs: int) -> None:
    """Runs trials until so many of the study are done; one process each for several jobs.

    Raises:
        InputError: If a trial's options are refused.
        KeyboardInterrupt: If a signal ended the search; the file continues it.
        TrialError: If a trial or its worker failed; its message is printed.
    """
    done = len(study.open().get_trials(deepcopy=False, states=_DONE))
    context = multiprocessing.get_context("spawn")
    tickets = context.Semaphore(max(num_trials - done, 0))
    if jobs == 1:
        _work(study, 0, tickets)
        return
    arguments = [(study, worker, jobs, tickets) for worker in range(jobs)]
    workers = [context.Process(target=_work_alone, args=args) for args in arguments]
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        for process in workers:
            process.start()
        _wait(workers)
    finally:
        for process in workers:
            process.terminate()
        for process in workers:
            process.join()
        signal.signal(signal.SIGTERM, previous)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _wait(workers: Sequence[Any]) -> None:
    """Waits for all workers, or for the first that fails."""
    running = list(workers)
    while running:
        multiprocessing.connection.wait([process.sentinel for process in running])
        for process in [process for process in running if not process.is_alive()]:
            running.remove(process)
            if process.exitcode == 130:
                raise KeyboardInterrupt
            if process.exitcode:
                raise TrialError(abs(process.exitcode))


def summary(study: Study) -> str:
    """The best trial, and the command that runs it whole."""
    opened, sweep = study.open(), study.sweep()
    trials = opened.get_trials(deepcopy=False, states=_DONE)
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    counted = f"{len(trials)} trials, {len(trials) - len(complete)} pruned; {study.file}"
    if not complete:
        return f"{counted}\nno trial was completed: no value is the best"
    best = opened.best_trial
    options = [*sweep.options({**sweep.constants, **best.params}), *study.extra]
    return "\n".join(
        [
            counted,
            f"best: trial {best.number}, {sweep.metric} {best.value:.6g}, "
            f"run {best.user_attrs['run_dir']}, W&B group {opened.user_attrs['group']}",
            shlex.join(["lit-models", "fit", *options]),
        ]
    )
