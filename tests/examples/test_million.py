"""What a million puzzles cost: what can not be measured is told in one line. The figures take minutes."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "examples" / "million" / "million.py"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "million.py: nowhere: no such bundle folder"),
        (["x.txt"], "million.py: x.txt: is a file"),
        (["x.txt", "--rounds", "0"], "million.py: error: --rounds and --cores: take at least 1"),
        (["x.txt", "--n", "256"], "million.py: error: --n 256: takes more than 256"),
    ],
)
def test_what_can_not_be_measured_is_told_in_one_line(tmp_path, arguments, said):
    (tmp_path / "x.txt").write_text("")
    done = subprocess.run([sys.executable, SCRIPT, *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ""
    told = [line for line in done.stderr.splitlines() if not line.startswith(("usage:", " "))]
    assert len(told) == 1
    assert told[0].startswith(said)
