"""The page's own modules under Node: a damaged site is told in a line, and one segment runs at a time."""

import json
import shutil
import subprocess

import pytest
from toys import write_toy_bundle

from hrm_edge.bundle import open_bundle
from hrm_edge.data.formats.base import QUESTION
from hrm_edge.portable import task_facts
from hrm_edge.tasks import get_task
from hrm_edge.web import engines
from hrm_edge.web.site import build_site

pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="Node is not installed")
READ = """
import { readFileSync } from "node:fs";
const base = new URL("./", import.meta.url);
globalThis.fetch = async (url) => {
  try {
    return new Response(readFileSync(url));
  } catch {
    return new Response("", { status: 404 });
  }
};
const { readSite } = await import(new URL("app/site.js", base));
try {
  const { task, site } = await readSite(base);
  console.log(`${task.facts.task} ${site.engine.kind}`);
} catch (error) {
  console.log(error.message);
}
"""
TWO = """
import { readFileSync } from "node:fs";
const facts = JSON.parse(readFileSync(new URL("./facts.json", import.meta.url)));
const { Task } = await import(new URL("./lib/task.js", import.meta.url));
const { Thinker } = await import(new URL("./app/thinker.js", import.meta.url));
const task = new Task(facts);
let running = 0, most = 0;
const slow = async (made) => {
  most = Math.max(most, ++running);
  await new Promise((resolve) => setTimeout(resolve, 20));
  running--;
  return made;
};
const logits = new Float32Array(task.length * task.vocabulary.length);
const engine = { start: () => slow(0), segment: () => slow({ state: 0, logits, q: [-1, 1] }) };
const said = [];
const thinker = new Thinker(engine, task, ({ kind, id }) => said.push(`${kind} ${id}`));
const question = Int32Array.from(facts.examples[0].question_tokens);
const asked = [1, 2, 3].map((id) => ({ id, question, options: { maxThinkSteps: 3, halt: "fixed" } }));
const first = thinker.think(asked[0]);
await new Promise((resolve) => setTimeout(resolve, 30));
thinker.stop();
const others = [thinker.think(asked[1]), thinker.think(asked[2])];
const short = { id: 3, question: question.slice(1), options: {} };
const failed = thinker.think(short).catch((error) => said.push(error.name));
await Promise.all([first, ...others, failed]);
await thinker.think({ id: 4, question, options: { maxThinkSteps: 1, halt: "fixed" } });
console.log(JSON.stringify({ most, said }));
"""

DROPPED = """
import { readFileSync } from "node:fs";
const { Task } = await import(new URL("./lib/task.js", import.meta.url));
const { QUESTION, firstPuzzle } = await import(new URL("./app/dropped.js", import.meta.url));
const { names, files } = JSON.parse(readFileSync(new URL("./given.json", import.meta.url)));
const said = files.map(([name, text]) => {
  const task = new Task(names[name]);
  try {
    return task.format(firstPuzzle(text, task));
  } catch (error) {
    return error.message;
  }
});
console.log(JSON.stringify([QUESTION, said]));
"""


@pytest.fixture
def site(tmp_path, monkeypatch):
    monkeypatch.setattr(engines, "runtime_files", lambda names, archive: {name: name.encode() for name in names})
    bundle = open_bundle(write_toy_bundle(tmp_path / "toy"))
    build_site(bundle, tmp_path / "site")
    (tmp_path / "site" / "package.json").write_text('{"type": "module"}')
    return tmp_path / "site"


def node(folder, script):
    (folder / "run.mjs").write_text(script)
    done = subprocess.run(["node", "run.mjs"], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_site_that_is_damaged_says_so_in_a_line(site):
    assert node(site, READ) == "sudoku-4x4 onnx"
    whole = {name: (site / name).read_text() for name in ("site.json", "facts.json")}
    described = json.loads(whole["site.json"])
    onnx = described["engine"]
    damaged = [whole["site.json"][:-30], "", "null", "3", "[]", "{}"]
    for part in ({"engine": None}, {"engine": {**onnx, "cpu": 1}}, {"engine": {"kind": "c"}}, {"files": 1}):
        damaged.append(json.dumps({**described, **part}))
    for content in damaged:
        (site / "site.json").write_text(content)
        assert node(site, READ) == "site.json is damaged; write the site again with hrm-edge web"
    (site / "site.json").write_text(whole["site.json"])
    for content in (whole["facts.json"].replace("sudoku-4x4", "sudoku-9x9"), "{", "null"):
        (site / "facts.json").write_text(content)
        assert node(site, READ) == "facts.json is damaged; write the site again with hrm-edge web"
    (site / "facts.json").unlink()
    assert node(site, READ) == "facts.json could not be loaded (404)"


def test_a_question_waits_until_the_one_before_has_ended(site):
    facts = json.loads((site / "facts.json").read_text())
    blank = [facts["blank"]] * facts["seq_len"]
    (site / "facts.json").write_text(json.dumps({**facts, "examples": [{"question_tokens": blank}]}))
    told = json.loads(node(site, TWO))
    assert told["most"] == 1
    ends = [line for line in told["said"] if line.startswith("end")]
    assert ends == ["end 1", "end 2", "end 3", "end 4"]
    assert told["said"].count("segment 1") == 1
    assert told["said"].count("segment 2") == 0
    assert told["said"].count("segment 3") == 3
    assert told["said"].count("segment 4") == 1
    assert any("Error" in line for line in told["said"])


# -- files that are dropped ------------------------------------------------------------------------------------

ASKED, SOLVED, OTHER = "12..3..2.1....2.", "1234341221434321", "4.......2......3"
MAZE = "###########S.G##.#############", "###########SoG##.#############"
ROWS = (f"source,question,answer,rating\nx,{ASKED},{SOLVED},0\n", f"rating,solution,puzzle\n1.5,{SOLVED},{ASKED}\n")
UNCLEAR = "which field is the puzzle is not clear; name its column 'question'"


@pytest.mark.parametrize(
    ("task", "text", "wanted"),
    [
        ("sudoku-4x4", ROWS[0], ASKED),
        ("sudoku-4x4", ROWS[1], ASKED),
        ("sudoku-4x4", ROWS[1].replace(",", ";").replace("puzzle", '"Puz-zle "'), ASKED),
        ("sudoku-4x4", f"# made today\n{ROWS[1]}".replace(",", "\t"), ASKED),
        ("sudoku-4x4", f"id,answer,question\n1,{SOLVED},{SOLVED}\n", SOLVED),  # nothing is open, and a name tells
        ("sudoku-4x4", f"7,{SOLVED},{ASKED}\n8,{SOLVED},{OTHER}\n", ASKED),
        ("sudoku-4x4", f'id,filled,open\n7,"{SOLVED}","{ASKED}"\n', ASKED),
        ("sudoku-4x4", f"id,filled\n7,{SOLVED}\n", f"line 2: {UNCLEAR}"),
        ("sudoku-4x4", f"{ASKED},{OTHER}\n", f"line 1: {UNCLEAR}"),
        ("sudoku-4x4", f"id,question\n7,{ASKED}1\n", "line 2: puzzle has 17 characters, expected 16"),
        ("sudoku-4x4", f"{ASKED}\n{OTHER}\n", ASKED),
        ("maze-5x6", f"7,{MAZE[1]},{MAZE[0]}\n", MAZE[0].replace(".", " ")),
        ("sudoku-4x4", " \n", "is empty; a file holds a board as text"),
        ("sudoku-4x4", f'{{"question": "{ASKED}"}}\n', "holds JSON; a file holds a board as text"),
        (
            "maze-5x6",
            "###\n###\n",
            "row 1 of the maze has 3 characters, expected 6 ('.' also stands for an open cell, where "
            "spaces get lost); a file holds a board as text",
        ),
        ("arc-4x4", "id,grid\n12,11\n", "11|?||?????????"),
        ("arc-4x4", "12,11\n", f"line 1: {UNCLEAR}"),
    ],
)
def test_a_dropped_table_gives_the_puzzle_and_never_its_answer(site, task, text, wanted):
    facts = task_facts(get_task(task))
    (site / "given.json").write_text(json.dumps({"names": {task: facts}, "files": [[task, text]]}))
    columns, (said,) = json.loads(node(site, DROPPED))
    assert tuple(columns) == QUESTION
    assert said.startswith(wanted)
