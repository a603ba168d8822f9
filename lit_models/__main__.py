"""``lit-models``: answers ``--help`` and ``list`` at once, imports the rest only for a run."""

import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

USAGE = """\
usage: lit-models COMMAND [--config NAME_OR_FILE ...] [--OPTION VALUE ...]
       lit-models --version

commands:
  fit        train, then test the best checkpoint and print it against the optimum
  validate   score a checkpoint on the validation set
  test       score a checkpoint on the test set
  predict    write a checkpoint's predictions to predictions.csv
  export     write a checkpoint as a torch.export or ONNX file: --format torch|onnx --output FILE
  list       show the packaged experiments
  runs       show past runs: their options, scores and states
  compare    RUN RUN ...: what differs, and a page of curves and figures side by side
  completion bash|zsh: a script for your shell: eval "$(lit-models completion bash)"

common options (lit-models fit --config NAME --help shows its own, --help all every one):
  --config NAME_OR_FILE       packaged experiment or overlay, or a YAML file; later ones win
  --ckpt_path best|last|FILE  checkpoint to continue or to score; best and last look in the
                              newest run of the experiment
  --data CLASS                other data, such as CSVSeriesDataModule, with --data.path FILE
  --model.OPTION VALUE        --model.hidden_size 128, --model.optimizer.lr 0.01
  --trainer.OPTION VALUE      --trainer.max_epochs 5, --trainer.devices 2
  --seed_everything SEED      seed of weights, order and dropout
  --print_config              show the resolved configuration and stop

examples:
  lit-models fit --config lstm
  lit-models fit --config lstm --config ddp --trainer.devices 2
  lit-models test --config lstm --ckpt_path best
  lit-models export --config lstm --ckpt_path best --format onnx
  lit-models fit --config lstm --data CSVSeriesDataModule --data.path my.csv --data.target price

Each run has its own folder runs/EXPERIMENT/RUN_ID. Weights & Biases records offline unless
WANDB_MODE=online or --config online is given."""

LIGHT = ("list", "runs", "compare", "completion")
COMMANDS = ("fit", "validate", "test", "predict", "export")


def main(args: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        args: Command line without the program's name; ``sys.argv`` by default.

    Returns:
        Exit code: 0, 1 for a fit that diverged, 2 after a mistake in the input, 130 after Ctrl-C,
            143 after SIGTERM.
    """
    try:
        with _sigterm_interrupts():
            return _dispatch(list(sys.argv[1:] if args is None else args))
    except KeyboardInterrupt as stop:
        # A signal's number and what to do next; Python's own Ctrl-C has neither.
        signum, *advice = stop.args or (signal.SIGINT,)
        what = ": ".join([f"stopped by {signal.Signals(signum).name}", *advice])
        if os.environ.get("LOCAL_RANK", "0") == "0":
            sys.stderr.write(f"lit-models: {what}\n")
        return 128 + int(signum)


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """Lets SIGTERM end the command as Ctrl-C does: by an exception, so that all is tidied up."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt(signum)


def _dispatch(argv: list[str]) -> int:
    command = argv[0] if argv else "--help"
    if command in ("-h", "--help"):
        sys.stdout.write(USAGE + "\n")
        return 0
    if command in (*LIGHT, "--version"):
        from lit_models.command.answers import answer

        return answer(command, argv[1:], (*COMMANDS, *LIGHT))
    if command not in COMMANDS:
        return _refuse(f"no command {command!r}; choose from {', '.join((*COMMANDS, *LIGHT))}")
    if sys.platform == "win32":
        return _refuse("the command runs on Linux and macOS; on Windows use it in WSL")
    if command == "export":  # which has options of its own
        return _run(argv)
    if "--help" in argv or "-h" in argv:
        from lit_models.command.help import asks_for_short_help, without_all

        if asks_for_short_help(argv):
            from lit_models.command.answers import answer

            return answer("help", argv)
        argv = without_all(argv)
    from lit_models.command.early import refusal

    reason = refusal(argv)
    return _run(argv) if reason is None else _refuse(reason)


def _refuse(reason: str) -> int:
    sys.stderr.write(f"lit-models: error: {reason}\n")
    return 2


def _run(argv: list[str]) -> int:
    from lit_models.command.environment import provide_home
    from lit_models.training.startup import light_lightning

    provide_home()
    with light_lightning():
        from lit_models.command.run import run

    return run(argv)


if __name__ == "__main__":
    sys.exit(main())
