"""The trackers of a run: Weights & Biases, TensorBoard, MLflow and ``metrics.csv``."""

import os
import sys
import threading
import urllib.error
import urllib.request
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from callbacks.run.tracking import MetricsCSV
from datamodules.errors import InputError
from lit_models.training.lightning_repairs import RunWandbLogger

_ONLINE = ("online", "run", "shared")
_RUN_TAG = "lit_models.run"
_WANDB_MODES = (*_ONLINE, "offline", "disabled", "dryrun")


@dataclass
class WandbOptions:
    """Weights & Biases.

    Attributes:
        project: Project of the run; unset follows the variable WANDB_PROJECT, and without it is
            ``lit-models``.
        mode: ``online``, ``offline`` or ``disabled``; unset follows the variable WANDB_MODE, and
            without it records offline, but online under ``wandb agent``.
        name: Name of the run; unset follows the variable WANDB_NAME, and without it is made of
            experiment and run id.
        group: Group of the run.
        tags: Tags of the run.
        log_model: Whether checkpoints become artifacts; needs mode online.
        unreachable: What an online run without network or key does: ``stop`` with an error, or
            record ``offline``.
    """

    project: str | None = None
    mode: Literal["online", "offline", "disabled"] | None = None
    name: str | None = None
    group: str | None = None
    tags: list[str] | None = None
    log_model: bool = False
    unreachable: Literal["stop", "offline"] = "stop"


def run_loggers(config: Any, run_dir: Path, fits: bool, resume_step: int | None) -> list[Logger]:
    """The loggers of a run.

    Args:
        config: The resolved configuration.
        run_dir: The run's folder.
        fits: Whether the run trains, and so writes ``metrics.csv``.
        resume_step: Optimizer step that a continued run starts from; None for a new run.

    Raises:
        InputError: If WANDB_MODE is none of W&B's.
    """
    loggers: list[Logger] = []
    options = config["wandb"]
    mode = _wandb_mode(options["mode"])
    tracks = mode != "disabled" and not config["trainer"]["fast_dev_run"]
    first = getattr(rank_zero_only, "rank", 0) == 0
    if tracks and first and mode in _ONLINE and not _reachable():
        mode = _without("its server does not answer", options["unreachable"])
    os.environ["WANDB_MODE"] = mode
    if tracks:
        os.environ.setdefault("WANDB_SILENT", "true")
        loggers.append(_wandb(options, mode, config["experiment"], run_dir))
    if not config["trainer"]["fast_dev_run"]:
        if config["tensorboard"]:
            loggers.append(_tensorboard(run_dir, resume_step if fits else None))
        if config["mlflow"]:
            loggers.append(_mlflow(config["experiment"], run_dir, Path(config["runs_dir"])))
    if fits:
        loggers.append(MetricsCSV(run_dir, resume_step))
    return loggers


def _tensorboard(run_dir: Path, resume_step: int | None) -> Logger:
    """Event files in the run's folder; those behind the step that is continued from are hidden."""
    _needs("tensorboard")
    return TensorBoardLogger(
        run_dir, name="", version="tensorboard", default_hp_metric=False, purge_step=resume_step
    )


def _mlflow(experiment: str, run_dir: Path, runs_dir: Path) -> Logger:
    """An MLflow run of the same name; the one that a continued run had."""
    _needs("mlflow")
    here = runs_dir.absolute()
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if uri is None:
        here.mkdir(parents=True, exist_ok=True)
        uri = f"sqlite:///{here / 'mlflow.db'}"
    local = uri.startswith("sqlite:")
    logger = MLFlowLogger(
        experiment,
        run_name=run_dir.name,
        tracking_uri=uri,
        tags={_RUN_TAG: run_dir.name},
        artifact_location=(here / "mlflow").as_uri() if local else None,
    )
    if getattr(rank_zero_only, "rank", 0) == 0:
        logger._run_id = _earlier_run(logger._mlflow_client, experiment, run_dir.name)
    return logger


def _earlier_run(client: Any, experiment: str, run_id: str) -> str | None:
    found = client.get_experiment_by_name(experiment)
    if found is None:
        return None
    runs = client.search_runs([found.experiment_id], f"tags.`{_RUN_TAG}` = '{run_id}'")
    return str(runs[0].info.run_id) if runs else None


def _needs(package: str) -> None:
    if find_spec(package) is None:
        raise InputError(f"--{package} needs it: pip install 'lit-models[{package}]'")


def _wandb_mode(given: str | None) -> str:
    # The server of a sweep waits for the runs it has asked an agent for.
    default = "online" if "WANDB_SWEEP_ID" in os.environ else "offline"
    mode = given or os.environ.get("WANDB_MODE", default)
    if mode not in _WANDB_MODES:
        raise InputError(f"WANDB_MODE is {mode!r}; set it to online, offline or disabled")
    return mode


def project_of(options: Any) -> str:
    """Project of a run: the option's, else the environment's, else this package's."""
    return options["project"] or os.environ.get("WANDB_PROJECT") or "lit-models"


def _wandb(options: Any, mode: str, experiment: str, run_dir: Path) -> Logger:
    name = options["name"] or os.environ.get("WANDB_NAME") or f"{experiment}-{run_dir.name}"
    logger = _Wandb(
        unreachable=options["unreachable"],
        project=project_of(options),
        name=name,
        id=run_dir.name,
        # W&B's process may have been started from another folder.
        save_dir=str(run_dir.absolute()),
        group=options["group"],
        tags=options["tags"],
        log_model=options["log_model"] and mode in _ONLINE,
        offline=mode not in _ONLINE,
        resume="allow",
    )
    # An argument that wandb has withdrawn, and warns about.
    vars(logger).get("_wandb_init", {}).pop("anonymous", None)
    return logger


class _Wandb(RunWandbLogger):
    """W&B, with an answer of its own where the server refuses the run."""

    def __init__(self, unreachable: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._unreachable = unreachable

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The W&B run, started at the first call."""
        import wandb

        try:
            return super().experiment
        except wandb.errors.Error as error:
            reason = next((line for line in str(error).splitlines() if line), type(error).__name__)
            os.environ["WANDB_MODE"] = _without(reason.rstrip("."), self._unreachable)
            wandb.teardown()  # which holds the run's id
            self._wandb_init["mode"], self._log_model = "offline", False
            return super().experiment


def _without(reason: str, unreachable: str) -> str:
    """The mode of an online run that cannot be online."""
    if unreachable == "stop":
        raise InputError(
            f"W&B cannot record online: {reason}; run `wandb login`, or add --wandb.mode offline "
            "and sync later, or --wandb.unreachable offline"
        )
    sys.stderr.write(f"lit-models: W&B records offline: {reason}; send it with `wandb sync`\n")
    return "offline"


def _reachable(seconds: float = 10.0) -> bool:
    """Whether W&B's server answers at all; its own client tries for minutes."""
    import wandb

    url = wandb.setup().settings.base_url
    wandb.teardown()  # its settings are read once, with the mode of that time
    answers: list[bool] = []

    def ask() -> None:
        try:
            urllib.request.urlopen(url, timeout=seconds).close()
        except urllib.error.HTTPError:
            answers.append(True)
        except OSError:
            answers.append(False)
        else:
            answers.append(True)

    # Looking a name up knows no time limit, so it may outlive the question.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(seconds)
    return any(answers)
