"""`make dist`: what the sdist, the wheel and the bill of materials hold, and that they can be made again."""

import base64
import csv
import hashlib
import importlib.metadata
import importlib.util
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

import hrm_edge

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PROJECT, LICENCES = PYPROJECT["project"], PYPROJECT["tool"]["hrm-edge"]["licences"]
STEM = f"hrm_edge-{hrm_edge.__version__}"
ROOMS = ("models", "trainer", "exporters", "runtimes")
NOT_RUNTIME = ("dev", "dist", "browser", "distributed", "contract")  # extras of people who work on hrm-edge


def made_by(script, output, **more):
    """Run `.ci/dist.py` → what it made, by kind."""
    command = [sys.executable, str(script), "-o", str(output)]
    subprocess.run(command, check=True, capture_output=True, text=True, **more)
    names = {"sdist": f"{STEM}.tar.gz", "wheel": f"{STEM}-py3-none-any.whl", "bill": f"{STEM}.cdx.json"}
    assert {each.name for each in output.iterdir()} == set(names.values())
    return {kind: output / name for kind, name in names.items()}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    absent = [name for name in ("build", "cyclonedx") if importlib.util.find_spec(name) is None]
    if absent:
        pytest.skip(f"to build takes the extra dist: no {' and no '.join(absent)} here")
    return made_by(ROOT / ".ci" / "dist.py", tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def wheel(made):
    """Content by name."""
    with zipfile.ZipFile(made["wheel"]) as archive:
        assert len(set(archive.namelist())) == len(archive.namelist())
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def unpacked(made, tmp_path_factory):
    """The folder that is in the sdist."""
    folder = tmp_path_factory.mktemp("sdist")
    with tarfile.open(made["sdist"]) as archive:
        names = archive.getnames()
        assert len(set(names)) == len(names)
        assert all(member.isfile() or member.isdir() for member in archive.getmembers())
        archive.extractall(folder, filter="data")
    return folder / STEM


def metadata(wheel):
    return Parser().parsestr(wheel[f"{STEM}.dist-info/METADATA"].decode())


def test_the_wheel_has_every_module_once_and_nothing_of_the_workshop(wheel):
    modules = {f"hrm_edge/{file.relative_to(ROOT)}" for room in ROOMS for file in (ROOT / room).rglob("*.py")}
    modules |= {str(file.relative_to(ROOT)) for file in (ROOT / "hrm_edge").rglob("*.py")}
    assert {name for name in wheel if name.endswith(".py")} == modules
    tops = {name.split("/")[0] for name in wheel}
    assert tops == {"hrm_edge", f"{STEM}.dist-info"}
    data = {name for name in wheel if name.startswith("hrm_edge/") and not name.endswith(".py")}
    assert data == set(data_files())
    for name in ("py.typed", "report/templates/report.html.j2", "web/site/index.html", "portable/js/task.js"):
        assert f"hrm_edge/{name}" in data


def data_files():
    """What stands on the disk of what the project says is installed beside its modules, by its place in a wheel."""
    for package, patterns in PYPROJECT["tool"]["setuptools"]["package-data"].items():
        place = package.replace(".", "/")
        room = place.removeprefix("hrm_edge/")
        folder = ROOT / (room if room.split("/")[0] in ROOMS else place)
        for pattern in patterns:
            yield from (f"{place}/{file.relative_to(folder)}" for file in folder.glob(pattern) if file.is_file())


def test_the_wheel_is_small_and_has_the_one_model(wheel, made):
    assert made["wheel"].stat().st_size < 2e6
    zoo = {name.split("/zoo/")[1] for name in wheel if "/zoo/" in name}
    assert zoo == {f"sudoku-9x9/{file.name}" for file in (ROOT / "models/zoo/sudoku-9x9").iterdir()}
    weights = "models/zoo/sudoku-9x9/model.safetensors"
    assert wheel[f"hrm_edge/{weights}"] == (ROOT / weights).read_bytes()


def test_the_wheel_lists_what_it_holds(wheel):
    rows = list(csv.reader(io.StringIO(wheel[f"{STEM}.dist-info/RECORD"].decode())))
    assert {name for name, _, _ in rows} == set(wheel)
    for name, digest, size in rows:
        if not name.endswith("/RECORD"):
            wanted = base64.urlsafe_b64encode(hashlib.sha256(wheel[name]).digest()).decode().rstrip("=")
            assert (digest, int(size)) == (f"sha256={wanted}", len(wheel[name])), name


def test_the_wheel_says_version_and_licence(wheel):
    told = metadata(wheel)
    assert told["Version"] == hrm_edge.__version__ == PROJECT["version"]
    assert told["License-Expression"] == "Apache-2.0"
    assert wheel[f"{STEM}.dist-info/licenses/LICENSE"] == (ROOT / "LICENSE").read_bytes()
    always = [each for each in told.get_all("Requires-Dist") if "extra ==" not in each]
    assert sorted(re.match(r"[\w-]+", each)[0] for each in always) == ["numpy", "pydantic", "rich", "typer"]


def test_the_sdist_is_the_whole_project(unpacked):
    if not (ROOT / ".git").exists():
        pytest.skip("what belongs to the project, git tells, and this is no clone")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    tracked = {name for name in listed.splitlines() if (ROOT / name).is_file()}
    own = {"PKG-INFO", "setup.cfg"}
    held = {str(file.relative_to(unpacked)) for file in unpacked.rglob("*") if file.is_file()}
    assert {name for name in held if not name.startswith("hrm_edge.egg-info/")} - own == tracked
    assert all((unpacked / name).read_bytes() == (ROOT / name).read_bytes() for name in tracked)


@pytest.mark.slow
def test_the_sdist_makes_the_same_bytes_under_another_umask_and_time(unpacked, made, tmp_path):
    """And so does the wheel that pip would build of it hold the same."""
    environment = {name: value for name, value in os.environ.items() if name != "SOURCE_DATE_EPOCH"}
    again = made_by(
        unpacked / ".ci" / "dist.py", tmp_path / "again", umask=0o077, env={**environment, "TZ": "UTC-9"}
    )
    for kind, file in made.items():
        assert again[kind].read_bytes() == file.read_bytes(), kind


def test_the_bill_lists_what_the_metadata_asks_for(wheel, made):
    requirements = pytest.importorskip("packaging.requirements")
    bill = json.loads(made["bill"].read_text("utf-8"))
    assert wheel[f"{STEM}.dist-info/sboms/hrm-edge.cdx.json"] == made["bill"].read_bytes()
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    product = bill["metadata"]["component"]
    assert (product["name"], product["version"]) == ("hrm-edge", hrm_edge.__version__)
    assert product["licenses"] == [{"license": {"id": "Apache-2.0"}}]

    asked = {}
    for line in metadata(wheel).get_all("Requires-Dist"):
        one = requirements.Requirement(line)
        extra = re.search(r'extra == "(\w+)"', line)
        if one.name != "hrm-edge" and not (extra and extra[1] in NOT_RUNTIME):
            asked[one.name.lower()] = (one.specifier, extra and extra[1])
    found = {}
    for component in bill["components"]:
        told = {each["name"]: each["value"] for each in component["properties"]}
        specifier = requirements.SpecifierSet(told["hrm-edge:range"])
        found[component["name"]] = (specifier, told.get("hrm-edge:extra"))
        assert component["scope"] == ("optional" if "hrm-edge:extra" in told else "required")
        assert component["purl"] == f"pkg:pypi/{component['name']}"
        assert component["licenses"], component["name"]
    assert found == asked
    (depends,) = (each for each in bill["dependencies"] if each["ref"] == product["bom-ref"])
    assert depends["dependsOn"] == sorted(component["bom-ref"] for component in bill["components"])


def test_an_installed_wheel_gives_lines_for_what_it_is(wheel, made, tmp_path):
    """Unpacked as pip does, and asked apart from the checkout and from what is installed here."""
    with zipfile.ZipFile(made["wheel"]) as archive:
        archive.extractall(tmp_path)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from hrm_edge import packages, zoo\n"
        "print(packages.__file__); print(packages.install('onnx')); print(packages.install('train'))\n"
        "print(*(path.name for path in zoo.zoo_models())); print(zoo.zoo_elsewhere())\n"
    )
    asked = [sys.executable, "-I", "-c", code, str(tmp_path)]
    place, onnx, train, models, elsewhere = subprocess.run(
        asked, check=True, capture_output=True, text=True, cwd=ROOT
    ).stdout.splitlines()
    assert Path(place) == tmp_path / "hrm_edge" / "packages.py"
    assert onnx == "pip install 'onnxruntime<2,>=1.31'"
    assert train.startswith("pip install torch==2.13.0 && pip install 'safetensors<1,>=0.8' ")
    assert models == "sudoku-9x9"
    assert "models/zoo of a clone or of the sdist" in elsewhere


# -- without building ---------------------------------------------------------------------------------------


def test_the_licence_of_everything_asked_for_is_known():
    lists = [PROJECT["dependencies"]]
    lists += [each for name, each in PROJECT["optional-dependencies"].items() if name not in NOT_RUNTIME]
    asked = {re.match(r"[\w.-]+", each)[0] for requirements in lists for each in requirements} - {"hrm-edge"}
    assert set(LICENCES) == asked


# What a package says of itself → the word in SPDX's names for it.
FAMILIES = {"MIT": "MIT", "BSD": "BSD", "Apache": "Apache", "Proprietary": "Proprietary", "Python Software": "PSF"}


@pytest.mark.parametrize("name", LICENCES)
def test_the_licence_is_the_one_that_the_package_says(name):
    try:
        told = importlib.metadata.metadata(name)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{name} is not installed here")
    classifiers = [each for each in told.get_all("Classifier") or [] if each.startswith("License ::")]
    words = " ".join([told.get("License-Expression") or "", (told.get("License") or "")[:60], *classifiers])
    families = {spdx for word, spdx in FAMILIES.items() if word in words}
    assert [each for each in families if each in LICENCES[name]], f"{name}: {words}"


def test_what_builds_is_what_pip_would_build_with():
    assert set(PYPROJECT["build-system"]["requires"]) <= set(PROJECT["optional-dependencies"]["dist"])
