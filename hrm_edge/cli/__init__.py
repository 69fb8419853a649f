"""The command line. Each command's machinery is imported inside the command, so ``--help`` is instant."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import typer

# Command name → module beside this file, whose `command` function is the command.
COMMANDS = {
    "solve": "solve",
    "export": "export",
    "train": "train",
    "eval": "evaluate",
    "bench": "bench",
    "import": "import_",
    "data": "data",
    "models": "models",
    "env": "env",
}

app = typer.Typer(
    name="hrm-edge",
    help="Compile, check and run Hierarchical Reasoning Models on devices.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

for _name, _module in COMMANDS.items():
    _command = importlib.import_module(f".{_module}", __name__)
    if isinstance(_command.command, typer.Typer):
        app.add_typer(_command.command, name=_name)
    else:
        app.command(name=_name)(_command.command)


def main(argv: list[str] | None = None) -> Any:
    """Console entry point: one clear line and the family's exit code instead of a traceback."""
    from ..errors import HrmEdgeError

    try:
        return app(args=argv)
    except HrmEdgeError as error:
        print(f"hrm-edge: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("hrm-edge: stopped", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(0)
