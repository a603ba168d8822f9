"""LightningCLI over every model and datamodule: layered configs, run folders, fit-then-test."""

import os
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn

import lightning as L
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_only

from callbacks.figures.loss_curves import LossCurves
from callbacks.run.best_checkpoint import BestCheckpoint
from callbacks.run.divergence import StopAtDivergence
from callbacks.run.interrupt import GracefulInterrupt
from callbacks.run.last_checkpoint import LastCheckpoint
from callbacks.run.last_validation import LastValidation
from callbacks.run.optimizer_options import OptimizerOptions
from callbacks.run.predictions import OrderedPredictions
from callbacks.run.progress import RunProgress
from callbacks.run.reproducible import StepSeed
from callbacks.run.run_report import RunReport
from callbacks.run.throughput import Throughput
from callbacks.run.tracking import RunConfig, versions
from datamodules.base import LitDataModule, Split
from datamodules.errors import InputError
from datamodules.files.tokenization import kept_vocabulary
from lit_models import __version__
from lit_models.base import LitModule
from lit_models.command.arguments import CommandLine, import_named_classes, prepare
from lit_models.command.checks import (
    check_fit,
    check_links,
    check_names,
    check_nulls,
    check_pair,
    check_ranges,
)
from lit_models.command.classes import class_arguments, named_class
from lit_models.command.early import hint
from lit_models.command.linking import link_sizes, size_of
from lit_models.command.loggers import WandbOptions, project_of, run_loggers
from lit_models.command.messages import one_line, quiet
from lit_models.command.pretrained import follow_pretrained
from lit_models.command.run_folder import (
    RUN_DIR_VARIABLE,
    RunFolder,
    git_commit,
    is_child_rank,
    new_run_id,
)
from lit_models.command.trust import check_calls, denied, restricted_imports
from lit_models.training.lightning_repairs import Unprofiled, count_before_share, hide_empty_hooks
from lit_models.training.sharding import check_shared
from lit_models.weights.checkpoints import (
    WholeCheckpointIO,
    check_compatible,
    check_resumable,
    read_checkpoint,
)


class OneLineParser(LightningArgumentParser):
    """A parser whose errors are one line and exit code 2."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raises the message, on one line."""
        raise InputError(one_line(message)) from ex


class LitCLI(LightningCLI):
    """The command behind ``lit-models``.

    Args:
        command_line: The prepared command line.
        interrupt: Callback that handles Ctrl-C.
        folder: What becomes of the run's folder.
        run: Whether to run the subcommand; False builds model, datamodule and trainer only.
    """

    def __init__(
        self,
        command_line: CommandLine,
        interrupt: GracefulInterrupt,
        folder: RunFolder,
        run: bool = True,
    ) -> None:
        self.command_line = command_line
        import_named_classes(command_line.layers)
        self.interrupt, self.folder = interrupt, folder
        self.run_dir, path = Path(), command_line.checkpoint
        self.checkpoint = None if path is None else read_checkpoint(path)
        self._knows_checkpoint = False
        count_before_share()
        with restricted_imports(command_line.found, command_line.trusted):
            super().__init__(
                model_class=L.LightningModule,
                datamodule_class=L.LightningDataModule,
                subclass_mode_model=True,
                subclass_mode_data=True,
                parser_class=OneLineParser,
                save_config_callback=None,
                auto_configure_optimizers=False,
                seed_everything_default=0,
                args=command_line.args if run else command_line.args[1:],
                run=run,
            )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """The one that runs: a parser of each costs as much as reading the command line."""
        name = self.command_line.args[0]
        return {name: LightningCLI.subcommands()[name]}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds the run's own options and links data sizes to the model."""
        parser.add_argument("--experiment", type=str | None, help="Name of the run's folder.")
        parser.add_argument("--runs_dir", type=str, default="runs", help="Folder of all runs.")
        parser.add_argument("--run_id", type=str | None, help="Name of this run; made up if unset.")
        parser.add_argument("--test_after_fit", type=bool, default=True, help="Test after a fit.")
        parser.add_argument(
            "--test_metrics", type=list[str], default=[], help="Metrics that head the table."
        )
        parser.add_argument(
            "--lr_scheduler_interval",
            type=Literal["step", "epoch"] | None,
            help="When the schedule advances; unset as its class means it.",
        )
        parser.add_argument(
            "--spreadsheet",
            type=bool,
            default=False,
            help="Put ' before text in predictions.csv that a spreadsheet would run as a formula.",
        )
        parser.add_argument(
            "--tensorboard", type=bool, default=False, help="Record for TensorBoard too."
        )
        parser.add_argument("--mlflow", type=bool, default=False, help="Record for MLflow too.")
        parser.add_class_arguments(WandbOptions, "wandb")
        parser.add_lightning_class_args(BestCheckpoint, "checkpoint")
        parser.add_lightning_class_args(LastCheckpoint, "last_checkpoint")
        model = self.command_line.classes.get("model", "")
        if class_arguments(model):  # else the parser says that there is no such class
            link_sizes(parser, named_class(model), self._size)

    def _size(self, datamodule: Any, name: str) -> Any:
        """A size of the model, from data that know what the checkpoint knows of them."""
        self._restore_knowledge(datamodule)
        model = self._own_config["model"]
        given = model["init_args"].get(name)
        return size_of(datamodule, name, named_class(model["class_path"]), given)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parses, and names close options where one is unknown."""
        try:
            super().parse_arguments(parser, args)
        except InputError as error:
            reason = denied(str(error), self.command_line.found)
            raise InputError(reason or f"{error}{self._close_options(str(error))}") from error
        command = self.config.get("subcommand")
        config = self.config[command] if command else self.config
        check_calls(config)
        check_ranges(config)

    def _close_options(self, message: str) -> str:
        unknown = re.search(r"[Oo]ption '([\w.]+)' is not accepted", message)
        if unknown is None:
            stray = "unrecognized arguments" in message or "not accept option" in message
            return "; --help lists the options" if stray else ""
        classes = self.command_line.classes.values()
        known = [name for class_path in classes for name in class_arguments(class_path)]
        return hint(unknown[1].rsplit(".", 1)[-1], known)

    def _parse_ckpt_path(self) -> None:
        # Lightning lets a checkpoint's hyperparameters override the command line. Here the run's
        # own config.yaml is a layer below the command line instead.
        pass

    def before_instantiate_classes(self) -> None:
        """Fixes the run's folder before anything refers to it."""
        config = self._own_config
        experiment = config["experiment"] or "custom"
        check_names(experiment, config["run_id"])
        check_pair(*(named_class(config[part]["class_path"]) for part in ("model", "data")))
        if self.command_line.experiment_data is not None:
            data = (self.command_line.experiment_data, config["data"]["class_path"])
            check_links(experiment, *(named_class(path) for path in data))
        check_nulls(config)
        follow_pretrained(config, self.command_line.given, self.checkpoint is not None)
        if is_child_rank():
            self.run_dir = Path(os.environ[RUN_DIR_VARIABLE])
        elif self.command_line.run_dir is not None:
            self.run_dir = self.command_line.run_dir
        else:
            run_id = config["run_id"] or new_run_id()
            self.run_dir = Path(config["runs_dir"]) / experiment / run_id
            if (self.run_dir / "config.yaml").exists():
                raise InputError(
                    f"{self.run_dir} holds a run already; choose another --run_id, or continue it "
                    f"with --ckpt_path {self.run_dir}/checkpoints/last.ckpt"
                )
        os.environ[RUN_DIR_VARIABLE] = str(self.run_dir)
        config["wandb"]["project"] = project_of(config["wandb"])  # a continued run keeps it
        for group in ("checkpoint", "last_checkpoint"):
            config[group]["dirpath"] = str(self.run_dir / "checkpoints")
        config["trainer"]["default_root_dir"] = str(self.run_dir)

    @property
    def _own_config(self) -> Any:
        return self.config[self.subcommand] if self.subcommand else self.config

    def instantiate_classes(self) -> None:
        """Builds datamodule, model and trainer; a wrong argument is the user's to mend."""
        try:
            self._instantiate()
        except (ValueError, ModuleNotFoundError, MisconfigurationException) as error:
            raise InputError(one_line(str(error))) from error

    def _restore_knowledge(self, datamodule: L.LightningDataModule) -> None:
        """Tells the data what the checkpoint knows of them, before anything is read."""
        if self._knows_checkpoint or self.checkpoint is None:
            return
        self._knows_checkpoint = True
        if not isinstance(datamodule, LitDataModule):
            return
        state = self.checkpoint.get(type(datamodule).__qualname__)
        if state is not None:
            datamodule.load_state_dict(state)
        elif hasattr(type(datamodule), "tokenizer"):  # tokens mean what they meant to other texts
            datamodule.adopt(kept_vocabulary(self.checkpoint))

    def _instantiate(self) -> None:
        """Lightning's, with an error of a linked size as the data raised it."""
        try:
            super().instantiate_classes()
            self._restore_knowledge(self.datamodule)
        except ValueError as error:
            if error.__cause__ is not None and str(error).startswith("Call to compute_fn of link"):
                raise error.__cause__ from None
            raise

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """Builds the trainer with the loggers and callbacks that every run has."""
        config = self._own_config
        options = self._get(self.config_init, "trainer")
        if options.get("logger") in (None, True):
            step = None if self.checkpoint is None else self.checkpoint.get("global_step")
            fits = self.subcommand in (None, "fit")
            kwargs["logger"] = run_loggers(config, self.run_dir, fits, step)
        if options.get("profiler") is None:
            kwargs["profiler"] = Unprofiled()
        kwargs["callbacks"] = self._callbacks(config, options)
        try:
            trainer = super().instantiate_trainer(**kwargs)
        except TypeError as error:  # Lightning's, for a number of devices that is none
            raise InputError(f"trainer: {one_line(str(error))}") from error
        hide_empty_hooks(trainer.callbacks)  # type: ignore[attr-defined]
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            trainer.strategy.checkpoint_io = WholeCheckpointIO()
        return trainer

    def _callbacks(self, config: Any, options: Any) -> list[L.Callback]:
        """Those that are given, among those that every run has."""
        given = options.get("callbacks") or []
        given = given if isinstance(given, list) else [given]
        own: list[L.Callback] = [
            self.interrupt,
            StepSeed(int(config["seed_everything"])),
            StopAtDivergence(),
            OptimizerOptions(),
            LossCurves(),
            Throughput(),
            OrderedPredictions(config["spreadsheet"]),
        ]
        has_bar = any(isinstance(callback, ProgressBar) for callback in given)
        if options.get("enable_progress_bar") is not False and not has_bar:
            own.append(RunProgress())
        self.report = RunReport(
            experiment=config["experiment"] or "custom",
            test_metrics=config["test_metrics"],
            seed=int(config["seed_everything"]),
            command=shlex.join(["lit-models", *self.command_line.given]),
            git_commit=git_commit(),
            versions={"lit-models": __version__, **versions()},  # an install may name an older one
        )
        facts = {name: getattr(self.report, name) for name in ("git_commit", "versions", "command")}
        own.append(RunConfig(self._parser(self.subcommand), config, facts))
        # The last validation comes first at the end of a fit: others look at it, or change weights.
        # The report comes last: it names the figures that other callbacks have drawn.
        return [LastValidation(), *given, *own, self.report]

    def after_instantiate_classes(self) -> None:
        """Checks data and checkpoint before the run's folder exists."""
        if isinstance(self.model, LitModule):
            self.model.lr_scheduler_interval = self._own_config["lr_scheduler_interval"]
        if self.trainer.precision == "64-true":
            # Lightning restores a checkpoint before it converts the model: weights would round.
            self.model.double()
        if self.subcommand is None:
            return
        self.datamodule.prepare_data()
        self.datamodule.setup(self.subcommand)
        if self.subcommand == "fit" and self._own_config["test_after_fit"]:
            self.datamodule.setup("test")
        if self.subcommand in ("validate", "test"):
            self._say_other_rows("val" if self.subcommand == "validate" else "test")
        sharded = check_shared(self.trainer.strategy, self.model)
        path = self.command_line.checkpoint
        if path is not None and self.checkpoint is not None:
            check_compatible(path, self.checkpoint, self.model, sharded)
        if self.subcommand == "fit":
            optimizer = check_fit(self.trainer, self.model, self.datamodule)
            if path is not None and self.checkpoint is not None:
                check_resumable(path, self.checkpoint, optimizer)
        if getattr(rank_zero_only, "rank", 0) == 0:  # one process makes the folder, and no other
            self.folder.open(self.run_dir, alone=self.subcommand == "fit")

    def _say_other_rows(self, split: Split) -> None:
        if isinstance(self.datamodule, LitDataModule):
            line = self.datamodule.other_rows(split)
            if line is not None and getattr(rank_zero_only, "rank", 0) == 0:
                sys.stderr.write(f"lit-models: {line}\n")

    def after_fit(self) -> None:
        """Tests the best checkpoint."""
        done = 0 if self.checkpoint is None else self.checkpoint.get("global_step")
        if done == self.trainer.global_step and self.trainer.is_global_zero:
            why = f"the run is complete at step {done}" if done else "no step was asked for"
            sys.stderr.write(
                f"lit-models: nothing was trained: {why}; raise --trainer.max_epochs "
                "(or max_steps) to go on\n"
            )
        if not self._own_config["test_after_fit"] or self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        checkpoint = self.trainer.checkpoint_callback
        best = getattr(checkpoint, "best_model_path", "") or None
        self.interrupt.advice = "the fit is complete; test it with --ckpt_path best"
        self.trainer.test(self.model, datamodule=self.datamodule, ckpt_path=best, verbose=False)


def build(argv: Sequence[str]) -> LitCLI:
    """Builds model, datamodule and trainer of a ``fit`` command without running it."""
    quiet()
    return LitCLI(prepare(["fit", *argv]), GracefulInterrupt(), RunFolder(), run=False)
