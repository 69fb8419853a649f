"""Several processes as one: what `torchrun` started, or a single process that talks to nobody."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import socket
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import ParamSpec, TypeVar

import torch
import torch.distributed as dist
from torch import nn

from ..errors import UNEXPECTED, HrmEdgeError, InputError

P = ParamSpec("P")
T = TypeVar("T")

# Rank 0 may make puzzles for long while the others wait; that a process has not even begun shows sooner.
_WAITED_FOR, _JOINED_WITHIN = timedelta(hours=6), timedelta(minutes=10)


class Parted(HrmEdgeError):
    """Another process of the run is gone, and nothing can be done without it. Exit code 1."""

    exit_code = 1


@dataclasses.dataclass(frozen=True)
class World:
    """This process's place among all; ``device`` is where it computes."""

    rank: int
    size: int
    device: torch.device

    @classmethod
    def join(cls, device: str = "auto") -> World:
        """Join the processes that `torchrun` started (gloo on CPU, nccl on CUDA), or stand alone."""
        if device not in ("auto", "cpu", "cuda"):
            raise InputError(f"--device {device}: choose from auto, cpu, cuda")
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        if device == "cuda" and not torch.cuda.is_available():
            raise InputError("--device cuda: this torch sees no CUDA device; use --device cpu")
        size = int(os.environ.get("WORLD_SIZE", "1"))
        rank, local = int(os.environ.get("RANK", "0")), int(os.environ.get("LOCAL_RANK", "0"))
        if device == "cuda":
            torch.cuda.set_device(local)
        if size > 1 and not dist.is_initialized():
            if os.environ.get("LOCAL_WORLD_SIZE") == str(size):
                _stay_inside()
            with _speaking():
                store, rank, size = next(dist.rendezvous("env://", rank, size, timeout=_JOINED_WITHIN))
                backend = "nccl" if device == "cuda" else "gloo"
                store = dist.PrefixStore("hrm-edge", store)
                dist.init_process_group(backend, timeout=_WAITED_FOR, store=store, rank=rank, world_size=size)
        return cls(rank, size, torch.device(device, local) if device == "cuda" else torch.device("cpu"))

    def barrier(self) -> None:
        if self.size > 1:
            with _speaking():
                dist.barrier()

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """A block that all ranks leave together: whatever any of them raises in it ends them all.

        The first that raised anything goes on raising it; the others would say the same, or wait for ever, and
        leave silently with its exit code. Ranks must not speak to each other within the block.
        """
        failure: BaseException | None = None
        try:
            yield
        except BaseException as error:
            failure = error
        code = 0 if failure is None else _exit_code(failure)
        try:
            codes = self.gather(torch.tensor([code], device=self.device)).tolist()
        except Parted:
            raise failure or Parted(_GONE) from None
        first = next((rank for rank, code in enumerate(codes) if code), None)
        if first is None:
            return
        leave()
        if failure is not None and self.rank == first:
            raise failure
        raise SystemExit(codes[first])

    def broadcast_model(self, model: nn.Module) -> None:
        """Rank 0's weights and buffers to everyone."""
        if self.size > 1:
            with _speaking():
                for tensor in model.state_dict().values():
                    dist.broadcast(tensor, 0)

    def average_gradients(self, model: nn.Module) -> None:
        """Mean of all ranks' gradients, in one message."""
        if self.size == 1:
            return
        gradients = [p.grad for p in model.parameters() if p.grad is not None and not p.grad.is_sparse]
        flat = torch.cat([g.flatten() for g in gradients])
        with _speaking():
            dist.all_reduce(flat)
        flat /= self.size
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def gather(self, values: torch.Tensor) -> torch.Tensor:
        """Every rank's tensor, all of one shape, joined along the first axis."""
        if self.size == 1:
            return values
        parts = [torch.empty_like(values) for _ in range(self.size)]
        with _speaking():
            dist.all_gather(parts, values.contiguous())
        return torch.cat(parts)

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """Mean over ranks of a small tensor."""
        if self.size > 1:
            with _speaking():
                dist.all_reduce(values)
            values /= self.size
        return values

    def largest(self, *values: float) -> list[float]:
        """The largest of all ranks' values, one by one: how they agree on time and on trouble."""
        if self.size == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        with _speaking():
            dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
        return tensor.tolist()

    def leave(self) -> None:
        if self.size > 1:
            leave()


def _stay_inside() -> None:
    """Let ranks that share one machine meet and speak over its loopback, unless somebody said otherwise.

    `torchrun` and gloo take the address that the host's name stands for. In containers, and where the network comes
    and goes, that may be none, or one that nobody answers at.
    """
    os.environ["MASTER_ADDR"] = "localhost"
    loopback = next((name for _, name in socket.if_nameindex() if name in ("lo", "lo0")), None)
    if loopback is not None:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback)


def leaving(function: Callable[P, T]) -> Callable[P, T]:
    """Decorator of what joins the others: however it ends they are left, so that none of them waits for ever."""

    @functools.wraps(function)
    def run(*args: P.args, **named: P.kwargs) -> T:
        try:
            return function(*args, **named)
        finally:
            leave()

    return run


def leave() -> None:
    """Speak to nobody any more; what others still wait for fails."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


_GONE = "another process of this run has ended; see what it said"


@contextlib.contextmanager
def _speaking() -> Iterator[None]:
    """Messages between ranks; one that cannot be sent or received is :class:`Parted`."""
    try:
        yield
    except RuntimeError as error:  # the base of all that torch raises of it
        raise Parted(f"{_GONE} ({(str(error) or type(error).__name__).splitlines()[0][:160]})") from error


def _exit_code(failure: BaseException) -> int:
    """What a process that raises it ends with."""
    if isinstance(failure, SystemExit):
        return failure.code if isinstance(failure.code, int) and failure.code else 1
    if isinstance(failure, KeyboardInterrupt):
        return 130
    if isinstance(failure, HrmEdgeError | OSError):
        return getattr(failure, "exit_code", InputError.exit_code)
    return UNEXPECTED
