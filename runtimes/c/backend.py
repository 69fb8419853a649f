"""The backend: opens a bundle's source, has it compiled, and reads which products it calls."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import InputError
from ...files import read_text
from ..base import Available, Backend, CompiledProduct
from ..loops import NEXT, require_state_outside, signature, state_tensors
from .compiler import compiled, find
from .library import STATE, CEngine, Library, facts_of
from .trust import require_trusted
from .weights import WEIGHTS, mapped

if TYPE_CHECKING:
    from ...bundle import Bundle
    from ...tasks import Task

_HEADER, _SOURCE = "hrm.h", "hrm.c"
# Kernel → the types of what it multiplies.
_KERNELS = {
    "hrm_matmul": ("float32", "float32"),
    "hrm_sparse": ("float32", "float32"),
    "hrm_matmul_int8": ("int8", "int8"),
}


class C(Backend):
    """The machine's C compiler."""

    name, title, order = "c", "C", 6

    def available(self) -> Available:
        command, version = find()
        return Available(True, version, None, "") if command else Available(False, None, version, "")

    def load(self, bundle: Bundle, task: Task, facts: dict[str, Any], threads: int | None) -> CEngine:
        """Compile a bundle's source, unless that was done before. InputError: nobody here vouches for it."""
        from ...tasks.parallel import usable_cores

        require_state_outside(bundle)
        try:
            header, source = ((bundle.path / name).read_bytes() for name in (_HEADER, _SOURCE))
        except OSError as error:
            raise InputError(
                f"{error.filename}: is not readable ({error.strerror}); export the bundle again"
            ) from None
        require_trusted(header, source, bundle.path)
        try:
            told = facts_of(header.decode(errors="replace"))
        except InputError as error:
            raise InputError(f"{bundle.path / _HEADER}: {error}") from None
        sizes = {name: told["macros"].get(name) for name in ("HRM_SEQ_LEN", "HRM_VOCAB")}
        if tuple(sizes.values()) != (task.seq_len, task.vocab_size):
            raise InputError(f"{bundle.path / _HEADER}: is not for {task.name} ({sizes}); export the bundle again")
        states = state_tensors(signature(bundle, "segment")[1])
        outputs = {tensor.name: tensor.shape for tensor in bundle.manifest.outputs["segment"]}
        shapes = {name: tuple(int(n) for n in outputs[name + NEXT][1:]) for name in states}
        kept = {STATE + name: shape for name, shape in shapes.items()}
        kept |= {"q": (2,), "logits": (task.seq_len, task.vocab_size)}
        for name, shape in kept.items():
            if told["fields"].get(name, (0, 0))[1] != math.prod(shape):
                raise InputError(f"{bundle.path / _HEADER}: has no {name} as the manifest says; export it again")
        weights = mapped(bundle.path / WEIGHTS) if told["apart"] else None
        built = compiled(header, source, bundle.path / _SOURCE)
        try:
            library = Library(built, told["fields"], weights)
        except InputError as error:
            raise InputError(f"{bundle.path / _SOURCE}: {error}; export the bundle again") from None
        return CEngine(
            task,
            bundle.manifest.architecture["halt_max_steps"],
            library,
            threads=(threads or usable_cores()) * facts["streams"],
            shapes=shapes,
            verifies=bool(told["macros"].get("HRM_CAN_VERIFY")),
            state=states,
            **facts,
        )

    def compiled_products(self, path: Path) -> list[CompiledProduct]:
        """The products of a source, from its calls of kernels; those in a function once for every call."""
        bodies: dict[str, list[str]] = {}
        found: list[CompiledProduct] = []
        kernels: list[str] = []
        for line in read_text(path).splitlines():
            if begins := re.match(r"static void (hrm_\w+)\(", line):
                kernels = bodies.setdefault(begins[1], [])
            called = re.match(r"\s+(hrm_\w+)\(", line)
            if not called:
                continue
            made = [called[1]] if called[1] in _KERNELS else bodies.get(called[1], [])
            kernels += made
            names = re.search(r"/\* products: (.+) \*/", line)
            if names:
                found += [
                    CompiledProduct(name, *_KERNELS[kernel])
                    for name, kernel in zip(names[1].split(), made, strict=True)
                ]
        return found

    def compiled_name(self, name: str) -> str:
        """As it stands in the comments of the source."""
        return re.sub(r"[^\w./:-]", "_", name)


BACKEND = C()
