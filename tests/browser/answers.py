"""Answers in the page beside Python's, and what it says of them."""

import re
import time

import pytest
from browser import browser
from sites import PUZZLE, SUDOKU, bundle_of, failed

import hrm_edge as he
from hrm_edge.data.puzzles import generate_puzzles
from hrm_edge.solve.retries import solve_with_retries

# Asks the page one puzzle after the other, and reads what it shows.
ASK_ALL = """
const [texts, done] = arguments;
const at = (id) => document.getElementById(id);
const ended = () => ['good', 'bad', 'open'].includes(at('verdict').dataset.state);
(async () => {
  const answers = [];
  for (const text of texts) {
    at('text').value = text;
    at('text').dispatchEvent(new Event('input', { bubbles: true }));
    at('think').click();
    while (!ended()) await new Promise((resolve) => setTimeout(resolve, 5));
    const steps = Number(/(\\d+) segments?,/.exec(at('facts').textContent)[1]);
    const cells = [...document.querySelectorAll('.cell')].map((cell) => cell.textContent);
    answers.push([cells.join(''), steps, at('verdict').dataset.state]);
  }
  return answers;
})().then(done);
"""


@pytest.mark.parametrize(
    ("target", "precision", "least"), [("onnx", "fp32", 100), ("onnx", "int8", 90), ("c", "int8", 100)]
)
def test_a_hundred_puzzles_are_answered_as_in_python(page, served, target, precision, least):
    """C in INT8 is the same bits everywhere; some floats of ONNX round otherwise in WebAssembly."""
    engine = he.load_engine(bundle_of("sudoku-9x9", target, precision))
    puzzles = generate_puzzles(SUDOKU, 100, seed=2027)
    server = served(target=target, precision=precision)
    page.open(server.address)
    loaded = sum(size for _, size in server.asked)
    begin = time.perf_counter()
    texts = SUDOKU.format_many(puzzles.questions)
    portions = [texts[first : first + 10] for first in range(0, len(texts), 10)]  # as the driver waits two minutes
    said = [each for portion in portions for each in page.driver.execute_async_script(ASK_ALL, portion)]
    seconds = time.perf_counter() - begin
    known = [engine.solve(question[None]) for question in puzzles.questions]
    right = [bool(SUDOKU.verify(q[None], k.tokens)[0]) for q, k in zip(puzzles.questions, known, strict=True)]
    wanted = [
        [SUDOKU.format(each.tokens[0]), int(each.steps[0]), "good" if good else "bad"]
        for each, good in zip(known, right, strict=True)
    ]
    equal = sum(mine == theirs for mine, theirs in zip(said, wanted, strict=True))
    print(f"\n{target} {precision}: {equal} of 100 equal in answer, segments and verdict; {loaded:,} bytes loaded;")
    print(f"{seconds * 10:.0f} ms a puzzle, page included")
    assert sum(right) >= 90
    assert equal >= least
    assert page.clean


def test_retries_solve_what_one_attempt_does_not(page, served):
    engine, question = failed()
    known = solve_with_retries(engine, question[None], 8)
    page.open(served().address)
    page.js("document.getElementById('retries').value = '8'")
    page.ask(SUDOKU.format(question))
    page.think()
    assert page.verdict == (("good", "Verified") if known.verified[0] else ("bad", "Not verified"))
    assert f"{known.segments[0]} segments in all" in page.text("facts")
    if known.verified[0]:
        assert "".join(page.cells()) == SUDOKU.format(known.answers.tokens[0])
        assert f"symmetric board {known.variant[0]}," in page.text("facts")


@pytest.mark.parametrize("still", [True, False])
def test_where_no_retry_helps_the_board_is_the_first_answer(page, served, still):
    """As in Python, which returns the first answer."""
    engine, question = failed()
    known = solve_with_retries(engine, question[None], 1)
    assert not known.verified[0]
    page.look(1280, 950, still=still)
    page.open(served().address)
    page.js("document.getElementById('retries').value = '1'")
    page.ask(SUDOKU.format(question))
    page.think()
    assert page.verdict == ("bad", "Not verified")
    assert f"{known.segments[0]} segments in all" in page.text("facts")
    assert [cell or "." for cell in page.cells()] == list(SUDOKU.format(known.answers.tokens[0]))
    told = re.search(r"first answer: '(.)' stands twice, at .*?row (.), column (.)", page.text("facts"))
    assert page.cells()[9 * (int(told[2]) - 1) + int(told[3]) - 1] == told[1]
    page.shoot(f"retries-{still}")
    page.js("document.getElementById('next').click()")  # the retries are there to be looked at
    assert "retry 1" in page.text("now")


def test_a_wrong_answer_is_said_to_be_wrong(page, served):
    _, question = failed()
    page.open(served().address)
    page.ask(SUDOKU.format(question))
    page.think()
    assert page.verdict == ("bad", "Not verified")
    assert "stands twice" in page.text("facts")
    assert "16 segments, the limit ended it" in page.text("facts")
    wrong = [label for label in page.labels() if "breaks a rule" in label]
    assert wrong
    assert not any("given" in label for label in wrong)


def test_a_gpu_answers_as_the_cpu_does(served):
    """On the GPU that Chromium emulates (SwiftShader), where it has one; ten seconds a segment."""
    engine = he.load_engine(bundle_of("sudoku-9x9", "onnx", "fp32"))
    with browser("--enable-unsafe-webgpu") as page:
        page.open(served(webgpu=True).address)
        if not page.has_gpu():
            pytest.skip("this Chromium gives pages no GPU")
        assert "by WebGPU" in page.text("about")
        page.js("document.getElementById('limit').value = '2'")
        known = engine.solve(SUDOKU.parse(PUZZLE)[None], 2)
        page.ask(PUZZLE)
        page.think()
        assert [cell or "." for cell in page.cells()] == list(SUDOKU.format(known.tokens[0]))
        assert f"{known.steps[0]} segments, the limit ended it" in page.text("facts")
        assert page.clean
