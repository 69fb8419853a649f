"""What a checkpoint can be exported to: every target in every precision that it has, as the targets say it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import InputError
from ..exporters.options import ExportOptions, known_precisions, need_packages
from ..exporters.targets import all_targets, target_named
from ..exporters.targets.base import Target
from ..runtimes import backend


@dataclass(frozen=True)
class Candidate:
    """One export. ``options`` None: it cannot be made here, and ``why_not`` says why.

    ``own``: the target's own options that it took, where its defaults do not have the precision.
    """

    target: str
    precision: str
    options: ExportOptions | None
    why_not: str | None = None
    own: dict[str, Any] = field(default_factory=dict)

    @property
    def timed(self) -> bool:
        """Whether the time that it takes here is the time of what it was built for."""
        return self.options is not None and target_named(self.target).stood_in_by() is None


def candidates(targets: Sequence[str] | None, precisions: Sequence[str] | None, gate: bool) -> list[Candidate]:
    """Every target and precision, or those of the ones that are named. InputError: a name is unknown."""
    for name in precisions or ():
        if name not in known_precisions():
            raise InputError(f"--precision {name}: unknown; choose {' or '.join(known_precisions())}")
    chosen = [target_named(name) for name in targets] if targets else list(all_targets().values())
    found = [each for target in chosen for each in _of_target(target, precisions, gate)]
    if not found:
        raise InputError(f"--precision {','.join(precisions or ())}: none of these targets has it")
    return found


def _of_target(target: Target, precisions: Sequence[str] | None, gate: bool) -> Iterator[Candidate]:
    for precision in target.precisions:
        if precisions and precision not in precisions:
            continue
        try:
            options, own = _fitting(target, precision)
            need_packages(target.name, gate)
            target.need(options)
        except InputError as error:
            yield Candidate(target.name, precision, None, str(error))
        else:
            yield Candidate(target.name, precision, options, own=own)


def _fitting(target: Target, precision: str) -> tuple[ExportOptions, dict[str, Any]]:
    """As the target does it by default or, where that does not go together, with the first option of its own that
    does."""
    choices: list[dict[str, Any]] = [{}]
    choices += [{field: value} for field in target.own_options for value in target.known_values(field) or ()]
    first: InputError | None = None
    for own in choices:
        try:
            return ExportOptions.for_target(target.name, precision, **own), own
        except InputError as error:
            first = first or error
    assert first is not None
    raise first


def runs_as(candidate: Candidate) -> str:
    """The backend's name and version, on which answers and times depend."""
    runs = backend(candidate.target)
    return f"{runs.engine_name()} {runs.available().version}"
