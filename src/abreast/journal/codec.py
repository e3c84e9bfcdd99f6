"""How a result is kept: as JSON where that gives back an equal value of the same classes, else as a pickle.

======  ==========================================  =========================
codec   payload                                     read by `abreast journal`
======  ==========================================  =========================
0       none: the result could not be kept          "not kept"
1       JSON, UTF-8                                 as it is
2       pickle, protocol 5                          its size
3       JSON that the task itself gave, as a text   as it is
+ 4     name of a file that holds it                by its codec
======  ==========================================  =========================
"""

from __future__ import annotations

import functools
import io
import json
import math
import pickle
import sys
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["IN_FILE", "JSON", "JSON_TEXT", "NOTHING", "PICKLE", "decode", "encode"]

NOTHING, JSON, PICKLE, JSON_TEXT = range(4)
IN_FILE = 4

_DEPTH = 100
"""How deep lists may be nested to be kept as JSON; deeper ones are pickled: the reader may have less stack."""
_DIGITS = 2_000
"""Bits of an integer; `int` may refuse to read more than 640 digits (sys.set_int_max_str_digits)."""

_read = json.JSONDecoder().raw_decode  # a third of the time of json.loads: it looks for no spaces around


def encode(value: Any, *, is_json_text: bool = False, importing: Collection[str] = ()) -> tuple[int, bytes | None, str]:
    """Return codec and payload of a result, and why it cannot be kept, if so. Runs code of the user's.

    `importing`: modules that a thread is importing which waits for this one.
    """
    kind = type(value)
    if is_json_text and kind is str:
        return JSON_TEXT, value.encode("utf-8", "surrogatepass"), ""
    if kind is int and -(1 << 60) < value < 1 << 60:
        return JSON, b"%d" % value, ""
    try:
        if kind is bool or value is None or _is_exact(value, _DEPTH):
            return JSON, json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode(), ""
    except Exception:  # noqa: S110  # half of a surrogate pair, which JSON may join with another; or a list that somebody changes meanwhile
        pass
    try:
        return PICKLE, _pickled_amid_import(value, importing) if importing else pickle.dumps(value, 5), ""
    except Exception as error:  # TypeError, PicklingError, RecursionError, or what a __reduce__ of the user's raises
        return NOTHING, None, f"{type(error).__name__}: {error}"


def decode(codec: int, payload: bytes, *, as_json_text: bool = False) -> Any:
    """Return a result. Runs code of the user's, if it was pickled, and raises whatever that raises."""
    if codec == PICKLE:
        value = pickle.loads(payload)  # noqa: S301  # of a journal that is trusted: journal/trust.py
    else:
        text = payload.decode("utf-8", "surrogatepass")
        if codec == JSON_TEXT and as_json_text:
            return text
        value, end = _read(text)
        if end != len(text):
            value = json.loads(text)
    return json.dumps(value, ensure_ascii=False, allow_nan=False) if as_json_text else value


def _is_exact(value: Any, depth: int) -> bool:
    """Whether JSON gives back an equal value of the same classes."""
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return True
    if kind is int:
        return bool(value.bit_length() < _DIGITS)
    if kind is float:
        return math.isfinite(value)
    if depth == 0:
        return False
    if kind is list:
        return all(_is_exact(item, depth - 1) for item in value)
    if kind is dict:
        return all(type(key) is str and _is_exact(item, depth - 1) for key, item in value.items())
    return False


def _pickled_amid_import(value: Any, importing: Collection[str]) -> bytes:
    file = io.BytesIO()
    _Pickler(file, importing).dump(value)
    return file.getvalue()


class _Pickler(pickle.Pickler):
    """Has classes and functions of some modules looked up here: pickle imports their modules, and so waits for the end of an import."""

    def __init__(self, file: io.BytesIO, importing: Collection[str]) -> None:
        super().__init__(file, 5)
        self._importing = importing

    def reducer_override(self, value: Any) -> Any:
        if not isinstance(value, (type, types.FunctionType)) or value.__module__ not in self._importing:
            return NotImplemented
        module, name = value.__module__, value.__qualname__
        found: Any
        try:
            found = functools.reduce(getattr, name.split("."), sys.modules[module])
        except (KeyError, AttributeError):
            found = None
        if found is not value:
            raise pickle.PicklingError(f"Can't pickle {value!r}: it's not found as {module}.{name}")
        from pkgutil import resolve_name  # seldom needed

        return resolve_name, (f"{module}:{name}",)
