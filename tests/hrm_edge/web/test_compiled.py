"""A site whose bundle is C: one WebAssembly module, which answers as the network does."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
from small_networks import TASK, checkpoint, network, think
from ungated import build_bundle

from hrm_edge.bundle import open_bundle
from hrm_edge.exporters.options import ExportOptions
from hrm_edge.web.site import build_site

DRIVER = Path(__file__).parents[2] / "helpers" / "run_wasm.mjs"
pytestmark = [
    pytest.mark.skipif(shutil.which(name) is None, reason=f"{name} is not installed")
    for name in ("clang", "wasm-ld", "node")
]


def test_its_module_answers_as_the_network(tmp_path, one_trace):
    model = network()
    (tmp_path / "bundle").mkdir()
    build_bundle(checkpoint(model), ExportOptions("c", loop="host"), tmp_path / "bundle", "small")
    site = build_site(open_bundle(tmp_path / "bundle"), tmp_path / "site")
    assert not [name for name in site.files if name.startswith("ort/")]
    questions = TASK.generate(8, np.random.default_rng(4))[0]
    asked = {
        "facts": json.loads((tmp_path / "site" / "facts.json").read_text("utf-8")),
        "module": str(tmp_path / "site" / "model" / "hrm.wasm"),
        "questions": questions.tolist(),
        "options": {"maxThinkSteps": 6},
    }
    ran = subprocess.run(["node", DRIVER], input=json.dumps(asked), capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    said = json.loads(ran.stdout)
    answers, steps, q = think(model, questions, 6)
    assert [each["answer"] for each in said["answers"]] == answers.tolist()
    assert [each["steps"] for each in said["answers"]] == steps.tolist()
    assert np.allclose([each["q"] for each in said["answers"]], q, atol=1e-3)
    assert len(set(steps.tolist())) > 1
    assert "another puzzle was begun" in said["refused"]
