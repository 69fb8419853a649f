"""Every reader on files that were damaged at random: a short run of `helpers/fuzz.py`, a command for longer."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

for needed in ("torch", "onnx", "onnxruntime", "openvino", "coremltools"):
    pytest.importorskip(needed)

import fuzz  # noqa: E402

pytestmark = pytest.mark.slow


def test_no_reader_ends_in_anything_but_our_own_errors(tmp_path):
    command = [sys.executable, fuzz.__file__, "--inputs", "60", "--seconds", "600", "--seed", "0"]
    command += ["--kept", tmp_path, "--json"]
    root = str(Path(__file__).parents[1])
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": root})
    assert done.stdout, done.stderr
    results = json.loads(done.stdout)
    assert {name: result["findings"] for name, result in results.items() if result["findings"]} == {}
    assert done.returncode == 0
    assert set(results) == set(fuzz.READERS)
    for name, result in results.items():
        assert result["inputs"] == max(1, round(60 * fuzz.READERS[name].share)), name
        assert result["grown_mb"] < 1000, name
    assert sum(result["refused"] for result in results.values()) > 300


def test_the_same_seed_gives_the_same_inputs():
    seeds = [b'{"a": [1, 2, {"b": "c"}], "d": null}', b'{"x": 1}']
    for name in ("manifest", "spec", "npy", "puzzle CSV"):
        made = [fuzz.changed(name, seeds, 1, number) for number in range(20)]
        assert made == [fuzz.changed(name, seeds, 1, number) for number in range(20)]
        assert made != [fuzz.changed(name, seeds, 2, number) for number in range(20)]
        assert len({content for content, _ in made}) > 15
