"""The command line. Each command's machinery is imported inside the command, so ``--help`` is instant."""

from __future__ import annotations

import atexit
import functools
import gc
import importlib
import signal
import sys
import threading
from collections.abc import Sequence
from typing import Annotated, Any, NoReturn

import typer

from ..progress import announce
from ..text import abandon, echo, prepare_streams

# Modules beside this file, whose `command` function is the command of that name; a class `Command` makes it.
COMMANDS = (
    *(
        "solve",
        "export",
        "compile",
        "train",
        "evaluate",
        "bench",
        "benchmark",
        "report",
        "check",
        "selftest",
        "analyze",
        "import_",
        "convert",
    ),
    *("serve", "web", "data", "arc", "models", "env"),
)
_NAMES = {"evaluate": "eval", "import_": "import"}  # where Python has its own idea of the name


def _print_version(wanted: bool) -> None:
    if wanted:
        from .. import __version__

        echo(f"hrm-edge {__version__}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version.")
    ] = False,
) -> None:
    """Compile, check and run Hierarchical Reasoning Models on devices."""


def _app(modules: Sequence[str]) -> typer.Typer:
    """The command line with the commands of these modules."""
    app = typer.Typer(
        name="hrm-edge",
        help="Compile, check and run Hierarchical Reasoning Models on devices.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,  # brackets in help texts are meant as brackets
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    for module in modules:
        name = _NAMES.get(module, module)
        command = importlib.import_module(f".{module}", __name__)
        if isinstance(command.command, typer.Typer):
            app.add_typer(command.command, name=name)
        else:
            app.command(name=name, cls=getattr(command, "Command", None))(command.command)
    return app


@functools.cache
def command_line(name: str | None = None) -> Any:
    """What parses arguments, all commands in it; where they begin with a command's ``name``, that one alone.

    Flags are read from the commands' functions, which for all of them takes as long as a small command itself.
    """
    asked = [module for module in COMMANDS if _NAMES.get(module, module) == name]
    return typer.main.get_command(_app(asked or COMMANDS))


# typer carries a click of its own; this is its error for a wrong flag, value or command.
_UsageError: Any = typer.BadParameter.__mro__[1]


def main(argv: list[str] | None = None) -> NoReturn:
    """Console entry point: one clear line and an exit code instead of a traceback, for any user's mistake."""
    from ..errors import HrmEdgeError
    from ..signals import STOP_SIGNALS
    from ..workspace import written
    from .unexpected import tell, told_of_threads

    # The process ends with all that it made: to look through that for cycles first takes a tenth of a second.
    atexit.register(gc.freeze)
    prepare_streams()
    written().clear()
    interrupted = []

    def interrupt(number: int, frame: object) -> None:
        interrupted.append(number)
        raise KeyboardInterrupt

    # Ctrl-C during an import comes out of some libraries as another exception: remember what it was. The others
    # that ask to stop end in the same way, so that what was begun is cleared up; nohup has SIGHUP ignored.
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in STOP_SIGNALS:
            if number == signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN:
                before[number] = signal.signal(number, interrupt)
    try:
        with told_of_threads():
            given = sys.argv[1:] if argv is None else argv
            code = command_line(given[0] if given else None)(args=argv, standalone_mode=False) or 0
    except HrmEdgeError as error:
        code = _fail(str(error), error.exit_code)
    except _UsageError as error:
        if not argv and len(sys.argv) == 1:
            echo(*error.format_message().split("\n"))  # no arguments at all: the help
            code = 0
        else:
            command = error.ctx.command_path if error.ctx else "hrm-edge"
            code = _fail(f"{error.format_message().rstrip('.')}; see {command} --help", 2)
    except (BrokenPipeError, SystemExit) as stop:
        # The reader had enough (as in `| head`), which click and rich turn into an exit with 1.
        if isinstance(stop, SystemExit) and not isinstance(stop.__context__, BrokenPipeError):
            raise
        abandon(sys.stdout)
        code = 0
    except OSError as error:
        code = _fail(f"{error.filename or 'cannot write'}: {error.strerror or error}", 2)
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except Exception as error:
        if interrupted:
            code = 130
        elif isinstance(error, ModuleNotFoundError) and error.name == "torch":
            from ..packages import install

            code = _fail(f"this needs PyTorch; run: {install('train')}", 2)
        else:
            code = tell(error)
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is interrupt:  # else a command had a reason to leave it otherwise
                signal.signal(number, signal.SIG_DFL if handler is None else handler)
    if interrupted or code == 130:
        if done := written():
            # What was asked for stands there whole, and a code that says otherwise would be believed.
            code = _fail(f"stopped when {done[-1]} had been written", 0)
        else:
            code = _fail("stopped", 128 + (interrupted or [signal.SIGINT])[0])
    sys.exit(code)


def _fail(line: str, code: int) -> int:
    announce(line)
    return code
