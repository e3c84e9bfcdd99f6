"""The command line: find the cases, measure each, print its table, write the files."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from benchmarks import cases, machine, report
from benchmarks.measure import measure


def main() -> int:
    options = arguments()
    found = {case.name: case for case in cases.find(quick=options.quick)}
    unknown = [name for name in options.only if name not in found]
    if unknown:
        print(f"no such case: {', '.join(unknown)}; there are: {', '.join(found)}", file=sys.stderr)
        return 2
    chosen = [found[name] for name in options.only] or list(found.values())
    if options.list:
        for case in chosen:
            print(report.about(case))
        return 0
    described = machine.describe()
    print(report.line(described))
    results = []
    for case in chosen:
        results.append(measure(case, rounds=options.rounds or case.rounds))
        report.show(results[-1])
    if options.json:
        document = report.document(results, described, quick=options.quick)
        options.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    if options.markdown:
        options.markdown.write_text(report.markdown(results, described, quick=options.quick), encoding="utf-8")
    # A goal that is missed is no error: this machine may be busy. A contender that raises is one.
    return 1 if any(result.failed for result in results) else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure abreast side by side with its peers.")
    parser.add_argument("--quick", action="store_true", help="few rounds of small cases: does everything run?")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="only these cases, in this order")
    parser.add_argument("--rounds", type=at_least_one, metavar="N", help="rounds of every case (default: each its own)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures and the machine")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write a table for the README")
    parser.add_argument("--list", action="store_true", help="say what there is, and measure nothing")
    return parser.parse_args()


def at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


if __name__ == "__main__":
    sys.exit(main())
