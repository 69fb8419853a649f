"""Workers of a Ray cluster: an actor each, on any of its hosts, which opens the bundle it is sent and proves it."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..bundle import MANIFEST, Bundle, open_bundle, require_unchanged
from ..errors import HrmEdgeError, InputError
from ..packages import install
from ..runtimes import load_engine
from ..runtimes.base import first_line
from ..solve.scheduler import Scheduler
from ..tasks.parallel import usable_cores
from .answers import Answered, Asking, answer
from .crew import Asked, Piece, WorkerLost
from .workers import Workers

_SECONDS_TO_CONNECT = 10.0


class Actor:
    """What runs on a host of the cluster, in a process of its own."""

    def open(self, files: dict[str, bytes], sha256: str, version: str, asking: Asking) -> str:
        """Write the bundle down, prove that it is the one that was sent, and load it; who this is.

        InputError where it is not, is not run here, or another hrm-edge is installed here.
        """
        if version != __version__:
            raise InputError(
                f"has hrm-edge {__version__}, and the job is of {version}; install the same everywhere"
            )
        with tempfile.TemporaryDirectory(prefix="hrm-edge-") as folder:
            for name, content in files.items():
                path = Path(folder) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            bundle = open_bundle(folder)
            if bundle.sha256 != sha256:
                raise InputError("was sent another bundle than the job's; try again")
            self._scheduler = Scheduler(load_engine(bundle, threads=1))
        self._asking = asking
        return f"{socket.gethostname()}, process {os.getpid()}"

    def answer(self, questions: np.ndarray, identifiers: np.ndarray) -> dict[str, np.ndarray]:
        """The arrays of :class:`Answered`."""
        return answer(self._scheduler, questions, identifiers, self._asking).arrays()


class RayWorker:
    """An actor, and the next one where that is lost."""

    def __init__(self, ray: Any, bundle: Any, sha256: str, asking: Asking, asked: Asked) -> None:
        self._ray, self._bundle, self._sha256, self._asking, self._asked = ray, bundle, sha256, asking, asked
        self._actor: Any = None

    def start(self) -> None:
        # A lost actor's own restarts would take the puzzles that it had asked before it has a place to run.
        self._who = "a worker that was starting"
        self._actor = self._ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0)(Actor).remote()
        self._who = self._get(self._actor.open.remote(self._bundle, self._sha256, __version__, self._asking))

    def answer(self, piece: Piece) -> Answered:
        return Answered(**self._get(self._actor.answer.remote(*self._asked(piece))))

    def stop(self) -> None:
        if self._actor is not None:
            self._ray.kill(self._actor)

    def _get(self, reference: Any) -> Any:
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, HrmEdgeError):
                raise InputError(f"{self._who}: {error.cause}") from None
            raise
        except self._ray.exceptions.RayError as error:
            raise WorkerLost(f"{self._who}: {first_line(error)}") from None


@contextmanager
def ray_workers(bundle: Bundle, asking: Asking, count: int | None, address: str | None) -> Iterator[Workers]:
    """Makes workers of the cluster at ``address``, RAY_ADDRESS by default, else of one that is started here.

    By default as many as the cluster has CPUs now. InputError where Ray is not installed or no cluster answers.
    """
    ray = _imported()
    address = address or os.environ.get("RAY_ADDRESS")
    _require_reachable(address)
    here: dict[str, Any] = {"num_cpus": count or usable_cores(), "include_dashboard": False}
    try:
        ray.init(
            address=address or "local",
            logging_level="error",
            log_to_driver=False,
            **(here if address in (None, "local") else {}),
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise InputError(
            f"--distributed ray: no cluster at {address or 'this host'} ({first_line(error)})"
        ) from None
    try:
        names = [MANIFEST, *bundle.manifest.files]
        files = ray.put({name: (bundle.path / name).read_bytes() for name in names})
        require_unchanged(bundle)
        number = count or max(1, int(ray.cluster_resources().get("CPU", 1)))
        yield lambda asked: [RayWorker(ray, files, bundle.sha256, asking, asked) for _ in range(number)]
    finally:
        ray.shutdown()


def _require_reachable(address: str | None) -> None:
    """InputError where nobody listens at a host and port, which Ray itself tries for minutes."""
    found = re.fullmatch(r"(?:ray://)?\[?([^/\[\]]+)\]?:(\d{1,5})", address or "")
    if found is None:
        return
    try:
        socket.create_connection((found[1], int(found[2])), _SECONDS_TO_CONNECT).close()
    except (OSError, OverflowError) as error:
        raise InputError(f"--distributed ray: no cluster at {address} ({first_line(error)})") from None


def _imported() -> Any:
    if importlib.util.find_spec("ray") is None:
        raise InputError(f"--distributed ray needs Ray, which is not installed; run: {install('ray')}")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    return importlib.import_module("ray")
