"""Programs that are given nothing, or nothing that can be read, say so in a line."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
NODE = ["node", EXAMPLES / "node" / "solve.mjs"]
PUZZLES = [sys.executable, EXAMPLES / "cortex-m" / "puzzles.py"]


@pytest.mark.parametrize(
    ("program", "arguments", "told"),
    [
        (NODE, [], "give a bundle's folder"),
        (NODE, ["nowhere"], "nowhere"),
        (NODE, ["empty", "--halts", "never"], "Unknown option '--halts'"),
        (PUZZLES, [], "puzzles.py BUNDLE COUNT"),
        (PUZZLES, ["empty", "some"], "puzzles.py BUNDLE COUNT"),
        (PUZZLES, ["empty", "0"], "puzzles.py BUNDLE COUNT"),
        (PUZZLES, ["nowhere", "4"], "nowhere"),
        (PUZZLES, ["damaged", "4"], "damaged"),
        (PUZZLES, ["empty", "4"], "it holds no examples"),
    ],
)
def test_a_mistake_is_told_in_a_line(tmp_path, program, arguments, told):
    if shutil.which(program[0]) is None:
        pytest.skip(f"{program[0]} is not installed")
    for name, content in (("empty", json.dumps({"examples": []})), ("damaged", "{")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "facts.json").write_text(content)
    done = subprocess.run([*program, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stdout == ""
    assert told in done.stderr
    assert done.stderr.count("\n") == 1
