"""Fits every trial of ``scripts/bars.py`` over its seeds and publishes what came out.

``python -m scripts.results`` writes ``results.json`` and ``results.md`` into ``docs``, and fills
the table of the READMEs; ``results.html``, which is not committed, keeps the figures for ``make
docs``. A fit that has finished in the work folder is not run again, so an interrupted call is
continued by the same call. A trial without any fit in the work folder keeps what ``results.json``
says of it, as long as its command is still the same: ``--only NAME`` renews one trial and leaves
the rest.
"""

import argparse
import difflib
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

if not __package__:  # python scripts/results/__main__.py
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts.bars import TRIALS, Trial
from scripts.results.fits import Fit, Runner, Session, read_json, stages, write_file
from scripts.results.page import Figures, published_figures, render_page, run_figures
from scripts.results.processes import Processes
from scripts.results.readme import experiment_rows, fill, mark
from scripts.results.summary import Outcome, Summary, flaw, summarize
from scripts.results.text import render_markdown, tally


class Publisher:
    """Turns fits into the three files, and into the table of the READMEs beside their folder.

    Args:
        runs_dir: Work folder of the fits.
        docs_dir: Folder of the files; what they say of trials without fits is kept.
    """

    def __init__(self, runs_dir: Path, docs_dir: Path) -> None:
        self.runs_dir, self.docs_dir = runs_dir, docs_dir
        content = read_json(docs_dir / "results.json") or {"trials": []}
        self._published: dict[str, Summary] = {entry["name"]: entry for entry in content["trials"]}
        self._figures = published_figures(docs_dir / "results.html")

    def publish(
        self, trials: Sequence[Trial], chosen: Sequence[Trial], num_seeds: int | None
    ) -> list[Summary]:
        """Writes the files.

        Args:
            trials: All trials of the pages.
            chosen: Those of this call.
            num_seeds: Seeds of the chosen trials, where they do not say so themselves.
        """
        summaries, figures = [], Figures()
        for trial in trials:
            entry = self._published.get(trial.name)
            wanted = trial.num_seeds if entry is None else entry["num_seeds"]
            if trial in chosen:
                wanted = num_seeds or trial.num_seeds
            outcomes, figures[trial.name] = self._local(trial, wanted)
            if not outcomes and entry is not None:
                outcomes, figures[trial.name] = self._kept(trial, wanted, entry)
            summaries.append(summarize(trial, outcomes, wanted))
        html = render_page(summaries, figures)
        readmes = {
            path: fill(readme, "results", experiment_rows(summaries))
            for path in self.docs_dir.resolve().parent.glob("README*.md")
            if mark("results") in (readme := path.read_text(encoding="utf-8"))
        }
        text = json.dumps({"trials": summaries}, indent=1, ensure_ascii=False, allow_nan=False)
        write_file(self.docs_dir / "results.json", text + "\n")
        write_file(self.docs_dir / "results.md", render_markdown(summaries))
        write_file(self.docs_dir / "results.html", html)
        for path, filled in readmes.items():
            write_file(path, filled)
        return summaries

    def _local(self, trial: Trial, num_seeds: int) -> tuple[list[Outcome], dict[str, bytes]]:
        """Fits in the work folder; a pre-training counts only where it failed."""
        outcomes = [Fit(trial, seed, self.runs_dir).outcome() for seed in range(num_seeds)]
        if trial.pretraining:
            pretraining = Fit(trial, None, self.runs_dir).outcome()
            if pretraining is not None and pretraining.results is None:
                outcomes.insert(0, pretraining)
        found = [outcome for outcome in outcomes if outcome is not None]
        seeds = [outcome.seed for outcome in found if outcome.results is not None]
        figures = run_figures(Fit(trial, seeds[0], self.runs_dir).folder) if seeds else {}
        return found, figures

    def _kept(
        self, trial: Trial, num_seeds: int, entry: Summary
    ) -> tuple[list[Outcome], dict[str, bytes]]:
        """Fits that the present pages report, where they are those of this trial."""
        commands = {Fit(trial, seed, Path("runs")).command for seed in range(num_seeds)}
        runs = [run for run in entry["runs"] if run["command"] in commands]
        outcomes = [Outcome(run["seed"], run) for run in runs if not flaw(trial, run)]
        return outcomes, self._figures.get(trial.name, {}) if outcomes else {}


def choose(names: Sequence[str] | None) -> list[Trial]:
    """Trials by name; all of them without names.

    Raises:
        ValueError: If there is no such trial.
    """
    if names is None:
        return list(TRIALS)
    known = [trial.name for trial in TRIALS]
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=3) or known
            raise ValueError(f"no trial {name!r}; choose from {', '.join(close)}")
    return [trial for trial in TRIALS if trial.name in names]


def positive_number(text: str) -> int:
    """A count on the command line."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not positive")
    return value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.results",
        description="Fits every trial over its seeds and writes docs/results.{json,md,html}.",
        epilog="Finished fits are not run again. Exit code 1 where a fit has failed.",
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help="trials to fit; all by default")
    parser.add_argument(
        "--seeds", type=positive_number, metavar="N", help="seeds 0 to N-1 of each trial"
    )
    parser.add_argument(
        "--jobs",
        type=positive_number,
        default=1,
        metavar="N",
        help="fits at a time; one thread each",
    )
    parser.add_argument(
        "--runs_dir", type=Path, default=Path("runs/results"), help="work folder of the fits"
    )
    parser.add_argument("--docs_dir", type=Path, default=Path("docs"), help="folder of the pages")
    parser.add_argument(
        "--render_only", action="store_true", help="write the pages of finished fits, run none"
    )
    return parser


def _stop(signum: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + signum)


def main(argv: Sequence[str] | None = None, runner: Runner | None = None) -> int:
    """Command line.

    Args:
        argv: Arguments; those of the process by default.
        runner: Runs the fits; processes by default.

    Returns:
        Exit code: 0, 1 where a fit has failed, 2 after a mistake in the arguments, 130 after
        Ctrl-C.
    """
    parser = _parser()
    args = parser.parse_args(argv)
    try:
        chosen = choose(args.only)
    except ValueError as error:
        parser.exit(2, f"{parser.prog}: error: {error}\n")
    if not args.render_only:
        run = runner or Processes(num_threads=1 if args.jobs > 1 else None)
        previous = signal.signal(signal.SIGTERM, _stop)
        try:
            Session(run, args.jobs).run(stages(chosen, args.seeds, args.runs_dir))
        except KeyboardInterrupt:
            print("\ninterrupted; finished fits are kept, the same command continues")
            return 130
        finally:
            signal.signal(signal.SIGTERM, previous)
    summaries = Publisher(args.runs_dir, args.docs_dir).publish(TRIALS, chosen, args.seeds)
    print(tally(summaries))
    for summary in summaries:
        for line in summary["errors"]:
            print(f"failed: {summary['name']}, {line}")
    print(f"written: {args.docs_dir / 'results'}.json, .md, .html")
    names = {trial.name for trial in chosen}
    return int(any(s["errors"] for s in summaries if s["name"] in names))


if __name__ == "__main__":
    sys.exit(main())
