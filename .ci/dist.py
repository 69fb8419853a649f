"""`make dist`: the sdist, the wheel that is built from it, and the wheel's bill of materials, into dist/.

The same commit gives the same bytes: times are the commit's, modes and owners are levelled. The bill (CycloneDX
JSON) names what the wheel asks for, with ranges and licences as pyproject.toml has them, and lies in the wheel too
(PEP 770).
"""

from __future__ import annotations

import argparse
import base64
import gzip
import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import tomllib
import uuid
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Extras for work on the project itself, which no bill of the product lists.
NOT_RUNTIME = ("dev", "dist", "browser", "distributed", "contract")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "dist", help="the folder they go to")
    output = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    when = commit_time()
    os.environ["SOURCE_DATE_EPOCH"] = str(when)
    with tempfile.TemporaryDirectory(prefix="hrm-edge-dist-") as scratch:
        tree = copy_tree(Path(scratch, "tree"))
        sdist = level_sdist(build(tree, "sdist", Path(scratch, "sdist")), when)
        with tarfile.open(sdist) as archive:
            archive.extractall(Path(scratch, "unpacked"), filter="data")
        (unpacked,) = Path(scratch, "unpacked").iterdir()
        wheel = build(unpacked, "wheel", Path(scratch, "wheel"))
        bill = bill_of_materials(project, when)
        finish_wheel(wheel, bill, when)
        beside = Path(scratch, f"{unpacked.name}.cdx.json")
        beside.write_text(bill, "utf-8")
        for made in (sdist, wheel, beside):
            shutil.copyfile(made, output / made.name)
            print(f"{made.stat().st_size / 1e6:6.2f} MB  {output / made.name}")


def commit_time() -> int:
    """Seconds since 1970: as SOURCE_DATE_EPOCH says, of the commit, or (in an sdist) of its files."""
    if given := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(given)
    if (ROOT / ".git").exists():
        return int(_git("log", "-1", "--format=%ct"))
    return int((ROOT / "pyproject.toml").stat().st_mtime)


def copy_tree(folder: Path) -> Path:
    """The project's files apart from what a working tree gathers: an old egg-info would add to the archive."""
    for name in project_files():
        if not (ROOT / name).is_symlink():  # the links of hrm_edge/, whose folders come by themselves
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


def project_files() -> list[str]:
    """What git knows, as it is now; in an sdist, which has no git, what its own list says."""
    if (ROOT / ".git").exists():
        return [name for name in _git("ls-files", "-z").split("\0") if name and (ROOT / name).is_file()]
    listed = (ROOT / "hrm_edge.egg-info" / "SOURCES.txt").read_text("utf-8").splitlines()
    return [name for name in listed if ".egg-info/" not in name]


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout


def build(source: Path, kind: str, output: Path) -> Path:
    """An archive by the project's own build backend, with the setuptools that is installed here."""
    from build import ProjectBuilder
    from pyproject_hooks import quiet_subprocess_runner

    builder = ProjectBuilder(source, runner=quiet_subprocess_runner)
    if missing := builder.check_dependencies(kind):
        sys.exit(f"dist.py: to build takes {' '.join(name for chain in missing for name in chain[-1:])}")
    return Path(builder.build(kind, output))


def level_sdist(path: Path, when: int) -> Path:
    """The same files in the same order, without the times, owners and umask of who built it."""
    levelled = io.BytesIO()
    with tarfile.open(path) as old, tarfile.open(fileobj=levelled, mode="w", format=tarfile.PAX_FORMAT) as new:
        for member in sorted(old.getmembers(), key=lambda member: member.name):
            kept = tarfile.TarInfo(member.name)
            kept.type, kept.size, kept.mtime = member.type, member.size, when
            kept.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            new.addfile(kept, old.extractfile(member))
    with path.open("wb") as file, gzip.GzipFile("", "wb", fileobj=file, mtime=when) as packed:
        packed.write(levelled.getvalue())
    return path


def finish_wheel(path: Path, bill: str, when: int) -> None:
    """Put the bill into the wheel's metadata and its list of files, and level times and modes."""
    with zipfile.ZipFile(path) as old:
        files = {name: old.read(name) for name in old.namelist()}
    (record,) = (name for name in files if name.endswith(".dist-info/RECORD"))
    name = f"{record.removesuffix('RECORD')}sboms/hrm-edge.cdx.json"
    files[name] = bill.encode()
    digest = base64.urlsafe_b64encode(hashlib.sha256(files[name]).digest()).rstrip(b"=").decode()
    listed = files.pop(record).decode().splitlines()
    listed.insert(-1, f"{name},sha256={digest},{len(files[name])}")  # before the list's own line
    files[record] = ("\n".join(listed) + "\n").encode()  # and the list last, as the format advises
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name, content in files.items():
            info = zipfile.ZipInfo(name, time.gmtime(max(when, 315532800))[:6])  # zip begins in 1980
            info.external_attr, info.compress_type = 0o100644 << 16, zipfile.ZIP_DEFLATED
            new.writestr(info, content)


def runtime_requirements(project: dict) -> Iterator[tuple[str, str, str | None]]:
    """(package, range, extra or None) of everything that the product asks for; extras of extras left to these."""
    extras = project["project"]["optional-dependencies"]
    lists = {None: project["project"]["dependencies"], **{k: v for k, v in extras.items() if k not in NOT_RUNTIME}}
    for extra, requirements in lists.items():
        for requirement in requirements:
            name = re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
            if name != project["project"]["name"]:
                yield name, requirement.removeprefix(name), extra


def bill_of_materials(project: dict, when: int) -> str:
    """CycloneDX 1.6, JSON. Its licences in pyproject.toml must be those of what is asked for, no fewer, no more."""
    from cyclonedx.contrib.license.factories import LicenseFactory
    from cyclonedx.model import Property
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentScope, ComponentType
    from cyclonedx.output.json import JsonV1Dot6
    from packageurl import PackageURL

    own, licences = project["project"], project["tool"]["hrm-edge"]["licences"]

    def component(name: str, licence: str, **more: object) -> Component:
        purl = PackageURL("pypi", name=name, version=more.get("version"))
        licensed = [LicenseFactory().make_from_string(licence)]
        return Component(name=name, bom_ref=str(purl), purl=purl, licenses=licensed, **more)

    bom = Bom(serial_number=uuid.uuid5(uuid.NAMESPACE_URL, f"{own['name']} {own['version']} {when}"))
    bom.metadata.timestamp = datetime.fromtimestamp(when, UTC)
    bom.metadata.component = component(
        own["name"], own["license"], version=own["version"], type=ComponentType.APPLICATION
    )
    asked = {name for name, _, _ in runtime_requirements(project)}
    if wrong := asked ^ set(licences):
        sys.exit(
            f"dist.py: [tool.hrm-edge.licences] in pyproject.toml: missing or too many: {', '.join(sorted(wrong))}"
        )
    needed = []
    for name, wanted, extra in runtime_requirements(project):
        told = {"hrm-edge:range": wanted} | ({"hrm-edge:extra": extra} if extra else {})
        scope = ComponentScope.OPTIONAL if extra else ComponentScope.REQUIRED
        properties = [Property(name=key, value=value) for key, value in told.items()]
        needed.append(component(name, licences[name], scope=scope, properties=properties))
    bom.components.update(needed)
    bom.register_dependency(bom.metadata.component, needed)
    return JsonV1Dot6(bom).output_as_string(indent=2) + "\n"


if __name__ == "__main__":
    main()
