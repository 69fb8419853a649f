"""A command that starts cold imports what it needs, and nothing of what only others do."""

import subprocess
import sys

import pytest
import toys

pytest.importorskip("onnxruntime")

# By what is imported for them; of this package, the rooms and modules of other commands and flags.
HEAVY = ("torch", "onnx", "jinja2", "matplotlib", "PIL", "asyncio", "rich", "nncf", "pandas", "aiohttp")
OTHERS = ("report", "web", "measure", "check", "analysis", "portable", "data.overlap", "data.leaks", "exporters")
OTHERS += ("cli.export", "cli.train", "solve.live", "console")

SCRIPT = """
import sys
from hrm_edge.cli import main
try:
    main(sys.argv[1:])
except SystemExit as stop:
    assert not stop.code, stop.code
print(*sorted(sys.modules), file=sys.stderr)
"""


def test_solve_imports_nothing_of_other_commands(tmp_path):
    bundle = toys.write_toy_bundle(tmp_path / "toy")
    puzzle = toys.TASK.format(toys.unique_puzzles()[0])
    arguments = ("solve", str(bundle), "--json", puzzle)
    done = subprocess.run([sys.executable, "-c", SCRIPT, *arguments], capture_output=True, text=True, check=True)
    assert '"answer"' in done.stdout
    found = set(done.stderr.splitlines()[-1].split())
    assert "hrm_edge.cli.solve" in found
    assert "onnxruntime" in found
    assert not found & {*HEAVY, *(f"hrm_edge.{name}" for name in OTHERS)}
