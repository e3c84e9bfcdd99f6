"""Log records of workers, handled by the parent's handlers.

::

    parent: configuration() ── BOOT ──▶ worker: install(): a handler on the root logger, the parent's levels
    handle(): the record's logger ◀── LOG ── pickled record, its message made, its traceback as text

What is not logged there is not sent: workers have the levels that the parent's loggers had when they were started. Records keep their
process, thread and time. `handle` is called in the callbacks' thread, since handlers are the user's code.
"""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable

__all__ = ["configuration", "handle", "install"]


def configuration() -> dict[str, Any]:
    """Return the levels of this process's loggers, to be sent to a worker."""
    import logging

    root = logging.getLogger()
    named = [(name, logger) for name, logger in list(root.manager.loggerDict.items()) if isinstance(logger, logging.Logger)]
    levels = {name: logger.level for name, logger in named if logger.level}
    quiet = [name for name, logger in named if logger.disabled]
    return {"root": root.level, "levels": levels, "quiet": quiet, "disable": root.manager.disable}


def install(configuration: dict[str, Any], send: Callable[[bytes], None]) -> None:
    """In a worker: have every record that is logged sent by `send`."""
    import logging

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            send(_encode(record))

    root = logging.getLogger()
    for logger in (root, *root.manager.loggerDict.values()):  # of a copy of the parent: what they do, they do there
        if isinstance(logger, logging.Logger):
            logger.handlers.clear()
    root.setLevel(configuration["root"])
    root.manager.disable = configuration["disable"]
    for name, level in configuration["levels"].items():
        logging.getLogger(name).setLevel(level)
    for name in configuration["quiet"]:
        logging.getLogger(name).disabled = True
    root.addHandler(Handler())


def _encode(record: logging.LogRecord) -> bytes:
    told = dict(record.__dict__, msg=record.getMessage(), args=None)
    if record.exc_info:
        import logging

        told["exc_text"] = record.exc_text or logging.Formatter().formatException(record.exc_info)
        told["exc_info"] = None
    try:
        return pickle.dumps(told)
    except Exception:  # something that the user has attached with extra=
        plain = {name: value if isinstance(value, (str, int, float, type(None))) else repr(value) for name, value in told.items()}
        return pickle.dumps(plain)


def handle(body: bytes) -> None:
    """In the parent: give a worker's record to the handlers of its logger here."""
    import logging

    record = logging.makeLogRecord(pickle.loads(body))  # noqa: S301  # of our own worker
    logger = logging.getLogger(record.name)
    if logger.isEnabledFor(record.levelno):
        logger.handle(record)
