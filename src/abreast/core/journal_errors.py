"""What is wrong with a journal: errors and warnings. core/errors.py draws the tree that they are part of.

Each error pickles: its constructor takes exactly what ``args`` holds.
"""

from __future__ import annotations

from abreast.core.errors import AbreastError

__all__ = [
    "InputChanged",
    "Interrupted",
    "JournalBusy",
    "JournalCorrupt",
    "JournalError",
    "JournalTrustError",
    "JournalWarning",
]


class JournalError(AbreastError):
    """A journal cannot be used, or not written any more. The text names the file, and what to do.

    Raised before anything runs when the journal is of another function, of a newer version, or no journal at all; and while a run goes on
    when a result cannot be recorded (disk full): then nothing unrecorded is delivered, and the run can be resumed.

    >>> import abreast
    >>> issubclass(abreast.JournalBusy, abreast.JournalError)
    True
    """

    _fails_again = True


class JournalBusy(JournalError):
    """Another run, here or in another process, is using the journal.

    Attributes:
        path (str): the journal.
        pid (int): the process that uses it; 0 if that is not known.
        host (str): the machine that it runs on.
        since (float): since when, as `time.time`; 0.0 if that is not known.

    >>> import abreast
    >>> print(abreast.JournalBusy("run.db", 4711, "here", 0.0))
    the journal 'run.db' is in use by process 4711 on here; wait for it to end, or give this run a journal of its own
    """

    def __init__(self, path: str = "", pid: int = 0, host: str = "", since: float = 0.0) -> None:
        super().__init__(path, pid, host, since)
        self.path = path
        self.pid = pid
        self.host = host
        self.since = since

    def __str__(self) -> str:
        import os
        import time

        who = f"process {self.pid} on {self.host}" if self.pid else "another process"
        when = f" since {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(self.since))}" if self.since else ""
        if self.pid == os.getpid():
            return (
                f"the journal {self.path!r} is in use by {who}, which is this one,{when}: by a run that is not over; close() its iterator, or use that in a with block, "
                "or give this run a journal of its own"
            )
        return f"the journal {self.path!r} is in use by {who}{when}; wait for it to end, or give this run a journal of its own"


class JournalCorrupt(JournalError):
    """The journal's file is damaged. Nothing of it was changed, nothing is run.

    ``abreast journal salvage FILE NEW`` copies what is whole into a new journal, with which the run goes on.

    >>> import abreast
    >>> issubclass(abreast.JournalCorrupt, abreast.JournalError)
    True
    """


class JournalTrustError(JournalError):
    """The journal belongs to someone else, or others may write it: what it holds could run their code here.

    Raised before anything is read of it. See ``trust`` of `Journal`.

    >>> import abreast
    >>> issubclass(abreast.JournalTrustError, abreast.JournalError)
    True
    """


class Interrupted(AbreastError):
    """A task with ``at_most_once=True`` was started in an earlier run, and what came of it is not known; it is not started again.

    Find out whether it was done. A run without `at_most_once` on the same journal starts it again.

    Attributes:
        started (float): when it was started, as `time.time`.

    >>> import abreast
    >>> issubclass(abreast.Interrupted, abreast.AbreastError)
    True
    """

    _fails_again = True

    def __init__(self, started: float = 0.0, was_done: bool = False) -> None:
        super().__init__(started, was_done)
        self.started = started
        self.was_done = was_done
        """Whether it is known to have succeeded, with a result that could not be kept."""

    def __str__(self) -> str:
        import time

        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.started))
        if self.was_done:
            return f"the task was done, {when}, but its result could not be kept; with at_most_once it is not run again"
        return f"the task was started {when}, and what came of it is not known; with at_most_once it is not started again"


class JournalWarning(UserWarning):
    """Something about a journal that should be known: its function has changed; a result cannot be kept; it is on a network's file system.

    >>> import abreast
    >>> issubclass(abreast.InputChanged, abreast.JournalWarning)
    True
    """


class InputChanged(JournalWarning):
    """Recorded inputs have come back with other contents, and are of classes whose pickle may differ from run to run: give ``key=``.

    >>> import abreast
    >>> issubclass(abreast.InputChanged, UserWarning)
    True
    """
