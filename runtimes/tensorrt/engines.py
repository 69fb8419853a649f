"""Which engine runs a graph on this GPU: one of the bundle's, one built here before, or one built now and kept."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass as record

from ...bundle import MANIFEST, Bundle
from ...bundle.self_contained import check_self_contained
from ...errors import InputError
from ...files import cache_folder as shared_cache
from ...files import sha256, write_atomically
from ...progress import Progress, Say
from ...records import STRICT, FromOne, Number, Text, from_json
from ..loops.host import DEFAULT_SLOTS
from .build import Rows, SerializedEngine, build
from .cuda import Gpu
from .device import LoadedEngine, Refused
from .flavours import Flavour, as_text

INDEX = "tensorrt.json"  # in a bundle: the engines it brings
# Fewest, typical and most rows of an engine whose graph takes any number.
DEFAULT_PROFILE: Rows = (1, DEFAULT_SLOTS, DEFAULT_SLOTS)

# Where an engine may come from: it came with the bundle, was kept from before, or was built now.
SOURCES = SHIPPED, KEPT, BUILT = "bundle", "kept", "built"

_DIGEST_BYTES = 32


@record(frozen=True, config=STRICT)
class EngineFile:
    """One engine of a bundle. ``compute_capabilities`` × 10; ``rows`` None: their number is fixed."""

    graph: Text
    file: Text
    flavour: Text
    version: Text
    compute_capabilities: Annotated[tuple[FromOne, ...], Field(min_length=1)]
    rows: tuple[FromOne, FromOne, FromOne] | None
    sha256: Text
    weights_bytes: int | None
    seconds: Number


@record(frozen=True, config=STRICT)
class EngineIndex:
    """A bundle's ``tensorrt.json``."""

    engines: tuple[EngineFile, ...]
    audit: dict[str, Any] = field(default_factory=dict)
    numerics: str = ""

    def write(self, path: Path) -> None:
        """Write it into a bundle that is being made; the same content gives the same bytes."""
        path.write_bytes((json.dumps(asdict(self), indent=2, sort_keys=True) + "\n").encode())

    @classmethod
    def read(cls, path: Path) -> EngineIndex:
        """Raises :class:`InputError` naming the file and the field when anything is missing or unknown."""
        try:
            return from_json(cls, path.read_bytes(), path)
        except OSError as error:
            raise InputError(f"{path}: is not readable ({error.strerror}); export the bundle again") from error


@dataclass(frozen=True)
class Here:
    """What engines must fit: a flavour of TensorRT and the GPU. ``say`` and ``progress`` reach whoever waits."""

    flavour: Flavour
    gpu: Gpu
    say: Say
    progress: Progress | None = None


def read_index(bundle: Bundle) -> EngineIndex:
    """The engines a bundle brings; none when it has only ONNX graphs. Raises :class:`InputError`."""
    if INDEX not in bundle.manifest.files:
        return EngineIndex(())
    index = EngineIndex.read(bundle.path / INDEX)
    for engine in index.engines:
        entry = bundle.manifest.files.get(engine.file)
        if entry is None or entry.sha256 != engine.sha256 or engine.graph not in bundle.manifest.graphs:
            raise InputError(
                f"{bundle.path / INDEX}: lists {engine.file!r} for graph {engine.graph!r}, which is not what the "
                "bundle holds; export it again"
            )
    return index


def fitting(index: EngineIndex, graph: str, flavour: Flavour, compute_capability: int) -> EngineFile | None:
    """The bundle's engine that should run here, if any. (A version-compatible one may be older than TensorRT.)"""
    own = [e for e in index.engines if (e.graph, e.flavour) == (graph, flavour.name)]
    own = [e for e in own if compute_capability in e.compute_capabilities]
    same = [e for e in own if e.version == flavour.version]
    older = [e for e in own if not flavour.is_rtx and _numbers(e.version) < _numbers(flavour.version)]
    return next(iter([*same, *older]), None)


def load(bundle: Bundle, graph: str, here: Here) -> LoadedEngine:
    """The graph's engine on this GPU, built from its ONNX file if need be, which is then said and kept.

    Raises :class:`InputError` when it can be neither loaded nor built.
    """
    index = read_index(bundle)
    why = _why_none(index, graph, here)
    shipped = fitting(index, graph, here.flavour, here.gpu.compute_capability)
    if shipped is not None:
        try:
            plan = (bundle.path / shipped.file).read_bytes()
            return _loaded(here, plan, SHIPPED)
        except Refused as refused:
            why = f"{shipped.file} is refused ({refused})"
    if kept := kept_plan(bundle, graph, here.flavour, here.gpu.compute_capability):
        try:
            return _loaded(here, kept, KEPT)
        except Refused as refused:
            why = f"the engine kept from before is refused ({refused})"
    here.say(f"{bundle.path}: {why}: building an engine of {graph!r} for {here.gpu.name} (once)")
    plan = compile_graph(bundle, graph, here.flavour, here.gpu.compute_capability, here.say, here.progress)
    try:
        return _loaded(here, plan, BUILT)
    except Refused as refused:
        raise InputError(
            f"{bundle.path}: {here.flavour.name} {here.flavour.version} does not load the engine it has just built "
            f"for {here.gpu.name} ({refused})"
        ) from refused


def compile_graph(
    bundle: Bundle, graph: str, flavour: Flavour, compute_capability: int, say: Say, progress: Progress | None
) -> bytes:
    """Build a graph's engine and keep it in the cache folder. → the engine. Raises :class:`InputError`."""
    check_self_contained(bundle.path / bundle.manifest.graphs[graph])
    rows = profile(bundle, graph)
    timings = cache_folder() / f"{flavour.name}-{flavour.version}-sm{compute_capability}.timings"
    built = build(
        flavour,
        (bundle.path / bundle.manifest.graphs[graph]).read_bytes(),
        compute_capabilities=[compute_capability],
        rows=rows,
        progress=progress,
        what=f"{graph} for compute capability {as_text([compute_capability])}",
        version_compatible=False,  # it is kept for this version, and no other will look for it
        timing_cache=_read(timings) or None,
    )
    _keep(kept_file(bundle, graph, flavour, compute_capability), timings, built, say)
    return built.plan


def kept_plan(bundle: Bundle, graph: str, flavour: Flavour, compute_capability: int) -> bytes | None:
    """An engine built before, whole and undamaged, or None."""
    content = _read(kept_file(bundle, graph, flavour, compute_capability))
    digest, plan = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    return plan if plan and hashlib.sha256(plan).digest() == digest else None


def kept_file(bundle: Bundle, graph: str, flavour: Flavour, compute_capability: int) -> Path:
    """Where an engine is kept: everything it depends on is in the name."""
    entry = bundle.manifest.files[bundle.manifest.graphs[graph]]
    rows = profile(bundle, graph)
    shape = "fixed" if rows is None else "-".join(map(str, rows))
    name = f"{entry.sha256[:40]}.{flavour.name}-{flavour.version}.sm{compute_capability}.{shape}.engine"
    return cache_folder() / name


def profile(bundle: Bundle, graph: str) -> Rows | None:
    """Rows an engine of the graph is built for: as those of the bundle are, else the default."""
    if bundle.manifest.batch != "dynamic":
        return None
    shipped = [engine.rows for engine in read_index(bundle).engines if engine.graph == graph and engine.rows]
    return shipped[0] if shipped else DEFAULT_PROFILE


def verified_file(bundle: Bundle, here: Here) -> Path:
    """The record that ``hrm-edge check`` has passed with this bundle, GPU and version of TensorRT."""
    facts = [sha256(bundle.path / MANIFEST), here.gpu.name, here.flavour.name, here.flavour.version]
    key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
    return cache_folder() / "verified" / f"{key}.json"


def cache_folder() -> Path:
    """Where engines, compiled kernels and records are kept."""
    return shared_cache() / "tensorrt"


def _loaded(here: Here, plan: bytes, source: str) -> LoadedEngine:
    kernels = cache_folder() / f"{hashlib.sha256(plan).hexdigest()[:40]}.kernels"
    return LoadedEngine(here.flavour, plan, source, kernels)


def _keep(file: Path, timings: Path, built: SerializedEngine, say: Say) -> None:
    try:
        # An engine behind its own SHA-256, so that any damage shows before TensorRT parses a byte.
        write_atomically(file, hashlib.sha256(built.plan).digest() + built.plan)
        if built.timing_cache:
            write_atomically(timings, built.timing_cache)
    except OSError as error:
        say(f"the engine is not kept: {file.parent} can not be written ({error.strerror})")


def _why_none(index: EngineIndex, graph: str, here: Here) -> str:
    """Why no engine of the bundle will do: the first reason that holds for all of them."""
    flavour, gpu = here.flavour, here.gpu
    own = [engine for engine in index.engines if engine.graph == graph]
    if not own:
        return "it brings no engine"
    if not (same := [engine for engine in own if engine.flavour == flavour.name]):
        return f"its engine is for {own[0].flavour}, and this is {flavour.name}"
    if not (fit := [engine for engine in same if gpu.compute_capability in engine.compute_capabilities]):
        capabilities = sorted({one for engine in same for one in engine.compute_capabilities})
        return (
            f"its engine is for compute capability {as_text(capabilities)}, and this GPU has "
            f"{as_text([gpu.compute_capability])}"
        )
    return f"{fit[0].file} is for {flavour.name} {fit[0].version}, and this is {flavour.version}"


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        return b""


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
