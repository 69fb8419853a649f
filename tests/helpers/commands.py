"""The command line, called in this process."""

from typing import Any

import pytest

from hrm_edge.cli import main


def run(capsys: pytest.CaptureFixture, *arguments: Any) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of ``hrm-edge ARGUMENTS``."""
    code = exit_code(*arguments)
    return code, *capsys.readouterr()


def exit_code(*arguments: Any) -> int:
    """What ``hrm-edge ARGUMENTS`` exits with."""
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return int(stop.value.code or 0)


def export(*arguments: Any) -> int:
    """What ``hrm-edge export ARGUMENTS`` exits with."""
    return exit_code("export", *arguments)
