"""What crosses the pipes as pickles: functions, arguments, contexts, results, errors.

::

    parent                                                        worker
    encode_args, Functions.encode, encode_context ── Payload ──▶  decode_args, decode_function, decode_context
    Encoded.decode, in the thread that asks       ◀── Payload ──  encode_result, encode_error

Plain pickle comes first, it takes half a microsecond. Two things send us to cloudpickle (by_value.py, 30 us and more): an error, as for
a lambda; and the name of the main script among the bytes, since pickle writes its classes and functions by name without complaint, and
workers do not have them (they never import the main script, so it needs no guard and nothing runs twice).

Large arrays stay where they are: pickle's protocol 5 hands over their memory, and frames.py writes it to the pipe from there. So a large
array is read when its frame is written, not when it is encoded.

A worker imports this file at its start: what few tasks need is imported where it is used.
"""

from __future__ import annotations

import builtins
import contextlib
import copyreg
import re
import sys
import weakref
from collections import deque
from functools import partial
from io import BytesIO
from itertools import chain, count, repeat
from pickle import PicklingError, Unpickler, UnpicklingError, dumps, loads
from sys import intern
from types import BuiltinFunctionType, FunctionType, GetSetDescriptorType, ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from abreast.core.current import name_of
from abreast.core.errors import TaskError
from abreast.core.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextvars import Context, ContextVar

__all__ = [
    "CONNECTIONS",
    "ERROR",
    "OK",
    "OUT_OF_BAND",
    "Common",
    "Encoded",
    "Functions",
    "NotSent",
    "Payload",
    "Pickled",
    "are_small",
    "decode_args",
    "decode_context",
    "decode_function",
    "decode_item",
    "decode_plain",
    "decode_rows",
    "decode_together",
    "encode_args",
    "encode_context",
    "encode_error",
    "encode_items",
    "encode_not_sent",
    "encode_plain",
    "encode_result",
    "encode_rows",
    "encode_simple",
    "encode_small",
    "goes_by_value",
    "is_in_main",
    "is_simple",
    "unpicklable",
]

OK, ERROR = 0, 1
"""What an `Encoded` is."""

OUT_OF_BAND = 128 * 1024
"""Bytes from which a buffer is not copied into the pickle."""
MOST_TOGETHER = 1 << 24
"""Bytes up to which the items of a batch share a pickle, or are copied together."""
SMALL_RESULT = 4096
"""Bytes of a result up to which nothing in it may be worth to be kept out of its pickle."""
MOST_BUFFERS = 1000
"""Buffers that are kept out of one pickle; more are copied into it."""
LARGE_FUNCTION = 1 << 20
"""Bytes from which a function gets a warning: what it drags along travels once to every worker, and is pickled at every submit."""

# The main script's name as pickle writes it, from protocol 4 on: opcode, length, text. A longer string of the user's that contains it
# is not meant; one that is exactly this name is taken for it, and cloudpickle can send that as well. `__mp_main__` is what the main
# script is called in the children of multiprocessing.
_IN_MAIN = re.compile(rb"\x8c(\x08__main__|\x0b__mp_main__)").search
CONNECTIONS = b"multiprocessing.connection"
"""Plain pickle would send a `Connection` as the number of a descriptor, which is something else in the other process."""
_modules = sys.modules


class Payload(NamedTuple):
    """A pickle, and the buffers that were kept out of it, in order.

    Attributes:
        data: a pickle of protocol 5; on arrival any object with its bytes.
        buffers: on departure memoryviews of plain bytes, each as large as `OUT_OF_BAND` or larger; on arrival bytearrays.
    """

    data: bytes
    buffers: tuple[Any, ...] = ()

    @property
    def size(self) -> int:
        """Bytes in all."""
        return len(self.data) + sum(map(len, self.buffers))


_payload: Callable[[tuple[bytes, tuple[Any, ...]]], Payload] = partial(tuple.__new__, Payload)  # half of what Payload(…) takes


def _keep(buffers: list[Any], buffer: Any) -> bool:
    """Pickle's question about each buffer: whether to copy it into the pickle."""
    try:
        raw = buffer.raw()
    except BufferError:  # not in one piece: pickle says what it thinks of that
        return True
    if raw.nbytes < OUT_OF_BAND or len(buffers) >= MOST_BUFFERS:
        return True
    buffers.append(raw)
    return False


class Common:
    """The functions and classes that the main script had when the workers of a pool were forked: copies of it have them by name."""

    __slots__ = ("_names",)

    def __init__(self) -> None:
        self._names: dict[str, Any] = {}

    def take(self) -> None:
        """Note what there is; to be called right before the fork."""
        self._names = {
            name: value
            for name, value in vars(_modules["__main__"]).copy().items()
            if isinstance(value, type | FunctionType) and getattr(value, "__module__", None) == "__main__"
        }
        from abreast.executors.process import variables

        variables.number_those_of_main()

    def name_of(self, value: Any) -> str | None:
        """Return the name by which a copy has the very same function or class; None if it goes by value: it is new, or another by now."""
        if value.__module__ != "__main__":
            return None
        name: str = value.__qualname__
        first, *rest = name.split(".")
        found = self._names.get(first)
        if found is None or getattr(_modules["__main__"], first, None) is not found:
            return None
        for part in rest:
            found = getattr(found, part, None)
        return name if found is value else None


common: Common | None = None
"""What a worker that is a copy has in common with its parent."""


def _encode(value: object, back: bool, in_band: bool = False, shared: Common | None = None) -> Payload:
    """Return `value` as it travels to a worker, or `back` from one; raise what pickling it raises."""
    buffers: list[Any] = []
    keep = None if in_band else partial(_keep, buffers)
    if not goes_by_value():
        try:
            data = dumps(value, 5, buffer_callback=keep)
            if (b"_main__" not in data or not _IN_MAIN(data)) and CONNECTIONS not in data:
                return _payload((data, tuple(buffers) if buffers else ()))
        except MemoryError:
            raise
        except Exception:  # noqa: S110  # cloudpickle can do it, or says why not
            pass
        buffers.clear()
    from abreast.executors.process import by_value

    data = by_value.dumps(value, keep, back=back, common=common if back else shared)
    return _payload((data, tuple(buffers)))


def _decode(payload: Payload) -> Any:
    data, buffers = payload
    return loads(data, buffers=buffers) if buffers else loads(data)  # noqa: S301  # what our own parent or worker has sent


def _in_words(error: BaseException) -> str:
    try:
        said = str(error)
    except BaseException:  # an error's own __str__ failed: its type has to do
        said = ""
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


# ---- arguments


def encode_args(
    args: tuple[Any, ...],
    kwargs: dict[str, Any] | None,
    what: object,
    *,
    in_band: bool = False,
    common: Common | None = None,
) -> Payload:
    """Return the arguments of a call as they travel to a worker.

    `what` is the call in an error's text; its ``str()`` is taken only then. `in_band`: copy large arrays into the pickle too. `common`:
    of a pool whose workers are copies of this process.

    Raises:
        TaskPickleError: an argument cannot be pickled; names it.
        SystemExit, KeyboardInterrupt: and what else is no Exception: as pickling an argument raised it.
    """
    try:
        return _encode((args, kwargs), False, in_band, common)
    except MemoryError:
        raise
    except Exception as error:
        parts = [(f"args[{n}]", value) for n, value in enumerate(args)]
        parts += [(f"kwargs[{name!r}]", value) for name, value in (kwargs or {}).items()]
        raise _unpicklable(f"the arguments of {what}", parts, error, False) from error


def are_small(args: tuple[Any, ...]) -> bool:
    """Whether arguments are few plain values, and small: those need not be pickled before they are sent, since nothing can change them."""
    for value in args:
        kind = type(value)
        if kind not in _FIXED and not ((kind is str or kind is bytes) and len(value) <= 200):
            return False
    return len(args) <= 8


def encode_small(args: tuple[Any, ...]) -> Payload:
    """Return such arguments as `encode_args` does."""
    return _payload((dumps((args, None), 5), ()))


def encode_plain(items: list[Any], *, star: bool) -> bytes | None:
    """Return one pickle of all items, if they are plain values, or tuples of such; None if they are not.

    Only of those: items that have a pickle in common are no longer independent (what one task changes in an object, others see), and
    one that cannot be pickled, or unpickled, takes the others along. Exact types: a subclass may do anything.
    """
    if not _UNCHANGING.issuperset(map(type, chain.from_iterable(items) if star else items)):
        return None
    data = dumps(items, 5)
    return data if len(data) <= MOST_TOGETHER else None


def encode_items(items: list[Any]) -> list[bytes] | None:
    """Return a pickle of each item; None if some need a second look: large ones, those of the main script, those that pickle refuses."""
    pickles = []
    try:
        for item in items:
            data = dumps(item, 5)
            if len(data) > OUT_OF_BAND:
                return None
            pickles.append(data)
    except KeyboardInterrupt:
        raise
    except BaseException:  # SystemExit too: told by the slower way, for the task whose it is
        return None
    together = b"".join(pickles)
    if len(together) > MOST_TOGETHER or b"_main__" in together or CONNECTIONS in together or goes_by_value():
        return None
    return pickles


def goes_by_value() -> bool:
    """Whether the user has told cloudpickle to send some modules by value, with `cloudpickle.register_pickle_by_value`."""
    cloudpickle = _modules.get("cloudpickle.cloudpickle")
    return cloudpickle is not None and bool(getattr(cloudpickle, "_PICKLE_BY_VALUE_MODULES", None))


class _Plain(Unpickler):
    """Unpickles plain values, and nothing else, whatever the bytes say: no code of anybody's is called."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise UnpicklingError(f"{module}.{name} among plain values")


def decode_plain(data: Any) -> list[Any]:
    """Return a list of plain values.

    Raises:
        Exception: this is none.
    """
    values = _Plain(BytesIO(data)).load()
    if type(values) is not list:
        raise UnpicklingError("no list of plain values")
    return values


class _Simple(Unpickler):
    """The same, and objects of simple classes that this process has imported; of others what they hold."""

    def find_class(self, module: str, name: str) -> Any:
        found = _by_name(module, name)
        return found if type(found) is type and is_simple(found) else type("_Stub", (_Stub,), {"name": (module, name)})


class _Stub:
    """What stands for a class that this process does not know, or of which it is not sure that nothing of the user's runs."""

    name = ("", "")


def decode_together(data: bytes) -> list[Any]:
    """Return results that share a pickle: as they are, if no code of anybody's runs by that, else a `Pickled` of each such one.

    Raises:
        Exception: this is none.
    """
    values = _Simple(BytesIO(data)).load()
    if type(values) is not list:
        raise UnpicklingError("no list of results")
    return [_alone(value) if isinstance(value, _Stub) else value for value in values]


def encode_rows(values: list[Any]) -> bytes | None:
    """Return one pickle of objects of one simple class that have the same attributes: class, names, and a row of values each; None if they do not.

    That takes a fifth of what pickle takes for them, and half as much memory there: an object whose attributes are set has no dict.
    """
    kind = type(values[0])
    if set(map(type, values)) != {kind}:
        return None
    states: list[dict[str, Any]] = list(map(_GET, values, repeat("__dict__")))
    shapes = set(map(tuple, states))
    if len(shapes) != 1:
        return None
    return dumps((kind.__module__, kind.__qualname__, shapes.pop(), list(map(tuple, map(dict.values, states)))), 5)


def decode_rows(data: bytes) -> list[Any]:
    """Return what `encode_rows` had: the objects, if no code of anybody's runs by that, else a `Pickled` of each.

    Raises:
        Exception: this is none.
    """
    told = _Plain(BytesIO(data)).load()
    if type(told) is not tuple or tuple(map(type, told)) != (str, str, tuple, list):
        raise UnpicklingError("no rows")
    module, name, keys, rows = told
    if not (_TEXTS.issuperset(map(type, keys)) and _ROWS.issuperset(map(type, rows)) and {len(keys)}.issuperset(map(len, rows))):
        raise UnpicklingError("rows of another shape")
    kind = _by_name(module, name)
    if type(kind) is not type or not is_simple(kind):
        return [Pickled(_pickle_of(module, name, dict(zip(keys, row, strict=True)))) for row in rows]
    made: list[Any] = list(map(_NEW, repeat(kind, len(rows))))
    if all(type(one.__dict__[key]) in _UNCHANGING for one in kind.__mro__ for key in keys if key in one.__dict__):
        for key, column in zip(map(intern, keys), zip(*rows, strict=True), strict=bool(rows)):
            deque(map(_SET, made, repeat(key), column), maxlen=0)
    else:  # the class has a property of that name, say, which would be asked
        for value, row in zip(made, rows, strict=True):
            _GET(value, "__dict__").update(zip(map(intern, keys), row, strict=True))
    return made


_NEW, _GET, _SET = object.__new__, object.__getattribute__, object.__setattr__
_TEXTS, _ROWS = frozenset((str,)), frozenset((tuple,))


def _alone(stub: _Stub) -> Pickled:
    """Return the pickle that the object which it stands for would have had by itself."""
    return Pickled(_pickle_of(*stub.name, vars(stub)))


def _pickle_of(module: str, name: str, state: dict[str, Any]) -> bytes:
    parts = [_PROTO_5]
    for text in (module, name):
        data = text.encode("utf-8", "surrogatepass")
        parts += (_BINUNICODE, len(data).to_bytes(4, "little"), data)
    # The last byte of a frame, if there is one, is STOP: BUILD takes its place.
    return b"".join((*parts, _STACK_GLOBAL_NEWOBJ, dumps(state, 5)[2:-1] + b"b." if state else b"."))


def encode_simple(value: object) -> Payload:
    """Return an object, of a class that was simple as it was returned, as plain pickle would have written it then, whatever the class is by now."""
    kind = type(value)
    return _payload((_pickle_of(kind.__module__, kind.__qualname__, object.__getattribute__(value, "__dict__")), ()))


_PROTO_5, _BINUNICODE, _STACK_GLOBAL_NEWOBJ = b"\x80\x05", b"X", b"\x93)\x81"
_OWN = frozenset(
    (
        "__new__",
        "__reduce__",
        "__reduce_ex__",
        "__getstate__",
        "__getattribute__",
        "__getnewargs__",
        "__getnewargs_ex__",
        "__setstate__",
        "__getattr__",
        "__del__",
    )
)
_HEAP_TYPE, _IS_ABSTRACT = 1 << 9, 1 << 20  # Py_TPFLAGS_HEAPTYPE, Py_TPFLAGS_IS_ABSTRACT


def is_simple(kind: type) -> bool:
    """Whether an object of this class is no more than what its ``__dict__`` holds, and the class is found by its name.

    Nothing of the user's runs then when it is pickled, unpickled, or dropped: most dataclasses, and classes that people write without
    a thought of pickle.
    """
    if type(kind) is not type or not kind.__dictoffset__ or kind.__flags__ & _IS_ABSTRACT or kind in copyreg.dispatch_table:
        return False
    for one in kind.__mro__[:-1]:
        names = one.__dict__
        # Looked up in the classes' own dicts: getattr might run a descriptor of the user's.
        if (
            not one.__flags__ & _HEAP_TYPE
            or names.get("__slots__")
            or names.get("__slotnames__")
            or type(names.get("__dict__")) not in _DICTS
            or not _OWN.isdisjoint(names)
        ):
            return False
    module = kind.__module__
    return (
        type(module) is str
        and module not in _MAIN
        and (module, kind.__qualname__) not in copyreg._extension_registry  # type: ignore[attr-defined]  # typeshed has it not
        and _by_name(module, kind.__qualname__) is kind
    )


_DICTS = (type(None), GetSetDescriptorType)
_MAIN = ("__main__", "__mp_main__")


def _by_name(module: str, name: str) -> Any:
    """Return what an imported module has by this name, if no code of the module's runs by the search; else None."""
    found: Any = _modules.get(module)
    if getattr(getattr(found, "__spec__", None) if type(found) is ModuleType else None, "_initializing", False):
        return None  # another thread is importing it: what a name means may change yet; unpickling waits for that
    for part in name.split("."):
        found = getattr(found, "__dict__", {}).get(part) if type(found) in (ModuleType, type) else None
    return found


def decode_item(payload: Payload) -> Any:
    """Return an item that has been pickled alone; raise what unpickling it raises."""
    return loads(payload.data)  # noqa: S301  # what our own parent has sent


def decode_args(payload: Payload) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the positional and the keyword arguments; raise what unpickling them raises."""
    args, kwargs = _decode(payload)
    return args, kwargs or {}


def is_in_main(data: bytes) -> bool:
    """Whether a pickle names something of the main script."""
    return b"_main__" in data and _IN_MAIN(data) is not None


def unpicklable(what: str, parts: list[tuple[str, Any]], error: Exception, pickle: Callable[[object], object]) -> Exception:
    """Return the error that says which of the parts, each with what to call it, `pickle` cannot pickle."""
    from abreast.core.process_errors import TaskPickleError
    from abreast.executors.process import culprit

    def attempt(part: object) -> str:
        try:
            pickle(part)
        except Exception as problem:
            return _why(problem)
        return ""

    if isinstance(error, RecursionError) or isinstance(error.__cause__, RecursionError):
        return TaskPickleError(what, "", _why(error))  # nested too deeply: no part is to blame
    place, why = culprit.find(parts, attempt)
    return TaskPickleError(what, place, why or _why(error))


def _unpicklable(what: str, parts: list[tuple[str, Any]], error: Exception, back: bool) -> Exception:
    from abreast.executors.process import by_value

    return unpicklable(what, parts, error, partial(by_value.dumps, keep=partial(_keep, []), back=back))


def _why(error: BaseException) -> str:
    words = _in_words(error)
    if isinstance(error, PicklingError | TypeError):  # what pickle itself raises: "cannot pickle 'socket' object" says it all
        words = words.partition(": ")[2] or words
    return words


class NotSent(BaseException):
    """Raised by unpickling what stands for arguments that could not be pickled; `encode_error` of why is the task's outcome."""

    def __init__(self, payload: Payload) -> None:
        super().__init__()
        self.payload = payload


def encode_not_sent(error: BaseException) -> Payload:
    """Return what stands for the arguments of a task when pickling them has raised `error`, which is the task's, not its mates'."""
    data = encode_error(error)
    return Payload(dumps(_NotSent(data.data, tuple(bytes(buffer) for buffer in data.buffers)), 5))


class _NotSent:
    def __init__(self, data: bytes, buffers: tuple[bytes, ...]) -> None:
        self.sent = data, buffers

    def __reduce__(self) -> tuple[Any, ...]:
        return _raise_not_sent, self.sent


def _raise_not_sent(data: bytes, buffers: tuple[bytes, ...]) -> NoReturn:
    raise NotSent(Payload(data, buffers))


# ---- functions


class Functions:
    """The functions of one pool as they travel, each with a number; any thread may use it.

    A number stands for bytes: a worker that has those needs only the number. What a module has under the function's name goes by that
    name; anything else by value, *anew at every call*, since a notebook's cell may have changed what the function uses.
    """

    __slots__ = ("_common", "_known", "_numbers", "_older", "_younger")

    KEPT = 512
    """Numbers that are remembered, the last ones used; twice that at most."""

    # No lock: each step is one operation of a dict. Where two threads meet, the same bytes may get two numbers, and travel twice.
    def __init__(self, common: Common | None = None) -> None:
        self._common = common
        self._known: dict[Any, tuple[str, str, tuple[int, bytes]]] = {}
        self._numbers = count(1)
        self._younger: dict[bytes, int] = {}
        self._older: dict[bytes, int] = {}

    def encode(self, fn: Any) -> tuple[int, bytes]:
        """Return the number and the pickle of a function.

        Raises:
            TaskPickleError: it uses something that cannot be pickled; names it.
        """
        kind = type(fn)
        if kind is FunctionType or kind is BuiltinFunctionType or kind is type:  # other types might compare their own way
            known = self._known.get(fn)
            if known is not None:
                module, name, sent = known
                if getattr(_modules.get(module), name, None) is fn:  # it may have been replaced there, by a test or a reload
                    return sent
        try:
            data = _encode(fn, False, True, self._common).data
        except MemoryError:
            raise
        except Exception as error:
            name = name_of(fn)
            raise _unpicklable(f"the function {name}", [(name, fn)], error, False) from error
        if len(data) >= LARGE_FUNCTION:
            _warn_of_large(fn, len(data))
        sent = self._number(data), data
        if kind is FunctionType or kind is BuiltinFunctionType or kind is type:
            self._remember(fn, sent)
        return sent

    def _remember(self, fn: Any, sent: tuple[int, bytes]) -> None:
        module, name = getattr(fn, "__module__", None), fn.__qualname__
        if (
            isinstance(module, str)
            and (module not in ("__main__", "__mp_main__") or (self._common is not None and self._common.name_of(fn) is not None))
            and getattr(_modules.get(module), name, None) is fn
            and b"cloudpickle" not in sent[1]  # by value, although it has a name: register_pickle_by_value
        ):
            if len(self._known) >= self.KEPT:
                self._known.clear()
            self._known[fn] = module, name, sent

    def _number(self, data: bytes) -> int:
        key = data
        if len(data) > 256:
            from hashlib import blake2b

            key = blake2b(data, digest_size=20).digest()
        number = self._younger.get(key)
        if number is None:
            younger = self._younger
            if len(younger) >= self.KEPT:
                self._older, self._younger = younger, {}
            number = self._younger.setdefault(key, self._older.get(key) or next(self._numbers))
        return number


_warned_of: set[str] = set()


def _warn_of_large(fn: Any, size: int) -> None:
    """Warn once of each function, at the line that has submitted it."""
    name = name_of(fn)
    told = f"{getattr(fn, '__module__', '')}.{name}"
    if told in _warned_of:
        return
    _warned_of.add(told)
    import warnings

    from abreast.executors.process import culprit

    part = culprit.largest(fn, name, lambda value: _encode(value, False).size)
    because = f", most of it for {part}" if part else ""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("abreast."):
        level, frame = level + 1, frame.f_back
    warnings.warn(
        f"the function {name} takes {size / 2**20:.1f} MiB along to every worker{because}: it is pickled at every submit. Hand large data over as an argument, or load it in the worker.",
        RuntimeWarning,
        stacklevel=level,
    )


def decode_function(data: bytes) -> Any:
    """Return the function; raise what unpickling it raises."""
    return loads(data)  # noqa: S301  # what our own parent has sent


# ---- contexts

_last_context: tuple[list[tuple[ContextVar[Any], Any]], Payload | None] | None = None
_told_of: set[ContextVar[Any]] = set()
_failed: dict[ContextVar[Any], weakref.ref[Any]] = {}
"""The last value of each variable that could not be pickled: not tried at every submit, which takes 50 us."""
_UNCHANGING = frozenset((type(None), bool, int, float, complex, str, bytes))
_FIXED = frozenset((type(None), bool, int, float))


def encode_context(context: Context, common: Common | None = None) -> Payload | None:
    """Return the variables of a context as they travel to a worker; None if there are none.

    Left out: variables that no module has under a name (but those of functions that were encoded before), and values that cannot be
    pickled. Both are told of once, at DEBUG.
    """
    global _last_context
    if not context:
        return None
    items = list(context.items())
    last = _last_context
    if last is not None and len(last[0]) == len(items):
        for (var, value), (last_var, last_value) in zip(items, last[0], strict=True):
            if value is not last_value or var is not last_var:
                break
        else:
            return last[1]
    told = [pair for var, value in items if (pair := _encode_variable(var, value, common)) is not None]
    payload = Payload(dumps(told, 5)) if told else None
    if all(type(value) in _UNCHANGING for _, value in items):  # else what a value holds may be another thing next time
        _last_context = items, payload
    return payload


def _encode_variable(var: ContextVar[Any], value: object, common: Common | None) -> tuple[Any, bytes] | None:
    from abreast.executors.process import variables

    failed = _failed.get(var)
    if failed is not None and failed() is value:
        return None
    try:
        how = variables.address(var, value)
        if how is None:
            return None
        return how, _encode(value, False, True, common).data
    except MemoryError:
        raise
    except Exception as error:
        why = _in_words(error)
        if not isinstance(error, LookupError):
            with contextlib.suppress(TypeError):  # it cannot be referred to weakly: tried again next time
                _failed[var] = weakref.ref(value)
    if var not in _told_of:
        _told_of.add(var)
        import logging

        logging.getLogger("abreast").debug("the context variable %r does not go to worker processes: %s", var.name, why)
    return None


def decode_context(payload: Payload) -> Context:
    """Return a context in which the variables are set; those that cannot be are left out, and told of at DEBUG."""
    from contextvars import Context

    from abreast.executors.process import variables

    context = Context()
    for how, data in _decode(payload):
        try:
            context.run(variables.setter(how), loads(data))  # noqa: S301  # what our own parent has sent
        except Exception as error:
            import logging

            logging.getLogger("abreast").debug("the context variable %r is not set in this worker: %s", how, _in_words(error))
    return context


# ---- results


def encode_result(value: object) -> Payload:
    """Return a result as it travels back.

    Raises:
        TaskPickleError: it cannot be pickled; names the part.
        SystemExit, KeyboardInterrupt: and what else is no Exception: as pickling it raised it.
    """
    if type(value) in _UNCHANGING:
        return _payload((dumps(value, 5), ()))
    try:
        return _encode(value, True)
    except MemoryError:
        raise
    except Exception as error:
        raise _unpicklable("the result", [("result", value)], error, True) from error


# What survives a pickle for sure, if it is exactly of this type and so are its arguments.
_BUILT_IN = frozenset(
    value
    for value in vars(builtins).values()
    if isinstance(value, type) and issubclass(value, BaseException) and not issubclass(value, BaseExceptionGroup)
)


def encode_error(error: BaseException) -> Payload:
    """Return an error as it travels back, its traceback as text; never raises.

    One that cannot be pickled, or not unpickled, becomes a `TaskError`: which is why all but built-in ones are unpickled here.
    """
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    text = _traceback(error)
    data: bytes | None = None
    buffers: tuple[Any, ...] = ()
    why = said = ""
    try:
        data, buffers = payload = _encode(error, True)
        if kind not in _BUILT_IN or not all(type(value) in _UNCHANGING for value in error.args) or error.__dict__:
            copy = _decode(payload)
            if not isinstance(copy, BaseException):
                raise TypeError(f"its pickle gives {copy!r}")  # told below
    except BaseException as problem:  # of the user's code, SystemExit too: not what the task came to
        data, buffers = None, ()
        why = f"the exception itself cannot be sent to another process: {_in_words(problem)}"
    try:
        said = str(error)
    except BaseException:  # of the user's code, as above
        said = "<its str() failed>"
    try:
        notes = [note for note in getattr(error, "__notes__", None) or () if isinstance(note, str)]
    except BaseException:  # of the user's code, as above
        notes = []
    return Payload(dumps((name, str.__str__(said), text, notes, why, data), 5), buffers)


def _traceback(error: BaseException) -> str:
    """Return an error's traceback as text, without the frames of this package that it begins with."""
    import os
    import traceback

    try:
        told = traceback.TracebackException(type(error), error, error.__traceback__)
        ours = os.path.join(os.path.dirname(__file__), "")  # pathlib takes 3 ms to import
        for part in _chain(told):
            while part.stack and part.stack[0].filename.startswith(ours):
                del part.stack[0]
        return "".join(told.format())
    except BaseException as problem:  # of the user's code again: str(), a property
        return f"{type(error).__name__} (its traceback cannot be told: {type(problem).__name__})\n"


def _chain(told: Any) -> Iterator[Any]:
    todo = [told]
    while todo:
        part = todo.pop()
        if part is not None:
            yield part
            todo += (part.__cause__, part.__context__, *(getattr(part, "exceptions", None) or ()))


class Pickled(bytes):
    """A result of a run's task that is still bytes, without buffers.

    No tuple, and no place where it came from: of many tiny results each object more costs as much as the result, the collector's time
    included. A subclass of bytes without attributes is none of the collector's business.
    """

    __slots__ = ()

    def decode(self) -> Any:  # type: ignore[override]  # not the text that bytes may be
        """As `Encoded.decode`."""
        return Encoded(OK, Payload(self)).decode()

    @staticmethod
    def decode_into(values: list[Any], results: list[Pickled]) -> None:
        """Unpickle results, one after another; raise what the first raises that cannot be."""
        values.extend(map(loads, results))


class Encoded(NamedTuple):
    """An outcome that is still bytes.

    Attributes:
        status: `OK`, a result, or `ERROR`, an exception.
        payload: its bytes.
    """

    status: int
    payload: Payload

    def decode(self) -> Any:
        """Return the result, or the exception object, its cause the traceback in the worker. To be called until it has succeeded once.

        Raises:
            ResultDecodeError: it cannot be unpickled here.
            KeyboardInterrupt: struck meanwhile; the bytes are still there.
        """
        data, buffers = self.payload
        try:
            value = loads(data, buffers=buffers) if buffers else loads(data)  # noqa: S301  # what our own worker has sent
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # SystemExit too: it is code of the user's that runs here
            from abreast.core.process_errors import ResultDecodeError

            raise ResultDecodeError(_in_words(error)) from error
        return value if self.status == OK else _error_arrives(value, buffers)

    def told(self) -> str:
        """Return an exception as one line of text. Runs no code of the user's: what has its pickle is not looked at."""
        name, said, *_ = loads(self.payload[0], buffers=self.payload[1])  # noqa: S301  # texts, which our own worker has made
        return printable(f"{name.rpartition('.')[2]}: {said}" if said else name)[:300]


def _error_arrives(told: tuple[Any, ...], buffers: tuple[Any, ...]) -> BaseException:
    from concurrent.futures.process import _RemoteTraceback  # what others look for, CPython's own tests too

    name, said, text, notes, why, data = told
    error: Any = None
    if data is not None:
        try:
            error = loads(data, buffers=buffers)  # noqa: S301  # what our own worker has sent
            if not isinstance(error, BaseException):
                raise TypeError(f"its pickle gives {error!r}")  # told below
        except KeyboardInterrupt:
            raise
        except BaseException as problem:  # as in Encoded.decode; what the task raised is known all the same
            error, why = None, f"the exception itself cannot be unpickled in this process: {_in_words(problem)}"
    if error is None:
        error = TaskError(name, said, text)
        notes = [*notes, why]
    # By BaseException's own hand: a frozen dataclass allows no attribute to be set, not even these.
    if notes and getattr(error, "__notes__", None) != notes:
        BaseException.__setattr__(error, "__notes__", notes)
    BaseException.__setattr__(error, "__cause__", _RemoteTraceback(f'\n"""\n{text}"""'))  # type: ignore[arg-type]  # a text, whatever typeshed says
    return error  # type: ignore[no-any-return]  # an exception, as has been looked at
