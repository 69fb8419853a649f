"""Processes that need not import torch anew: forks of a server that has it, to run a command line or a function."""

from __future__ import annotations

import functools
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["preloaded"])


_stores: list[Any] = []  # which serve as long as they are held


@functools.cache
def _serve() -> None:
    """Start the server. It looks for what it loads where Python does, not where this process has been told to
    (before Python 3.13)."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    forkserver.ensure_running()
    del os.environ["PYTHONPATH"]
    if before is not None:
        os.environ["PYTHONPATH"] = before


class Forked:
    """A process that runs ``function(*arguments)``, with this one's environment and folder as they are now."""

    def __init__(self, said: Path, function: Callable[..., object], *arguments: Any, **environment: str):
        self.said = said  # what it writes to stderr
        place = (dict(os.environ) | environment, os.getcwd(), str(said))
        _serve()
        self.process = context.Process(target=_run, args=(place, function, arguments))
        self.process.start()

    @classmethod
    def command(cls, said: Path, arguments: list[Any], **environment: str) -> Forked:
        """``hrm-edge ARGUMENTS``"""
        return cls(said, _command_line, [str(argument) for argument in arguments], **environment)

    def send_signal(self, number: int) -> None:
        os.kill(self.process.pid, number)

    def poll(self) -> int | None:
        return self.process.exitcode

    def wait(self, timeout: float = 300) -> int:
        """Its exit code, or minus the signal that ended it."""
        self.process.join(timeout)
        code = self.process.exitcode
        if code is None:
            self.process.kill()
            raise TimeoutError(f"still running after {timeout} s; it said: {self.said.read_text()}")
        return code


def ranks(count: int) -> list[dict[str, str]]:
    """The environments in which so many gloo processes meet, as `torchrun` would set them on a machine whose name
    stands for no address.

    Where they meet is this process's, as it is the launcher's there: a port that is looked up first and taken later
    may be another's by then.
    """
    from torch.distributed import TCPStore

    store = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    _stores.append(store)
    meet = {"WORLD_SIZE": str(count), "MASTER_ADDR": "nowhere.invalid", "MASTER_PORT": str(store.port)}
    meet |= {"LOCAL_WORLD_SIZE": str(count), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    return [{**meet, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]


def wait_for_all(processes: list[Forked]) -> list[int]:
    """Their exit codes; none of them is left running."""
    try:
        return [process.wait() for process in processes]
    finally:
        for process in processes:
            process.process.kill()


def _run(place: tuple[dict[str, str], str, str], function: Callable[..., object], arguments: tuple) -> None:
    environment, folder, said = place
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for number, path in ((1, os.devnull), (2, said)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, number)
        os.close(file)
    sys.stdin.close()
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # also where the tests run under nohup
    function(*arguments)


def _command_line(arguments: list[str]) -> None:
    from hrm_edge.cli import main

    main(arguments)


def save_for_ever(path: Path, ready: Any) -> None:
    """Write a checkpoint over itself, numbered in its card and metadata alike."""
    from hrm_edge.models import load_checkpoint, save_checkpoint

    checkpoint, i = load_checkpoint(path), 0
    ready.set()
    while True:
        i += 1
        save_checkpoint(path, checkpoint.model, checkpoint.task.name, str(i), {"i": i})
