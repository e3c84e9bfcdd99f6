"""Context variables in more than one process: each is known by where it is, or else by a number.

A `ContextVar` cannot be pickled, since its identity is all there is to it. One that a module has as an attribute goes by that name.
One that the main script has, or a function that goes by value, gets a number when it is first sent; the process where it arrives makes
a variable of its own for that number, once.
"""

from __future__ import annotations

import io
import os
import pickle
import sys
from contextvars import Context, ContextVar
from itertools import count
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["address", "number_those_of_main", "reduce", "setter"]

_names: dict[ContextVar[Any], tuple[str, str] | None] = {}
_numbers: dict[ContextVar[Any], str] = {}
_numbered: dict[str, ContextVar[Any]] = {}
_hidden: dict[ContextVar[Any], int] = {}
"""Variables that the main script does not have, and how many names it had when that was looked at."""
_next = count(1)

_MAIN = ("__main__", "__mp_main__")
_CARRIED = "abreast.core.watch", "carried"
"""The variable in which observers send something along."""
_DECIMAL = "decimal_context"
"""The variable of the decimal module, which is in C and shows it to nobody."""


def reduce(var: ContextVar[Any]) -> tuple[Any, ...]:
    """Return how a variable is pickled."""
    return _arrives, (_name_of(var) or _number_of(var),)


def address(var: ContextVar[Any], value: object) -> Any:
    """Return what stands for a variable, whose value is this; None if its value need not travel.

    Raises:
        LookupError: no module has it, and no function that was sent uses it: nobody in a worker could ask for it.
    """
    if var.name == _DECIMAL and type(value).__module__ == "decimal":
        return None if _is_default(value) else _DECIMAL
    name = _name_of(var)
    if name is not None:
        return None if name[0].startswith("abreast.") and name != _CARRIED else name  # what our own scopes live in
    if var not in _numbers and not _is_in_main(var):
        raise LookupError("no module has it as an attribute")
    return _number_of(var)


def number_those_of_main() -> None:
    """Give the main script's variables their numbers: a copy of this process that is made now knows them by these."""
    for value in vars(sys.modules["__main__"]).copy().values():
        if type(value) is ContextVar:
            _number_of(value)


def setter(how: Any) -> Callable[[Any], object]:
    """Return what sets the variable that `how` stands for."""
    if how == _DECIMAL:
        from decimal import setcontext

        return setcontext
    if how == _CARRIED:
        return _hand_over
    return _arrives(how).set


def _hand_over(loads: list[Callable[[], object]]) -> None:
    """Do what observers have sent along, in the context that is for tasks."""
    for load in loads:
        load()


def _name_of(var: ContextVar[Any]) -> tuple[str, str] | None:
    """Return module and name of a variable; looked for once."""
    try:
        return _names[var]
    except KeyError:
        for name, module in list(sys.modules.items()):
            found = None if name in _MAIN or module is sys.modules.get("__main__") else _has(module, var)
            if found is not None:
                break
        else:
            name, found = "", None
        _names[var] = told = None if found is None else (name, found)
        return told


def _is_in_main(var: ContextVar[Any]) -> bool:
    main = sys.modules.get("__main__")
    size = len(vars(main)) if main is not None else 0
    if _hidden.get(var) == size:
        return False
    if _has(main, var) is not None:
        return True
    _hidden[var] = size
    return False


def _has(module: Any, var: ContextVar[Any]) -> str | None:
    """Return the name that a module has for a variable. Not by `in`: that would ask all sorts of objects whether they are equal to it."""
    namespace = getattr(module, "__dict__", None)
    if type(namespace) is dict:
        for name, value in namespace.copy().items():
            if value is var and isinstance(name, str):
                return name
    return None


def _number_of(var: ContextVar[Any]) -> tuple[Any, ...]:
    number = _numbers.get(var)
    if number is None:
        number = _numbers.setdefault(var, f"{os.getpid()}-{next(_next)}")
        _numbered[number] = var
    try:
        default = (Context().run(var.get),)
        pickle.dumps(default)
    except Exception:  # it has none, or one that cannot travel
        return number, var.name, None
    return number, var.name, default


def _arrives(how: tuple[Any, ...]) -> ContextVar[Any]:
    if len(how) == 2:
        module, name = how
        found = pickle.Unpickler(io.BytesIO()).find_class(module, name)  # noqa: S301  # imports the module, whose name our own parent has sent
        if type(found) is not ContextVar:
            raise TypeError(f"{module}.{name} is no context variable here")
        return found
    number, name, default = how
    var = _numbered.get(number)
    if var is None:
        var = _numbered.setdefault(number, ContextVar(name, default=default[0]) if default else ContextVar(name))
        _numbers[var] = number
    return var


def _is_default(value: Any) -> bool:
    from decimal import DefaultContext

    def told(context: Any) -> tuple[Any, ...]:
        return (context.prec, context.rounding, context.Emin, context.Emax, context.capitals, context.clamp, context.traps)

    return told(value) == told(DefaultContext)
