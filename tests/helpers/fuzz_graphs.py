"""Readers of graphs, of whatever format a backend runs."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fuzz_changes import binary, lines
from fuzz_readers import Read, Reader, registering, to

READERS: dict[str, Reader] = {}
reader = registering(READERS)


@reader("mlpackage", binary, 0.1)
def _mlpackage(folder: Path) -> tuple[list[bytes], Read]:
    import numpy as np
    from mil_programs import loop_program

    from hrm_edge.runtimes.coreml.backend import BACKEND
    from hrm_edge.runtimes.coreml.interpreter import load_program

    path, _ = loop_program(folder / "p.mlpackage")
    files = sorted(file for file in path.rglob("*") if file.is_file())
    whole = {file: file.read_bytes() for file in files}

    def read(content: bytes, which: int) -> object:
        file = files[which]
        file.write_bytes(content)
        try:
            BACKEND.compiled_products(path)
            program = load_program(path)
            return program({"x": np.ones((2, 8), np.float32), "count": np.ones(1, np.int32)})
        finally:
            file.write_bytes(whole[file])

    return list(whole.values()), read


@reader("ONNX", binary, 0.1)
def _onnx(folder: Path) -> tuple[list[bytes], Read]:
    import toy_graphs

    from hrm_edge.runtimes.onnx import BACKEND

    seeds = [
        m.SerializeToString() for loop in ("host", "graph") for m in toy_graphs.models(loop, "dynamic").values()
    ]
    return seeds, to(folder / "g.onnx", lambda file: BACKEND.load_graph(file, 1))


@reader("self-contained ONNX", binary)
def _self_contained(folder: Path) -> tuple[list[bytes], Read]:
    import toy_graphs

    from hrm_edge.bundle.self_contained import check_self_contained

    seeds = [
        m.SerializeToString() for loop in ("host", "graph") for m in toy_graphs.models(loop, "dynamic").values()
    ]
    return seeds, to(folder / "g.onnx", check_self_contained)


@reader("OpenVINO IR", lines, 0.02)
def _ir(folder: Path) -> tuple[list[bytes], Read]:
    import toy_graphs

    from hrm_edge.runtimes.openvino import BACKEND

    for name, model in toy_graphs.models("host", "dynamic").items():
        toy_graphs.save(model, folder / name, "openvino")
    # One line an element, so that lines are what is changed.
    text = (folder / "segment.xml").read_bytes().replace(b"><", b">\n<")
    return [text], to(folder / "segment.xml", lambda file: BACKEND.load_graph(file, 1))


def _single() -> list[Any]:
    """The toy's graphs of one row, as phones' formats take them."""
    import toy_graphs

    from hrm_edge.exporters.graph.passes import fix_batch

    models = list(toy_graphs.models("host", "dynamic").values())
    for model in models:
        fix_batch(model, 1)
    return models


# LiteRT checks that a file is a FlatBuffer, and then believes the numbers in it (SECURITY.md).
@reader("tflite", binary, 0.1, crashes=True)
def _tflite(folder: Path) -> tuple[list[bytes], Read]:
    from litert_models import write

    from hrm_edge.runtimes.litert import BACKEND

    seeds = [write(model, folder).read_bytes() for model in _single()]

    def read(file: Path) -> object:
        BACKEND.load_graph(file, 1)
        return BACKEND.compiled_products(file)

    return seeds, to(folder / "g.tflite", read)


if find_spec("executorch") is not None:  # in a place of its own: `make executorch`

    @reader("pte", binary, 0.02, crashes=True)
    def _pte(folder: Path) -> tuple[list[bytes], Read]:
        from hrm_edge.exporters.targets.executorch.program import write_program
        from hrm_edge.runtimes.executorch import BACKEND, NAMES

        seeds, names = [], []
        for model in _single():
            write_program(model, folder, "g")
            seeds.append((folder / "g.pte").read_bytes())
            names.append((folder / NAMES.format("g")).read_bytes())

        def read(content: bytes, which: int) -> object:
            (folder / "g.pte").write_bytes(content)
            (folder / NAMES.format("g")).write_bytes(names[which])
            BACKEND.load_graph(folder / "g.pte", None)
            return BACKEND.compiled_products(folder / "g.pte")

        return seeds, read
