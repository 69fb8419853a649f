"""The command line, called in this process."""

from typing import Any

from hrm_edge.cli import main


def exit_code(*arguments: Any) -> int:
    """What ``hrm-edge ARGUMENTS`` exits with."""
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def export(*arguments: Any) -> int:
    """What ``hrm-edge export ARGUMENTS`` exits with."""
    return exit_code("export", *arguments)
