"""`hrm-edge env` and the public names: what is usable, why not, and nothing heavy until it is asked for."""

import builtins
import functools
import importlib.util
import json
import subprocess
import sys
import types

import commands
import pytest
import toys

import hrm_edge
from hrm_edge import environment
from hrm_edge.bundle import Gate
from hrm_edge.errors import InputError
from hrm_edge.exporters.targets import all_targets
from hrm_edge.exporters.targets import base as targets_base
from hrm_edge.packages import install
from hrm_edge.runtimes import backend, backends
from hrm_edge.runtimes.tensorrt import backend as tensorrt_backend
from hrm_edge.runtimes.tensorrt import flavours

TARGETS = ("onnx", "openvino", "tensorrt", "coreml", "litert", "executorch", "c")
# What writes onnx's files writes those of C as well.
WRITTEN_BY = {"onnx": "onnx", "openvino": "openvino", "tensorrt": "tensorrt_rtx_bindings", "coreml": "coremltools",
              "litert": "ai_edge_litert", "executorch": "executorch"}  # fmt: skip
ALWAYS = {"onnx", "c"}


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return functools.partial(commands.run, capsys, "env")


@pytest.fixture
def machine(monkeypatch):
    """A made-up machine: which packages it has, which GPUs, which TensorRT, and which backends say they run."""

    def machine(packages=(), gpus=(), tensorrt=None, runs=()):
        writers = {package for target in all_targets().values() for package in target.packages}
        known = set(environment._TRAIN) | set(environment._EXPORT) | writers
        real = importlib.util.find_spec

        def find_spec(name, *rest):
            if name in known | {"onnxruntime"}:
                return types.SimpleNamespace(name=name) if name in packages else None
            return real(name, *rest)

        monkeypatch.setattr(importlib.util, "find_spec", find_spec)
        for module in (environment, targets_base):
            monkeypatch.setattr(module, "version_of", lambda name: f"{name}-1.0" if name in packages else None)
        monkeypatch.setattr(environment, "_gpus", lambda: list(gpus))
        for module in (flavours, tensorrt_backend):
            monkeypatch.setattr(module, "installed", lambda: ([tensorrt] if tensorrt else [], []))
        if "torch" in packages:
            cuda = types.SimpleNamespace(is_available=lambda: bool(gpus))
            torch = types.SimpleNamespace(__version__="2.0", version=types.SimpleNamespace(cuda="13.0"), cuda=cuda)
            monkeypatch.setitem(sys.modules, "torch", torch)
        for target in backends():
            answer = (
                (True, "1.0", None, f"install {target}")
                if target in runs
                else (False, None, f"{target} is not installed", f"install {target}")
            )
            monkeypatch.setattr(backend(target), "available", lambda answer=answer: answer)

    return machine


def flavour(ahead_of_time=(), name="tensorrt-rtx"):
    return types.SimpleNamespace(name=name, version="1.7", ahead_of_time=ahead_of_time)


EXPORT = ("torch", "safetensors", "yaml", "onnx", "onnxscript", "ml_dtypes", "jinja2", "onnxruntime")
EVERYTHING = (*EXPORT, "openvino", "coremltools", "ai_edge_litert", "executorch")
GPU = environment.GpuState("NVIDIA Something 40", "8.9", "580.65.06")


def rows(out):
    return {(row["role"], row["name"]): row for row in json.loads(out)["backends"]}


def test_every_backend_and_target_is_listed_with_its_reason(run):
    code, out, err = run("--json")
    assert (code, err) == (0, "")
    found = rows(out)
    assert set(found) == {(role, name) for role in ("run", "export") for name in TARGETS} | {("train", "torch")}
    for row in found.values():
        assert row["usable"] == (row["why_not"] is None)
        assert not row["usable"] or row["version"]
        assert not row["usable"] or row["install"] is None
    content = json.loads(out)
    assert content["hrm_edge"] == hrm_edge.__version__
    assert content["threads"] >= 1
    assert content["bundles"] == []


def test_what_runs_here_is_what_the_backends_say(run):
    """Not simulated: the same answers that opening a bundle goes by."""
    found = rows(run("--json")[1])
    for target in TARGETS:
        usable, version, why_not, install = backend(target).available()
        row = found["run", target]
        assert (row["usable"], row["version"], row["why_not"]) == (usable, version, why_not)
        assert row["install"] == (None if usable else install or None)
    if sys.platform != "darwin" and found["run", "coreml"]["usable"]:
        assert "interpreted" in found["run", "coreml"]["version"]


def test_nothing_installed(run, machine):
    machine()
    code, out, err = run("--json")
    assert (code, err) == (0, "")
    found = rows(out)
    assert not any(row["usable"] for row in found.values())
    assert found["train", "torch"]["why_not"] == "torch, safetensors, yaml are not installed"
    assert found["train", "torch"]["install"] == install("train")
    for target in ("onnx", "openvino", "coreml"):
        assert found["run", target]["install"] == f"install {target}"
    everything = "torch, safetensors, yaml, onnx, onnxscript, ml_dtypes, jinja2 are not installed"
    assert found["export", "onnx"]["why_not"] == everything
    assert found["export", "onnx"]["install"] == install("export")
    assert found["export", "openvino"]["why_not"] == f"{everything}; openvino is not installed"
    assert found["export", "openvino"]["install"] == install("export", "openvino")
    assert found["export", "tensorrt"]["why_not"] == f"{everything}; neither tensorrt-rtx nor tensorrt is installed"
    assert found["export", "tensorrt"]["install"] == install("export", "tensorrt")
    assert found["export", "coreml"]["install"] == install("export", "coreml")
    text = run()[1]
    assert "  openvino    no   openvino is not installed\n                   run: install openvino\n" in text
    assert "\nNVIDIA GPU: none\n" in text
    assert not any(line.split()[1:2] == ["yes"] for line in text.splitlines())


@pytest.mark.parametrize("target", TARGETS)
def test_one_target_alone(run, machine, target):
    packages = (*EXPORT, WRITTEN_BY.get(target, "onnx"))
    machine(packages, tensorrt=flavour((86, 89)) if target == "tensorrt" else None, runs=(target,))
    found = rows(run("--json")[1])
    assert {name for (role, name), row in found.items() if role == "run" and row["usable"]} == {target}
    assert {name for (role, name), row in found.items() if role == "export" and row["usable"]} == ALWAYS | {target}
    text = run()[1]
    assert f"\n  {target:<10}  yes  1.0\n" in text


def test_everything_installed(run, machine):
    machine(EVERYTHING, gpus=[GPU], tensorrt=flavour((86, 89)), runs=TARGETS)
    code, out, _ = run("--json")
    assert code == 0
    assert all(row["usable"] and row["why_not"] is None and row["install"] is None for row in rows(out).values())
    assert json.loads(out)["gpus"] == [
        {"name": "NVIDIA Something 40", "compute_capability": "8.9", "driver": "580.65.06"}
    ]
    text = run()[1]
    assert "\nNVIDIA GPU: NVIDIA Something 40, compute capability 8.9, driver 580.65.06\n" in text
    assert "2.0 (CUDA 13.0)" in text
    assert "run: " not in text
    assert " no " not in text


def test_tensorrt_without_a_gpu_builds_and_does_not_run(run, machine):
    machine(EXPORT, tensorrt=flavour((86, 120)))
    found = rows(run("--json")[1])
    assert not found["run", "tensorrt"]["usable"]
    assert found["run", "tensorrt"]["note"] == "without a GPU its engines can be built (see export), not run"
    assert found["export", "tensorrt"]["usable"]
    assert "compute capability 8.6, 12.0" in found["export", "tensorrt"]["note"]
    assert "tensorrt-rtx 1.7" in found["export", "tensorrt"]["version"]


@pytest.mark.parametrize("gpus", [[], [GPU]])
def test_the_flavour_that_needs_its_gpu_builds_with_it_only(run, machine, gpus):
    machine(EXPORT, gpus=gpus, tensorrt=flavour(name="tensorrt"))
    row = rows(run("--json")[1])["export", "tensorrt"]
    assert row["usable"] == bool(gpus)
    if gpus:
        assert row["note"] == "builds engines for this machine's NVIDIA Something 40"
    else:
        assert "tensorrt-rtx needs none" in row["why_not"]
        assert row["install"] == install("tensorrt")


def test_a_tensorrt_that_does_not_load_is_reported(run, machine, monkeypatch):
    machine(EXPORT)
    monkeypatch.setattr(flavours, "installed", lambda: ([], ["tensorrt does not load: no libnvinfer.so"]))
    row = rows(run("--json")[1])["export", "tensorrt"]
    assert row["why_not"] == "tensorrt does not load: no libnvinfer.so"


@pytest.mark.parametrize("target", ["onnx", "tensorrt"])
def test_a_gate_that_can_not_run_is_said(run, machine, target):
    machine([name for name in EXPORT if name != "onnxruntime"], tensorrt=flavour((86,)))
    row = rows(run("--json")[1])["export", target]
    assert row["usable"]
    assert row["note"].startswith("only with --no-gate: the gate needs onnxruntime, which is not installed")


def test_a_backend_that_breaks_when_asked_is_a_row_like_any_other(run, monkeypatch):
    def breaks():
        raise OSError("libsomething.so: wrong ELF class\nand more")

    monkeypatch.setattr(backend("openvino"), "available", breaks)
    row = rows(run("--json")[1])["run", "openvino"]
    assert row["why_not"] == "openvino does not load: libsomething.so: wrong ELF class"


def test_a_broken_torch_is_reported(monkeypatch):
    importing = builtins.__import__

    def broken(name, *rest):
        if name == "torch":
            raise OSError("libtorch.so: wrong ELF class\nand more")
        return importing(name, *rest)

    monkeypatch.setattr(builtins, "__import__", broken)
    found = {(row.role, row.name): row for row in environment.look_around().backends}
    why = "torch does not load: libtorch.so: wrong ELF class"
    assert found["train", "torch"].why_not == why
    assert found["export", "onnx"].why_not == why
    assert found["export", "onnx"].install == install("export")


# -- GPUs ------------------------------------------------------------------------------------------------


def nvidia_smi(folder, monkeypatch, script):
    tool = folder / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_gpus_are_those_the_driver_shows(tmp_path, monkeypatch):
    # Answers only the question that is asked of the real tool.
    nvidia_smi(
        tmp_path,
        monkeypatch,
        '[ "$1" = --query-gpu=name,compute_cap,driver_version ] && [ "$2" = --format=csv,noheader ] || exit 2\n'
        'echo "NVIDIA A, B edition, 8.7, 540.4.0"; echo "NVIDIA C, 12.0, 540.4.0"',
    )
    found = environment._gpus()
    assert [(gpu.name, gpu.compute_capability, gpu.driver) for gpu in found] == [
        ("NVIDIA A, B edition", "8.7", "540.4.0"),
        ("NVIDIA C", "12.0", "540.4.0"),
    ]


@pytest.mark.parametrize("script", ["echo 'NVIDIA-SMI has failed'; exit 9", "echo 'No devices were found'", "true"])
def test_a_tool_that_shows_no_gpu_leaves_it_to_cuda(tmp_path, monkeypatch, script):
    nvidia_smi(tmp_path, monkeypatch, script)

    def nothing():
        raise InputError("there is no NVIDIA driver on this machine")

    monkeypatch.setattr(environment, "find_gpu", nothing)
    assert environment._gpus() == []
    gpu = types.SimpleNamespace(name="NVIDIA Orin", compute_capability=87)
    monkeypatch.setattr(environment, "find_gpu", lambda: gpu)
    assert environment._gpus() == [environment.GpuState("NVIDIA Orin", "8.7", None)]


def test_a_gpu_whose_driver_is_not_known(run, machine):
    machine(gpus=[environment.GpuState("NVIDIA Orin", "8.7", None)])
    assert "NVIDIA GPU: NVIDIA Orin, compute capability 8.7, version of the driver unknown\n" in run()[1]


# -- text and bundles ------------------------------------------------------------------------------------


def test_text_names_the_machine_and_fits_a_terminal(run, tmp_path):
    toys.write_hollow_bundle(tmp_path / "bundles" / "hasty", gate=Gate(False, None, "asked for with --no-gate"))
    toys.write_hollow_bundle(tmp_path / "bundles" / "a-name-that-takes-most-of-the-line-by-itself")
    _, out, _ = run()
    assert f"hrm-edge {hrm_edge.__version__}, Python " in out
    assert "CPU: " in out
    assert "\nrun bundles\n" in out
    assert max(len(line) for line in out.splitlines() if " run: " not in line) < 80


@pytest.mark.parametrize("here", [(), EXPORT])
def test_a_command_to_copy_is_never_cut_and_what_all_exports_lack_is_said_once(run, machine, here):
    machine(here)
    told, _, exports = run()[1].partition("\nexport bundles\n")
    assert all(f"  run: install {name}\n" in told for name in TARGETS)
    if here:  # each lacks what writes its own files
        wanted = [install(name) for name in TARGETS if name not in ALWAYS]
        assert "the same" not in exports
    else:
        wanted = [install("export")]
        assert exports.count("jinja2 are not installed") == 1
        assert "\n  onnx        no   the same\n" in exports
        assert "\n  openvino    no   the same, and openvino is not installed\n" in exports
    assert [line.partition("run: ")[2] for line in exports.splitlines() if "run: " in line] == wanted


def test_bundles_under_the_folder_are_found_and_the_ungated_named(run, machine, tmp_path):
    machine(runs=("onnx",))
    toys.write_hollow_bundle(tmp_path / "bundles" / "good")
    toys.write_hollow_bundle(tmp_path / "bundles" / "hasty", gate=Gate(False, None, "asked for with --no-gate"))
    toys.write_hollow_bundle(tmp_path / "bundles" / "alien", target="tensorrt")
    toys.write_hollow_bundle(tmp_path / "bundles" / ".unfinished.tmp")
    broken = toys.write_hollow_bundle(tmp_path / "bundles" / "broken")
    (broken / "start.onnx").unlink()
    code, out, _ = run("--json")
    assert code == 0  # nobody asked for the broken one
    states = {state["path"].split("/")[-1]: state for state in json.loads(out)["bundles"]}
    assert set(states) == {"good", "hasty", "alien", "broken"}
    assert (states["good"]["gated"], states["good"]["ungated"]) == (True, None)
    assert not states["hasty"]["gated"]
    assert "never checked" in states["hasty"]["ungated"]
    assert states["alien"]["problem"] == "tensorrt is not usable here"
    assert states["broken"]["problem"].startswith("'start.onnx' is missing")
    text = run()[1]
    assert "NOT GATED" in text
    assert "BROKEN" in text


def test_given_bundles(run, tmp_path):
    toys.write_hollow_bundle(tmp_path / "bundles" / "ignored")
    path = toys.write_hollow_bundle(tmp_path / "mine")
    code, out, _ = run("--json", str(path))
    assert code == 0
    assert [state["path"] for state in json.loads(out)["bundles"]] == [str(path)]


def test_a_broken_bundle_is_reported_and_the_next_one_too(run, tmp_path):
    good = str(toys.write_hollow_bundle(tmp_path / "good"))
    none = str(tmp_path / "none")
    code, out, err = run("--json", none, good)
    assert (code, err) == (2, "")
    first, second = json.loads(out)["bundles"]
    assert (first["path"], first["name"], second["path"], second["name"]) == (none, None, good, "toy")
    assert first["problem"].startswith("no such bundle folder")
    code, out, err = run("none", "good")
    assert (code, err) == (2, "")
    assert "\n  none  BROKEN  no such bundle folder" in out
    assert "\n  good  onnx fp32, host loop, gated\n" in out


def test_public_names():
    for name in hrm_edge.__all__:
        # A room of the same name that was imported is called in the function's place.
        assert getattr(hrm_edge, name).__name__.removeprefix("hrm_edge.") == name
        assert name in dir(hrm_edge)
    with pytest.raises(AttributeError, match="nothing_like_it"):
        _ = hrm_edge.nothing_like_it


def test_importing_the_package_imports_nothing_else():
    script = "import sys, hrm_edge; print(sorted({'numpy', 'torch', 'typer', 'onnxruntime'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stderr
