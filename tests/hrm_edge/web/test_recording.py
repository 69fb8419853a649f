"""`solve --trace-html`: one page with a trace in it, which needs nothing else and lets nothing else run."""

import base64
import hashlib
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
import toys
from toys import write_toy_bundle

from hrm_edge.cli import main
from hrm_edge.errors import InputError
from hrm_edge.solve.retries import solve_with_retries
from hrm_edge.solve.watch import think
from hrm_edge.web.recording import CANDIDATES, Recording, opened_recording


class Elements(HTMLParser):
    """(tag, attributes, text) of every script and style, and the attributes of all else."""

    def __init__(self, page):
        super().__init__()
        self.inline, self.attributes, self._open = [], [], None
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        if tag in ("script", "style"):
            self._open = [tag, dict(attributes), ""]
        self.attributes += [(tag, *each) for each in attributes]

    def handle_data(self, data):
        if self._open:
            self._open[2] += data

    def handle_endtag(self, tag):
        if self._open and tag == self._open[0]:
            self.inline.append(tuple(self._open))
            self._open = None


def recorded(label="toy", **options):
    engine = toys.host_engine()
    recording = Recording(label)
    questions = toys.puzzles(3)
    for number, question in enumerate(questions, 1):
        for moment in think(engine, question[None], puzzle=number, **options):
            recording(moment)
    return engine, questions, recording


def content_of(page):
    (text,) = (text for _, attributes, text in Elements(page).inline if attributes.get("id") == "recorded")
    return json.loads(text)


def test_it_holds_what_was_thought():
    engine, questions, recording = recorded(retries=2)
    content = content_of(recording.page())
    assert content["facts"]["vocabulary"] == list(engine.task.vocabulary)
    assert [run["question"] for run in content["runs"]] == questions.tolist()
    for run, question in zip(content["runs"], questions, strict=True):
        answers = solve_with_retries(engine, question[None], 2)
        last = run["segments"][-1]
        assert len(run["segments"]) == answers.segments[0]
        if answers.verified[0]:
            assert last["guess"] == answers.answers.tokens[0].tolist()
            assert last["attempt"] == answers.variant[0]
        for segment in run["segments"]:
            best = np.reshape(segment["likely"]["tokens"], (-1, CANDIDATES))
            odds = np.reshape(segment["likely"]["odds"], (-1, CANDIDATES))
            assert best[:, 0].tolist() == segment["guess"]
            assert (np.diff(odds, axis=1) <= 0).all()
            assert (odds.sum(axis=1) <= 1.001).all()


def test_logits_of_a_variant_are_mapped_back():
    engine, questions, _ = recorded()
    moments = [m for q in questions for m in think(engine, q[None], retries=3, max_think_steps=1)]
    assert any(moment.variant for moment in moments)
    for moment in moments:
        guessed = moment.logits[np.arange(len(moment.guess)), moment.guess]
        assert (guessed == moment.logits.max(axis=1)).all()


def test_only_its_own_scripts_may_run():
    _, _, recording = recorded()
    page = recording.page()
    elements = Elements(page)
    (policy,) = (
        value for tag, name, value in elements.attributes if tag == "meta" and name == "content" and "src" in value
    )
    for tag, attributes, text in elements.inline:
        if attributes.get("type") == "application/json":
            continue
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    loaded = [value for _, name, value in elements.attributes if name in ("src", "href")]
    assert all(value.startswith(("#", "data:")) for value in loaded)
    assert not any(name.startswith("on") or name == "style" for _, name, _ in elements.attributes)


def test_names_of_strangers_are_text():
    wicked = "</script><script>alert(1)</script><!-- \"'&\u202e"
    _, _, recording = recorded(wicked)
    page = recording.page()
    assert len(Elements(page).inline) == 3
    assert "<script>alert" not in page
    assert "\u202e" not in page
    assert "alert(1)" in content_of(page)["subtitle"]


@pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed")
def test_its_modules_join_into_one_that_runs(tmp_path):
    _, _, recording = recorded()
    (script,) = (
        text for _, attributes, text in Elements(recording.page()).inline if attributes.get("type") == "module"
    )
    (tmp_path / "page.mjs").write_text(script, "utf-8")
    ran = subprocess.run(["node", "--check", tmp_path / "page.mjs"], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert not re.search(r"^(import|export)\b", script, re.MULTILINE)


@pytest.mark.skipif(shutil.which("chromium") is None, reason="Chromium is not installed")
def test_a_browser_shows_it(tmp_path):
    """The one test here with a browser: all others are `make test-web`."""
    engine, questions, recording = recorded()
    page = tmp_path / "trace.html"
    recording.write(page)
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    ran = subprocess.run(
        ["chromium", *flags, "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=120
    )
    answer = engine.solve(questions[:1])
    told = "Verified" if engine.task.verify(questions[:1], answer.tokens)[0] else "Not verified"
    assert f'aria-live="polite">{told}</p>' in ran.stdout, ran.stderr[-2000:]
    cells = re.findall(r'role="gridcell"[^>]*><span>([^<]*)</span>', ran.stdout)
    assert cells == [engine.task.vocabulary[token] for token in answer.tokens[0]]


def test_the_command_writes_it_whole_or_says_why_not(tmp_path, capsys):
    bundle, page = write_toy_bundle(tmp_path / "toy"), tmp_path / "trace.html"
    question = ".234341221434321"
    with pytest.raises(SystemExit) as stop:
        main(["solve", str(bundle), question, "--trace-html", str(page), "--json"])
    assert stop.value.code == 0
    answer = json.loads(capsys.readouterr().out)
    (run,) = content_of(page.read_text("utf-8"))["runs"]
    assert len(run["segments"]) == answer["steps"]
    (tmp_path / "f.html").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        opened_recording(tmp_path / "f.html", "toy")
    notes = tmp_path / "notes.txt"
    notes.write_text("mine")
    with pytest.raises(InputError, match=r"notes\.txt: a page is a \.html; end the name so"):
        opened_recording(notes, "toy")


def test_a_page_has_room_for_some_puzzles():
    _, _, recording = recorded()
    moment = recording.puzzles[1][0]
    with pytest.raises(InputError, match="up to 200 puzzles"):
        recording(type(moment)(**{**vars(moment), "puzzle": 201}))
