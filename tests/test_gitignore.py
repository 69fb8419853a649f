"""Whoever follows the READMEs in a clone finds nothing new in `git status`."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# What no flag of a command names: of npm, make, and the programs of examples.
WRITTEN = [
    *("examples/node/package-lock.json", "examples/node/node_modules/a", "examples/cortex-m/build/qemu.elf"),
    *("timetables/train", "silent-0/config.json"),
]


def git(*arguments, given=""):
    return subprocess.run(["git", *arguments], cwd=ROOT, input=given, capture_output=True, text=True, check=False)


def ignored(names):
    """Those of them that git leaves out, tracked or not."""
    return set(git("check-ignore", "--no-index", "--stdin", given="\n".join(names)).stdout.splitlines())


def outputs():
    """What commands in fenced blocks write, in the clone; placeholders are upper-case."""
    for readme in git("ls-files", "*README.md").stdout.split():
        for block in re.findall(r"```\w+\n(.*?)```", (ROOT / readme).read_text(encoding="utf-8"), re.DOTALL):
            yield from re.findall(r"(?<!\S)(?:-o|--output|--gif|--trace-html) ([a-z0-9][\w./-]*)", block)


def test_what_the_readmes_write_is_ignored_and_nothing_that_is_kept():
    if shutil.which("git") is None or git("rev-parse", "--git-dir").returncode:
        pytest.skip("no clone")
    names = {*WRITTEN, *outputs()}
    assert {"bundle", "solve", "three.csv", "bundles/takuzu"} <= names
    # A pattern for a folder ends with a slash: what is no file yet is asked for by what is in it.
    found = ignored([*names, *(f"{name}/a" for name in names)])
    assert {name for name in names if not found & {name, f"{name}/a"}} == set()
    assert ignored(git("ls-files").stdout.splitlines()) == set()
