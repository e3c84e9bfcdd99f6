"""What a command cannot begin with."""

from __future__ import annotations

import click

__all__ = ["Refused"]


class Refused(click.ClickException):
    """A file or function that was named cannot be used: one line on standard error, exit status 2."""

    exit_code = 2

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.ctx = click.get_current_context(silent=True)  # which command says so
