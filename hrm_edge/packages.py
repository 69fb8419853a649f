"""Which Python packages are installed, without importing them, and the command that installs one.

The one home of "pip install": the package is on no index, so a hint names the clone it runs from, or else the
packages themselves that an extra asks for.
"""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Iterable
from pathlib import Path

from . import __version__
from .text import decoded

NAME = "hrm-edge"
# Comes first and pinned wherever PyTorch is needed: a range may resolve to a build with gigabytes of CUDA libraries
# though a CPU's is at hand.
TORCH = "torch==2.13.0"
_ROOT = Path(__file__).resolve().parents[1]


def absent(modules: Iterable[str]) -> str | None:
    """One phrase on the modules that cannot be imported as they are not installed; None: all are."""
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if not missing:
        return None
    return f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed"


def version_of(package: str) -> str | None:
    """The version of a package; None: it is not installed, or carries no metadata."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None


def from_source() -> bool:
    """Whether this runs from a clone or an unpacked sdist, not from where a wheel was installed."""
    return bool(_source_extras())


def install(*extras: str) -> str:
    """The shell command that installs what ``extras`` of this package ask for; it works as it stands.

    From a clone or an unpacked sdist it names that folder; from a wheel, the packages in the extras' ranges.
    """
    known = _source_extras()
    editable = bool(known)
    known = known or _installed_extras()
    if not known:  # the package's folder was copied, and only the wheel itself knows
        return _command([f"hrm_edge-{__version__}-py3-none-any.whl[{','.join(extras)}]"])
    wanted = _flattened(extras, known)
    torch = [TORCH] if any(_name(each) == _name(TORCH) for each in wanted) else []
    if editable:
        folder = "." if _ROOT.samefile(".") else str(_ROOT)
        rest = ["-e", f"{folder}[{','.join(extras)}]"]
    else:
        rest = [each for each in wanted if _name(each) != _name(TORCH)]
    return " && ".join(_command(each) for each in (torch, rest) if each)


def install_package(name: str) -> str:
    """The shell command that installs one package from the public index, in the range that an extra has for it."""
    known = _source_extras() or _installed_extras()
    ranged = (each for requirements in known.values() for each in requirements if _name(each) == name)
    return _command([next(ranged, name)])


def _command(arguments: Iterable[str]) -> str:
    return shlex.join(["pip", "install", *arguments])


def _name(requirement: str) -> str:
    """``onnx`` of ``onnx>=1.23,<2``."""
    return re.split(r"[^\w.-]", requirement.strip(), maxsplit=1)[0].lower()


def _flattened(extras: Iterable[str], known: dict[str, list[str]]) -> list[str]:
    """The requirements of some extras, each once; those that are other extras of this package followed."""
    found: list[str] = []
    for requirement in (each for extra in extras for each in known[extra]):
        if _name(requirement) == NAME:
            found += _flattened(re.findall(r"[\w-]+", requirement.partition("[")[2]), known)
        else:
            found.append(requirement)
    return list(dict.fromkeys(found))


def _source_extras() -> dict[str, list[str]]:
    """Requirements by extra, from the pyproject.toml beside the package; empty where this is no clone."""
    import tomllib

    try:
        project = tomllib.loads(decoded((_ROOT / "pyproject.toml").read_bytes()))["project"]
        return project["optional-dependencies"] if project["name"] == NAME else {}
    except (OSError, ValueError, KeyError):  # none there, or somebody else's, whose folder the wheel was put into
        return {}


def _installed_extras() -> dict[str, list[str]]:
    """Requirements by extra, from the metadata that a wheel leaves; empty where there is none."""
    from importlib.metadata import PackageNotFoundError, requires

    try:
        lines = requires(NAME) or []
    except PackageNotFoundError:
        return {}
    known: dict[str, list[str]] = {}
    for line in lines:
        requirement, _, marker = line.partition(";")
        if extra := re.fullmatch(r"extra == [\"']([\w-]+)[\"']", marker.strip()):
            known.setdefault(extra[1], []).append(requirement.strip())
    return known
