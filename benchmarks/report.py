"""From results to a reader: tables for the terminal and the README, a document for programs."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import math
import sys
from typing import TYPE_CHECKING

from benchmarks.case import ABREAST

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.case import Case, Contender
    from benchmarks.measure import Result

HEAD = ("contender", "median", "quartiles", "ratio", "paired ratio", "note")


def about(case: Case) -> str:
    """Return what --list says of a case."""
    contenders = [
        f"{name}{' (reference)' * (name == case.reference)}{' (not installed)' * (not contender.installed)}"
        for name, contender in case.contenders.items()
    ]
    lines = [f"{case.name}: {case.description}", f"    {case.unit}; rounds: {case.rounds}; {' | '.join(contenders)}"]
    lines += [f"    cannot be measured here: {case.unavailable}"] if case.unavailable else []
    return "\n".join([*lines, f"    goal: {case.goal}"])


def line(machine: Mapping[str, object]) -> str:
    """Return the machine in one line."""
    gil = "with the GIL" if machine["gil"] else "without the GIL"
    cpus = f"{machine['usable_cpus']} of {machine['cpus']} cores"
    return f"{machine['python']} {gil}, {cpus}, {machine['kernel']}, {machine['date']}"


def show(result: Result) -> None:
    """Print the table of one case."""
    case, rows = result.case, table(result)
    title = f"{case.name}: {case.description}"
    below = [f"goal: {case.goal}: {verdict(result)}", *missing(result)]
    if sys.stdout.isatty() and importlib.util.find_spec("rich") is not None:
        show_rich(title, f"{case.unit}; rounds: {result.rounds}", rows, below)
    else:
        print(f"\n{title} [{case.unit}; rounds: {result.rounds}]")
        widths = [max(len(row[column]) for row in [HEAD, *rows]) for column in range(len(HEAD))]
        for row in [HEAD, *rows]:
            cells = [
                cell.rjust(width) if 0 < n < len(HEAD) - 1 else cell.ljust(width) for n, (cell, width) in columns(row, widths)
            ]
            print(("  " + "  ".join(cells)).rstrip())
        for text in below:
            print(f"  {text}")
    sys.stdout.flush()


def columns(row: Sequence[str], widths: Sequence[int]) -> list[tuple[int, tuple[str, int]]]:
    return list(enumerate(zip(row, widths, strict=True)))


def show_rich(title: str, unit: str, rows: list[tuple[str, ...]], below: list[str]) -> None:
    # By name, since rich may be missing where the types are checked.
    console = importlib.import_module("rich.console").Console()
    text = importlib.import_module("rich.text").Text  # plain text: rich would read [..] in ours as markup
    shown = importlib.import_module("rich.table").Table(title=text(title), caption=text(unit), title_justify="left")
    for n, name in enumerate(HEAD):
        shown.add_column(name, justify="right" if 0 < n < len(HEAD) - 1 else "left")
    for row in rows:
        shown.add_row(*map(text, row), style="bold" if row[0].startswith(ABREAST) else None)
    console.print()
    console.print(shown)
    for each in below:
        console.print(text(each))


def table(result: Result) -> list[tuple[str, ...]]:
    """Return one row of `HEAD` for each contender that was measured."""
    return [
        (
            name,
            number(result.median(name)),
            " to ".join(map(number, result.quartiles(name))),
            times(result.ratio(name)),
            times(result.paired_ratio(name)),
            "; ".join(filter(None, ["reference" * (name == result.case.reference), contender.note])),
        )
        for name, contender in result.case.contenders.items()
        if name in result.figures
    ]


def number(figure: float) -> str:
    """Return four digits of it, and all that stand before the point."""
    before = math.floor(math.log10(abs(figure))) + 1 if figure else 1
    return f"{figure:,.{min(max(4 - before, 0), 6)}f}"


def times(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.3f}"


def verdict(result: Result) -> str:
    reached = result.reached()
    return "not judged" if reached is None else "reached" if reached else "MISSED"


def missing(result: Result) -> list[str]:
    skipped = [f"skipped: {name}: {why}" for name, why in result.skipped.items()]
    return skipped + [f"FAILED: {name}: {why}" for name, why in result.failed.items()]


def markdown(results: Sequence[Result], machine: Mapping[str, object], *, quick: bool) -> str:
    """Return one table with a line per case and contender."""
    lines = [
        f"{line(machine)}{'; a quick run, figures of no weight' * quick}. Smaller is better; ratios are to the reference.",
        "",
        "| case | contender | median | quartiles | ratio | paired ratio | goal |",
        "| :--- | :--- | ---: | ---: | ---: | ---: | :--- |",
    ]
    for result in results:
        case = result.case
        label = f"{case.name}, {case.unit}"
        goal = f"{case.goal}: {verdict(result)}"
        for name, median, quartiles, ratio, paired, note in table(result):
            own = f"{name} ({note})" if note else name
            lines.append(f"| {label} | {own} | {median} | {quartiles} | {ratio} | {paired} | {goal * name.startswith(ABREAST)} |")
            goal = "" if name.startswith(ABREAST) else goal  # once
        lines += [f"| {label} | {name} | skipped: {why} | | | | |" for name, why in result.skipped.items()]
        lines += [f"| {label} | {name} | failed: {why} | | | | |" for name, why in result.failed.items()]
    return "\n".join(lines) + "\n"


def document(results: Sequence[Result], machine: Mapping[str, object], *, quick: bool) -> dict[str, object]:
    """Return everything, the raw figures too, for json.dump."""
    return {"machine": dict(machine), "quick": quick, "cases": [entry(result) for result in results]}


def entry(result: Result) -> dict[str, object]:
    case = result.case
    return {
        "name": case.name,
        "description": case.description,
        "unit": case.unit,
        "reference": case.reference,
        "goal": case.goal,
        "reached": result.reached(),
        "rounds": result.rounds,
        "contenders": [
            {
                "name": name,
                "version": version(name, case.contenders[name]),
                "note": case.contenders[name].note,
                "median": result.median(name),
                "quartiles": result.quartiles(name),
                "ratio": result.ratio(name),
                "paired_ratio": result.paired_ratio(name),
                "figures": figures,  # in the order of the rounds
            }
            for name, figures in result.figures.items()
        ],
        "skipped": result.skipped,
        "failed": result.failed,
    }


def version(name: str, contender: Contender) -> str | None:
    package = ABREAST if name.startswith(ABREAST) else contender.package
    try:
        return None if package is None else importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # abreast from a folder on the path, not installed
        return None
