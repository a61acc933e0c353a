"""Processes that must not outlive this one, however it ends: vLLM's hold the memory of a GPU, and do not notice a `kill -9`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

# The pipe ends with this process, and then so do the others; those that have ended by themselves get a moment to do so.
_WATCH = """
import os, signal, sys, time
sys.stdin.read()
time.sleep(5)
for pid in map(int, sys.argv[1:]):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
"""


def end_with_me(pids: Sequence[int]) -> subprocess.Popen[bytes]:
    """Start a watcher that kills these processes 5 seconds after this one has ended. Kill it if they end before that."""
    command = [sys.executable, "-c", _WATCH, *map(str, pids)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
