"""What tasks of test_shared_results.py do and return; in a module of its own, so that workers import it by name."""

from __future__ import annotations

import threading
import weakref
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple


@dataclass
class Simple:
    number: int
    text: str = "some"


@dataclass(frozen=True)
class Frozen:
    number: int


class Plain:
    """Written without a thought of pickle."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and vars(other) == vars(self)

    __hash__ = None


class Child(Plain):
    class Inner(Plain):
        pass


@dataclass(slots=True)
class Slotted:
    number: int


class Pair(NamedTuple):
    one: int
    two: int


class _TellsThread:
    def __init__(self, number: int) -> None:
        self.number = number
        self.thread = ""

    def told(self) -> None:
        self.thread = threading.current_thread().name


class SetsState(_TellsThread):
    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.told()


class Reduces(_TellsThread):
    def __reduce__(self) -> tuple[Any, ...]:
        return _made, (type(self), self.number)


class HasNew(_TellsThread):
    def __new__(cls, *_: object) -> HasNew:
        new = super().__new__(cls)
        new.thread = threading.current_thread().name
        return new

    def __init__(self, number: int) -> None:
        self.number = number

    def __getstate__(self) -> dict[str, Any]:
        return {"number": self.number}


class Dies(_TellsThread):
    dead: list[str] = []  # noqa: RUF012  # of the class

    def __del__(self) -> None:
        self.dead.append(threading.current_thread().name)


class GetsAttributes(_TellsThread):
    def __getattribute__(self, name: str) -> Any:
        return object.__getattribute__(self, name)


class Meta(type):
    pass


class OfMeta(metaclass=Meta):
    def __init__(self, number: int) -> None:
        self.number = number


class OfList(list):
    pass


class Raises(Exception):
    pass


class Moved:
    def __init__(self, number: int) -> None:
        self.number = number


def _made(kind: type, number: int) -> Any:
    new = object.__new__(kind)
    new.number = number
    new.told()
    return new


# ---- tasks

held: list[Any] = []
weak: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()
counted: dict[str, int] = {}


def the_same_list(number: int) -> list[int]:
    held.append(number)
    return held


def the_same_object(number: int) -> Any:
    if not held:
        held.append(Simple(0))
    held[0].number = number
    return held[0]


def the_same_dict(number: int) -> dict[str, int]:
    counted["number"] = number
    return counted


def changes_the_last(number: int) -> Any:
    """What the task before has returned is changed."""
    if held:
        held.pop().number = -1
    held.append(Simple(number))
    return held[0]


def changes_the_last_by_a_weak_reference(number: int) -> Any:
    last = weak.get("last")
    if last is not None:
        last.number = -1
    weak["last"] = new = Plain(number)
    return new


def changes_the_last_by_its_dict(number: int) -> Any:
    if held:
        held.pop()["number"] = -1
    new = Plain(number)
    held.append(vars(new))
    return new


def every_kind(number: int) -> Any:
    return [
        lambda: number,
        lambda: Simple(number),
        lambda: [number],
        lambda: (number, "x"),
        lambda: {"n": number},
        lambda: [[number]],
        lambda: Slotted(number),
        lambda: Frozen(number),
        lambda: Child(number),
        lambda: Child.Inner(number),
        lambda: "text" * number,
        lambda: Pair(number, 2),
        lambda: {number, 1},
        lambda: complex(number, 1),
        lambda: (complex(number, 1),),
        lambda: SimpleNamespace(number=number),
        lambda: None,
        lambda: b"x" * number,
        lambda: [2**200 * number],
        lambda: {1.5: "x", number: None},
    ][number % 20]()


def every_kind_of(numbers: list[int]) -> Any:
    return every_kind(*numbers)


def vanishes(number: int) -> Any:
    """Its class is another one by the time that it is pickled, from number 20 on."""
    if number == 20:
        global Moved
        Moved = type("Moved", (), {"__module__": __name__})
    return _Moved(number)


_Moved = Moved


def with_an_odd_name(number: int) -> Any:
    new = Plain(number)
    if number % 7 == 3:
        vars(new)[Odd("odd")] = 1
    return new


class Odd(str):
    __slots__ = ()

    def __reduce__(self) -> tuple[Any, ...]:
        return Odd, (str(self) + threading.current_thread().name,)


class Bag:
    """Holds whatever it is given, under any name."""

    default = 3

    def __init__(self, held: dict[str, Any] | None = None) -> None:
        vars(self).update(held or {})


class Asks:
    """Has a property that must not be asked, nor told."""

    asked: list[str] = []  # noqa: RUF012  # of the class

    def __init__(self, x: int) -> None:
        vars(self)["x"] = x

    @property
    def x(self) -> int:
        self.asked.append("get")
        return 0

    @x.setter
    def x(self, value: int) -> None:
        self.asked.append("set")
