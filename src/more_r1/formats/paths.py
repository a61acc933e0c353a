"""Paths: those that a stranger's file names must stay inside its folder; those that we write appear whole or not at all."""

from __future__ import annotations

import os
import re
import secrets
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from more_r1.formats.fault import Place

# Linux holds 255 bytes in a file name; longer ones make every later call fail in its own way.
_MAX_NAME = 255


def path_fault(name: str) -> str | None:
    """Why a relative path must not be followed (it could leave its folder, or hide what it names); None if it is safe."""
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in name):
        return "control characters in the path"
    if "\\" in name:
        return "a backslash in the path"
    if name.startswith("/") or re.match(r"[A-Za-z]:", name):
        return "an absolute path"
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts):
        return "an empty, `.` or `..` part in the path"
    if any(len(part.encode()) > _MAX_NAME for part in parts):
        return f"a file name of more than {_MAX_NAME} bytes"
    return None


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A fresh path beside `path` to write to, moved onto it at the end, removed if the writing fails. Makes the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".more-r1-{secrets.token_hex(8)}.tmp")
    try:
        yield fresh
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def lock(folder: Path) -> FileLock:
    """Make a folder this process's own until the lock is released. Raises FormatError if another one has it."""
    folder.mkdir(parents=True, exist_ok=True)
    held = FileLock(folder / ".lock")
    try:
        held.acquire(timeout=0)
    except Timeout:
        Place(str(folder)).refuse("another run writes here", "wait for it, or give another out")
    return held


def sync(path: Path) -> None:
    """See to it that a file, or what a folder lists, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
