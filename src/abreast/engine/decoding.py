"""Results of processes as the user wants them: unpickled in the thread that asks for them, since that runs code of the user's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from abreast.engine.notes import add_note

if TYPE_CHECKING:
    from abreast.core.outcome import Outcome
    from abreast.engine.pieces import Piece

__all__ = ["Decoder", "decode_error", "decode_outcome"]


class Decoder:
    """Of one run.

    Attributes:
        origins: where the results come from that are next.
        error: of a result that could not be unpickled, and is due next: what stands behind it is dropped.
    """

    def __init__(self, encodes: frozenset[type[Any]], *, outcomes: bool) -> None:
        self.encodes = encodes
        self.outcomes = outcomes
        self.origins: list[Piece] = []
        self.error: BaseException | None = None

    def decode(self, results: list[Any]) -> list[Any]:
        """Return results as the user wants them, up to one that cannot be unpickled, unless errors are outcomes."""
        encodes = self.encodes
        origins, self.origins = self.origins, []
        done = 0
        if not self.outcomes:
            kinds = set(map(type, results))
            if encodes.isdisjoint(kinds):
                return results  # plain values, which have been unpickled long ago
            if len(kinds) == 1:
                done = _decode_quickly(kinds.pop(), results)
        for place, result in enumerate(results[done:] if done else results, done):
            try:
                if self.outcomes:
                    decode_outcome(result, encodes)
                elif type(result) in encodes:
                    results[place] = result.decode()
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                _note_undecodable(error, origins, place)
                self.error = error
                del results[place:]
                break
        return results


def _note_undecodable(error: BaseException, origins: list[Piece], place: int) -> None:
    for piece in origins:
        if place < piece.size:
            add_note(error, piece.batch, piece.first + place)
            return
        place -= piece.size


def _decode_quickly(kind: Any, results: list[Any]) -> int:
    """Unpickle results that are all of one kind, as far as that goes; return how many.

    What raises is tried once more, by who tells whose it is.
    """
    if not hasattr(kind, "decode_into"):
        return 0
    values: list[Any] = []
    try:
        kind.decode_into(values, results)
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: S110  # SystemExit too; raised again by the second try
        pass
    results[: len(values)] = values
    return len(values)


def decode_error(error: Any, encodes: frozenset[type[Any]]) -> BaseException:
    """Return a task's error, unpickled; or what is raised by that, in its place."""
    if type(error) in encodes:
        try:
            return error.decode()  # type: ignore[no-any-return]  # it was pickled as one
        except KeyboardInterrupt:
            raise
        except BaseException as why:
            return why
    return error  # type: ignore[no-any-return]  # a task's


def decode_outcome(outcome: Outcome[Any], encoded: frozenset[type[Any]]) -> None:
    """Unpickle what is still bytes; what is raised by that is the task's error."""
    value: Any = outcome.value
    error: Any = outcome.error
    try:
        if type(value) in encoded:
            outcome.value = value.decode()
        if type(error) in encoded:
            outcome.error = error.decode()
    except KeyboardInterrupt:
        raise
    except BaseException as why:
        outcome.value, outcome.error = None, why
