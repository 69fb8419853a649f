"""One import name over the charter's folders: what is installed, what stands on disk, and the links between."""

import os
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
FOLDERS = SETUPTOOLS["package-dir"]


def on_disk(package: str, folder: Path) -> set[str]:
    """Every package below a folder, the links of `hrm_edge/` left out."""
    found = {package}
    for child in folder.iterdir():
        if child.is_dir() and not child.is_symlink() and (child / "__init__.py").is_file():
            found |= on_disk(f"{package}.{child.name}", child)
    return found


def test_every_package_is_installed():
    expected = on_disk("hrm_edge", ROOT / "hrm_edge")
    for package, folder in FOLDERS.items():
        expected |= on_disk(package, ROOT / folder)
    assert set(SETUPTOOLS["packages"]) == expected


@pytest.mark.parametrize("package", FOLDERS)
def test_a_link_stands_where_a_wheel_has_the_folder(package):
    link = ROOT / package.replace(".", os.sep)
    if link.is_file():
        pytest.skip("this checkout has no symbolic links; the package-dir table serves imports")
    if (ROOT / "PKG-INFO").is_file():
        pytest.skip("an sdist has each folder once, without the links")
    assert link.is_symlink()
    assert os.readlink(link) == f"../{FOLDERS[package]}"
    assert link.samefile(ROOT / FOLDERS[package])


def test_data_files_are_installed():
    for package, patterns in SETUPTOOLS["package-data"].items():
        head = next((name for name in FOLDERS if package == name or package.startswith(f"{name}.")), "hrm_edge")
        folder = ROOT / FOLDERS.get(head, head) / package.removeprefix(head).lstrip(".").replace(".", os.sep)
        for pattern in patterns:
            assert list(folder.glob(pattern)), f"{package}: nothing matches {pattern}"
