"""The command `more-r1`: each verb reads its inputs, calls one function of the library, and shows what came out.

Heavy imports are inside the verbs, so that `--help` and the light ones are quick.
"""

from __future__ import annotations

import os
import sys

from rich.text import Text

from more_r1.cli import data, extract, measure, train  # noqa: F401  each adds its verbs, in the order of --help
from more_r1.cli.app import app, errors

__all__ = ["app", "main"]


def main() -> None:
    """Run the command; what a user can mend costs one line and exit code 1."""
    # The hub's retries are a page of raw lines; how they ended, ours says.
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    try:
        app()
    except (ValueError, OSError, RuntimeError) as error:
        # Our own errors are ValueErrors of one line that name file, record and mend, an engine's RuntimeErrors of that kind; a
        # bug's traceback is not to be hidden.
        if not type(error).__module__.startswith("more_r1") and not isinstance(error, OSError):
            raise
        errors.print(Text(f"more-r1: {error}", style="red"), soft_wrap=True)
        sys.exit(1)
