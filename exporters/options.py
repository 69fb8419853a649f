"""What an export may choose, checked at construction."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any

from ..errors import InputError
from ..limits import ROWS
from ..packages import install
from .targets import all_targets, target_named
from .targets.base import LOOPS
from .triton import TRITON, require_served

# Compute capabilities × 10 that an engine is built for unless told otherwise: RTX 30, 40 and 50.
COMPUTE_CAPABILITIES = (86, 89, 120)
_DYNAMIC = "dynamic"
LAYOUTS = ("bundle", TRITON)  # of the folder, the usual one first


@dataclass(frozen=True)
class ExportOptions:
    """What to build. ``batch``: rows of every call, or None for any number.

    ``compute_capabilities``: of GPUs, 86 for 8.6; ``ios``: the oldest iOS that it must run on. Each means something
    to the one target that calls it its own. ``layout``: how the bundle's folder is arranged, one of `LAYOUTS`.
    :meth:`for_target` fills in what a target does unless told otherwise.
    """

    target: str = "onnx"
    precision: str = "fp32"
    loop: str = "graph"
    batch: int | None = None
    compute_capabilities: tuple[int, ...] = COMPUTE_CAPABILITIES
    ios: int = 17
    layout: str = LAYOUTS[0]

    def __post_init__(self) -> None:
        target = target_named(self.target)
        values: list[tuple[str, Any, Any]] = [
            ("--precision", self.precision, known_precisions()),
            ("--loop", self.loop, LOOPS),
            ("--layout", self.layout, LAYOUTS),
        ]
        for owner in all_targets().values():
            values += [
                (flag, getattr(self, field), known)
                for field, flag in owner.own_options.items()
                if (known := owner.known_values(field))
            ]
        for flag, value, known in values:
            if value not in known:
                raise InputError(f"{flag} {value}: unknown; choose {' or '.join(map(str, known))}")
        for flag, value, known in (
            ("--precision", self.precision, target.precisions),
            ("--loop", self.loop, target.loops),
        ):
            if value not in known:
                raise InputError(f"{flag} {value}: not for {self.target}; choose {' or '.join(known)}")
        if self.layout == TRITON:
            require_served(self.target)
        target.check(self)
        if self.batch is not None and not 1 <= self.batch <= ROWS:
            raise InputError(f"--batch must be a number of rows, from 1 to {ROWS}, or dynamic, not {self.batch}")

    @classmethod
    def for_target(
        cls,
        target: str = "onnx",
        precision: str = "fp32",
        loop: str | None = None,
        batch: int | str | None = None,
        layout: str | None = None,
        **own: Any,
    ) -> ExportOptions:
        """What `hrm-edge export` makes of its flags: what is None is as the target has it by default.

        ``batch``: a number of rows, or "dynamic" for any. ``own``: fields of :class:`ExportOptions` that are the
        target's own; they, too, may be the text of their flags.

        Raises:
            InputError: a value is unknown, does not go with the target, or is another target's.
        """
        targets = all_targets()
        owners = {field: owner for owner in targets.values() for field in owner.own_options}
        given = {field: value for field, value in own.items() if value is not None}
        if unknown := sorted(given.keys() - owners.keys()):
            raise TypeError(f"no target has an option {unknown[0]!r}; there are {', '.join(owners)}")
        for field in given:
            owner = owners[field]
            if owner.name != target:
                flag = owner.own_options[field]
                raise InputError(f"{flag}: has no meaning with --target {target}, only with {owner.name}")
        given = {field: owners[field].read_option(field, value) for field, value in given.items()}
        rows = _rows(batch) if isinstance(batch, str) else batch
        chosen = target_named(target)
        if batch is None:
            rows = chosen.default_batch
        return cls(target, precision, loop or chosen.default_loop, rows, **given, layout=layout or LAYOUTS[0])

    @property
    def suffix(self) -> str:
        """Tells bundles of one checkpoint apart: ``onnx-fp32-graph``."""
        laid_out = f"-{self.layout}" * (self.layout != LAYOUTS[0])
        return f"{self.target}-{self.precision}-{self.loop}{target_named(self.target).suffix(self)}{laid_out}"


def need_packages(name: str, gate: bool) -> None:
    """InputError where a package is absent that an export to the target ``name`` takes, or what its gate runs on:
    one line instead of an ImportError half-way through."""
    from ..runtimes import backend

    target = all_targets().get(name)
    for package in ("torch", "onnx", "onnxscript", "jinja2"):
        if importlib.util.find_spec(package) is None:
            extras = ("export",) if target is None else ("export", name)
            raise InputError(f"export needs {package}, which is not installed; run: {install(*extras)}")
    if target is None:
        return  # the options know which there are
    target.need()
    runner = target.gate_backend or name
    if gate:
        usable, _, why_not, command = backend(runner).available()
        if not usable:
            then = f"; run: {command}" if command else ""
            raise InputError(f"the gate runs what was built with {runner}, but {why_not}{then}")


def known_precisions() -> tuple[str, ...]:
    """Every precision that some target can be exported in."""
    return tuple(dict.fromkeys(name for target in all_targets().values() for name in target.precisions))


def _rows(batch: str) -> int | None:
    if batch == _DYNAMIC:
        return None
    if not batch.isascii() or not batch.isdigit() or len(batch) > 9 or not 1 <= int(batch) <= ROWS:
        raise InputError(f"--batch must be a number of rows, from 1 to {ROWS}, or dynamic, not {batch!r}")
    return int(batch)
