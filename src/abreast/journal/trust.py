"""Whom a journal belongs to: looked at before anything is read of it, since what it holds may be unpickled.

Trust is ownership: the file is yours, nobody else may write it, and no link leads to it. No key and no signature: whoever can write the file as
you can read a key of yours too.

What is looked at, before SQLite opens any of it::

    folder        not writable by everybody, unless sticky (/tmp)
    FILE          a regular file, yours, one name, not writable by others      } opened with O_NOFOLLOW, looked at by fstat
    FILE-lock     the same                                                     }
    FILE-wal, FILE-shm, FILE.d       yours, no links, if they are there

In a folder that only you can write, nobody can put another file in the place of one that has been looked at; in a sticky one, nobody can
move yours away.
"""

from __future__ import annotations

import os
import stat
import sys
from typing import TYPE_CHECKING

from abreast.core.journal_errors import JournalError, JournalTrustError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["NETWORKS", "check_folder", "check_others", "file_system_of", "is_yours", "open_checked"]

NETWORKS = ("nfs", "cifs", "smb", "9p", "fuse.", "afs", "ceph", "glusterfs", "lustre", "beegfs")
_FLAGS = os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


def check_folder(path: str, *, trust: bool) -> None:
    """Raise unless the journal's folder is there, and nobody but its owner can put files into the journal's place."""
    folder = os.path.dirname(path)
    try:
        found = os.stat(folder)
    except FileNotFoundError:
        raise JournalError(f"the journal {path!r} cannot be made: there is no folder {folder!r}; make it first") from None
    except OSError as error:
        raise JournalError(
            f"the journal {path!r} cannot be opened: {error.strerror}; give a path whose folder you may use"
        ) from error
    if not stat.S_ISDIR(found.st_mode):
        raise JournalError(f"the journal {path!r} cannot be made: {folder!r} is not a folder")
    if not trust and os.name == "posix" and found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX:
        raise JournalTrustError(
            f"everybody may write in {folder!r}, the folder of the journal {path!r}: what it holds could be somebody else's; "
            f"use another folder, or `chmod o-w {folder}`"
        )


def open_checked(path: str, *, trust: bool, what: str = "journal") -> tuple[int, bool]:
    """Open a file of the journal, made for its owner only if it is not there; return its descriptor, and whether it was made.

    Raises:
        JournalTrustError: it is not a file of yours alone.
        JournalError: it cannot be opened.
    """
    try:
        try:
            return os.open(path, _FLAGS | os.O_CREAT | os.O_EXCL, 0o600), True
        except FileExistsError:
            fd = os.open(path, _FLAGS)
    except OSError as error:
        raise _refused(path, error, what) from error
    try:
        _check(os.fstat(fd), path, what, trust=trust)
    except BaseException:
        os.close(fd)
        raise
    return fd, False


def check_others(paths: Iterator[str], *, trust: bool) -> None:
    """Look at the files that belong to the journal, those that are there."""
    for path in paths:
        try:
            found = os.lstat(path)
        except OSError:
            continue
        _check(found, path, "part of the journal", trust=trust, folder=path.endswith(".d"))


def is_yours(path: str) -> bool:
    """Whether a journal is one that a run would use: nobody but you can have written it."""
    path = os.path.realpath(path)
    try:
        check_folder(path, trust=False)
        _check(os.stat(path), path, "journal", trust=False)
        check_others((f"{path}{end}" for end in ("-wal", "-shm", "-journal", ".d")), trust=False)
    except (OSError, JournalError):
        return False
    return True


def _check(found: os.stat_result, path: str, what: str, *, trust: bool, folder: bool = False) -> None:
    if folder:
        if not stat.S_ISDIR(found.st_mode):
            raise JournalTrustError(f"the {what} {path!r} is not a folder; move it away")
    elif stat.S_ISLNK(found.st_mode):
        raise JournalTrustError(f"the {what} {path!r} is a link; give the path that it leads to, or move it away")
    elif not stat.S_ISREG(found.st_mode):
        raise JournalTrustError(f"the {what} {path!r} is not a regular file; move it away, or use another path")
    if trust or os.name != "posix":
        return
    cure = "if you trust what is in it, which can run code as you, give Journal(…, trust=True)"
    if found.st_uid != os.geteuid():
        raise JournalTrustError(f"the {what} {path!r} belongs to {_user(found.st_uid)}, not to you; {cure}")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise JournalTrustError(f"others may write the {what} {path!r}; `chmod go-w {path}`, and {cure}")
    if not folder and found.st_nlink != 1:
        raise JournalTrustError(f"the {what} {path!r} has {found.st_nlink} names, of which others may know one; {cure}")


def _user(uid: int) -> str:
    try:
        import pwd

        return pwd.getpwuid(uid).pw_name
    except (ImportError, KeyError):
        return f"user {uid}"


def _refused(path: str, error: OSError, what: str) -> JournalError:
    import errno

    if error.errno in (errno.ELOOP, errno.EMLINK):
        return JournalTrustError(f"the {what} {path!r} is a link; give the path that it leads to, or move it away")
    if error.errno == errno.EISDIR:
        return JournalError(f"the {what} {path!r} is a folder; give the path of a file")
    if error.errno == errno.EROFS:
        return JournalError(
            f"the journal {path.removesuffix('-lock')!r} is on a file system that cannot be written; copy it to one that can, and give that path"
        )
    if error.errno == errno.EACCES:
        try:
            owner = os.lstat(path).st_uid
        except OSError:
            owner = None
        if owner is not None and os.name == "posix" and owner != os.geteuid():
            return JournalTrustError(
                f"the {what} {path!r} belongs to {_user(owner)}, and you may not write it; copy it, and give the copy's path"
            )
        return JournalError(f"you may not write the {what} {path!r}: {error.strerror}; change its mode, or use another path")
    if error.errno == errno.ENOSPC:
        return JournalError(f"the {what} {path!r} cannot be made: the disk is full; make room, and run again")
    return JournalError(f"the {what} {path!r} cannot be opened: {error.strerror}")


def file_system_of(path: str) -> str:
    """Return the type of the file system that a path is on, or nothing where that cannot be told."""
    if sys.platform != "linux":
        return ""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            mounts = [line.split(" ") for line in file]
    except OSError:
        return ""
    path = os.path.realpath(path)
    best, kind = -1, ""
    for fields in mounts:
        try:
            point = fields[4].encode("utf-8", "surrogateescape").decode("unicode_escape") if "\\" in fields[4] else fields[4]
            separator = fields.index("-")
        except (IndexError, ValueError):
            continue
        inside = path == point or path.startswith(point if point.endswith("/") else point + "/")
        if inside and len(point) >= best:  # the last one mounted there hides those before it
            best, kind = len(point), fields[separator + 1]
    return kind
