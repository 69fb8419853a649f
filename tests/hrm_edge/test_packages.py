"""The command in every hint: it is one that pip takes, it names what is there, and it has one home."""

import ast
import importlib.metadata
import re
import shlex
import shutil
import tomllib
from pathlib import Path

import pytest

from hrm_edge import __version__, packages
from hrm_edge.packages import TORCH, from_source, install, install_package

ROOT = Path(__file__).parents[2]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
ROOMS = ("hrm_edge", "models", "trainer", "exporters", "runtimes")
SOURCES = [file for room in ROOMS for file in (ROOT / room).rglob("*.py")]  # links are not followed

# What setuptools writes of the pyproject.toml: its own order, and ranges turned about.
METADATA = [
    "numpy<3,>=2.1",
    'onnxruntime<2,>=1.31; extra == "onnx"',
    'tensorrt-rtx-cu13-libs<2,>=1.7; extra == "tensorrt"',
    'cuda-python<14,>=13; extra == "tensorrt"',
    'torch<2.14,>=2.13; extra == "train"',
    "safetensors<1,>=0.8; extra == 'train'",
    'jinja2<4,>=3.1; extra == "report"',
    'hrm-edge[report,train]; extra == "export"',
    'onnx<2,>=1.23; extra == "export"',
]


@pytest.fixture
def wheel(monkeypatch, tmp_path):
    """As if a wheel had been installed, with this metadata."""
    monkeypatch.setattr(packages, "_ROOT", tmp_path)
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: METADATA)
    return tmp_path


def test_a_clone_is_named_by_its_folder(monkeypatch, tmp_path):
    assert from_source()
    monkeypatch.chdir(ROOT)
    assert install("openvino") == "pip install -e '.[openvino]'"
    assert install("report", "onnx") == "pip install -e '.[report,onnx]'"
    monkeypatch.chdir(tmp_path)
    assert shlex.split(install("openvino")) == ["pip", "install", "-e", f"{ROOT.resolve()}[openvino]"]
    (tmp_path / "link").symlink_to(ROOT)
    monkeypatch.chdir(tmp_path / "link")
    assert install("arc") == "pip install -e '.[arc]'"


def test_a_folder_with_spaces_stays_one_argument(monkeypatch, tmp_path):
    clone = tmp_path / "it's a clone"
    clone.mkdir()
    shutil.copy(ROOT / "pyproject.toml", clone)
    monkeypatch.setattr(packages, "_ROOT", clone)
    assert shlex.split(install("onnx")) == ["pip", "install", "-e", f"{clone}[onnx]"]


def needs_torch(extra):
    """By another way than the code's: the requirements as one text, other extras put in until none is left."""
    text = " ".join(EXTRAS[extra])
    while "hrm-edge[" in text:
        text = re.sub(r"hrm-edge\[([\w,]+)\]", lambda found: str([EXTRAS[e] for e in found[1].split(",")]), text)
    return bool(re.search(r"\btorch[<>=]", text))


@pytest.mark.parametrize("extra", EXTRAS)
def test_pytorch_comes_first_and_pinned_where_it_is_needed(monkeypatch, extra):
    monkeypatch.chdir(ROOT)
    pinned = f"pip install {TORCH} && " if needs_torch(extra) else ""
    assert install(extra) == f"{pinned}pip install -e '.[{extra}]'"


def test_what_runs_bundles_needs_no_pytorch():
    assert {extra for extra in EXTRAS if needs_torch(extra)} == {"train", "export", "dev"}


def test_after_a_wheel_the_packages_are_named(wheel):
    assert not from_source()
    assert install("onnx") == "pip install 'onnxruntime<2,>=1.31'"
    assert install("tensorrt") == "pip install 'tensorrt-rtx-cu13-libs<2,>=1.7' 'cuda-python<14,>=13'"
    assert install("train") == "pip install torch==2.13.0 && pip install 'safetensors<1,>=0.8'"
    # Extras of extras; each package once.
    rest = "'jinja2<4,>=3.1' 'safetensors<1,>=0.8' 'onnx<2,>=1.23' 'onnxruntime<2,>=1.31'"
    assert install("export", "report", "onnx") == f"pip install torch==2.13.0 && pip install {rest}"


def test_one_package_comes_in_the_range_that_an_extra_has(wheel):
    assert install_package("cuda-python") == "pip install 'cuda-python<14,>=13'"
    assert install_package("cuda") == "pip install cuda"
    assert install_package("tensorrt") == "pip install tensorrt"


def test_somebody_elses_pyproject_beside_the_package_is_no_clone(wheel):
    """`pip install --target .` puts the package there."""
    for text in ("[project]\nname = 'other'\n[project.optional-dependencies]\nonnx = ['x']", "[tool]", "no toml ="):
        (wheel / "pyproject.toml").write_text(text)
        assert not from_source()
        assert install("onnx") == "pip install 'onnxruntime<2,>=1.31'"


def test_a_copied_folder_knows_its_wheel_only(wheel, monkeypatch):
    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", absent)
    assert install("onnx") == f"pip install 'hrm_edge-{__version__}-py3-none-any.whl[onnx]'"


def test_no_requirement_of_an_extra_has_a_condition():
    """Of a requirement in the metadata, what stands behind the ; is taken to be the extra's name alone."""
    assert not [each for requirements in EXTRAS.values() for each in requirements if ";" in each]


def test_the_pin_is_in_the_range_and_the_same_everywhere():
    assert any(re.match(r"torch>=2\.13,<2\.14$", each) for each in EXTRAS["train"])
    for name in ("Makefile", "README.md", "action.yml"):
        assert set(re.findall(r"torch==[\w.]+", (ROOT / name).read_text("utf-8"))) == {TORCH}, name


def hints(code):
    """(line, text) of every string in code that gives a command of pip's or asks an index for this package."""
    for node in ast.walk(ast.parse(code)):
        text = node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
        if re.search(r"\bpip3? +install\b|hrm-edge\[", text):
            yield node.lineno, text


def test_no_other_code_has_a_command_of_its_own():
    assert len(SOURCES) > 150
    found = [f"{file}:{line}" for file in SOURCES for line, _ in hints(file.read_text("utf-8"))]
    assert {place.rpartition(":")[0] for place in found} == {str(ROOT / "hrm_edge" / "packages.py")}
    assert [text for _, text in hints("raise InputError(f\"{x}: run: pip install 'hrm-edge[onnx]'\")")]


def test_every_hint_asks_for_an_extra_that_is_there():
    asked = set()
    for file in SOURCES:
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "install":
                asked |= {each.value for each in node.args if isinstance(each, ast.Constant)}
    assert {"train", "export", "report", "hub", "arc"} <= asked <= set(EXTRAS)


def test_the_lines_of_the_readme_name_the_wheel_and_extras_that_are_there():
    lines = [line for line in (ROOT / "README.md").read_text("utf-8").splitlines() if "pip install" in line]
    extras = {extra for line in lines for found in re.findall(r"\[([\w,]+)\]", line) for extra in found.split(",")}
    assert {"onnx", "openvino", "tensorrt", "coreml", "litert", "export"} == extras <= set(EXTRAS)
    wheels = {found for line in lines for found in re.findall(r"hrm_edge-[\w.-]+\.whl", line)}
    assert wheels == {f"hrm_edge-{__version__}-py3-none-any.whl"}
    for line in lines:
        for command in re.findall(r"`(pip install [^`]*)`", line):
            needed = any(needs_torch(extra) for extra in re.search(r"\[([\w,]+)\]'$", command)[1].split(","))
            assert command.startswith(f"pip install {TORCH} && ") == needed, command


def test_no_text_asks_an_index_for_this_package():
    """It is on none: a line names a clone's folder or a wheel's file."""
    asks = re.compile(r"pip3? install .*[\s'\"]hrm[-_]edge(?=[\[='\"\s]|$)", re.MULTILINE)
    assert asks.search("pip install 'hrm-edge[onnx]'")
    assert asks.search("pip install torch hrm-edge")
    assert not asks.search("pip install 'hrm_edge-0.1.0-py3-none-any.whl[onnx]'")
    texts = [ROOT / name for name in ("Makefile", "action.yml", "README.md", "CHANGELOG.md")]
    for room in (*ROOMS, "examples"):
        texts += [each for suffix in ("md", "j2", "swift") for each in (ROOT / room).rglob(f"*.{suffix}")]
    assert len(texts) > 20
    assert not [str(each) for each in texts if asks.search(each.read_text("utf-8"))]
