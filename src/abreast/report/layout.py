"""Text in lines of a given width: pieces with a style, cut and wrapped by what they take on a terminal, in Unicode or ASCII."""

from __future__ import annotations

from typing import NamedTuple

from abreast.core.text import printable

__all__ = ["Line", "Pen", "Piece", "can_show", "columns", "plain"]

SIGNS = "▏█░▒▓·–≈→…×µ✗↻⊘"  # noqa: RUF001  # these very signs are meant
_IN_ASCII = str.maketrans(dict(zip(SIGNS, "|#.%=_-~>~xux@/", strict=True)))


class Piece(NamedTuple):
    """A piece of a line.

    Attributes:
        text: without control characters.
        style: as rich has it: ``"bold"``, ``"#009E73"``, or empty.
    """

    text: str
    style: str = ""


Line = list[Piece]


def can_show(encoding: str | None) -> bool:
    """Return whether all signs of a report can be written in an encoding; None is one that anything can be written in."""
    if encoding is None:
        return True
    try:
        SIGNS.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def plain(line: Line) -> str:
    """Return the text of a line."""
    return "".join(piece.text for piece in line).rstrip()


class Pen:
    r"""Writes lines of at most `width` columns.

    Args:
        width: columns.
        ascii_only: whether to write ``#`` for ``█``, and ``\xe4`` for a letter that ASCII lacks.
    """

    def __init__(self, width: int, *, ascii_only: bool) -> None:
        self.width = width
        self.ascii_only = ascii_only

    def clean(self, text: str) -> str:
        """Return text that may be the user's, as it may be shown: nothing in it does something to a terminal."""
        text = printable(text)
        if self.ascii_only and not text.isascii():
            text = text.translate(_IN_ASCII).encode("ascii", "backslashreplace").decode("ascii")
        return text

    def piece(self, text: str, style: str = "") -> Piece:
        """Return a piece of text that may be the user's."""
        return Piece(self.clean(text), style)

    def cut(self, text: str, width: int, *, keep_end: bool = False) -> str:
        """Return clean text in at most `width` columns; ``…`` stands for what is cut."""
        text = self.clean(text)
        if columns(text) <= width:
            return text
        more = self.clean("…")
        return (more + _chopped(text[::-1], width - 1)[::-1] if keep_end else _chopped(text, width - 1) + more)[: max(width, 0)]

    def column(self, text: str, width: int, *, right: bool = False, keep_end: bool = False) -> str:
        """Return clean text in exactly `width` columns."""
        text = self.cut(text, width, keep_end=keep_end)
        space = " " * (width - columns(text))
        return space + text if right else text + space

    def flow(self, items: list[Line], *, first: str = "", other: str = "  ", gap: str = "    ") -> list[Line]:
        """Return items side by side, `gap` between them, as many in a line as it takes; a longer one is cut.

        Args:
            items: each stays whole.
            first, other: what the first line, and each of the others, begins with.
            gap: what is between two of a line.
        """
        lines: list[Line] = []
        line: Line = [Piece(first)]
        used = columns(first)
        is_empty = True
        for item in items:
            length = sum(columns(piece.text) for piece in item)
            if not is_empty and used + len(gap) + length > self.width:
                lines.append(line)
                line, used, is_empty = [Piece(other)], columns(other), True
            if not is_empty:
                line.append(Piece(gap))
                used += len(gap)
            line += self._cut_line(item, self.width - used)
            used += min(length, self.width - used)
            is_empty = False
        return [*lines, line]

    def wrap(self, text: str, *, first: str = "", other: str = "", style: str = "", most: int = 4) -> list[Line]:
        """Return text broken between words, in at most `most` lines."""
        items = [[self.piece(word, style)] for word in text.split()]
        lines = self.flow(items, first=first, other=other, gap=" ")
        if len(lines) > most:
            rest = " ".join(plain(line).strip() for line in lines[most - 1 :])
            begin = first if most == 1 else other
            lines[most - 1 :] = [[Piece(begin), Piece(self.cut(rest, self.width - columns(begin)), style)]]
        return lines

    def _cut_line(self, line: Line, width: int) -> Line:
        cut: Line = []
        for text, style in line:
            length = columns(text)
            if length > width:
                return [*cut, Piece(self.cut(text, width), style)] if width > 0 else cut
            cut.append(Piece(text, style))
            width -= length
        return cut


def columns(text: str) -> int:
    """Return how many columns of a terminal a text takes: letters of the far east take two."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def _chopped(text: str, width: int) -> str:
    if text.isascii():
        return text[: max(width, 0)]
    used = 0
    for i, char in enumerate(text):
        used += columns(char)
        if used > width:
            return text[:i]
    return text
