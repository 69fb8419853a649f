"""Hands: text, keys, fingers, files that are dropped, and what a screen reader hears."""

import json

import pytest
from selenium.webdriver import ActionChains, Keys
from sites import PUZZLE, SUDOKU, bundle_of, failed

import hrm_edge as he
from hrm_edge.data.puzzles import generate_puzzles
from hrm_edge.tasks import get_task

HELD = "a file holds a board as text, a puzzle a line, or a table (CSV, TSV)"
DISABLED = "return document.getElementById('think').disabled"


def test_bad_input_is_told_and_changes_nothing(page, served):
    page.open(served().address)
    page.ask(PUZZLE)
    before = page.cells()
    for text, told in (
        ("12", "puzzle has 2 characters, expected 81"),
        (PUZZLE[:40] + "x" + PUZZLE[41:], "'x' at position 41 (row 5, column 5)"),
        ("<img src=x onerror=alert(1)>", "characters"),
        ("\u202e" * 81, "position 1"),
        ("9" * 100_000, "100000 characters"),
    ):
        page.ask(text)
        assert told in page.text("problem")
        assert page.cells() == before
        assert page.verdict == ("bad", "The text is no puzzle")
        assert told in page.text("facts")
        assert page.js(DISABLED)
    ActionChains(page.driver).key_down(Keys.CONTROL).send_keys(Keys.ENTER).key_up(Keys.CONTROL).perform()
    assert page.verdict == ("bad", "The text is no puzzle")
    page.ask("")  # what was wrong is gone
    assert page.verdict == ("idle", "Ready to think")
    assert not page.js(DISABLED)
    page.ask("11" + PUZZLE[2:])
    assert page.text("problem") == ""
    assert page.verdict[1].startswith("Not a puzzle yet: '1' stands twice")
    assert page.js(DISABLED)
    red = [number for number, label in enumerate(page.labels()) if label.endswith("given 1, breaks a rule")]
    assert red == [0, 1, 73]  # two in the row, and the last in the column of the second
    page.shoot("twice")
    page.ask(PUZZLE)
    assert not any("breaks a rule" in label for label in page.labels())
    page.think()
    assert page.verdict == ("good", "Verified")
    page.ask("12")
    page.shoot("no-puzzle")
    assert page.verdict == ("bad", "The text is no puzzle")
    assert page.clean


def test_a_text_that_is_wrong_stops_what_is_thought_and_shown(page, served):
    page.look(1280, 950, still=False)
    page.open(served().address)
    page.ask(PUZZLE)
    page.js("document.getElementById('think').click()")
    page.until("document.getElementById('at').value > 1")
    page.ask("12")
    assert page.verdict == ("bad", "The text is no puzzle")
    page.until("document.getElementById('at').value === document.getElementById('at').max")
    assert page.verdict == ("bad", "The text is no puzzle")
    page.ask(PUZZLE)
    page.think()
    assert page.verdict == ("good", "Verified")


def test_the_keyboard_is_enough(page, served):
    page.open(served().address)
    keys = ActionChains(page.driver)
    page.js("document.getElementById('clear').focus()")
    keys.send_keys(Keys.ENTER).perform()
    assert set(page.cells()) == {""}
    assert page.js("return document.getElementById('examples').selectedOptions[0].textContent") == "Your own puzzle"
    page.js("document.activeElement.blur()")
    keys.send_keys(Keys.TAB, Keys.ENTER).perform()  # the first stop leads to the board
    while not page.js("return document.activeElement.classList.contains('cell')"):
        keys.send_keys(Keys.TAB).perform()
    for cell in PUZZLE:
        keys.send_keys(cell if cell != "." else Keys.BACKSPACE, Keys.ARROW_RIGHT)
    keys.perform()
    assert "".join(cell or "." for cell in page.cells()) == PUZZLE
    keys.send_keys(Keys.ENTER).perform()  # on the board; anywhere with the control key
    page.until_ended()
    assert page.verdict == ("good", "Verified")
    page.ask(PUZZLE)
    page.js("document.getElementById('text').focus()")
    keys.key_down(Keys.CONTROL).send_keys(Keys.ENTER).key_up(Keys.CONTROL).perform()
    page.until_ended()
    answer = page.cells()
    assert page.verdict == ("good", "Verified")
    page.js("document.querySelector('.cell[tabindex=\"0\"]').focus()")
    keys.send_keys(Keys.PAGE_UP).perform()
    count = page.js("return document.getElementById('at').max")
    assert page.js("return document.getElementById('at').value") == str(int(count) - 1)
    keys.send_keys(Keys.PAGE_DOWN).perform()
    assert page.cells() == answer
    while page.js("return document.activeElement.id") != "at":
        keys.send_keys(Keys.TAB).perform()
    keys.send_keys(Keys.HOME).perform()
    assert "".join(cell or "." for cell in page.cells()) == PUZZLE


def test_a_screen_reader_hears_the_board_and_the_end(page, served):
    page.open(served().address)
    page.ask(PUZZLE)
    tree = page.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    roles = [node["role"]["value"] for node in tree if not node["ignored"]]
    assert roles.count("grid") == 1
    assert roles.count("row") >= 9
    assert roles.count("gridcell") == 81
    named = {"button", "textbox", "slider", "combobox", "spinbutton", "gridcell", "grid"}
    for node in tree:
        if not node["ignored"] and node["role"]["value"] in named:
            assert node["name"]["value"], node
    assert page.js("return document.getElementById('state').getAttribute('aria-live')") == "polite"
    page.think()
    assert page.labels()[0].startswith("row 1, column 1, 1, ")
    assert page.labels()[1] == "row 1, column 2, given 2"


def test_a_phone_shows_all_of_it(page, served):
    page.look(360, 740, phone=True)
    page.open(served().address)
    page.think()
    assert page.js("return document.documentElement.scrollWidth") == 360
    small = page.js(
        "return [...document.querySelectorAll('button, select, input:not([type=range], [type=file])')]"
        ".filter((each) => each.offsetParent && Math.min(each.offsetHeight, each.offsetWidth) < 36)"
        ".map((each) => each.id)"
    )
    assert small == []
    page.js("document.querySelector('.palette [data-token=\"5\"]').click()")
    assert page.js("return document.querySelector('.cell').textContent") == "4"  # token 5 is the digit 4
    page.look(390, 844, phone=True)
    page.ask(PUZZLE)
    page.think()
    page.shoot("phone", whole=True)


@pytest.mark.parametrize("size", [(360, 740), (390, 844)])
def test_a_phone_needs_no_scrolling_to_ask_and_hides_nothing_to_the_side(page, served, size):
    page.look(*size, phone=True)
    page.open(served().address)
    button = "return document.getElementById('think').getBoundingClientRect().bottom"
    assert page.js(button) < size[1]
    page.ask(SUDOKU.format(failed()[1]))
    page.think()
    assert page.verdict[0] == "bad"  # of which there is most to say
    assert page.js("return scrollY") == 0
    assert page.js(button) < size[1]
    page.js("document.querySelector('details').open = true")
    for name in (".scroll", "#text"):
        place = page.js(
            "const { scrollWidth, clientWidth, scrollHeight, clientHeight } = document.querySelector(arguments[0]);"
            "return [scrollWidth - clientWidth, scrollHeight - clientHeight]",
            name,
        )
        assert place == [0, 0], name
    cut = page.js(
        "const edge = document.querySelector('#curve svg').getBoundingClientRect();"
        "return [...document.querySelectorAll('#curve text')].filter((each) => {"
        "const { left, right } = each.getBoundingClientRect();"
        "return left < edge.left || right > edge.right; }).map((each) => each.textContent)"
    )
    assert cut == []
    assert "changed" in page.text("curve")


# Draws curves of many lengths, with a stop at each place in turn, and tells what is cut off or runs together.
DRAW_ALL = """
const [counts, done] = arguments;
(async () => {
  const { Curve } = await import(new URL("app/curve.js", location));
  const place = document.getElementById("curve");
  const curve = new Curve(place);
  const box = (each) => each.getBoundingClientRect();
  const wrong = [];
  for (const count of counts) {
    for (let stop = 0; stop < count; stop += Math.ceil(count / 32)) {
      const points = Array.from({ length: count }, (_, index) =>
        ({ margin: index - stop + 0.5, changed: 3, stopped: index === stop, attempt: 0 }));
      curve.draw(points, 1, count);
      const edge = box(place.querySelector("svg"));
      for (const each of place.querySelectorAll("text")) {
        if (box(each).left < edge.left || box(each).right > edge.right) wrong.push([count, stop, each.textContent]);
      }
      const labels = [...place.querySelectorAll('text[y="206"]')].map(box);
      labels.slice(1).forEach((label, index) => label.left - labels[index].right < 3 && wrong.push([count, index]));
    }
  }
  return wrong;
})().then(done, (error) => done(String(error)));
"""


@pytest.mark.parametrize("width", [360, 900, 1280])
def test_the_curve_cuts_off_no_word(page, served, width):
    page.look(width, 900, phone=width < 500)
    page.open(served().address)
    assert page.driver.execute_async_script(DRAW_ALL, [1, 7, 8, 9, 16, 17, 32, 99, 100, 272, 544]) == []


def test_dark_and_light(page, served):
    ground = "return getComputedStyle(document.body).backgroundColor"
    server = served()
    page.look(1280, 1000)
    page.open(server.address)
    page.ask(PUZZLE)
    page.think()
    page.js("document.getElementById('previous').click()")
    page.shoot("desktop")
    light = page.js(ground)
    page.look(1280, 1000, dark=True)
    dark = page.js(ground)
    assert light != dark
    page.shoot("dark")
    page.js("document.getElementById('theme').click()")
    assert page.js(ground) == light
    page.open(server.address)
    assert page.js(ground) == light, "what was chosen is kept"


def test_thinking_can_be_stopped_and_limited(page, served):
    page.open(served().address)
    page.js(
        "const limit = document.getElementById('limit'); limit.value = 3; limit.dispatchEvent(new Event('input'));"
        "document.getElementById('halt').value = 'fixed'"
    )
    page.ask(SUDOKU.format(failed()[1]))
    page.think()
    assert page.text("facts").count("3 segments, the limit ended it")
    page.js("document.getElementById('limit').value = 32; document.getElementById('retries').value = 16;")
    page.js("document.getElementById('think').click()")
    page.until("document.getElementById('at').max > 0")
    page.js("document.getElementById('think').click()")
    page.until_ended()
    page.until("document.getElementById('at').value === document.getElementById('at').max")  # all is shown
    assert "stopped by you" in page.text("facts")
    assert int(page.js("return document.getElementById('at').max")) < 17 * 32
    page.ask(PUZZLE)
    page.js("document.getElementById('halt').value = 'learned'; document.getElementById('retries').value = 0;")
    page.think()
    assert page.verdict == ("good", "Verified")


def test_the_verdict_comes_wherever_one_looks(page, served):
    page.look(1280, 950, still=False)
    page.open(served().address)
    page.ask(PUZZLE)
    page.js("document.getElementById('think').click()")
    page.until("document.getElementById('at').value > 1")  # while segments are shown one by one
    page.js("document.getElementById('previous').click()")
    at = shown(page)
    page.until_ended()
    assert page.verdict == ("good", "Verified")
    assert shown(page) == at < page.js("return Number(document.getElementById('at').max)")

    page.js("document.getElementById('retries').value = 16; document.getElementById('halt').value = 'fixed'")
    page.ask(SUDOKU.format(failed()[1]))
    page.js("document.getElementById('think').click()")
    page.until("document.getElementById('at').max > 1")
    page.js("document.getElementById('first').click()")
    page.until("document.getElementById('at').max > 5")  # further segments come, and the one looked at stays
    assert shown(page) == 0
    page.js("document.getElementById('think').click()")
    page.until_ended()
    assert "stopped by you" in page.text("facts")
    assert shown(page) == 0
    assert page.clean


def test_a_field_shows_the_number_that_is_used(page, served):
    page.open(served().address)
    field = page.driver.find_element("id", "retries")
    for typed, used in (("999", "16"), ("-3", "0"), ("2.7", "2"), ("", "0")):
        field.clear()
        field.send_keys(typed, Keys.TAB)
        assert field.get_property("value") == used


def test_questions_that_interrupt_each_other_take_turns(page, served):
    """What an abandoned question still computes reaches neither the state nor the picture of the next."""
    engine = he.load_engine(bundle_of("sudoku-9x9", "onnx", "fp32"))
    questions = generate_puzzles(SUDOKU, 24, seed=11).questions
    page.open(served().address)
    page.js("document.getElementById('retries').value = '4'; document.getElementById('halt').value = 'fixed'")
    for question in questions:  # each while the one before is thought about, at a moment of its own
        page.ask(SUDOKU.format(question))
        page.js("document.getElementById('think').click()")
        page.until("document.getElementById('think').classList.contains('stop')")
    page.ask(SUDOKU.format(questions[0]))
    page.js("document.getElementById('retries').value = '0'; document.getElementById('halt').value = 'learned'")
    known = engine.solve(questions[:1])
    page.think()
    assert "".join(page.cells()) == SUDOKU.format(known.tokens[0])
    assert page.js("return Number(document.getElementById('at').max)") == known.steps[0]
    assert page.clean


# -- fingers and files -------------------------------------------------------------------------------------------


def test_a_swipe_steps_through_the_segments(page, served):
    page.look(390, 844, phone=True)
    page.open(served().address)
    page.think()
    last = shown(page)
    assert last >= 3
    page.swipe("board", across=120)
    assert shown(page) == last - 1
    page.swipe("board", across=150, down=20)
    assert shown(page) == last - 2
    page.swipe("board", across=-120)
    assert shown(page) == last - 1
    before = page.js("return scrollY")
    page.swipe("board", down=-160)
    page.until(f"scrollY > {before}")
    for across, down in ((0, 0), (12, 3), (-60, 60)):  # a tap, a finger that is not quite still, neither way
        page.swipe("board", across=across, down=down)
        assert shown(page) == last - 1
    assert page.js("return document.activeElement.classList.contains('cell')")
    assert page.clean


def shown(page):
    return page.js("return Number(document.getElementById('at').value)")


def test_a_finger_draws_where_a_brush_is_taken_and_swipes_where_none_is(page, served):
    task = get_task("maze-15x15")
    page.look(390, 844, phone=True)
    page.open(served("maze-15x15").address)
    page.think()
    last = shown(page)
    page.swipe("board", across=120)
    assert shown(page) == last - 1
    page.js("document.getElementById('clear').click()")
    page.js('document.querySelector(`.palette [data-token="${arguments[0]}"]`).click()', task.symbol_tokens["#"])
    page.swipe("board", across=120)
    drawn = [number for number, label in enumerate(page.labels()) if label.endswith("given wall")]
    assert len(drawn) >= 4
    assert drawn == list(range(drawn[0], drawn[-1] + 1))
    assert shown(page) == 0
    assert page.clean


def test_a_file_is_dropped(page, served, tmp_path):
    page.open(served().address)
    puzzles = generate_puzzles(SUDOKU, 2, seed=8)
    first = SUDOKU.format(puzzles.questions[0])
    files = {
        "line.txt": first,
        "drawn.txt": SUDOKU.render(puzzles.questions[0]),
        "turned.csv": f"rating,solution,puzzle\n0,{SUDOKU.format(puzzles.answers[0])},{first}\n",
        "table.csv": f"source,question,answer,rating\nx,{first},{SUDOKU.format(puzzles.answers[0])},0\n",
    }
    for name, content in files.items():
        page.ask(PUZZLE)
        (tmp_path / name).write_text(content)
        page.drop(tmp_path / name)
        page.until("document.getElementById('text').value.replaceAll('\\n', '') !== arguments[0]", PUZZLE)
        assert [cell or "." for cell in page.cells()] == list(first), name
        assert page.text("problem") == ""
    page.think()
    assert page.verdict[0] in ("good", "bad")
    page.ask(first)
    before = page.cells()
    (tmp_path / "picture.png").write_bytes(bytes(range(256)))
    (tmp_path / "long.txt").write_text("1" * (2**20 + 1))
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "puzzles.jsonl").write_text(json.dumps({"question": first}) + "\n")
    (tmp_path / "examples.json").write_text(json.dumps({"examples": [{"question": first}]}, indent=2))
    for name, told in (
        ("picture.png", "picture.png: row 2 has"),
        ("long.txt", "long.txt: has 1048577 bytes, and at most 1048576"),
        ("empty.txt", f"empty.txt: is empty; {HELD}"),
        ("puzzles.jsonl", f"puzzles.jsonl: holds JSON; {HELD}"),
        ("examples.json", f"examples.json: holds JSON; {HELD}"),
    ):
        page.drop(tmp_path / name)
        page.until("document.getElementById('problem').textContent !== ''")
        assert told in page.text("problem")
        assert page.cells() == before
        assert page.verdict == ("bad", "The file gave no puzzle")
        assert not page.js(DISABLED)  # text and board are of one puzzle still
        page.ask(first)
    page.drop(text=PUZZLE)
    assert [cell or "." for cell in page.cells()] == list(PUZZLE)
    assert page.clean
