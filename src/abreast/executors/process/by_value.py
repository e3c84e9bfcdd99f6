"""What plain pickle cannot send, or would send by a name that the other process does not know: cloudpickle, and a little more.

* Lambdas, closures, and all that the main script or a notebook has defined, travel by value.
* Where workers are copies of this process (``mp_context="fork"``) they have the main script: what it had at the fork goes by name (`Common`).
* What a function of the main script assigns to a global, an initializer above all, the others see (namespace.py).
* Context variables travel by name or by number (variables.py).
* Code keeps the name of its file, so that tracebacks show the lines. cloudpickle says "<dynamic-code>" instead, to have the same bytes for the same code.
* A class with `__slots__` has them where it arrives too. cloudpickle leaves them out, and objects with a `__dict__` come back.
* On the way *back*, a class that was sent by value is not defined anew: the parent has it. cloudpickle would set all its attributes
  again, so that methods and counters of the user's own class were replaced by the worker's copies; and it would pickle the
  whole class with every result, 200 us or more. Here its number travels, and its definition, pickled once, for a parent that
  has dropped the class meanwhile.

Private names of cloudpickle that this relies on (held by a test): `_get_or_create_tracker_id`, `_DYNAMIC_CLASS_TRACKER_BY_ID`,
`_DYNAMIC_CLASS_TRACKER_BY_CLASS`, `_make_skeleton_class`, `_make_skeleton_enum`, `_class_setstate`. In sending.py: `_PICKLE_BY_VALUE_MODULES`.
"""

from __future__ import annotations

import contextvars
import io
import pickle
import sys
import typing
from collections import ChainMap
from functools import partial
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakKeyDictionary

import cloudpickle  # type: ignore[import-untyped]  # it has no types
from cloudpickle import cloudpickle as inner

from abreast.executors.process import variables
from abreast.executors.process.here import is_worker

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from abreast.executors.process.sending import Common

__all__ = ["dumps", "dumps_with"]

NO_FILE = "<dynamic-code>"
LARGE_DEFINITION = 64 * 1024
"""Bytes from which a class's definition does not go back with every instance, if it has come from the parent."""


def dumps(value: object, keep: Callable[[Any], bool] | None, *, back: bool, common: Common | None = None) -> bytes:
    """Return the pickle of `value` as it goes to a worker, or `back` from one; what is in `common` goes by name."""
    main = sys.modules.get("__mp_main__")
    if main is not None and main.__name__ == "__mp_main__" and "__mp_main__" not in inner._PICKLE_BY_VALUE_MODULES:
        # a child of multiprocessing: what its main script is called there, our workers do not have either
        cloudpickle.register_pickle_by_value(main)
    with io.BytesIO() as file:
        pickler = (_Back if back else _Pickler)(file, protocol=5, buffer_callback=keep)
        pickler.common = common
        pickler.dump(value)
        return file.getvalue()


def _reduce_code(code: CodeType) -> Any:
    make, args = cloudpickle.Pickler.dispatch_table[CodeType](code)
    return make, tuple(code.co_filename if type(arg) is str and arg == NO_FILE else arg for arg in args)


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc, no-any-unimported]  # it has no types
    dispatch_table: ClassVar[Any] = ChainMap({CodeType: _reduce_code}, cloudpickle.Pickler.dispatch_table)
    common: Common | None = None
    sends_descriptors = False

    def reducer_override(self, obj: Any) -> Any:
        if type(obj) is contextvars.ContextVar:
            return variables.reduce(obj)
        if (
            self.common is not None
            and (type(obj) is FunctionType or issubclass(type(obj), type))
            and (name := self.common.name_of(obj)) is not None
        ):
            return name
        if type(obj).__module__ == "multiprocessing.connection" and not self.sends_descriptors and hasattr(obj, "fileno"):
            # Nor as multiprocessing does it: that has a thread of this process listen at a socket.
            raise pickle.PicklingError(
                f"a {type(obj).__name__} can be handed over only when a process starts: give it to the executor as one of the initargs"
            )
        if type(obj) is io.TextIOWrapper and obj not in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
            # cloudpickle would send what the file holds, and each task would read that from its beginning.
            raise pickle.PicklingError(f"an open file cannot be sent: open {obj.name!r} in the task")
        reduced = super().reducer_override(obj)
        if isinstance(reduced, tuple):
            if reduced[0] is inner._make_skeleton_class and "__slots__" in vars(obj):
                _add_slots(obj, reduced[1])
            elif reduced[0] is inner._make_function and obj.__module__ in ("__main__", "__mp_main__"):
                return (*reduced[:5], _function_arrives)
        return reduced


def _function_arrives(fn: Any, state: Any) -> None:
    inner._function_setstate(fn, state)
    if is_worker():
        from abreast.executors.process import namespace

        namespace.arrived(fn)


def dumps_with(value: object, reducers: Mapping[type, Callable[[Any], Any]]) -> bytes:
    """As `dumps`, with other reducers for some types."""

    class Pickler(_Pickler):
        sends_descriptors = True
        dispatch_table: ClassVar[Any] = ChainMap(
            dict(reducers), _Pickler.dispatch_table
        )  # of the class: pickle looks at it when it begins

    with io.BytesIO() as file:
        Pickler(file, protocol=5).dump(value)
        return file.getvalue()


def _add_slots(cls: type, arguments: tuple[Any, ...]) -> None:
    _, _, bases, namespace, *_ = arguments
    if typing.NamedTuple not in bases:  # which has slots of its own, and allows no others
        slots = vars(cls)["__slots__"]
        namespace.setdefault("__slots__", slots if isinstance(slots, str) else tuple(slots))


_definitions: WeakKeyDictionary[type, tuple[str, bytes | None]] = WeakKeyDictionary()
"""Of classes that went by value from here: number and definition."""


class _Back(_Pickler):
    def reducer_override(self, obj: Any) -> Any:
        if not issubclass(type(obj), type):
            return super().reducer_override(obj)
        told = _definitions.get(obj)
        if told is None:
            came = obj in inner._DYNAMIC_CLASS_TRACKER_BY_CLASS
            reduced = super().reducer_override(obj)
            if not isinstance(reduced, tuple) or len(reduced) != 6:  # it can be imported, or goes by name
                return reduced
            definition: bytes | None = dumps(obj, None, back=False)
            if came and len(definition or b"") > LARGE_DEFINITION:
                definition = None
            told = _definitions[obj] = inner._get_or_create_tracker_id(obj), definition
        return _class_arrives, told


def _class_arrives(number: str, definition: bytes | None) -> Any:
    known = inner._DYNAMIC_CLASS_TRACKER_BY_ID.get(number)
    if known is not None:
        return known
    if definition is None:
        raise pickle.UnpicklingError("its class has been dropped in this process, and was too large to come with it")
    return _Definition(io.BytesIO(definition)).load()


class _Definition(pickle.Unpickler):
    """Reads the definition of a class, and leaves alone the classes in it that are here already: its parents, say."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self._known: set[type] = set()

    def find_class(self, module: str, name: str) -> Any:
        found = super().find_class(module, name)
        if found is inner._make_skeleton_class or found is inner._make_skeleton_enum:
            return partial(self._make, found)
        if found is inner._class_setstate:
            return self._set_state
        return found

    def _make(self, make: Callable[..., type], *args: Any) -> type:
        known: type | None = inner._DYNAMIC_CLASS_TRACKER_BY_ID.get(args[-2])  # the number
        if known is None:
            return make(*args)
        self._known.add(known)
        return known

    def _set_state(self, cls: type, state: Any) -> Any:
        return cls if cls in self._known else inner._class_setstate(cls, state)
