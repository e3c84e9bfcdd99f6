"""The rules of trace files that viewers hold us to: `broken` says which ones a file does not keep, and where.

Each is one that Perfetto, chrome://tracing or VizTracer's viewer has shown an error for, or a wrong picture. Perfetto's way of reading numbers is imitated.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from decimal import Decimal
from itertools import pairwise

PHASES = {"X", "M", "C", "b", "e", "s", "f"}
CATEGORIES = {
    "task", "compute", "wait.sleep", "wait.lock", "wait.io", "wait.gil", "wait.cpu", "join", "queue", "idle", "submit",
}  # fmt: skip
NAMES_OF_M = {"process_name", "process_labels", "process_sort_index", "thread_name", "thread_sort_index"}


class Number(str):
    """A number as it stands in the file."""


def events_of(text):
    """The events of a file, numbers with a point as `Number`."""
    return json.loads(text, parse_float=Number)["traceEvents"]


def exact(number):
    """Nanoseconds of what stands in the file."""
    return int(Decimal(number) * 1000)


def seen(number):
    """Nanoseconds as Perfetto computes them."""
    return int(float(number) * 1000.0)


def broken(text):
    """Return the rules that a trace file breaks, a line each; none, if all is well."""
    return list(_broken(text))


def _broken(text):
    if re.search(r"[^\n\x20-\x7e]", text):
        yield "a character that is not printable ASCII: Perfetto ends at control characters, DEL among them"
    whole = json.loads(text, parse_float=Number)
    if next(iter(whole)) != "otherData" or whole["displayTimeUnit"] != "ms":
        yield "the head is not what it should be"
    missing = {"producer", "format", "clock", "epoch_ns", "host", "totals", "dropped", "dropped_spans"} - set(whole["otherData"])
    if missing:
        yield f"otherData lacks {missing}"
    events = whole["traceEvents"]
    slices = defaultdict(list)
    for event in events:
        yield from _broken_event(event)
        if event["ph"] == "X":
            slices[event["pid"], event["tid"]].append(event)
    tids = defaultdict(set)
    for pid, tid in slices:
        tids[tid].add(pid)
    for tid, pids in tids.items():
        if len(pids) != 1:
            yield f"tid {tid} is of several processes: {pids}"
    named = {(event["pid"], event["tid"]) for event in events if event["name"] == "thread_name"}
    for track in slices.keys() - named:
        yield f"track {track} has no name"
    for track, found in slices.items():
        for read in (exact, seen):
            yield from _crossing(track, found, read)
        submits = sorted(
            (exact(event["ts"]), exact(event["ts"]) + exact(event["dur"])) for event in found if event["cat"] == "submit"
        )
        if any(one[1] > other[0] for one, other in pairwise(submits)):
            yield f"submits overlap on {track}"
    yield from _broken_flows(events, slices)
    yield from _broken_asyncs(events)
    counters = defaultdict(list)
    for event in events:
        if event["ph"] == "C":
            counters[event["pid"], event["name"]].append(exact(event["ts"]))
    for counter, times in counters.items():
        if times != sorted(set(times)):
            yield f"the times of {counter} do not grow"


def _broken_event(event):
    if event["ph"] not in PHASES:
        yield f"phase of {event}"
    for name in ("pid", "tid"):
        if name in event and (type(event[name]) is not int or not 0 <= event[name] < 2**32):
            yield f"{name} of {event}"
    if "pid" not in event or ("tid" not in event and event["ph"] not in "MC"):
        yield f"no pid or tid: {event}"
    if any(type(value) is list for value in event.values()):
        yield f"an array, which Perfetto refuses: {event}"
    if type(event["name"]) is not str or not event["name"]:
        yield f"name of {event}"
    if event["ph"] == "M":
        if "ts" in event:
            yield f"M with ts: {event}"
        if event["name"] not in NAMES_OF_M:
            yield f"name of {event}"
        return
    for name in ("ts", "dur") if event["ph"] == "X" else ("ts",):
        if not isinstance(event[name], Number) or not re.fullmatch(r"\d+\.\d{3}1?", event[name]):
            yield f"{name} of {event}"
        elif seen(event[name]) != exact(event[name]):
            yield f"Perfetto reads {name} as {seen(event[name])}: {event}"
    if event["ph"] in "Xbesf" and event["cat"] not in CATEGORIES:
        yield f"cat of {event}"
    if event["ph"] == "C" and not all(float(value) >= 0 for value in event["args"].values()):
        yield f"a counter below 0: {event}"


def _crossing(track, found, read):
    """As Perfetto does: slices by their beginning, in the file's order if that is the same; each must end within what is open."""
    open_ones = []
    for event in sorted(found, key=lambda event: read(event["ts"])):
        begin = read(event["ts"])
        end = begin + read(event["dur"])
        while open_ones and open_ones[-1][0] <= begin:
            open_ones.pop()
        if open_ones and end > open_ones[-1][0]:
            yield f"{read.__name__}: on {track} {event} outlives {open_ones[-1][1]}"
        open_ones.append((end, event))


def _broken_flows(events, slices):
    flows = defaultdict(list)
    for event in events:
        if event["ph"] in "sf":
            flows[event["id"]].append(event)
    for number, pair in flows.items():
        if sorted(event["ph"] for event in pair) != ["f", "s"]:
            yield f"flow {number} is {pair}"
            continue
        first, last = sorted(pair, key=lambda event: event["ph"], reverse=True)
        if (first["name"], first["cat"]) != (last["name"], last["cat"]) or last.get("bp") != "e":
            yield f"flow {number} does not fit: {pair}"
        if exact(first["ts"]) >= exact(last["ts"]):
            yield f"flow {number} goes back"
        for event, category in ((first, "submit"), (last, "task")):
            at = exact(event["ts"])
            around = [
                one for one in slices[event["pid"], event["tid"]]
                if one["cat"] == category and exact(one["ts"]) < at < exact(one["ts"]) + exact(one["dur"])
            ]  # fmt: skip
            if not around:
                yield f"{event} is not strictly inside a {category}"


def _broken_asyncs(events):
    pairs = defaultdict(list)
    for event in events:
        if event["ph"] in "be":
            pairs[event["pid"], event["cat"], event["name"], event["id2"]["local"]].append(event)
    for key, pair in pairs.items():
        if [event["ph"] for event in pair] != ["b", "e"]:
            yield f"async {key} is {[event['ph'] for event in pair]}"
        elif exact(pair[0]["ts"]) > exact(pair[1]["ts"]):
            yield f"async {key} ends before it begins"
        if type(key[3]) is not str:
            yield f"id2 of {key}"
