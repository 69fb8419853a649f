"""What thinks in a page: one object a form of graph file, found by the file's ending."""

from __future__ import annotations

import tempfile
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..bundle import Bundle
from ..errors import InputError
from .runtime import PACKAGE, VERSION, runtime_files


@dataclass(frozen=True)
class Wishes:
    """How a site is to think. ``runtime``: an archive of onnxruntime-web; ``webgpu``: on the visitor's GPU too."""

    runtime: Path | None = None
    webgpu: bool = False


@dataclass(frozen=True)
class Parts:
    """Files by their place in the site, ``named`` as the page's `engine.js` takes it, and who made it, in words.

    ``holds``: what those below `model/` are.
    """

    files: dict[str, bytes]
    named: dict[str, Any]
    words: str
    holds: str = "weights"


class SiteEngine(ABC):
    """One way to think in a page."""

    endings: tuple[str, ...]  # of the graph files that it runs

    @abstractmethod
    def parts(self, bundle: Bundle, wishes: Wishes) -> Parts:
        """What the site needs of it. InputError where that cannot be had."""


class OnnxRuntimeWeb(SiteEngine):
    """ONNX Runtime as WebAssembly and, where it is wished, on WebGPU; any graph that is an .onnx file."""

    endings = (".onnx",)
    _CPU = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")
    _GPU = ("ort.webgpu.bundle.min.mjs", "ort-wasm-simd-threaded.asyncify.wasm")

    def parts(self, bundle: Bundle, wishes: Wishes) -> Parts:
        names = [*self._CPU, *(self._GPU if wishes.webgpu else ())]
        files = {f"ort/{name}": content for name, content in runtime_files(names, wishes.runtime).items()}
        for file in bundle.manifest.graphs.values():
            files[f"model/{file}"] = (bundle.path / file).read_bytes()
        chosen = {"cpu": self._CPU, **({"gpu": self._GPU} if wishes.webgpu else {})}
        named = {
            "kind": "onnx",
            **{on: {"module": f"ort/{m}", "wasm": f"ort/{w}"} for on, (m, w) in chosen.items()},
        }
        return Parts(files, named, f"{PACKAGE} {VERSION} (MIT, Microsoft)")


class CompiledC(SiteEngine):
    """A bundle's own C as one WebAssembly module, weights included: no runtime to load."""

    endings = (".c",)

    def parts(self, bundle: Bundle, wishes: Wishes) -> Parts:
        from ..exporters.targets.c.wasm import build

        with tempfile.TemporaryDirectory(prefix="hrm-edge-web-") as scratch:
            module = Path(scratch) / "hrm.wasm"
            build(bundle.path, module)
            files = {"model/hrm.wasm": module.read_bytes()}
        named = {"kind": "c", "module": "model/hrm.wasm"}
        return Parts(files, named, "its own C, compiled to WebAssembly", holds="code and weights")


ENGINES: tuple[SiteEngine, ...] = (OnnxRuntimeWeb(), CompiledC())


def engine_for(bundle: Bundle) -> SiteEngine:
    """What runs a bundle's graphs in a page. InputError where nothing does."""
    files = sorted(bundle.manifest.graphs.values())
    for engine in ENGINES:
        if all(file.endswith(engine.endings) for file in files):
            return engine
    known = ", ".join(ending for engine in ENGINES for ending in engine.endings)
    raise InputError(
        f"{bundle.path}: no page can run {files[0]} (of target {bundle.manifest.target}); pages run {known}: "
        "export the checkpoint with --target onnx or c"
    )
