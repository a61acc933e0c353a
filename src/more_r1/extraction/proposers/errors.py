"""What goes wrong before anything is proposed."""

from __future__ import annotations

from typing import NoReturn


class ProposerError(ValueError):
    """A proposer that cannot be used; the message names it and the mend."""


def takes_no_argument(name: str, argument: str) -> None:
    """Raises ProposerError if there is one."""
    if argument:
        raise ProposerError(f"{name}:{argument}: {name} takes no argument; write {name}")


def extra_missing(name: str, error: ImportError) -> NoReturn:
    """Say how to install what the proposer needs."""
    raise ProposerError(f"{name} needs {error.name}; pip install 'more-r1[propose]'") from error
