"""Open a checkpoint or a bundle by its path alone: an engine that answers, with its name, precision and size."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..bundle import MANIFEST, Bundle, open_bundle
from ..errors import InputError
from ..packages import install
from ..runtimes import Engine, load_engine
from ..runtimes.loader import threads_each
from ..runtimes.loader import warning as bundle_warning
from ..workspace import standing
from ..zoo import zoo_elsewhere, zoo_models

if TYPE_CHECKING:
    from ..models import Checkpoint


@dataclass(frozen=True)
class Artifact:
    """A checkpoint or a bundle with its engine. `checkpoint` is None for a bundle, which needs no torch."""

    name: str
    path: Path
    engine: Engine
    precision: str
    size_bytes: int
    source_hash: str  # content hash of the weights' checkpoint
    checkpoint: Checkpoint | None
    warning: str | None  # to show whenever it is used
    bundle: Bundle | None = None  # as it was opened; None for a checkpoint

    @property
    def label(self) -> str:
        """Name and kind: "sudoku (openvino fp32, graph loop)"."""
        engine = self.engine
        return f"{self.name} ({engine.backend} {self.precision}, {engine.loop} loop)"

    @property
    def segment_flops(self) -> int | None:
        """Operations of the products of one segment, one puzzle; a multiply-add is two.

        Of a checkpoint they are counted here, of one segment that runs; a bundle names those of its checkpoint, or
        (None) does not.
        """
        if self.checkpoint is not None:
            return self.checkpoint.model.segment_flops
        return None if self.bundle is None else self.bundle.manifest.segment_flops


def is_bundle(path: Path | str) -> bool:
    """Whether a path is meant as a bundle: it holds a manifest, whole or not."""
    return (standing(Path(path)) / MANIFEST).is_file()


def require_checkpoint(path: Path | str) -> None:
    """InputError where nothing stands there, or a checkpoint without the PyTorch that it takes."""
    if not Path(path).exists() and str(path) not in {model.name for model in zoo_models()}:
        known = "`hrm-edge models` lists those that ship"
        raise InputError(f"{path}: no such checkpoint or bundle; {known}{zoo_elsewhere()}")
    if importlib.util.find_spec("torch") is None:
        raise InputError(f"{path}: a checkpoint needs PyTorch to run; run: {install('train')}")


def open_artifact(
    path: Path | str | Bundle, threads: int | None = None, compiled: bool = False, streams: int = 1
) -> Artifact:
    """Open a checkpoint (folder or shipped name) or a bundle, which may be opened already.

    `threads`: CPU threads, which `streams` callers at once share; for PyTorch they are set for the whole process.
    `compiled` runs a checkpoint
    through `torch.compile`. InputError where it is neither, damaged, or its backend is not installed.
    """
    if isinstance(path, Bundle) or is_bundle(path):
        bundle, place = (path, path.path) if isinstance(path, Bundle) else (open_bundle(path), Path(path))
        return Artifact(
            name=place.name or bundle.manifest.name,
            path=place,
            engine=load_engine(bundle, threads, streams=streams),
            precision=bundle.manifest.precision,
            size_bytes=bundle.size,
            source_hash=bundle.manifest.source["content_hash"],
            checkpoint=None,
            warning=bundle_warning(bundle),
            bundle=bundle,
        )
    require_checkpoint(path)
    import torch

    from ..models import load_checkpoint
    from ..models.engine import TorchEngine

    if (each := threads_each(threads, streams)) is not None:
        torch.set_num_threads(each)
    checkpoint = load_checkpoint(path)
    return Artifact(
        name=checkpoint.name,
        path=checkpoint.path,
        engine=TorchEngine(checkpoint, compiled, streams),
        precision="fp32",
        size_bytes=checkpoint.size_bytes,
        source_hash=checkpoint.content_hash,
        checkpoint=checkpoint,
        warning=None,
    )
