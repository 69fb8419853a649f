"""Several processes as one: what `torchrun` started, or a single process that talks to nobody."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn

from ..errors import HrmEdgeError, InputError


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
            # Rank 0 may make puzzles for long while the others wait.
            dist.init_process_group("nccl" if device == "cuda" else "gloo", timeout=timedelta(hours=6))
        return cls(rank, size, torch.device(device, local) if device == "cuda" else torch.device("cpu"))

    def barrier(self) -> None:
        if self.size > 1:
            dist.barrier()

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """A block that all ranks leave together: a mistake that any of them meets in it ends them all.

        The first that met one raises it; the others would say the same, or wait for ever, and leave silently with
        its exit code. Ranks must not speak to each other within the block.
        """
        failure: HrmEdgeError | OSError | None = None
        try:
            yield
        except (HrmEdgeError, OSError) as error:
            failure = error
        code = 0 if failure is None else getattr(failure, "exit_code", InputError.exit_code)
        codes = self.gather(torch.tensor([code], device=self.device)).tolist()
        first = next((rank for rank, code in enumerate(codes) if code), None)
        if first is None:
            return
        self.leave()
        if failure is not None and self.rank == first:
            raise failure
        raise SystemExit(codes[first])

    def broadcast_model(self, model: nn.Module) -> None:
        """Rank 0's weights and buffers to everyone."""
        if self.size > 1:
            for tensor in model.state_dict().values():
                dist.broadcast(tensor, 0)

    def average_gradients(self, model: nn.Module) -> None:
        """Mean of all ranks' gradients, in one message."""
        if self.size == 1:
            return
        gradients = [p.grad for p in model.parameters() if p.grad is not None and not p.grad.is_sparse]
        flat = torch.cat([g.flatten() for g in gradients])
        dist.all_reduce(flat)
        flat /= self.size
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def gather(self, values: torch.Tensor) -> torch.Tensor:
        """Every rank's tensor, all of one shape, joined along the first axis."""
        if self.size == 1:
            return values
        parts = [torch.empty_like(values) for _ in range(self.size)]
        dist.all_gather(parts, values.contiguous())
        return torch.cat(parts)

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """Mean over ranks of a small tensor."""
        if self.size > 1:
            dist.all_reduce(values)
            values /= self.size
        return values

    def largest(self, *values: float) -> list[float]:
        """The largest of all ranks' values, one by one: how they agree on time and on trouble."""
        if self.size == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
        return tensor.tolist()

    def leave(self) -> None:
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()
