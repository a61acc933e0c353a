"""The command `more-r1` in the tests' own process."""

from __future__ import annotations

import pytest

from more_r1.cli import main


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Run `more-r1 ARGUMENTS`; its exit code."""
    monkeypatch.setattr("sys.argv", ["more-r1", *map(str, arguments)])
    with pytest.raises(SystemExit) as exit:
        main()
        raise SystemExit(0)
    return int(exit.value.code or 0)
