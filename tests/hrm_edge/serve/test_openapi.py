"""The OpenAPI document against the running service, by schemathesis: `make test-serve` asks more than the suite."""

import importlib.util
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("uvicorn", reason="needs the extra serve")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

import toys
from services import SECRET, Process

HELPERS = Path(__file__).parents[2] / "helpers"
# What breaks the schema by its size alone is told to be too large.
CONFIG = """
[checks.negative_data_rejection]
expected-statuses = ["400", "401", "403", "404", "405", "406", "413", "415", "422", "428", "429", "5xx"]
"""


@pytest.mark.skipif(
    importlib.util.find_spec("schemathesis") is None, reason="`make test-serve` installs schemathesis"
)
def test_the_service_is_as_its_document_says(tmp_path):
    examples, seed = (os.environ.get(name, default) for name, default in (("SERVE_EXAMPLES", "10"), ("SEED", "1")))
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    server = Process(toys.write_toy_bundle(tmp_path / "toy"))
    command = [
        str(Path(sys.executable).with_name("st")),
        "--config-file",
        str(tmp_path / "schemathesis.toml"),
        "run",
    ]
    command += [f"{server.told['url']}/openapi.json", "-H", f"Authorization: Bearer {SECRET}", "--no-color"]
    command += ["--max-examples", examples, "--seed", seed, "--suppress-health-check", "all"]
    hooks = {"SCHEMATHESIS_HOOKS": "serve_hooks", "PYTHONPATH": str(HELPERS)}
    done = subprocess.run(
        command, env={**os.environ, **hooks}, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    code, errors = server.end(signal.SIGTERM)
    told = "\n".join(line[:300] for line in done.stdout.splitlines()[-80:])
    assert done.returncode == 0, told + done.stderr[-2000:]
    assert (code, "Traceback" in errors, "fault" in errors) == (0, False, False), errors
    (counts,) = re.findall(r"\d+ generated.*", told)
    print(f"\nschemathesis, {examples} examples, seed {seed}: {counts}")
