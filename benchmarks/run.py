"""Measures what the project promises about speed, side by side with the bare kernel, and prints a Markdown table.

    python benchmarks/run.py                    # all cases, about a quarter of an hour, as root
    python benchmarks/run.py two-hosts command  # some of them

The exit status is 1 when a limit is missed.
"""

from __future__ import annotations

import argparse
import sys

from cases import CASES, Settings
from labs import allow_many_files
from measure import Row, machine, progress, table


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of: {', '.join(CASES)} (all by default)")
    parser.add_argument("--runs", type=int, default=20, help="measurements of each thing (20)")
    parser.add_argument("--labs", type=int, default=200, help="labs for the first ping, and commands (200)")
    parser.add_argument("--tests", type=int, default=300, help="labs one after the other (300)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of those (3)")
    parser.add_argument("--no-munet", action="store_true", help="leave munet out")
    chosen = parser.parse_args()
    if unknown := set(chosen.cases) - set(CASES):
        parser.error(f"no case {', '.join(sorted(unknown))}; there are {', '.join(CASES)}")
    return chosen


def main() -> int:
    chosen = arguments()
    settings = Settings(chosen.runs, chosen.labs, chosen.tests, chosen.rounds, not chosen.no_munet)
    allow_many_files()
    where = machine()
    rows: list[Row] = []
    for name in chosen.cases or CASES:
        progress(name)
        rows += CASES[name](settings)
    print(f"{where}\n\n`python {' '.join(sys.argv)}`\n\n{table(rows)}")
    missed = [row.what for row in rows if row.met is False]
    print(f"\n{len(missed)} limits missed" + (f": {'; '.join(missed)}" if missed else ""))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
