"""Whether two results are the same, of functions that nobody knows: yes, no, or nobody can tell.

====================================================  ===================================================================
results                                               are the same if
====================================================  ===================================================================
lists, tuples, dicts, of the same type                their items are
arrays of numpy                                       shape, type and items are; NaN is the same as NaN
what has ``equals()`` (pandas, polars, pyarrow)       it says so
others                                                ``==`` says so, or their pickles are the same (so is NaN)
objects of a class without an ``==`` of its own       their attributes are, or their pickles; else nobody can tell
====================================================  ===================================================================

``==`` alone would not do: it is False for NaN and for every object that has come back from another process, and an array for arrays.
Pickles alone would not: equal sets may have different ones.
"""

from __future__ import annotations

import pickle
import sys
from typing import Any

__all__ = ["same"]

HEAP_TYPE = 1 << 9
"""Py_TPFLAGS_HEAPTYPE: a class that was made by a ``class`` statement."""


def same(one: object, other: object) -> bool | None:
    """Whether two results are the same; None if nobody can tell.

    Never raises an error of what it compares: what cannot be compared, nobody can tell.
    """
    try:
        return _same(one, other)
    except Exception:  # nested too deep, or in a circle; keys that cannot be compared
        return None


def _same(one: Any, other: Any) -> bool | None:
    if one is other:
        return True
    kind = type(one)
    if kind is type(other):
        if isinstance(one, (list, tuple)):
            return len(one) == len(other) and _all(zip(one, other, strict=True))
        if kind is dict:
            return one.keys() == other.keys() and _all((value, other[key]) for key, value in one.items())
    try:
        equal = _equal(one, other)
    except RecursionError:
        raise
    except Exception:  # an == of the user's, or of arrays that do not fit
        equal = None
    if equal is not True:
        pickled = _pickled(one)
        if pickled is not None and pickled == _pickled(other):
            return True
    if equal is None or kind is not type(other):
        return equal
    if vars(object)["__eq__"] is kind.__eq__:  # that they are two objects is all that it says
        return _same_attributes(one, other)
    return equal


def _equal(one: Any, other: Any) -> bool | None:
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(one, numpy.ndarray) and isinstance(other, numpy.ndarray):
        if one.shape != other.shape or one.dtype != other.dtype:
            return False
        if one.dtype.kind == "O":
            return _all(zip(one.flat, other.flat, strict=True))
        return bool(numpy.array_equal(one, other, equal_nan=one.dtype.kind in "fcmM"))
    equals = getattr(type(one), "equals", None)
    said = one.equals(other) if callable(equals) else one == other
    return said if isinstance(said, bool) else bool(said)


def _all(pairs: Any) -> bool | None:
    """Whether all pairs are the same: one that is not decides."""
    told: bool | None = True
    for one, other in pairs:
        equal = _same(one, other)
        if equal is False:
            return False
        if equal is None:
            told = None
    return told


def _same_attributes(one: Any, other: Any) -> bool | None:
    kind = type(one)
    if any(getattr(kind, name) is not getattr(object, name) for name in ("__reduce_ex__", "__reduce__")):
        return None  # what it is lies elsewhere
    if not all(cls.__flags__ & HEAP_TYPE and "__slots__" not in vars(cls) for cls in kind.__mro__[:-1]):
        return None  # so it does for functions, which have a __dict__ besides
    mine, others = getattr(one, "__dict__", None), getattr(other, "__dict__", None)
    if not mine or others is None:
        return None
    return mine.keys() == others.keys() and _all((value, others[key]) for key, value in mine.items())


def _pickled(value: object) -> bytes | None:
    try:
        return pickle.dumps(value, protocol=5)
    except RecursionError:
        raise
    except Exception:  # it cannot be pickled; whatever its __reduce__ raises
        return None
