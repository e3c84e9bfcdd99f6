"""`PoolCore`: thousands of simulated runs (sim.py), and single cases told step by step."""

from __future__ import annotations

import itertools
import math
import sys
import types

import pytest
from abreast.executors.process import core as module
from abreast.executors.process.core import (
    BEGIN_TIMES,
    BOOT_TIMES,
    Crashed,
    Died,
    Limits,
    Phase,
    PoolCore,
    ProtocolError,
    TimedOut,
    Worker,
    ended_by,
)

from tests.executors.process import sim

# ---- simulated runs


def play_all(seeds, core=module):
    """Run these seeds; tell of the first that fails, so that it can be played again."""
    for seed in seeds:
        try:
            sim.play(seed, core)
        except Exception as error:
            raise AssertionError(f"seed {seed}: {error}\n{sim.told(seed, core)}") from error


@pytest.mark.whole
@pytest.mark.parametrize("first", range(0, 600, 150))
def test_a_simulated_pool_keeps_its_promises(first):
    play_all(range(first, first + 150))


@pytest.mark.slow
@pytest.mark.parametrize("first", range(600, 100_600, 5000))
def test_many_simulated_pools_keep_their_promises(first):
    play_all(range(first, first + 5000))


def test_a_seed_is_the_same_run_each_time():
    assert sim.told(7) == sim.told(7)


MISTAKES = [
    (
        "no second look",
        "elif worker.over_limit != seq:",
        "elif worker.over_limit != seq and not setattr(worker, 'over_limit', seq) and False:",
    ),
    ("calls kept by a worker that is gone", "        worker.calls = deque()\n        if calls:", "        if calls:"),
    (
        "calls kept by a worker of a broken pool",
        "            worker.calls = deque()\n            if worker.state != Worker.DYING:",
        "            if worker.state != Worker.DYING:",
    ),
    (
        "one place too many handed back at a death",
        "                self._hand_back(sent, ran, lost)",
        "                sent.done = max(0, sent.done - 1)\n                self._hand_back(sent, ran, lost)",
    ),
    (
        "the time box hands back one too few",
        "        self._hand_back(sent)\n        self._end_of_call",
        "        sent.done += 1\n        self._hand_back(sent)\n        self._end_of_call",
    ),
    (
        "not retired at the end of a call",
        "            worker.due = _NEVER\n        self._retire_if_idle(worker, now)\n\n    def _retire",
        "            worker.due = _NEVER\n\n    def _retire",
    ),
    (
        "not retired at close",
        "            for worker in list(self.workers.values()):\n                self._retire_if_idle(worker, now)",
        "            pass",
    ),
    (
        "not retired when it wants to leave",
        "            worker.left = 0\n            self._retire_if_idle(worker, now)",
        "            worker.left = 0",
    ),
    (
        "the culprit goes again",
        "            if first <= begun < sent.first + sent.size:\n                self._lose(worker, sent, begun, died, now)\n                sent.done += not ran\n",
        "",
    ),
    (
        "the next one is blamed too",
        "                sent.done += not ran\n",
        "                sent.done += not ran\n                if begun + 1 < sent.first + sent.size and not ran:\n                    self._lose(worker, sent, begun + 1, died, now)\n                    sent.done += 1\n",
    ),
    ("blamed for what it has sent", "        worker.last = seq + count - 1\n", ""),
    ("handed back in the wrong order", "in reversed(rest):", "in rest:"),
    (
        "handed back to the end of the queue",
        "self.pending.appendleft(_again(sent.call))",
        "self.pending.append(_again(sent.call))",
    ),
    (
        "handed back to whoever sent it, though it resends",
        "elif sent.call.resends and sent.call.size == 1 and",
        "elif sent.call.resends and sent.call.size == 2 and",
    ),
    (
        "a started call is asked again whether it is wanted",
        "self.pending.appendleft(_again(sent.call))",
        "self.pending.appendleft(getattr(sent.call, 'call', sent.call))",
    ),
    (
        "limits told as crashes",
        "if worker.ending == Worker.KILLED and worker.over_limit == seq and not worker.abandoned:",
        "if False:",
    ),
    (
        "crashes told as limits",
        "if worker.ending == Worker.KILLED and worker.over_limit == seq and not worker.abandoned:",
        "if sent.call.limit is not None:",
    ),
    (
        "no timer for the second call",
        "        if not worker.ending and not worker.calls:  # else",
        "        if not worker.ending:  # else",
    ),
    ("no timer when a call is sent", "            worker.due = min(worker.due, now + call.limit)\n", "            pass\n"),
    ("limits count from the sending", "        return start + (limit if", "        return 0.0 * start + (limit if"),
    (
        "a task being written is over its limit",
        "return worker.at(seq) if phase in Phase.AT_WORK else None",
        "return worker.at(seq) if phase in (*Phase.AT_WORK, Phase.WRITE) else None",
    ),
    (
        "a task that has ended is over its limit",
        "            if sent.first + sent.done <= seq < sent.first + sent.size:\n                return sent",
        "            if sent.first <= seq < sent.first + sent.size:\n                return sent",
    ),
    (
        "a stopped worker stays stopped",
        "            self._effects.append(Continue(worker))\n        worker.ending = worker.over_limit = worker.memory = 0",
        "            pass\n        worker.ending = worker.over_limit = worker.memory = 0",
    ),
    ("suspicion outlives the call", "        if worker.ending == Worker.SUSPECTED:\n            worker.ending = 0\n", ""),
    (
        "a worker that cannot be killed is waited for",
        "            worker.due = now\n            self._effects.append(Look(worker))",
        "            pass",
    ),
    (
        "one that retires and does not end is waited for",
        "worker.state = Worker.RETIRING\n            worker.due = now + self.limits.retire",
        "worker.state = Worker.RETIRING",
    ),
    (
        "one that does not start is waited for",
        "Worker(self._numbers, self.max_tasks_per_child, now + self.limits.boot)",
        "Worker(self._numbers, self.max_tasks_per_child, _NEVER)",
    ),
    (
        "boots that fail are tried for ever",
        "if final or (self._boot_failures >= BOOT_TIMES and not self._has_able_worker()):",
        "if final:",
    ),
    ("boot failures are counted over the whole life", "            self._boot_failures = 0\n", ""),
    (
        "a failed boot is not replaced",
        "            self._spawn_from = now + pause\n        self._dispatch(now)\n\n    def _has_able",
        "            self._spawn_from = now + pause\n\n    def _has_able",
    ),
    (
        "a dead worker is not replaced",
        "                self._spawn_from = now + pause\n        self._dispatch(now)",
        "                self._spawn_from = now + pause",
    ),
    (
        "the pause before a start has no timer",
        "return min(due, self._spawn_from) if self._spawn_from and self.pending else due",
        "return due",
    ),
    (
        "nothing is sent when a worker is ready",
        "            self._boot_failures = 0\n            self._dispatch(now)",
        "            self._boot_failures = 0",
    ),
    ("nothing is sent at the end of a call", "        if dispatch:\n            self._dispatch(now)", "        pass"),
    (
        "nothing is sent after the time box",
        "        self._end_of_call(worker, now)\n        self._dispatch(now)\n        return",
        "        self._end_of_call(worker, now)\n        return",
    ),
    ("too many workers", "min(self.max_workers - self._live(),", "min(self.max_workers + 1 - self._live(),"),
    ("too few workers", "coming < len(self.pending) and room > 0", "coming < len(self.pending) - 1 and room > 0"),
    (
        "tasks over max_tasks_per_child",
        "if worker.state != Worker.READY or worker.left == 0 or worker.ending or worker.lent:",
        "if worker.state != Worker.READY or worker.ending or worker.lent:",
    ),
    (
        "sent to a worker that is stopped",
        "if worker.state != Worker.READY or worker.left == 0 or worker.ending or worker.lent:",
        "if worker.state != Worker.READY or worker.left == 0 or worker.lent:",
    ),
    (
        "sent to one that retires",
        "if worker.state != Worker.READY or worker.left == 0 or worker.ending or worker.lent:",
        "if worker.state not in (Worker.READY, Worker.RETIRING) or worker.left == 0 or worker.ending or worker.lent:",
    ),
    ("a cancelled call is sent", "            if not call.claim():\n                continue\n", "            call.claim()\n"),
    (
        "retired with work to do",
        "return self.closed and not self.pending and not self.more_may_come\n\n    def _hand",
        "return self.closed\n\n    def _hand",
    ),
    ("numbers of tasks overlap", "worker.sent += call.size", "worker.sent += 1"),
    (
        "a broken pool accepts calls",
        "        if self.broken is not None:\n            self._effects.append(Over(call, 0, self.broken))\n        else:",
        "        if True:",
    ),
    (
        "a broken pool forgets what waits",
        "            self._effects.append(Over(call, 0, why))\n        for worker",
        "            pass\n        for worker",
    ),
    (
        "a broken pool forgets what runs",
        "                self._effects.append(Over(sent.call, sent.done, why))",
        "                pass",
    ),
    (
        "was: nothing is sent after a suspicion",
        "        self._dispatch(now)  # its calls may have ended while it was looked at, and it could not get others\n",
        "",
    ),
    (
        "was: a boot that fails is gone before its process",
        "        if worker.handle is None:\n            self._gone(worker)\n        else:",
        "        self._gone(worker)\n        if worker.handle:\n            self._effects.append(Kill(worker))\n        if False:",
    ),
    (
        "was: outcomes after kill() are protocol errors",
        "        if worker.state == Worker.GONE or self.broken is not None:\n            return []  #",
        "        if worker.state == Worker.GONE:\n            return []  #",
    ),
    (
        "was: what kills workers before it begins goes again for ever",
        "        if call.deaths >= BEGIN_TIMES:",
        "        if False:",
    ),
    (
        "was: one that cannot be killed is judged without its page",
        "self._bury(worker, Died(phase=phase, seq=seq, start=start, hint=hint), now)",
        "self._bury(worker, Died(seq=worker.over_limit or worker.last + 1, hint=hint), now)",
    ),
    (
        "was: one that was stopped is killed for the next task",
        "        elif worker.over_limit != seq:\n            if worker.ending",
        "        elif worker.over_limit != seq and worker.ending != Worker.STOPPED:\n            if worker.ending",
    ),
    ("what ran unseen is not told", "Over(sent.call, sent.done, self.broken, ran))", "Over(sent.call, sent.done, self.broken))"),
    (
        "what ran is counted into the next call",
        "ran = max(0, min(begun, sent.first + sent.size) - first)",
        "ran = max(0, begun - first)",
    ),
    (
        "one too many ran",
        "ran = max(0, min(begun, sent.first + sent.size) - first)",
        "ran = max(0, min(begun + 1, sent.first + sent.size) - first)",
    ),
    ("runs again although the pipe was lost", "if ran and (worker.lost or sent.call.each):", "if ran and sent.call.each:"),
    ("what ran unseen is lost", "if ran and (worker.lost or sent.call.each):", "if ran:"),
    (
        "one of those whose outcomes are sent each goes again",
        "for seq in range(first, first + ran):",
        "for seq in range(first, first + ran - 1):",
    ),
    (
        "one that is lost behind others counts as the first",
        "                sent.done += not ran\n",
        "                sent.done += 1\n",
    ),
    (
        "the lost one of a pack goes again",
        "                if place != lost:\n                    self.pending",
        "                if True:\n                    self.pending",
    ),
    (
        "the first of a pack goes again only if it is lost",
        "range(sent.size - 1, sent.done - 1, -1)",
        "range(sent.size - 1, sent.done, -1)",
    ),
    ("what has ended of a pack goes again", "range(sent.size - 1, sent.done - 1, -1)", "range(sent.size - 1, -1, -1)"),
    ("a pack goes again in the wrong order", "range(sent.size - 1, sent.done - 1, -1)", "range(sent.done, sent.size)"),
    ("a pack goes again whole", "if sent.call.parts and self.broken is None:", "if False:"),
    (
        "outcomes go to the wrong ones of the next call",
        "Resolve(sent.call, sent.done, what, taken, some)",
        "Resolve(sent.call, sent.done, what, 0, some)",
    ),
    (
        "a frame of outcomes is all of the first call",
        "some = min(count - taken, sent.size - sent.done)",
        "some = count - taken",
    ),
    (
        "only the first of several outcomes counts as come",
        "        worker.last = seq + count - 1\n",
        "        worker.last = seq\n",
    ),
    (
        "only the first call is looked at",
        "return worker.at(seq) if phase in Phase.AT_WORK else None",
        "return worker.calls[0] if phase in Phase.AT_WORK and worker.at(seq) else None",
    ),
    (
        "a later call is not looked at",
        "return worker.at(seq) if phase in Phase.AT_WORK else None",
        "return worker.calls[0] if phase in Phase.AT_WORK and worker.at(seq) is worker.calls[0] else None",
    ),
    (
        "the next look is for the first call's limit",
        "min((sent.call.limit for sent in self.calls if",
        "min((sent.call.limit for sent in list(self.calls)[:1] if",
    ),
    ("the next look is for the last limit", "return now + min((sent.call.limit for", "return now + max((sent.call.limit for"),
    ("others are packed too", ".packs and call.goes_with(following):", ".packs:"),
    (
        "what was cancelled is packed",
        "            if following.claim():\n                parts.append(following)\n",
        "            following.claim()\n            parts.append(following)\n",
    ),
    ("what is packed is forgotten", "return call.pack(parts) if len(parts) > 1 else call", "return call"),
    ("packs are too heavy", "            if weight > limits.heaviest:\n                break\n", ""),
    ("packs are too large", ", limits.most_packed)", ")"),
    (
        "several that are submitted are not sent",
        "            self.pending += calls\n            self._dispatch(now)\n",
        "            self.pending += calls\n",
    ),
    (
        "a call behind is not told that it is halted",
        "        if worker.calls and worker.calls[0].halted:\n            self._effects.append(Halt(worker, worker.calls[0].first))\n",
        "",
    ),
    (
        "was: one that was stopped for another task is looked at too late",
        "            self._judge(worker, seq, start, phase, now)\n        return self._take_effects()\n\n    def exited",
        "            if seq == worker.over_limit and _task_at(worker, seq, phase):\n                self._judge(worker, seq, start, phase, now)\n            else:\n                self._let_go_on(worker, now)\n        return self._take_effects()\n\n    def exited",
    ),
    (
        "no last look",
        "            self._judge(worker, seq, start, phase, now)\n        return self._take_effects()\n\n    def exited",
        "            self._kill(worker, now)\n        return self._take_effects()\n\n    def exited",
    ),
]
"""What is there, and what is put in its place. Those that were defects once begin with "was"."""


def mutant(old, new):
    """Return core.py with a mistake in it, as a module."""
    with open(module.__file__) as file:
        source = file.read()
    assert source.count(old) == 1, f"core.py has changed: this is in it {source.count(old)} times: {old!r}"
    made = types.ModuleType("core_with_a_mistake")
    made.__file__ = module.__file__
    exec(compile(source.replace(old, new), "core_with_a_mistake", "exec"), made.__dict__)
    return made


@pytest.mark.slow
@pytest.mark.parametrize(("old", "new"), [pytest.param(old, new, id=name) for name, old, new in MISTAKES])
def test_the_simulator_finds_a_mistake(old, new, monkeypatch):
    monkeypatch.setitem(sys.modules, "core_with_a_mistake", core := mutant(old, new))
    for seed in range(2000):
        try:
            sim.play(seed, core)
        except Exception:
            return
    pytest.fail("not found in 2,000 seeds")


# ---- single cases


class Call:
    """A call of one task goes again by itself, a batch is handed back."""

    def __init__(self, name, size=1, limit=None, resends=None, *, each=False, packs=False, function=None, weight=1):
        self.name, self.size, self.limit, self.wanted = name, size, limit, True
        self.resends = size == 1 if resends is None else resends
        self.each, self.packs, self.function, self.weight = each, packs, function, weight
        self.parts = ()
        self.deaths = 0

    def claim(self):
        return self.wanted

    def goes_with(self, other):
        return self.function == other.function and self.limit == other.limit

    def shorten(self, place):
        self.parts = self.parts[:place]
        self.size = place

    def pack(self, parts):
        made = Call("".join(part.name for part in parts), len(parts), self.limit, True, each=self.each, function=self.function)
        made.parts = parts
        return made


class Pool:
    """A core and a clock; effects are told in words, those of the supervisor that answer at once are left to the case."""

    def __init__(self, max_workers=1, *, max_tasks_per_child=None, max_memory=None, **limits):
        limits = {"patience": math.inf} | limits
        self.core = PoolCore(max_workers, max_tasks_per_child=max_tasks_per_child, max_memory=max_memory, limits=Limits(**limits))
        self.now = 100.0
        self.w = {}  # workers by number

    def __getattr__(self, name):
        method = getattr(self.core, name)

        def call(of, *args, **more):
            return self.tell(method(self.w[of] if isinstance(of, int) else of, *args, self.now, **more))

        return call

    def tick(self):
        return self.tell(self.core.tick(self.now))

    def close(self):
        return self.tell(self.core.close(self.now))

    def later(self, seconds):
        """Let time pass, and do what is due."""
        self.now += seconds
        return self.tick()

    def done(self, worker, seq, what="x", seconds=1.0, count=1):
        return self.tell(self.core.record(self.w[worker], seq, what, seconds, self.now, count=count))

    def dies(self, worker, seq=0, phase=Phase.RUN, status=-9, start=None):
        return self.exited(worker, Died(status, phase, seq, self.now if start is None else start))

    def tell(self, effects):
        return [self.word(effect) for effect in effects]

    def word(self, effect):
        kind = type(effect).__name__.lower()
        if kind == "spawn":
            self.w[effect.worker.number] = effect.worker
            effect.worker.handle = "a process"
        if kind in ("resolve", "over", "send", "back"):
            name = getattr(effect.call, "call", effect.call).name
        if kind == "resolve":
            what = effect.what if isinstance(effect.what, str) else type(effect.what).__name__
            self.what = effect.what
            last = f":{effect.place + effect.number}" if effect.number > 1 else ""
            return f"{name}[{effect.place}{last}] {what}" + (f" from {effect.offset}" if effect.offset else "")
        if kind == "over":
            ran = f", {effect.ran} ran" if effect.ran else ""
            return f"{name} over at {effect.place}{ran}" + (f": {effect.why}" if effect.why else "")
        if kind == "send":
            return f"send {effect.worker.number} {name} as {effect.first}" + (f", {effect.most} of it" if effect.most else "")
        if kind == "back":
            return f"{name} back from {effect.place}"
        if kind == "ask":
            return f"ask {effect.worker.number}" + (f" for all up to {effect.last}" if effect.last else "")
        if kind in ("broken", "warn"):
            return f"{kind}: {effect.why if kind == 'broken' else effect.text}"
        return f"{kind} {effect.worker.number}"


def started(count=1, **more):
    """Return a pool whose workers are ready, and the calls that they are busy with: a, b, …; each of one task."""
    pool = Pool(count, **more)
    calls = [Call("abcdefgh"[i]) for i in range(count)]
    for call in calls:
        pool.submit(call)
    for number in range(1, count + 1):
        pool.ready(number)
    return pool


def idle(count=1, **more):
    pool = started(count, **more)
    for number in range(1, count + 1):
        pool.done(number, 1)
    return pool


def over_limit(limit=10.0, size=1, **limits):
    """Return a pool of one worker that has been told to write down the stack of its task 1, call a."""
    pool = Pool(**limits)
    pool.submit(Call("a", size, limit))
    pool.ready(1)
    assert pool.later(limit) == ["look 1"]
    assert pool.page(1, 1, 100.0, Phase.RUN) == []
    assert pool.later(0.001) == ["look 1"]
    assert pool.page(1, 1, 100.0, Phase.RUN) == ["dumpstack 1"]
    return pool


def stopped(**more):
    pool = over_limit(**more)
    assert pool.later(0.02) == ["stop 1"]
    return pool


class TestSending:
    def test_a_task_goes_to_a_worker_and_comes_back(self):
        pool = Pool(2)
        assert pool.submit(Call("a")) == ["spawn 1"]
        assert pool.ready(1) == ["send 1 a as 1"]
        assert pool.done(1, 1) == ["a[0] x", "a over at 1"]
        assert pool.submit(Call("b", 2)) == ["send 1 b as 2"]
        assert pool.done(1, 2, "y") == ["b[0] y"]
        assert pool.done(1, 3, "z") == ["b[1] z", "b over at 2"]

    def test_no_more_workers_than_calls_and_than_allowed(self):
        pool = Pool(3)
        assert pool.submit(Call("a")) == ["spawn 1"]
        assert pool.submit(Call("b")) == ["spawn 2"]
        assert pool.submit(Call("c")) == ["spawn 3"]
        assert pool.submit(Call("d")) == []

    def test_a_long_task_has_nothing_behind_it(self):
        pool = started()
        pool.submit(Call("b"))
        pool.submit(Call("c"))
        assert pool.done(1, 1, seconds=1.0) == ["a[0] x", "a over at 1", "send 1 b as 2"]

    def test_short_tasks_are_sent_ahead(self):
        pool = started()
        for name in "bcdefghijklm":
            pool.submit(Call(name))
        sent = pool.done(1, 1, seconds=1e-5)
        assert [word for word in sent if word.startswith("send")] == [
            "send 1 b as 2",
            "send 1 c as 3",
            "send 1 d as 4",
            "send 1 e as 5",
        ]

    def test_nothing_waits_behind_another_call_while_a_worker_may_be_started(self):
        pool = Pool(2)
        pool.submit(Call("a"))
        pool.ready(1)
        pool.done(1, 1, seconds=1e-5)  # short, so calls would be sent ahead
        assert pool.submit(Call("b")) == ["send 1 b as 2"]
        assert pool.submit(Call("c")) == ["spawn 2"]  # b may be long, who knows
        assert pool.submit(Call("d")) == ["send 1 c as 3"]

    def test_a_cancelled_call_is_not_sent(self):
        pool = started()
        b, c, d = Call("b"), Call("c"), Call("d")
        for call in (b, c, d):
            pool.submit(call)
        assert pool.core.cancel(c)
        b.wanted = False  # its message is still on the way
        assert pool.done(1, 1) == ["a[0] x", "a over at 1", "send 1 d as 2"]
        assert not pool.core.cancel(b)

    def test_the_rest_after_a_time_box_goes_to_whoever_sent_it(self):
        pool = Pool()
        pool.submit(Call("a", 5, resends=False))
        pool.ready(1)
        pool.done(1, 1)
        pool.submit(Call("b"))
        for seq in (1, 3, 6):
            with pytest.raises(ProtocolError, match=f"ended a call at task {seq}, which is not due"):
                pool.over(1, seq)
        assert pool.over(1, 2) == ["a over at 1", "send 1 b as 6"]

    def test_no_more_tasks_than_a_worker_may_run(self):
        pool = Pool(max_tasks_per_child=3)
        pool.submit(Call("a", 2))
        pool.ready(1)
        pool.submit(Call("b", 5, resends=False))
        pool.done(1, 1)
        assert pool.done(1, 2) == ["a[1] x", "a over at 2", "send 1 b as 3, 1 of it"]
        pool.submit(Call("c"))
        assert pool.done(1, 3) == ["b[0] x"]
        assert pool.over(1, 4) == ["b over at 1", "retire 1"]

    def test_the_replacement_waits_for_the_last_task_of_the_one_before(self):
        pool = started(max_tasks_per_child=1)
        assert pool.submit(Call("b")) == ["spawn 2"]  # while the last task runs
        assert pool.ready(2) == []
        assert pool.done(1, 1) == ["a[0] x", "a over at 1", "retire 1", "send 2 b as 1"]

    def test_those_that_take_long_to_end_are_not_let_to_pile_up(self):
        pool = started(max_tasks_per_child=1)
        pool.submit(Call("b"))
        pool.ready(2)
        pool.done(1, 1)
        pool.submit(Call("c"))
        assert pool.done(2, 1) == ["b[0] x", "b over at 1", "retire 2"]
        assert len(pool.core.workers) == 2
        assert pool.exited(1, Died(0, Phase.EXIT, 1)) == ["spawn 3"]

    def test_nothing_is_sent_ahead_to_one_that_is_at_its_task_for_long(self):
        pool = idle(2)
        pool.core.mean = 1e-4
        pool.submit(Call("long"))
        pool.submit(Call("y"))
        pool.now += 1.0
        pool.done(2, 2, seconds=1e-4)
        assert pool.submit(Call("z")) == ["send 2 z as 3"]
        assert pool.submit(Call("z")) == ["send 2 z as 4"]
        assert pool.submit(Call("z")) == []

    @pytest.mark.parametrize("seconds", [math.nan, math.inf, -1.0])
    def test_a_time_that_cannot_be_is_not_believed(self, seconds):
        pool = started()
        with pytest.raises(ProtocolError, match="says that task 1 took"):
            pool.done(1, 1, seconds=seconds)
        assert pool.lost(1) == ["kill 1"]

    @pytest.mark.parametrize("seq", [0, 2, 1 << 63])
    def test_an_outcome_that_is_not_due_is_not_believed(self, seq):
        with pytest.raises(ProtocolError, match="which are not due"):
            started().done(1, seq)

    def test_an_outcome_or_an_end_without_a_call_is_not_believed(self):
        with pytest.raises(ProtocolError, match="which are not due"):
            idle().done(1, 2)
        with pytest.raises(ProtocolError, match="does not have"):
            idle().over(1, 2)


class TestTurnover:
    def test_a_worker_ends_after_its_share_and_its_replacement_starts_when_the_last_call_is_sent(self):
        pool = started(max_tasks_per_child=2)
        assert pool.submit(Call("b")) == []
        assert pool.submit(Call("c")) == []
        assert pool.done(1, 1) == ["a[0] x", "a over at 1", "send 1 b as 2", "spawn 2"]
        assert pool.done(1, 2) == ["b[0] x", "b over at 1", "retire 1"]
        assert pool.ready(2) == ["send 2 c as 1"]
        assert pool.exited(1, Died(0)) == []
        assert pool.done(2, 1) == ["c[0] x", "c over at 1"]

    def test_tasks_that_it_gives_back_are_none_of_its_share(self):
        """Else each batch of which something is given back would cost a worker."""
        pool = idle(2, max_tasks_per_child=11)
        pool.submit(Call("b", 10))
        assert pool.w[1].left == 0
        pool.returned(1, 5, 11)
        assert pool.w[1].left == 7
        pool.done(1, 2, count=3)
        assert pool.w[1].state == Worker.READY

    def test_but_if_another_one_is_starting_in_its_place_it_ends(self):
        pool = idle(1, max_tasks_per_child=11)
        pool.submit(Call("b", 10))
        assert pool.submit(Call("c")) == ["spawn 2"]
        pool.returned(1, 5, 11)
        assert pool.w[1].left == 0
        assert pool.done(1, 2, count=3)[-1] == "retire 1"

    def test_what_it_hands_back_at_the_end_of_a_batch_is_none_of_its_share(self):
        pool = idle(1, max_tasks_per_child=11)
        pool.submit(Call("b", 10))
        pool.done(1, 2)
        pool.over(1, 3)
        assert pool.w[1].left == 9

    def test_its_last_task_crashes(self):
        pool = started(max_tasks_per_child=1)
        pool.submit(Call("b"))
        assert pool.dies(1, 1) == ["a[0] Crashed", "a over at 1"]
        assert pool.ready(2) == ["send 2 b as 1"]

    def test_a_worker_that_wants_to_leave_ends_after_what_it_has(self):
        pool = started()
        pool.submit(Call("b"))
        assert pool.retire(1) == ["spawn 2"]
        assert pool.done(1, 1) == ["a[0] x", "a over at 1", "retire 1"]

    def test_one_that_retires_and_does_not_end_is_killed(self):
        pool = idle()
        assert pool.close() == ["retire 1"]
        assert pool.later(4.9) == []
        assert pool.later(0.1) == ["kill 1"]
        assert not pool.core.is_over()
        assert pool.exited(1, Died(-9, Phase.EXIT, 1)) == []
        assert pool.core.is_over()


class TestDeath:
    def test_the_task_that_ran_is_the_one_that_crashed(self):
        pool = Pool()
        pool.submit(Call("a", 5, resends=False))
        pool.ready(1)
        pool.done(1, 1)
        pool.now += 7
        assert pool.dies(1, 2, start=101.0) == ["a[1] Crashed", "a over at 2"]
        assert isinstance(pool.what, Crashed)
        assert pool.what.after == 6.0
        assert pool.what.died.phase == Phase.RUN

    @pytest.mark.parametrize("place", [0, 2, 4])
    def test_first_middle_and_last_of_a_batch(self, place):
        pool = Pool()
        pool.submit(Call("a", 5))
        pool.ready(1)
        for seq in range(1, place + 1):
            pool.done(1, seq)
        assert pool.dies(1, place + 1) == [f"a[{place}] Crashed", f"a over at {place + 1}"]

    def test_nobody_is_to_blame_if_the_outcome_has_come(self):
        pool = started()
        pool.submit(Call("b"))
        pool.done(1, 1, seconds=1e-5)
        pool.submit(Call("c"))
        assert [sent.call.name for sent in pool.w[1].calls] == ["b", "c"]
        assert pool.done(1, 2) == ["b[0] x", "b over at 1"]
        assert pool.dies(1, 2, Phase.WRITE) == ["spawn 2"]
        assert pool.ready(2) == ["send 2 c as 1"]

    def test_what_has_not_begun_goes_again_first_and_in_order(self):
        pool = started()
        for name in "bcdefghijkl":
            pool.submit(Call(name))
        pool.done(1, 1, seconds=1e-5)
        assert [sent.call.name for sent in pool.w[1].calls] == list("bcde")
        assert pool.dies(1, 2) == ["b[0] Crashed", "b over at 1", "spawn 2"]
        assert pool.ready(2)[:3] == ["send 2 c as 1", "send 2 d as 2", "send 2 e as 3"]

    def test_what_has_not_begun_goes_to_the_run_that_sent_it(self):
        pool = Pool()
        pool.submit(Call("a", 3, resends=False))
        pool.ready(1)
        assert pool.dies(1, 0, Phase.IDLE) == ["a over at 0"]

    def test_a_death_between_two_stores_of_the_page_blames_nobody(self):
        pool = Pool()
        pool.submit(Call("a", 3))
        pool.ready(1)
        pool.done(1, 1)
        assert pool.dies(1, 1, Phase.DECODE) == ["a over at 1"]  # the phase is the next task's, the number the last one's

    def test_outcomes_that_were_lost_are_not_run_again(self):
        # The pipe was closed, or not to be believed: the page says how far the worker went on, and others may have seen what it did.
        pool = started()
        for name in "bcdefghijkl":
            pool.submit(Call(name))
        pool.done(1, 1, seconds=1e-5)
        assert pool.lost(1) == ["kill 1"]
        told = pool.dies(1, 4, Phase.IDLE)
        assert told == ["b[0] Crashed", "c[0] Crashed", "d[0] Crashed", "d over at 1", "c over at 1", "b over at 1", "spawn 2"]
        assert pool.ready(2)[0] == "send 2 e as 1"

    @pytest.mark.parametrize("seq", [0, 3, 1 << 40, (1 << 64) - 1])
    @pytest.mark.parametrize("phase", range(7))
    def test_whoever_scribbles_on_the_page_is_not_run_again(self, seq, phase):
        pool = Pool()
        pool.submit(Call("a", 2))
        pool.ready(1)
        pool.done(1, 1)
        assert pool.dies(1, seq, phase) == ["a[1] Crashed", "a over at 2"]

    def test_a_call_that_kills_workers_before_they_begin_it_is_given_up(self):
        pool = Pool()
        pool.submit(Call("a"))
        pool.submit(Call("b"))
        for number in range(1, BEGIN_TIMES):
            pool.ready(number)
            assert pool.dies(number, 0, Phase.IDLE) == [f"spawn {number + 1}"]
        pool.ready(BEGIN_TIMES)
        assert pool.dies(BEGIN_TIMES, 0, Phase.IDLE)[:2] == ["a[0] Crashed", "a over at 1"]
        assert "3 workers died before they could begin it" in pool.what.died.hint

    def test_a_call_that_waits_in_dying_workers_is_not_given_up(self):
        pool = started()
        for name in "bcdefghijkl":
            pool.submit(Call(name))
        pool.done(1, 1, seconds=1e-5)
        for number, blamed in enumerate("bcd", 1):
            assert "e" in [getattr(sent.call, "call", sent.call).name for sent in pool.w[number].calls]
            assert pool.dies(number, pool.w[number].last + 1)[0] == f"{blamed}[0] Crashed"
            pool.later(1)
            pool.ready(number + 1)
        assert getattr(pool.w[4].calls[0].call, "call").name == "e"

    def test_idle_deaths_cost_nothing_but_a_warning(self):
        pool = idle(5)
        told = [pool.dies(number, 1, Phase.IDLE) for number in range(1, 6)]
        assert told == [[], [], [], [], ["warn: 5 idle workers died within a minute, the last one died of SIGKILL"]]
        assert pool.core.broken is None

    def test_task_crashes_never_break_the_pool_and_starts_pause_after_some(self):
        pool = Pool()
        pauses = []
        for i in range(10):
            pool.submit(Call(str(i)))
            pauses.append(pool.core.next_tick() - pool.now if not pool.core.workers else 0)
            pool.later(1)
            pool.ready(i + 1)
            pool.dies(i + 1, 1)
        assert [round(pause, 3) for pause in pauses] == [0, 0, 0, 0, 0.05, 0.1, 0.2, 0.4, 1, 1]
        assert pool.core.broken is None

    def test_a_success_ends_the_pauses(self):
        pool = Pool()
        for i in range(8):
            pool.submit(Call(str(i)))
            pool.later(1)
            pool.ready(i + 1)
            pool.dies(i + 1, 1)
        pool.later(1)
        pool.submit(Call("a"))
        pool.ready(9)
        pool.done(9, 1)
        pool.dies(9, 1, Phase.IDLE)
        assert pool.submit(Call("b")) == ["spawn 10"]

    def test_nothing_happens_to_one_that_is_gone(self):
        pool = started()
        pool.dies(1, 1)
        assert pool.done(1, 1) == []
        assert pool.over(1, 2) == []
        assert pool.ready(1) == []
        assert pool.retire(1) == []
        assert pool.lost(1) == []
        assert pool.page(1, 1, 0.0, Phase.RUN) == []
        assert pool.stopped(1, 1, 100.0, Phase.RUN) == []
        assert pool.dies(1, 1) == []
        assert pool.boot_failed(1, "why") == []
        assert pool.core.workers == {}

    @pytest.mark.parametrize("status", [None, 0, 3, -9, -64, -999])
    def test_every_end_has_words(self, status):
        assert ended_by(status)


class TestLimits:
    def test_a_task_over_its_limit_is_seen_twice_dumped_stopped_and_killed(self):
        pool = stopped()
        assert pool.stopped(1, 1, 100.0, Phase.RUN) == ["kill 1"]
        assert pool.dies(1, 1, start=100.0) == ["a[0] TimedOut", "a over at 1"]
        assert isinstance(pool.what, TimedOut)
        assert pool.what.limit == 10.0
        assert pool.what.after == pytest.approx(10.021)

    def test_to_unpickle_the_function_is_not_the_tasks_time(self):
        pool = over_limit(boot=60.0)
        pool.later(0.02)
        assert pool.stopped(1, 1, 100.0, Phase.LOAD) == ["continue 1"]
        while pool.now < 159.0:  # looked at again and again: the task's own time may have begun
            assert pool.later(10.0) == ["look 1"]
            assert pool.page(1, 1, 100.0, Phase.LOAD) == []
        assert pool.later(pool.core.next_tick() - pool.now) == ["look 1"]
        pool.page(1, 1, 100.0, Phase.LOAD)
        pool.later(0.001)
        pool.page(1, 1, 100.0, Phase.LOAD)
        pool.later(0.02)
        assert pool.stopped(1, 1, 100.0, Phase.LOAD) == ["kill 1"]

    def test_its_own_time_is_looked_after_when_the_function_is_there(self):
        pool = Pool()
        pool.submit(Call("a", 1, 10.0))
        pool.ready(1)
        pool.later(10.0)
        pool.page(1, 1, 101.0, Phase.LOAD)
        assert pool.later(10.0) == ["look 1"]
        pool.page(1, 1, 112.0, Phase.RUN)
        assert pool.core.next_tick() == 122.0

    def test_the_task_has_its_time_from_when_its_function_is_there(self):
        pool = stopped()
        assert pool.stopped(1, 1, 105.0, Phase.DECODE) == ["continue 1"]

    @pytest.mark.parametrize("phase", [Phase.DECODE, Phase.ENCODE])
    def test_decoding_and_encoding_count(self, phase):
        assert stopped().stopped(1, 1, 100.0, phase) == ["kill 1"]

    @pytest.mark.parametrize("phase", [Phase.IDLE, Phase.WRITE])
    def test_what_is_being_written_goes_on(self, phase):
        assert stopped().stopped(1, 1, 100.0, phase) == ["continue 1"]

    def test_a_task_that_ended_in_time_is_not_looked_at_twice(self):
        pool = Pool()
        pool.submit(Call("a", 2, 10.0))
        pool.ready(1)
        assert pool.later(10) == ["look 1"]
        pool.done(1, 1)
        assert pool.page(1, 2, 109.0, Phase.RUN) == []
        assert pool.core.next_tick() == 119.0

    def test_the_time_is_the_tasks_and_not_the_calls(self):
        pool = Pool()
        pool.submit(Call("a", 2, 10.0))
        pool.now += 20  # the worker starts for so long
        pool.ready(1)
        assert pool.core.next_tick() == 130.0

    def test_the_next_task_is_not_killed(self):
        pool = stopped(size=2)
        pool.done(1, 1)
        assert pool.stopped(1, 2, 100.0, Phase.RUN) == ["continue 1"]

    def test_between_two_stores_the_page_names_a_task_that_has_ended(self):
        # The phase is the next task's already, the number still the old one's: it must not die for that.
        pool = stopped(size=2)
        pool.done(1, 1)
        assert pool.stopped(1, 1, 100.0, Phase.DECODE) == ["continue 1"]

    @pytest.mark.parametrize("waits", [True, False])
    def test_a_worker_that_was_suspected_gets_work_again(self, waits):
        pool = over_limit()
        if waits:
            assert pool.submit(Call("b")) == []
        assert pool.done(1, 1) == ["a[0] x", "a over at 1"]
        assert pool.later(0.02) == ["stop 1"]
        assert pool.stopped(1, 1, 100.0, Phase.IDLE) == (["continue 1", "send 1 b as 2"] if waits else ["continue 1"])
        if not waits:
            assert pool.submit(Call("b")) == ["send 1 b as 2"]

    def test_a_worker_that_was_suspected_ends_when_the_pool_is_closed(self):
        pool = over_limit()
        pool.done(1, 1)
        assert pool.close() == []
        assert pool.later(0.02) == ["stop 1"]
        assert pool.stopped(1, 1, 100.0, Phase.IDLE) == ["continue 1", "retire 1"]

    def test_one_that_never_stands_still_is_killed_after_a_last_look(self):
        pool = stopped()  # and nothing is heard of it
        assert pool.later(0.02) == ["look 1"]
        assert pool.page(1, 1, 100.0, Phase.RUN) == ["kill 1"]

    def test_one_that_was_stopped_is_not_killed_for_its_next_task_at_first_sight(self):
        pool = stopped(limit=0.01, size=2)
        pool.done(1, 1)
        assert pool.later(0.02) == ["look 1"]
        assert pool.page(1, 2, 100.031, Phase.RUN) == ["continue 1"]
        assert pool.later(0.001) == ["look 1"]
        assert pool.page(1, 2, 100.031, Phase.RUN) == ["dumpstack 1"]

    def test_an_answer_that_comes_after_kill_does_nothing(self):
        pool = stopped()
        assert pool.kill("enough") == ["broken: enough", "a over at 0: enough", "kill 1"]
        assert pool.stopped(1, 1, 100.0, Phase.RUN) == []

    def test_looks_come_after_what_was_decided_before_them(self):
        # A look reads, and what it reads may send calls at once: they must not overtake those that are about to be sent.
        pool = Pool(2, boot=10.0)
        pool.submit(Call("a", 2, 10.0))
        pool.ready(1)
        pool.submit(Call("b"))  # its worker does not come
        pool.now += 10
        assert pool.tick() == ["kill 2", "spawn 3", "look 1"]

    def test_a_short_limit_does_not_mean_many_looks(self):
        pool = Pool()
        pool.submit(Call("a", 1, 1e-9))
        pool.ready(1)
        pool.later(1e-9)
        pool.page(1, 0, 0.0, Phase.IDLE)  # it has not begun
        assert pool.core.next_tick() == pytest.approx(pool.now + 0.001)

    def test_a_clock_that_jumps_gives_what_has_ended_its_outcome(self):
        pool = Pool()
        pool.submit(Call("a", 1, 10.0))
        pool.ready(1)
        pool.now += 3600
        assert pool.done(1, 1) == ["a[0] x", "a over at 1"]  # reading comes before timers
        assert pool.tick() == []

    def test_a_worker_is_looked_at_when_its_first_limit_is_over_and_not_for_each_task(self):
        pool = started()
        pool.done(1, 1, seconds=1e-5)
        for name in "bcd":
            pool.submit(Call(name, 1, 10.0))
        assert len(pool.w[1].calls) == 2
        assert pool.core.next_tick() == 110.0
        pool.now += 5
        pool.done(1, 2, seconds=1e-5)
        assert pool.core.next_tick() == 110.0
        assert pool.later(5) == ["look 1"]
        assert pool.page(1, 3, 105.0, Phase.RUN) == []
        assert pool.core.next_tick() == 115.0

    def test_a_task_whose_predecessors_are_kept_back_is_killed_for_its_own_limit(self):
        # The worker is at the second call, and nothing of the first has come.
        pool = Pool(second_look=0.0)
        pool.core.means = {7: 1e-5}
        pool.submit(Call("a"))
        pool.ready(1)
        for name, limit in (("b", 50.0), ("c", 10.0), ("d", 1000.0)):
            pool.submit(Call(name, 3, limit, function=7))
        pool.core.limits = Limits(patience=math.inf)
        pool.done(1, 1, seconds=1e-5)
        assert [sent.call.name for sent in pool.w[1].calls] == ["b", "c"]
        pool.now = 110.0
        assert pool.tick() == ["look 1"]
        assert pool.page(1, 6, 100.0, Phase.RUN) == []
        assert pool.later(0.001) == ["look 1"]
        assert pool.page(1, 6, 100.0, Phase.RUN) == ["dumpstack 1"]
        assert pool.later(0.02) == ["stop 1"]
        assert pool.stopped(1, 6, 100.0, Phase.RUN) == ["kill 1"]
        assert pool.dies(1, 6, start=100.0)[:3] == ["c[1] TimedOut", "c over at 0, 1 ran", "b over at 0, 3 ran"]
        assert pool.what.limit == 10.0

    def test_a_task_of_another_limit_is_looked_at_from_where_it_began(self):
        pool = stopped(size=2, limit=10.0)  # its first task
        pool.done(1, 1)
        assert pool.stopped(1, 2, 105.0, Phase.RUN) == ["continue 1"]
        assert pool.core.next_tick() == 115.0

    def test_looks_become_rare_while_a_function_is_unpickled(self):
        pool = Pool()
        pool.submit(Call("a", 1, 0.01))
        pool.ready(1)
        looks = 0
        while pool.now < 130.0:
            pool.now = pool.core.next_tick()
            assert pool.tick() == ["look 1"]
            pool.page(1, 1, 100.0, Phase.LOAD)
            looks += 1
        assert looks < 200

    def test_a_worker_that_ends_because_of_what_a_look_showed_is_killed_if_it_does_not(self):
        pool = over_limit()
        pool.done(1, 1)
        pool.close()
        pool.later(0.02)  # a stop
        assert pool.later(0.02) == ["look 1"]
        assert pool.page(1, 1, 100.0, Phase.IDLE) == ["continue 1", "retire 1"]
        assert pool.later(5.0) == ["kill 1"]


class TestKeptBack:
    """Outcomes come several at a time; at a death some of what ran has not been told."""

    def batch(self, size=5, before=0, **more):
        """A worker with the batch b of its tasks 2 to `size` + 1, of which the first `before` have their outcome."""
        pool = Pool()
        pool.submit(Call("a"))
        pool.ready(1)
        pool.submit(Call("b", size, **more))
        pool.done(1, 1)
        if before:
            pool.done(1, 2, count=before)
        return pool

    def test_several_outcomes_in_one_frame(self):
        pool = self.batch()
        assert pool.done(1, 2, count=2) == ["b[0:2] x"]
        assert pool.done(1, 4, count=3) == ["b[2:5] x", "b over at 5"]
        assert pool.w[1].last == 6
        assert pool.w[1].tasks == 6

    def test_a_frame_over_several_calls(self):
        pool = self.two_batches()
        assert pool.done(1, 2, count=1, seconds=1e-5) == ["b[0] x"]
        assert pool.done(1, 3, count=3, seconds=3e-5) == ["b[1] x", "b over at 2", "c[0:2] x from 1"]
        assert pool.done(1, 6, seconds=1e-5) == ["c[2] x", "c over at 3"]

    def two_batches(self):
        """A worker with b, of tasks 2 and 3, and c, of tasks 4 to 6."""
        pool = idle()
        pool.core.mean = 1e-5
        assert pool.submit(Call("b", 2)) == ["send 1 b as 2"]
        assert pool.submit(Call("c", 3)) == ["send 1 c as 4"]
        return pool

    @pytest.mark.parametrize(("seq", "count"), [(2, 0), (2, 6), (2, -1), (3, 1), (1, 1), (2, 1 << 40)])
    def test_more_outcomes_than_are_due_are_not_believed(self, seq, count):
        with pytest.raises(ProtocolError, match="which are not due"):
            self.batch().done(1, seq, count=count)

    def test_a_frame_does_not_reach_over_a_call_that_was_ended_early(self):
        pool = self.two_batches()
        assert pool.over(1, 2) == ["b over at 0"]
        for seq in (2, 3):
            with pytest.raises(ProtocolError, match="which are not due"):
                pool.done(1, seq, count=2)
        assert pool.done(1, 4, count=2) == ["c[0:2] x"]

    def test_a_suspected_task_whose_outcome_comes_among_others_is_not_the_page_s(self):
        pool = Pool()
        pool.submit(Call("a", 5, 10.0))
        pool.ready(1)
        pool.later(10.0)
        pool.page(1, 3, 100.0, Phase.RUN)
        assert pool.w[1].over_limit == 3
        assert pool.done(1, 1, count=3) == ["a[0:3] x"]
        assert pool.w[1].over_limit == 0

    @pytest.mark.parametrize("place", [0, 1, 4])
    def test_those_that_ran_unseen_are_handed_back_and_the_one_that_ran_is_lost(self, place):
        over = f"b over at 0, {place} ran" if place else "b over at 1"
        assert self.batch().dies(1, place + 2) == [f"b[{place}] Crashed", over]

    def test_those_whose_outcome_has_come_are_not_handed_back(self):
        assert self.batch(before=2).dies(1, 5) == ["b[3] Crashed", "b over at 2, 1 ran"]

    def test_a_call_whose_outcomes_are_sent_each_does_not_run_again(self):
        told = self.batch(each=True).dies(1, 4)
        assert told == ["b[0] Crashed", "b[1] Crashed", "b[2] Crashed", "b over at 3"]

    def test_what_a_worker_did_that_is_not_believed_does_not_run_again(self):
        pool = self.batch()
        pool.lost(1)
        assert pool.dies(1, 4) == ["b[0] Crashed", "b[1] Crashed", "b[2] Crashed", "b over at 3"]

    def test_the_last_one_of_those_is_the_last_of_its_call(self):
        pool = self.batch(each=True)
        assert pool.dies(1, 6)[-2:] == ["b[4] Crashed", "b over at 5"]

    def test_calls_that_ran_unseen_go_again_first_and_in_order(self):
        pool = started()
        for name in "bcdefghijkl":
            pool.submit(Call(name))
        pool.done(1, 1, seconds=1e-5)
        assert [sent.call.name for sent in pool.w[1].calls] == list("bcde")
        assert pool.dies(1, 4) == ["d[0] Crashed", "d over at 1", "spawn 2"]
        assert pool.ready(2)[:3] == ["send 2 b as 1", "send 2 c as 2", "send 2 e as 3"]

    def test_a_call_that_is_halted_does_not_go_again(self):
        pool = started()
        for name in "bcdefghijkl":
            pool.submit(Call(name))
        pool.done(1, 1, seconds=1e-5)
        c = pool.w[1].calls[1].call
        assert pool.tell(pool.core.halt(c)) == []  # it is not its turn
        assert pool.dies(1, 2)[:2] == ["b[0] Crashed", "c over at 0"]

    def test_a_drained_pool_hands_back_what_a_worker_has_not_begun(self):
        """F25, F45: nothing goes to another worker, or again to this one; who has sent it is told."""
        pool = started()
        for name in "bcde":
            pool.submit(Call(name))
        pool.done(1, 1, seconds=1e-5)
        ahead = [sent.call.name for sent in pool.w[1].calls][1:]
        assert ahead
        pool.core.drained = True
        assert pool.dies(1, 2)[: 1 + len(ahead)] == ["b[0] Crashed", *(f"{name} over at 0" for name in ahead)]

    def test_a_worker_that_keeps_outcomes_back_while_a_task_takes_long_is_asked_for_them(self):
        pool = Pool(patience=0.01)
        pool.submit(Call("a", 5))
        pool.ready(1)
        assert pool.core.next_tick() == 100.01
        pool.now = 100.005
        pool.done(1, 1)
        assert pool.core.next_tick() == pytest.approx(100.015)  # from when something came last
        assert pool.later(0.011) == ["peek 1"]
        assert pool.peeked(1, 4) == ["ask 1"]
        assert pool.core.next_tick() == pytest.approx(100.027)  # it may not have heard
        assert pool.done(1, 2, count=2) == ["a[1:3] x"]
        assert pool.core.next_tick() == pytest.approx(100.026)

    def test_a_worker_whose_due_task_takes_long_is_looked_at_ever_more_rarely(self):
        pool = Pool(patience=0.01)
        pool.submit(Call("a"))
        pool.ready(1)
        looks = 0
        while pool.now < 3700.0:
            pool.now = pool.core.next_tick()
            assert pool.tick() == ["peek 1"]
            assert pool.peeked(1, 1) == []
            looks += 1
        assert looks < 25
        pool.done(1, 1)
        assert pool.core.next_tick() == math.inf

    def test_a_worker_that_may_have_to_die_is_not_asked(self):
        pool = over_limit(size=3)
        assert pool.peeked(1, 2) == []
        pool.lost(1)
        assert pool.peeked(1, 2) == []

    def test_the_time_of_one_that_ran_before_is_not_told(self):
        pool = self.batch(each=True)
        pool.now += 5
        pool.dies(1, 3, start=101.0)
        assert pool.what.after == 4.0

    def test_a_batch_that_ran_and_one_that_did_not(self):
        assert self.two_batches().dies(1, 5) == ["c[1] Crashed", "c over at 0, 1 ran", "b over at 0, 2 ran"]
        assert self.two_batches().dies(1, 2) == ["b[0] Crashed", "c over at 0", "b over at 1"]


class TestPacks:
    def waiting(self, count=12, **more):
        """A worker that is at the call a, and tiny calls of one task, 0, 1, …, that wait; their function is known to be tiny."""
        pool = Pool(**more)
        pool.core.means = {7: 1e-5}
        pool.submit(Call("a"))
        pool.ready(1)
        self.calls = [Call(f"{i:x}", packs=True, function=7) for i in range(count)]
        pool.tell(pool.core.submit_all(self.calls, pool.now))
        return pool

    def test_calls_that_wait_travel_together_a_fair_share_at_a_time(self):
        pool = self.waiting()
        assert pool.done(1, 1) == ["a[0] x", "a over at 1", "send 1 012345 as 2", "send 1 678 as 8"]
        assert pool.done(1, 2, count=6, seconds=6e-5)[:2] == ["012345[0:6] x", "012345 over at 6"]

    def test_a_drained_pool_hands_back_each_that_has_not_begun(self):
        pool = self.waiting()
        pool.done(1, 1)
        pool.core.drained = True
        assert pool.done(1, 2, seconds=1e-5) == ["012345[0] x"]
        assert pool.tell(pool.core.over(pool.w[1], 3, pool.now))[:5] == [f"{part} over at 0" for part in "12345"]

    def test_those_that_cannot_be_packed_or_are_of_another_kind_travel_alone(self):
        pool = self.waiting()
        self.calls[2].function = 8
        pool.core.means[8] = 1e-5
        self.calls[4].packs = False
        assert pool.done(1, 1)[2:] == ["send 1 01 as 2", "send 1 2 as 4"]

    def test_not_more_than_they_may_weigh(self):
        pool = self.waiting(heaviest=10)
        for call in self.calls:
            call.weight = 4
        assert pool.done(1, 1)[2:] == ["send 1 01 as 2", "send 1 23 as 4"]

    def test_not_more_than_are_allowed(self):
        assert self.waiting(most_packed=3).done(1, 1)[2:] == ["send 1 012 as 2", "send 1 345 as 5"]

    def test_none_is_packed_if_their_time_is_not_known_or_not_tiny(self):
        for mean in (math.inf, 0.001):
            pool = self.waiting()
            pool.core.means[7] = mean
            assert pool.done(1, 1)[2] == "send 1 0 as 2"

    def test_none_is_packed_for_a_worker_whose_share_is_counted(self):
        assert self.waiting(max_tasks_per_child=100).done(1, 1)[2] == "send 1 0 as 2"

    def test_a_cancelled_call_is_not_packed(self):
        pool = self.waiting()
        self.calls[1].wanted = self.calls[5].wanted = False
        assert pool.done(1, 1)[2] == "send 1 023467 as 2"

    def test_one_of_a_pack_is_lost_and_the_others_go_again_alone_and_in_order(self):
        pool = self.waiting()
        pool.done(1, 1)
        assert pool.done(1, 2) == ["012345[0] x"]
        assert pool.dies(1, 5) == ["012345[3] Crashed", "spawn 2"]
        names = [getattr(call, "call", call).name for call in pool.core.pending]
        assert names == list("12456789ab")
        assert pool.ready(2) == ["send 2 1 as 1"]
        assert pool.done(2, 1) == ["1[0] x", "1 over at 1", "send 2 2 as 2"]
        assert not any(call.deaths for call in self.calls)

    def test_one_of_a_pack_that_is_sent_each_is_not_run_again(self):
        pool = self.waiting()
        for call in self.calls:
            call.each = True
        pool.done(1, 1)
        assert pool.dies(1, 4)[:3] == ["012345[0] Crashed", "012345[1] Crashed", "012345[2] Crashed"]
        assert [getattr(call, "call", call).name for call in pool.core.pending] == list("3456789ab")

    def test_the_last_of_a_pack_is_lost(self):
        pool = self.waiting()
        pool.done(1, 1)
        pool.done(1, 2, count=5)
        assert pool.dies(1, 7) == ["012345[5] Crashed", "012345 over at 6", "spawn 2"]

    def test_a_pack_that_kills_who_reads_it_is_taken_apart_and_the_culprit_found(self):
        pool = self.waiting(2)
        pool.core.limits = Limits(ahead=100.0)
        self.calls += (more := [Call(name, packs=True, function=7) for name in "xyz"])
        pool.tell(pool.core.submit_all(more, pool.now))
        pool.done(1, 1)
        assert len(pool.w[1].calls[0].call.parts) == 2
        assert pool.dies(1, 1, Phase.IDLE) == ["spawn 2"]
        for number in range(2, 2 + BEGIN_TIMES):
            pool.ready(number)
            told = pool.dies(number, 0, Phase.IDLE)
            pool.later(1)
        assert told[:2] == ["0[0] Crashed", "0 over at 1"]

    def test_a_broken_pool_ends_each(self):
        pool = self.waiting()
        pool.done(1, 1)
        assert "012345 over at 0: enough" in pool.kill("enough")
        assert pool.tell(pool.core.submit_all([Call("x"), Call("y")], pool.now)) == ["x over at 0: enough", "y over at 0: enough"]


class TestUnkillable:
    def killed(self):
        pool = stopped(size=3)
        assert pool.stopped(1, 1, 100.0, Phase.RUN) == ["kill 1"]
        pool.submit(Call("b"))
        return pool

    def test_it_is_given_up_and_replaced(self):
        pool = self.killed()
        assert pool.w[2].state == Worker.STARTING
        assert pool.later(0.25) == ["look 1"]
        assert pool.page(1, 1, 100.0, Phase.RUN) == ["a[0] TimedOut", "a over at 1"]
        assert "could not be killed" in pool.what.died.hint
        assert pool.core.unkillable == 1
        assert pool.ready(2) == ["send 2 b as 1"]

    def test_it_is_not_given_up_by_a_look_from_before(self):
        pool = self.killed()
        assert pool.page(1, 1, 100.0, Phase.RUN) == []

    def test_what_its_page_shows_counts(self):
        pool = self.killed()  # and it had gone on, against all rules
        pool.later(0.25)
        assert pool.page(1, 2, 110.0, Phase.RUN) == ["a[1] Crashed", "a over at 0, 1 ran"]

    def test_its_late_end_changes_nothing(self):
        pool = self.killed()
        pool.later(0.25)
        pool.page(1, 1, 100.0, Phase.RUN)
        assert pool.done(1, 1) == []
        assert pool.dies(1, 1) == []

    def test_the_pool_ends_without_it(self):
        pool = started()
        pool.kill("enough")
        assert not pool.core.is_over()
        assert pool.later(0.25) == ["look 1"]
        assert pool.page(1, 1, 100.0, Phase.RUN) == []
        assert pool.core.is_over()

    def test_one_that_is_not_believed_is_given_up_too(self):
        pool = started()
        assert pool.lost(1) == ["kill 1"]
        assert pool.later(0.25) == ["look 1"]
        assert pool.page(1, 1, 100.0, Phase.RUN) == ["a[0] Crashed", "a over at 1"]


class TestWhoScribbles:
    @pytest.mark.parametrize("seq", [0, 1, 9, 1 << 63])
    def test_a_page_that_shows_no_task_that_is_due_blames_the_one_that_is(self, seq):
        pool = Pool()
        pool.submit(Call("a", 3))
        pool.ready(1)
        pool.done(1, 1, count=2)
        assert pool.dies(1, seq) == ["a[2] Crashed", "a over at 3"]


class TestMemory:
    def test_a_task_that_takes_too_much_is_ended(self):
        pool = Pool(max_memory=100)
        pool.submit(Call("a", 3))
        pool.ready(1)
        pool.done(1, 1)
        assert pool.memory(1, 2, Phase.RUN, 200) == []
        assert pool.memory(1, 2, Phase.RUN, 201) == ["stop 1"]
        assert pool.memory(1, 2, Phase.RUN, 999) == []
        assert pool.stopped(1, 2, 100.0, Phase.RUN) == ["kill 1"]
        assert pool.dies(1, 2)[0] == "a[1] OverMemory"
        assert (pool.what.used, pool.what.limit) == (201, 100)

    def test_it_may_have_ended_meanwhile(self):
        pool = Pool(max_memory=100)
        pool.submit(Call("a", 3))
        pool.ready(1)
        pool.memory(1, 1, Phase.RUN, 201)
        assert pool.stopped(1, 2, 100.0, Phase.RUN) == ["continue 1"]
        pool.done(1, 1)
        assert pool.dies(1, 2)[0] == "a[1] Crashed"

    def test_it_is_looked_at_again_if_it_is_not_known_to_stand_still(self):
        pool = Pool(max_memory=100)
        pool.submit(Call("a", 3))
        pool.ready(1)
        pool.memory(1, 1, Phase.RUN, 201)
        assert pool.later(0.02) == ["look 1"]
        assert pool.page(1, 1, 100.0, Phase.RUN) == ["kill 1"]

    def test_one_that_is_at_the_next_task_is_not_ended_for_that(self):
        # It is not known to stand still, and its next task is over its limit: that is another matter.
        pool = Pool(max_memory=100)
        pool.submit(Call("a", 3, 10.0))
        pool.ready(1)
        pool.memory(1, 1, Phase.RUN, 201)
        pool.now += 20  # the first one's outcome is kept back
        assert pool.tick() == ["look 1"]
        assert pool.page(1, 2, 100.0, Phase.RUN) == ["continue 1"]
        assert pool.later(0.001) == ["look 1"]
        assert pool.page(1, 2, 100.0, Phase.RUN) == ["dumpstack 1"]
        assert pool.dies(1, 2)[0] == "a[1] Crashed"

    @pytest.mark.parametrize(("seq", "phase"), [(0, Phase.RUN), (2, Phase.RUN), (1, Phase.IDLE), (1, Phase.WRITE)])
    def test_only_the_task_at_work_is_ended(self, seq, phase):
        pool = started(max_memory=100)
        assert pool.memory(1, seq, phase, 201) == []


class TestStart:
    def test_those_that_are_ready_go_on_without_the_ones_that_cannot_be_started(self):
        pool = started(3)
        pool.submit(Call("d"))
        pool.dies(1, 1)
        for number in range(4, 4 + BOOT_TIMES - 1):
            assert pool.dies(number, 0, Phase.BOOT) == [f"spawn {number + 1}"]
        told = pool.dies(3 + BOOT_TIMES, 0, Phase.BOOT)
        assert told[0].startswith("warn: 3 workers in a row could not be started")
        assert len(told) == 1
        assert pool.later(0.4) == []
        assert pool.later(0.2) == ["spawn 7"]
        pool.done(2, 1)
        pool.dies(2, 2, Phase.IDLE)
        pool.dies(3, 1)
        assert any(told.startswith("broken") for told in pool.dies(7, 0, Phase.BOOT))

    def test_three_failures_in_a_row_break_the_pool(self):
        pool = Pool()
        pool.submit(Call("a"))
        for number in range(1, BOOT_TIMES):
            assert pool.dies(number, 0, Phase.BOOT, 1) == [f"spawn {number + 1}"]
        why = "a worker ended with exit code 1 before it was ready"
        assert pool.dies(BOOT_TIMES, 0, Phase.BOOT, 1) == [f"broken: {why}", f"a over at 0: {why}"]
        assert pool.submit(Call("b")) == [f"b over at 0: {why}"]
        pool.close()
        assert pool.core.is_over()

    def test_one_that_is_ready_begins_the_count_anew(self):
        pool = Pool(2)
        for number, name in enumerate("abcdefgh"):
            pool.submit(Call(name))
            assert pool.dies(2 * number + 1, 0, Phase.BOOT)[0].startswith("spawn")
            pool.ready(2 * number + 2)
            pool.done(2 * number + 2, 1)
            pool.dies(2 * number + 2, 1, Phase.IDLE)
            pool.later(1)

    def test_an_initializer_that_raises_breaks_the_pool_at_once(self):
        pool = Pool(2)
        pool.submit(Call("a"))
        pool.submit(Call("b"))
        told = pool.boot_failed(1, "it raised", final=True)
        assert told == ["kill 1", "broken: it raised", "a over at 0: it raised", "b over at 0: it raised", "kill 2"]

    def test_one_that_is_not_ready_in_time_is_killed_and_replaced(self):
        pool = Pool(boot=10.0)
        pool.submit(Call("a"))
        assert pool.later(10) == ["kill 1", "spawn 2"]
        assert pool.ready(1) == []  # too late
        assert pool.ready(2) == ["send 2 a as 1"]

    def test_a_process_that_failed_to_start_is_waited_for(self):
        pool = Pool(boot=10.0)
        pool.submit(a := Call("a"))
        pool.later(10)
        pool.core.cancel(a)
        assert pool.close() == ["kill 2"]
        pool.dies(2, 0, Phase.BOOT)
        assert not pool.core.is_over()
        pool.dies(1, 0, Phase.BOOT)
        assert pool.core.is_over()
        assert pool.core.broken is None

    def test_one_without_a_process_is_not_waited_for(self):
        pool = Pool()
        pool.submit(a := Call("a"))
        pool.w[1].handle = None
        pool.core.cancel(a)
        assert pool.close() == ["kill 1"]
        assert pool.boot_failed(1, "no process") == []
        assert pool.core.is_over()
        assert pool.core.unkillable == 0

    def test_one_without_a_process_is_not_looked_at(self):
        pool = Pool()
        pool.submit(a := Call("a"))
        pool.w[1].handle = None
        pool.core.cancel(a)
        pool.close()
        assert pool.later(1) == []
        assert pool.core.is_over()

    def test_no_process_can_be_started(self):
        pool = Pool()
        pool.submit(Call("a"))
        for number in itertools.count(1):
            pool.w[number].handle = None
            told = pool.boot_failed(number, "no process")
            if number == BOOT_TIMES:
                break
            assert told == [f"spawn {number + 1}"]
        assert told == ["broken: no process", "a over at 0: no process"]
        assert pool.core.workers == {}

    def test_what_comes_from_one_that_starts_and_is_not_believed_is_a_failed_start(self):
        pool = Pool()
        pool.submit(Call("a"))
        assert pool.lost(1) == ["kill 1", "spawn 2"]


class TestEnd:
    def test_a_closed_pool_does_what_waits_and_then_ends(self):
        pool = started()
        pool.submit(Call("b"))
        assert pool.close() == []
        assert pool.done(1, 1) == ["a[0] x", "a over at 1", "send 1 b as 2"]
        assert pool.done(1, 2) == ["b[0] x", "b over at 1", "retire 1"]
        assert not pool.core.is_over()
        pool.exited(1, Died(0, Phase.EXIT, 2))
        assert pool.core.is_over()
        assert pool.core.next_tick() == math.inf

    def test_a_worker_that_nobody_needs_any_more_is_not_waited_for(self):
        pool = Pool()
        a = Call("a")
        pool.submit(a)
        pool.core.cancel(a)
        assert pool.close() == ["kill 1"]
        pool.dies(1, 0, Phase.BOOT)
        assert pool.core.is_over()
        assert pool.core.broken is None

    def test_what_comes_back_after_close_is_done_by_a_new_worker(self):
        pool = idle(2)
        pool.submit(Call("c"))
        assert pool.close() == ["retire 2"]
        assert pool.dies(1, 1, Phase.IDLE) == ["spawn 3"]
        assert pool.ready(3) == ["send 3 c as 1"]

    def test_kill_ends_everything_now(self):
        pool = started(2)
        pool.submit(Call("c"))
        assert pool.kill("enough") == [
            "broken: enough", "c over at 0: enough", "a over at 0: enough", "kill 1", "b over at 0: enough", "kill 2",
        ]  # fmt: skip
        pool.dies(1, 1)
        pool.dies(2, 1)
        assert pool.core.is_over()

    def test_what_was_in_the_pipes_at_a_kill_is_no_offence(self):
        pool = Pool()
        pool.submit(Call("a", 3))
        pool.ready(1)
        pool.kill("enough")
        assert pool.done(1, 1) == []
        assert pool.over(1, 2) == []
        assert pool.dies(1, 2) == []

    def test_a_call_that_goes_again_cannot_be_cancelled(self):
        pool = started()
        pool.dies(1, 0, Phase.IDLE)
        (again,) = pool.core.pending
        again.cancel()  # as all that is pending is, by `shutdown(cancel_futures=True)`
        assert pool.ready(2) == ["send 2 a as 1"]
        assert pool.core.cancel(Call("b")) is False


class TestStuck:
    """What stands behind a task that takes long goes to a worker that has nothing to do."""

    def pool(self, size=5, **more):
        """Worker 1 is at a batch, worker 2 has nothing to do, and 10 ms have passed."""
        pool = Pool(2, patience=0.01, **more)
        pool.submit(Call("a", size))
        pool.submit(Call("b"))
        pool.ready(1)
        pool.ready(2)
        pool.done(2, 1)
        assert pool.later(0.011) == ["peek 1"]
        return pool

    def test_it_is_asked_for_and_goes_on_elsewhere(self):
        pool = self.pool()
        assert pool.peeked(1, 1) == ["ask 1 for all up to 5"]
        assert pool.returned(1, 2, 5) == ["a back from 1"]
        assert pool.submit(Call("rest", 4)) == ["send 2 rest as 2"]
        assert pool.done(1, 1) == ["a[0] x", "a over at 1"]
        assert pool.submit(Call("c")) == ["send 1 c as 6"]  # its numbers go on

    def test_it_is_not_asked_for_if_nobody_has_nothing_to_do(self):
        pool = self.pool()
        pool.submit(Call("c"))
        assert pool.peeked(1, 1) == []

    def test_nor_if_something_waits(self):
        pool = self.pool()
        pool.submit(Call("c", 2))
        pool.submit(Call("d", 2))
        assert pool.peeked(1, 1) == []
        assert list(map(str, pool.core.pending)) != []

    def test_nor_behind_the_last_one(self):
        assert self.pool().peeked(1, 5) == ["ask 1"]  # for what is kept back

    def test_nor_by_a_drained_pool(self):
        pool = self.pool()
        pool.core.drained = True
        assert pool.peeked(1, 1) == []

    def test_for_it_a_worker_is_started(self):
        pool = Pool(2, patience=0.01)
        pool.submit(Call("a", 5))
        pool.ready(1)
        assert pool.later(0.011) == ["peek 1"]
        assert pool.peeked(1, 1) == ["ask 1 for all up to 5"]
        assert pool.returned(1, 2, 5) == ["a back from 1"]
        assert pool.submit(Call("rest", 4)) == ["spawn 2"]

    def test_who_has_been_at_it_for_long_is_looked_at_as_soon_as_somebody_has_nothing_to_do(self):
        pool = Pool(2, patience=0.01)
        pool.submit(Call("a", 5))
        pool.submit(Call("b"))
        pool.ready(1)
        pool.ready(2)
        for _ in range(12):
            pool.now = pool.core.next_tick()
            assert pool.tick()
            assert pool.peeked(1, 1) == []
            assert pool.peeked(2, 1) == []
        assert pool.core.next_tick() > pool.now + 1
        pool.done(2, 1)
        assert pool.core.next_tick() <= pool.now
        assert pool.tick() == ["peek 1"]
        assert pool.peeked(1, 1) == ["ask 1 for all up to 5"]

    def test_calls_behind_go_again_in_their_order(self):
        pool = started(2)
        for name in "cdefghijklmnopqrstuvwxyz":
            pool.submit(Call(name))
        pool.done(1, 1, seconds=1e-5)
        behind = [sent.call.name for sent in pool.w[1].calls][1:]
        assert len(behind) > 1
        pool.w[2].left = 0  # and so nothing is sent to it
        waiting = [call.name for call in pool.core.pending]
        pool.now += 1  # to one that is at its task for so long nothing is sent
        assert pool.returned(1, 3, pool.w[1].sent) == ["spawn 3"]
        assert [call.call.name for call in list(pool.core.pending)[: len(behind)]] == behind
        assert [call.name for call in list(pool.core.pending)[len(behind) :]] == waiting
        assert len(pool.w[1].calls) == 1

    def test_the_rest_of_a_pack_goes_again_alone(self):
        pool = Pool(2, patience=0.01)
        pool.core.means[None] = 1e-6
        pack = Call("abc", 3, resends=True)
        pack.parts = parts = [Call(name) for name in "abc"]
        pool.submit(pack)
        pool.submit(Call("z"))
        pool.ready(1)
        pool.ready(2)
        pool.done(2, 1)
        assert pool.returned(1, 2, 3) == ["send 2 b as 2"]
        assert [call.call.name for call in pool.core.pending] == ["c"]
        assert pack.parts == parts[:1]
        assert pool.done(1, 1)[0] == "abc[0] x"

    def test_all_of_a_call_that_has_not_begun(self):
        pool = self.pool()
        assert pool.returned(1, 1, 5) == ["a over at 0"]
        assert not pool.w[1].calls
        assert pool.core.next_tick() == math.inf

    def test_all_behind_one_whose_outcome_has_come(self):
        pool = self.pool()
        pool.done(1, 1)
        assert pool.returned(1, 2, 5) == ["a back from 1", "a over at 1"]
        assert not pool.w[1].calls

    def test_nothing(self):
        pool = self.pool()
        pool.done(1, 1, count=4)
        assert pool.returned(1, 6, 5) == []
        assert pool.done(1, 5) == ["a[4] x", "a over at 5"]

    def test_a_worker_that_dies_then_has_only_its_task(self):
        pool = self.pool()
        assert pool.returned(1, 3, 5) == ["a back from 2"]
        assert pool.dies(1, 2) == ["a[1] Crashed", "a over at 0, 1 ran"]

    def test_a_limit_of_what_has_been_given_back_is_not_looked_after(self):
        pool = Pool(2, patience=0.01)
        pool.submit(Call("a"))
        pool.ready(1)
        pool.submit(Call("b", 3, limit=5.0))
        pool.ready(2)
        assert pool.returned(2, 1, 3) == ["b over at 0"]
        assert pool.core.next_tick() < 101  # the look at worker 1

    @pytest.mark.parametrize(("first", "last"), [(1, 6), (0, 5), (7, 5), (1, 5)])
    def test_what_is_not_there_is_not_believed(self, first, last):
        pool = self.pool()
        pool.done(1, 1)
        with pytest.raises(ProtocolError):
            pool.returned(1, first, last)

    def test_in_a_broken_pool_nothing_more_comes_of_it(self):
        pool = self.pool()
        pool.kill("enough")
        assert pool.returned(1, 2, 5) == []


# ---- mistakes that the simulation hardly meets: a case finds each

MISTAKES_OF_CASES = [
    (
        "what is stuck is not asked for",
        "                last = self._stuck_behind(worker, seq, now)\n",
        "                last = 0\n",
        lambda: TestStuck().test_it_is_asked_for_and_goes_on_elsewhere(),
    ),
    (
        "what is stuck is asked for in vain",
        "return last if last > seq and self._has_nothing_for_some(now) else 0",
        "return last if last > seq else 0",
        lambda: TestStuck().test_it_is_not_asked_for_if_nobody_has_nothing_to_do(),
    ),
    (
        "what has been given back is due still",
        "        sent.size = place\n",
        "",
        lambda: TestStuck().test_it_is_asked_for_and_goes_on_elsewhere(),
    ),
    (
        "calls that are given back go again in the wrong order",
        "        for sent in reversed(calls):",
        "        for sent in calls:",
        lambda: TestStuck().test_calls_behind_go_again_in_their_order(),
    ),
    (
        "a call all of whose other tasks are given back does not end",
        "        if worker.calls and worker.calls[0].done == worker.calls[0].size:",
        "        if False:",
        lambda: TestStuck().test_all_behind_one_whose_outcome_has_come(),
    ),
    (
        "a long task is looked at late, although somebody has nothing to do",
        "            self._look_for_stuck(now)\n",
        "            pass\n",
        lambda: TestStuck().test_who_has_been_at_it_for_long_is_looked_at_as_soon_as_somebody_has_nothing_to_do(),
    ),
    (
        "what is kept back is not asked for",
        "                    self._effects.append(Ask(worker, last))\n",
        "",
        lambda: TestKeptBack().test_a_worker_that_keeps_outcomes_back_while_a_task_takes_long_is_asked_for_them(),
    ),
    (
        "was: one that is not believed and cannot be killed is waited for",
        "        elif worker.state in (Worker.READY, Worker.RETIRING):\n            self._doom(worker, now)",
        "",
        lambda: TestUnkillable().test_one_that_is_not_believed_is_given_up_too(),
    ),
    (
        "runs again although each outcome is sent",
        "if ran and (worker.lost or sent.call.each):",
        "if ran and worker.lost:",
        lambda: TestKeptBack().test_a_call_whose_outcomes_are_sent_each_does_not_run_again(),
    ),
    (
        "packs for a worker whose share is counted",
        "if call.packs and worker.left is None:",
        "if call.packs:",
        lambda: TestPacks().test_none_is_packed_for_a_worker_whose_share_is_counted(),
    ),
    (
        "a halted call is sent again",
        " and not sent.halted and self.broken is None:",
        " and self.broken is None:",
        lambda: TestKeptBack().test_a_call_that_is_halted_does_not_go_again(),
    ),
    (
        "was: one that is told to end after a look is waited for",
        "            if worker.state != Worker.READY:  # it has just",
        "            if False:  # it has just",
        lambda: TestLimits().test_a_worker_that_ends_because_of_what_a_look_showed_is_killed_if_it_does_not(),
    ),
    (
        "more outcomes than are due are believed",
        "0 < count <= worker.due_count(count)",
        "0 < count",
        lambda: TestKeptBack().test_more_outcomes_than_are_due_are_not_believed(2, 6),
    ),
    (
        "was: whoever scribbles on the page runs again",
        "begun, due = died.seq, calls[0].first + calls[0].done",
        "begun, due = died.seq, worker.due_next()",
        lambda: TestWhoScribbles().test_a_page_that_shows_no_task_that_is_due_blames_the_one_that_is(0),
    ),
    (
        "was: looks do not become rare while a function is unpickled",
        "                again = max(again, now + (now - start) / 20)\n",
        "                pass\n",
        lambda: TestLimits().test_looks_become_rare_while_a_function_is_unpickled(),
    ),
    (
        "was: a task is killed for the memory of another",
        "            worker.over_limit = seq\n            worker.memory = 0\n            worker.abandoned = False\n",
        "            worker.over_limit = seq\n",
        lambda: TestMemory().test_one_that_is_at_the_next_task_is_not_ended_for_that(),
    ),
    (
        "only the first of several outcomes ends a suspicion",
        "if seq <= worker.over_limit < seq + count:",
        "if seq == worker.over_limit:",
        lambda: TestKeptBack().test_a_suspected_task_whose_outcome_comes_among_others_is_not_the_page_s(),
    ),
]


@pytest.mark.parametrize(("old", "new", "case"), [pytest.param(*rest, id=name) for name, *rest in MISTAKES_OF_CASES])
def test_a_case_finds_a_mistake(old, new, case, monkeypatch):
    case()
    monkeypatch.setitem(sys.modules, "core_with_a_mistake", core := mutant(old, new))
    for name in ("Crashed", "Died", "Limits", "PoolCore", "ProtocolError", "TimedOut", "Worker"):
        monkeypatch.setitem(globals(), name, getattr(core, name))
    try:
        case()
    except (Exception, pytest.fail.Exception):
        return
    pytest.fail("not found")
