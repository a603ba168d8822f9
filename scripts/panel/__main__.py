"""Fits the documented own-data command of each family on real files: ``python -m scripts.panel``.

Fits that have come to an end in the work folder are not run again, so that an interrupted call is
continued by the same call, and they stay on the page with ``--only``. Files that are not there are
left out, and said.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from scripts.panel.entries import ENTRIES, Entry
from scripts.panel.fits import Place, Record, finished, fit
from scripts.panel.made import write_made
from scripts.panel.page import readme_rows, render
from scripts.results.fits import write_file
from scripts.results.processes import Processes
from scripts.results.readme import fill, mark


def main(argv: Sequence[str] | None = None) -> int:
    """Fits, and writes the page after every file."""
    args = _parse(argv)
    known = {entry.name for entry in ENTRIES}
    unknown = [name for name in args.only if name not in known]
    if unknown:
        print(f"no file {unknown[0]!r}; choose from {', '.join(sorted(known))}", file=sys.stderr)
        return 2
    write_made(args.data)
    place = Place(args.data.resolve(), args.runs)
    run = Processes(num_threads=args.threads)
    found = {e.name: [finished(e, seed, place) for seed in range(args.seeds)] for e in ENTRIES}
    records = {name: [record for record in kept if record] for name, kept in found.items()}
    for entry in ENTRIES:
        if args.only and entry.name not in args.only:
            continue
        if not (place.data / entry.path).is_file():
            print(f"{entry.name}: no {place.data / entry.path}, left out", flush=True)
            continue
        records[entry.name] = []
        for seed in range(args.seeds):
            record = fit(entry, seed, place, run)
            records[entry.name].append(record)
            told = record["error"] or f"{entry.metric} {record['metrics'][entry.metric]:.5g}"
            print(f"{entry.name} seed {seed}: {told}", flush=True)
        _write(args.page, [(e, records[e.name]) for e in ENTRIES if records[e.name]], place.data)
    return 0


def _write(page: Path, records: Sequence[tuple[Entry, Sequence[Record]]], data: Path) -> None:
    """The page, and the table of the READMEs beside its folder."""
    write_file(page, render(records, data))
    for path in page.resolve().parent.parent.glob("README*.md"):
        if mark("panel") in (text := path.read_text(encoding="utf-8")):
            write_file(path, fill(text, "panel", readme_rows(records)))


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("scripts.panel", description=__doc__)
    parser.add_argument("data", type=Path, help="folder of the files")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="these files alone")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of each")
    parser.add_argument("--runs", type=Path, default=Path("runs/panel"), help="work folder")
    parser.add_argument("--page", type=Path, default=Path("docs/panel.md"), help="the page")
    parser.add_argument("--threads", type=int, help="threads of a fit")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
