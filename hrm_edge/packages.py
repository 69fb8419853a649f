"""Which Python packages are installed, without importing them."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable


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
