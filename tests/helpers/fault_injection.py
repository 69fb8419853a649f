"""File operations of a command broken one after the other: does the old or the new stand there, and whole?

Commands run in this process. How operations are broken: `faulty_disk.py`. Which commands: `faults.py`.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faulty_disk import FAULTS, Disk, Fault, Killed, watched

WORKSPACE = ".hrm-edge"  # how the names of our own folders beside what is written end


@dataclass(frozen=True)
class Scenario:
    """A command line that writes under ``place``. ``prepare`` puts there what stood before; ``state`` tells what
    stands there now, the same for what cannot be told apart."""

    name: str
    arguments: Callable[[Path], list[Any]]
    prepare: Callable[[Path], None]
    target: str  # under `place`
    state: Callable[[Path], Any] = field(default=lambda path: contents(path))
    steps: bool = False  # it writes several things, one after the other, each of them whole
    kept: bool = False  # where it fails, what is done is kept beside for the same command to go on


def contents(path: Path) -> dict[str, str] | str | None:
    """Everything at a path by its hash; None where nothing is."""
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    if not path.exists():
        return None
    return {
        str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(path.rglob("*"))
        if file.is_file()
    }


def run(arguments: list[Any]) -> tuple[int | None, str]:
    """Exit code of ``hrm-edge ARGUMENTS``, None for a traceback, and what it said on stderr."""
    from hrm_edge.cli import main

    said = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as stop:
            return int(stop.code or 0), said.getvalue()
        except Killed:
            return -signal.SIGKILL, said.getvalue()
        except Exception as error:
            return None, f"{said.getvalue()}{type(error).__name__}: {error}"
    return 0, said.getvalue()


class Wrong(AssertionError):
    """After a fault something stood on the disk, or was said, that must not be."""


@dataclass
class Trial:
    """One scenario in a folder of its own, again and again."""

    scenario: Scenario
    folder: Path

    def __post_init__(self) -> None:
        self.place = self.folder / "place"
        self.reset()
        self.before = self._state(self.place)
        disk = Disk(self.place)
        code, said = self._run(disk)
        if code != 0:
            raise Wrong(f"{self.scenario.name}: fails without a fault: {said}")
        self.after = self._state(self.place)
        self.kinds = disk.kinds
        if self.before == self.after:
            raise Wrong(f"{self.scenario.name}: changes nothing")
        self._nothing_else(self.place, litter=False)

    def reset(self) -> None:
        for path in (self.place, Path(f"{self.place}.gone")):
            shutil.rmtree(path, ignore_errors=True)
        self.place.mkdir()
        (self.place / "notes.txt").write_text("mine")
        (self.place / f".{self.scenario.target}.old").mkdir()  # as earlier versions called theirs
        (self.place / f".{self.scenario.target}.old" / "mine").write_text("mine too")
        self.scenario.prepare(self.place)

    def applies(self, fault: Fault, at: int) -> bool:
        return not fault.only or self.kinds[at - 1] in fault.only

    def meet(self, fault: Fault, at: int) -> str:
        """Run with a fault and look; → what came of it. Raises :class:`Wrong`."""
        self.reset()
        disk = Disk(self.place, fault, at)
        code, said = self._run(disk)
        where = f"{self.scenario.name}, {fault.name} at operation {at} ({self.kinds[at - 1]}): "
        if not disk.hit:
            raise Wrong(f"{where}was never met")
        try:
            outcome = self._judge(fault, code, said)
            if fault.name == "vanish":
                return outcome
            code, said = self._run(Disk(self.place))
            if code != 0 or self._state(self.place) != self.after:
                raise Wrong(f"afterwards the same command exits {code}: {said}")
            self._nothing_else(self.place, litter=False)
        except Wrong as wrong:
            raise Wrong(f"{where}{wrong}") from None
        return outcome

    def look_all_the_time(self, look: Callable[[Path], None]) -> int:
        """A reader before every operation of one run; → how many."""
        self.reset()
        disk = Disk(self.place, look=lambda: look(self.place))
        code, said = self._run(disk)
        if code != 0:
            raise Wrong(f"{self.scenario.name}: with a reader it exits {code}: {said}")
        return len(disk.kinds)

    def _run(self, disk: Disk) -> tuple[int | None, str]:
        with watched(disk):
            return run(self.scenario.arguments(self.place))

    def _judge(self, fault: Fault, code: int | None, said: str) -> str:
        place = self.place
        if fault.name == "vanish" and not (code == 0 and place.exists()):  # else it was made anew
            place = Path(f"{self.place}.gone")
        state = self._state(place)
        stands = "new" if state == self.after else "old" if state == self.before else None
        if stands is None and not self.scenario.steps:
            raise Wrong(f"neither the old nor the new stands there (exit {code})")
        if fault.name == "kill":
            self._nothing_else(place, litter=True)
            return f"killed, {stands or 'a step'} stands"
        lines = [line for line in said.splitlines() if line.startswith("hrm-edge: ")]
        if code is None or "Traceback" in said:
            raise Wrong(f"a traceback: {said}")
        allowed = {0, 128 + signal.SIGTERM} if fault.name == "TERM" else {0, 2}
        if code not in allowed:
            raise Wrong(f"exits {code}: {said}")
        if code == 2 and len(lines) != 1:
            raise Wrong(f"does not say in one line what is wrong: {said!r}")
        if code == 0 and stands != "new" and not (fault.name == "vanish" and self.scenario.steps):
            raise Wrong("exits 0, and the new does not stand there")
        if code != 0 and stands != "old" and not self.scenario.steps:
            raise Wrong(f"exits {code}, and the new stands there: {said}")
        if stands == "old" and not fault.lasting and self.before and not (place / self.scenario.target).exists():
            raise Wrong("the old was not put back")
        # What a disk refuses to remove stays until the next time.
        place = Path(f"{self.place}.gone") if fault.name == "vanish" else place
        litter = fault.name in ("EACCES", "EIO", "EROFS", "vanish") or (self.scenario.kept and code != 0)
        self._nothing_else(place, litter=litter)
        return f"exit {code}, {stands or 'a step'} stands"

    def _state(self, place: Path) -> Any:
        from hrm_edge.workspace import standing

        target = place / self.scenario.target
        return self.scenario.state(standing(target))

    def _nothing_else(self, place: Path, litter: bool) -> None:
        """Only the target and, where there may be ``litter``, our workspaces have come; nothing has gone."""
        notes = place / "notes.txt", place / f".{self.scenario.target}.old" / "mine"
        if [note.read_text() for note in notes] != ["mine", "mine too"]:
            raise Wrong("a neighbour was changed")
        names = {path.relative_to(place) for path in place.rglob("*")}
        ours = {name for name in names if any(part.endswith(WORKSPACE) for part in name.parts)}
        if ours and not litter:
            raise Wrong(f"{min(ours)} is left behind")
        known = {
            "notes.txt",
            f".{self.scenario.target}.old",
            self.scenario.target,
            "spec.toml",
            "toy",
            "puzzles.csv",
        }
        if strange := {str(name) for name in names - ours if name.parts[0] not in known}:
            raise Wrong(f"{min(strange)} has come")


def sweep(trial: Trial, tries: int | None = None) -> dict[str, Counter[str]]:
    """All faults at all operations, or each at so many and two at every rename; → how often what came of it."""
    outcomes: dict[str, Counter[str]] = {}
    for number, fault in enumerate(FAULTS):
        counted = outcomes.setdefault(fault.name, Counter())
        places = [at for at in range(1, len(trial.kinds) + 1) if trial.applies(fault, at)]
        if tries is not None and tries < len(places):
            # Spread over the command, each fault's elsewhere.
            parts = [(each + (number + 0.5) / len(FAULTS)) / tries for each in range(tries)]
            some = {places[int(part * len(places))] for part in parts}
            if fault.name in ("EIO", "kill") and not trial.scenario.steps:
                some |= {at for at in places if trial.kinds[at - 1] == "rename"}
            if fault.name == "ENOSPC":  # of which libraries tell in ways of their own
                some |= {at for at in places if trial.kinds[at - 1] == "save"}
            places = sorted(some)
        for at in places:
            counted[trial.meet(fault, at)] += 1
    return outcomes
