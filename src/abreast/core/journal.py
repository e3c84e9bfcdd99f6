"""`Journal`: the option ``journal``, where a file's name is not enough. journal/ keeps the file, engine/journaled.py uses it."""

from __future__ import annotations

import os
from reprlib import repr as short
from typing import TYPE_CHECKING, Any, Literal, NoReturn, get_args

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Durability", "Journal", "OnChange", "journal_or_none"]

Durability = Literal["process", "power"]
OnChange = Literal["keep", "error", "rerun"]


class Journal:
    """A file that records what came of each task, so that the same call again runs only the rest. It cannot be changed.

    ``journal="run.db"`` is the same as ``journal=Journal("run.db")``. Every outcome is in the file before you get it: killed at any moment,
    a run loses nothing that was delivered. A recorded success is returned, and not run again; a failed task runs again, with all its retries.
    Tasks that were under way when the program was killed run again, so **their side effects may happen twice**; with `at_most_once` they do not run again.

    A task is known by the content of its input (or by ``key=``), so inputs may be added, left out and put in another order. A
    journal belongs to one function; see `on_change` for when its code changes.

    Only JSON or pickles are kept. Reading a pickle can run code, so a journal that belongs to someone else, or that others may write, is refused.

    Args:
        path: the file; it is made if it is not there, for its owner only. Beside it stand ``<path>-lock``, ``<path>-wal`` and ``<path>-shm``, and
            ``<path>.d`` for results of over 1 MiB.
        durability: what a delivered result survives: ``"process"`` (default) the death of all processes; ``"power"`` a power cut too, for
            about half the speed.
        on_change: what to do when the function's own code is another than when results were recorded: ``"keep"`` them (default) with a
            `JournalWarning`, ``"error"``, or ``"rerun"`` all its tasks. Functions that it calls, values that it closes over, and the object
            whose method it is are not looked at.
        at_most_once: True: a task of which it is not known what came of it is not started again: one that was under way, or waiting in a batch, when the
            run ended or was killed, whose process died, that was over its ``task_timeout``, or whose result could not be sent here. That one is reported as
            `Interrupted`: you find out. Tasks that raised an error of their own run again, as ever. It costs a commit before each batch.
        trust: True: read a journal that belongs to someone else, or that others may write, which can run whatever code they put into it.
        check: whether to check the whole file when it is opened; None (default) is for files of up to 1 GiB.

    Raises:
        TypeError, ValueError: a wrong argument, named with its value.

    >>> import abreast, tempfile, os
    >>> folder = tempfile.TemporaryDirectory()
    >>> journal = abreast.Journal(os.path.join(folder.name, "run.db"), durability="power")
    >>> abreast.map(str.upper, ["a", "b"], journal=journal)
    ['A', 'B']
    >>> results = abreast.imap(str.upper, ["b", "c", "a"], journal=journal)
    >>> list(results), results.summary().resumed
    (['B', 'C', 'A'], 2)
    >>> folder.cleanup()
    """

    __slots__ = ("at_most_once", "check", "content", "durability", "keeps_json_text", "on_change", "path", "trust")

    path: str
    durability: Durability
    on_change: OnChange
    at_most_once: bool
    trust: bool
    check: bool | None
    keeps_json_text: bool
    content: Callable[[Any], Any] | None
    """Returns the part of an input that it is known by, if that is not all of it."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        durability: Durability = "process",
        on_change: OnChange = "keep",
        at_most_once: bool = False,
        trust: bool = False,
        check: bool | None = None,
    ) -> None:
        put = super().__setattr__
        put("path", _checked_path(path))
        put("durability", _one_of("durability", durability, get_args(Durability)))
        put("on_change", _one_of("on_change", on_change, get_args(OnChange)))
        put("at_most_once", _true_or_false("at_most_once", at_most_once))
        put("trust", _true_or_false("trust", trust))
        put("check", None if check is None else _true_or_false("check", check, " or None"))
        put("keeps_json_text", False)
        put("content", None)

    @classmethod
    def of_json_texts(cls, path: str, *, content: Callable[[Any], Any] | None = None, **options: Any) -> Journal:
        """Return one for a function whose results are JSON, as text: the command's. They are kept as the values that they stand for.

        An input is known by what `content` returns for it, as if that had been the input. So a run of the function itself on those knows
        what is recorded here, and the other way round.
        """
        journal = cls(path, **options)
        put = super(Journal, journal).__setattr__
        put("keeps_json_text", True)
        put("content", content)
        return journal

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a Journal cannot be changed ({name}={short(value)}): make another one")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"a Journal cannot be changed ({name}): make another one")

    def __setstate__(self, state: tuple[None, dict[str, Any]]) -> None:
        """Of a copy, or one that comes to another process in an argument."""
        for name, value in state[1].items():
            super().__setattr__(name, value)

    def _values(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in sorted(self.__slots__))

    def __eq__(self, other: object) -> bool:
        return self._values() == other._values() if isinstance(other, Journal) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._values())

    def __repr__(self) -> str:
        return (
            f"Journal({self.path!r}, durability={self.durability!r}, on_change={self.on_change!r}, at_most_once={self.at_most_once}, "
            f"trust={self.trust}, check={self.check})"
        )


def journal_or_none(value: object) -> Journal | None:
    """Return the option ``journal`` as a `Journal`, or None; raise TypeError or ValueError."""
    if value is None or isinstance(value, Journal):
        return value
    return Journal(value)  # type: ignore[arg-type]  # what it may be is looked at there


def _checked_path(path: Any) -> str:
    if isinstance(path, (bytes, bool, int)) or not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"journal must be a file's path, a Journal or None, not {short(path)} ({type(path).__name__})")
    text = os.fspath(path)
    if not isinstance(text, str):
        raise TypeError(f"journal must be a path as text, not {short(text)}")
    if not text or "\0" in text:
        raise ValueError(f"journal must be a file's path, not {text!r}")
    return text


def _one_of(name: str, value: object, allowed: tuple[str, ...]) -> str:
    if not isinstance(value, str) or value not in allowed:
        *firsts, last = map(repr, allowed)
        raise ValueError(f"{name} must be {', '.join(firsts)} or {last}, not {short(value)}")
    return value


def _true_or_false(name: str, value: object, more: str = "") -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False{more}, not {short(value)}")
    return value
