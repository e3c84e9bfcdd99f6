"""Which task is which: a key made of the content of its input; and which function is which.

The key of a task is `KEY` bytes of BLAKE2b (RFC 7693) over an encoding of its arguments in which equal contents of the same classes are equal
bytes, in every process and on every day: sets and dictionaries are sorted by what their items are encoded as, numbers and texts carry their
class and their length. What is of a class that is not known here is encoded as its pickle, which need not be so steady (sets and shared texts inside may
come out otherwise in the next process). Such a key is one byte longer, and called unstable.

::

    encoding = class's letter, length of what follows, what follows      so no two contents run into each other
"""

from __future__ import annotations

import ast
import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import functools
import inspect
import operator
import pathlib
import pickle
import struct
import sys
import textwrap
import types
import uuid
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["KEY", "Identity", "Unidentified", "identity_of", "is_unstable", "key_of", "shown_key", "users_key"]

KEY = 16
_UNSTABLE = b"?"


class Unidentified(Exception):
    """There is no key for an input; the text says why."""


def key_of(value: Any) -> bytes:
    """Return the key of a task by its input.

    Raises:
        Unidentified: it cannot be pickled, or is nested too deep.
    """
    kind = type(value)
    if kind is str:  # the two most frequent, in one step
        return blake2b(b"s" + value.encode("utf-8", "surrogatepass"), digest_size=KEY).digest()
    if kind is int:
        return blake2b(b"i%x" % value if value >= 0 else b"i-%x" % -value, digest_size=KEY).digest()
    encoder = _Encoder()
    try:
        data = encoder.encode(value)
    except RecursionError:
        raise Unidentified("it is nested too deep, or contains itself") from None
    except Unidentified:
        raise
    except Exception as error:  # of a property, or a `__str__`, of the user's
        raise Unidentified(f"{type(error).__name__}: {error}") from error
    digest = blake2b(data, digest_size=KEY).digest()
    return digest if encoder.is_stable else digest + _UNSTABLE


def is_unstable(key: bytes | str) -> bool:
    """Whether an equal input may have another key in the next process."""
    return type(key) is bytes and len(key) == KEY + 1


def users_key(key: object) -> bytes | str:
    """Return what the user's own function gives as a key.

    Raises:
        TypeError: it is neither a text nor bytes.
    """
    if isinstance(key, bytes):
        return _apart(b"b", bytes(key))
    if isinstance(key, str):
        try:
            key.encode()
        except UnicodeEncodeError:  # half of a surrogate pair, as names of files may have
            return _apart(b"s", key.encode("utf-8", "surrogatepass"))
        return str.__str__(key)  # not what a class of the user's shows
    raise TypeError(f"key must return a str or bytes, not {key!r} ({type(key).__name__})")


def shown_key(key: bytes | str) -> str:
    """Return a key as a person may know it: what the user's own function gave, bytes and digests in base 16."""
    if isinstance(key, str):
        return key
    if len(key) in (KEY, KEY + 1):
        return key.hex()
    letter, data = key[:1], key[1:-2] if key[:1].isupper() else key[1:]
    try:
        return data.decode("utf-8", "surrogatepass") if letter in b"sS" else data.hex()
    except UnicodeDecodeError:  # in a journal of nobody's
        return data.hex()


def _apart(letter: bytes, data: bytes) -> bytes:
    """Return bytes that differ as `data` and `letter` do, of a length that no key of `key_of` has."""
    return letter + data if len(data) + 1 not in (KEY, KEY + 1) else letter.upper() + data + b"\0\0"


class _Encoder:
    def __init__(self) -> None:
        self.is_stable = True

    def encode(self, value: Any) -> bytes:
        method = _METHODS.get(type(value))
        if method is not None:
            return method(self, value)
        return self._other(value)

    # ---- exact classes

    def _str(self, value: str) -> bytes:
        return _framed(b"s", value.encode("utf-8", "surrogatepass"))

    def _bytes(self, value: bytes | bytearray) -> bytes:
        return _framed(b"b" if type(value) is bytes else b"y", bytes(value))

    def _int(self, value: int) -> bytes:
        return _framed(b"i", b"%x" % value if value >= 0 else b"-%x" % -value)  # no limit of digits in base 16

    def _float(self, value: float) -> bytes:
        return b"f" + struct.pack("<d", value)

    def _complex(self, value: complex) -> bytes:
        return b"c" + struct.pack("<2d", value.real, value.imag)

    def _constant(self, value: object) -> bytes:
        return _CONSTANTS[value]

    def _sequence(self, value: tuple[Any, ...] | list[Any]) -> bytes:
        return self._items(b"t" if type(value) is tuple else b"l", value)

    def _items(self, letter: bytes, items: Any, name: bytes = b"") -> bytes:
        return _framed(letter, name + b"".join(map(self.encode, items)))

    def _set(self, value: set[Any] | frozenset[Any]) -> bytes:
        return _framed(b"S" if type(value) is set else b"Z", b"".join(sorted(map(self.encode, value))))

    def _dict(self, value: dict[Any, Any]) -> bytes:
        pairs = sorted((self.encode(key), self.encode(item)) for key, item in value.items())
        return _framed(b"d", b"".join(part for pair in pairs for part in pair))

    def _text(self, value: Any) -> bytes:
        """Of classes whose ``str`` says all: numbers, dates, identifiers."""
        return _framed(b"x", _name(value) + str(value).encode())

    def _time(self, value: dt.datetime | dt.time) -> bytes:
        """The zone too: what is the same time now need not be that after an hour is added."""
        zone = value.tzinfo
        known = repr(zone) if type(zone).__module__ in ("datetime", "zoneinfo") else zone
        return self._items(b"X", (value.replace(tzinfo=None).isoformat(), value.fold, known), _name(value))

    def _timedelta(self, value: dt.timedelta) -> bytes:
        return _framed(b"x", b"timedelta" + f"{value.days} {value.seconds} {value.microseconds}".encode())

    def _range(self, value: range | slice) -> bytes:
        return self._items(b"r", (value.start, value.stop, value.step), _name(value))

    # ---- classes of many kinds

    def _other(self, value: Any) -> bytes:
        kind = type(value)
        if isinstance(value, pathlib.PurePath) and kind.__module__.partition(".")[0] == "pathlib":
            return _framed(b"p", _name(value) + str(value).encode("utf-8", "surrogatepass"))
        if isinstance(value, enum.Enum):
            return self._items(b"e", (value.name, value.value), _full_name(kind))
        if "__dataclass_fields__" in kind.__dict__ and not any(
            base in _METHODS or base is BaseException for base in kind.__mro__
        ):
            items = [(field.name, getattr(value, field.name, None)) for field in dataclasses.fields(kind) if field.compare]
            return self._items(b"D", items, _full_name(kind))
        if isinstance(value, tuple) and hasattr(kind, "_fields") and not getattr(value, "__dict__", None):
            return self._items(b"N", value, _full_name(kind))
        if kind.__module__ == "numpy":
            return self._numpy(value)
        return self._pickled(value)

    def _numpy(self, value: Any) -> bytes:
        kind = getattr(value, "dtype", None)
        if kind is None or kind.hasobject or type(value).__name__ not in ("ndarray", kind.type.__name__):
            return self._pickled(value)
        shape = value.shape if type(value).__name__ == "ndarray" else "scalar"
        return _framed(b"n", f"{kind.descr if kind.fields else kind.str}{shape}".encode() + b"\0" + value.tobytes())

    def _pickled(self, value: object) -> bytes:
        self.is_stable = False
        try:
            return _framed(b"P", pickle.dumps(value, 5))
        except RecursionError:
            raise
        except Exception as error:
            raise Unidentified(f"{type(error).__name__}: {error}") from error


def _framed(letter: bytes, data: bytes) -> bytes:
    return letter + len(data).to_bytes(8, "little") + data


def _name(value: object) -> bytes:
    """The class's name, without its module: Python's own classes have others in other versions."""
    return type(value).__qualname__.encode() + b"\0"


def _full_name(kind: type) -> bytes:
    """The name of a class of the user's, with its module: ``v1.Order(1)`` is not ``v2.Order(1)``."""
    module = kind.__module__
    if module in ("__main__", "__mp_main__"):
        module = _name_of_main()
    return f"{module}:{kind.__qualname__}".encode("utf-8", "backslashreplace") + b"\0"


def _name_of_main() -> str:
    """Return the name that the script which is run has when it is imported."""
    main = sys.modules.get("__main__")
    spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
    if spec is not None and spec.name != "__main__":
        return str(spec.name)
    return _name_of_file(file) if isinstance(file, str) else "__main__"


@functools.lru_cache(1)
def _name_of_file(file: str) -> str:
    path = pathlib.Path(file).absolute()
    names = [path.stem]
    for folder in path.parents:
        if not (folder / "__init__.py").exists():
            break
        names.append(folder.name)
    return ".".join(reversed(names))


_CONSTANTS: dict[object, bytes] = {None: b"0", True: b"T", False: b"F", ...: b"E"}
_METHODS: dict[type, Callable[[_Encoder, Any], bytes]] = {
    str: _Encoder._str,
    bytes: _Encoder._bytes,
    bytearray: _Encoder._bytes,
    bool: _Encoder._constant,
    type(None): _Encoder._constant,
    type(...): _Encoder._constant,
    int: _Encoder._int,
    float: _Encoder._float,
    complex: _Encoder._complex,
    tuple: _Encoder._sequence,
    list: _Encoder._sequence,
    set: _Encoder._set,
    frozenset: _Encoder._set,
    dict: _Encoder._dict,
    range: _Encoder._range,
    slice: _Encoder._range,
    dt.datetime: _Encoder._time,
    dt.date: _Encoder._text,
    dt.time: _Encoder._time,
    dt.timedelta: _Encoder._timedelta,
    decimal.Decimal: _Encoder._text,
    fractions.Fraction: _Encoder._text,
    uuid.UUID: _Encoder._text,
}


# ---- functions


class Identity(NamedTuple):
    """Which function a journal belongs to.

    Attributes:
        name: its module and name; the name alone is compared: a script that is run is another module than the same one imported.
        digest: of its code; empty if there is nothing to look at (built-in functions).
        scheme: what the digest was made of. Digests of two schemes say nothing about each other.
    """

    name: str
    digest: bytes
    scheme: str

    @property
    def qualname(self) -> str:
        return self.name.rpartition(":")[2]

    def has_changed(self, digest: bytes, scheme: str) -> bool:
        """Whether it was another function that has been recorded with this digest."""
        return scheme == self.scheme and digest != self.digest


def identity_of(fn: Callable[..., Any]) -> Identity:
    """Return a function's name, and a digest of its own code, its defaults, and the classes of what it closes over.

    Not looked at: what it calls.
    """
    module, qualname = _name_of(fn)
    parts: list[bytes] = []
    schemes: set[str] = set()
    try:
        _add_function(fn, parts, schemes, set())
    except RecursionError:
        parts.clear()
    digest = blake2b(b"".join(parts), digest_size=KEY).digest() if parts else b""
    return Identity(f"{module}:{qualname}", digest, "+".join(sorted(schemes)))


def _name_of(fn: Any) -> tuple[str, str]:
    while isinstance(fn, (functools.partial, functools.partialmethod)):
        fn = fn.func
    if not hasattr(fn, "__qualname__") and hasattr(fn, "__wrapped__"):
        return _name_of(fn.__wrapped__)
    if isinstance(
        name := getattr(fn, "__qualname__", None) or getattr(fn, "__name__", None), str
    ):  # some of C have only the second: numpy's
        return getattr(fn, "__module__", None) or "builtins", name
    return type(fn).__module__, type(fn).__qualname__


def _add_function(fn: Any, parts: list[bytes], schemes: set[str], seen: set[int]) -> None:
    if id(fn) in seen:
        return
    seen.add(id(fn))
    if isinstance(fn, functools.partial):
        parts.append(_shallow((fn.args, fn.keywords)))
        _add_function(fn.func, parts, schemes, seen)
    elif isinstance(fn, types.MethodType):
        parts.append(type(fn.__self__).__qualname__.encode())
        _add_function(fn.__func__, parts, schemes, seen)
    elif isinstance(fn, types.FunctionType):
        text = _source(fn)
        if text is not None:
            schemes.add("source")
            parts.append(text.encode("utf-8", "surrogatepass"))
        else:
            schemes.add(f"code {sys.implementation.cache_tag}")
            _add_code(fn.__code__, parts)
        parts.append(_shallow((fn.__defaults__, fn.__kwdefaults__)))
        for cell in fn.__closure__ or ():
            parts.append(_class_in(cell))
            _add_function_in(cell, parts, schemes, seen)
        wrapped = getattr(fn, "__wrapped__", None)
        if wrapped is not None:
            _add_function(wrapped, parts, schemes, seen)
    elif hasattr(fn, "__wrapped__"):  # functools.lru_cache, and whoever says so
        _add_function(fn.__wrapped__, parts, schemes, seen)
    elif isinstance(fn, (operator.itemgetter, operator.attrgetter, operator.methodcaller)):
        parts.append(repr(fn).encode("utf-8", "backslashreplace"))
    elif not isinstance(fn, type) and isinstance(getattr(type(fn), "__call__", None), types.FunctionType):  # noqa: B004  # which function that is
        _add_function(type(fn).__call__, parts, schemes, seen)


def _add_function_in(cell: Any, parts: list[bytes], schemes: set[str], seen: set[int]) -> None:
    """Add a function that another one closes over: what a decorator without `functools.wraps` makes has nothing else to tell it by."""
    try:
        fn = cell.cell_contents
    except ValueError:  # empty
        return
    if isinstance(fn, (types.FunctionType, types.MethodType, functools.partial)):
        parts.append(_name_of(fn)[1].encode())
        _add_function(fn, parts, schemes, seen)


def _source(fn: types.FunctionType) -> str | None:
    """Return a function's source without comments and layout; None where there is none, or no whole one (lambdas)."""
    if fn.__name__ == "<lambda>":
        return None
    try:
        return ast.unparse(ast.parse(textwrap.dedent(inspect.getsource(fn))))
    except (OSError, TypeError, SyntaxError, ValueError, RecursionError):
        return None


def _add_code(code: types.CodeType, parts: list[bytes]) -> None:
    parts += [code.co_code, _shallow((code.co_names, code.co_varnames, code.co_freevars))]
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            _add_code(constant, parts)
        else:
            parts.append(_shallow(constant))


def _shallow(value: object) -> bytes:
    """Return an encoding of a value, or where that may differ from process to process, of its classes."""
    if isinstance(value, (tuple, list)):
        return _framed(b"t", b"".join(map(_shallow, value)))
    if isinstance(value, dict):
        return _framed(b"d", b"".join(sorted(_shallow(pair) for pair in value.items())))
    encoder = _Encoder()
    try:
        data = encoder.encode(value)
    except (Unidentified, RecursionError):
        return _name(value)
    return data if encoder.is_stable else _name(value)


def _class_in(cell: Any) -> bytes:
    try:
        return _name(cell.cell_contents)
    except ValueError:  # empty
        return b"-"
