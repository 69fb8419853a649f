"""The service in-process: its answers against the engine's own, and everything that it refuses."""

import asyncio
import json

import numpy as np
import pytest

pytest.importorskip("starlette", reason="needs the extra serve")
pytest.importorskip("prometheus_client", reason="needs the extra serve")

import toys
from prometheus_client.parser import text_string_to_metric_families
from services import Gated, Response, ask, until

from hrm_edge.serve.settings import Limits
from hrm_edge.solve.retries import solve_with_retries

PUZZLES = toys.puzzles(12)
TEXTS = [toys.TASK.format(row) for row in PUZZLES]


def metrics(text):
    """Value by (name, labels)."""
    families = text_string_to_metric_families(text)
    return {(s.name, *sorted(s.labels.items())): s.value for each in families for s in each.samples}


@pytest.mark.parametrize("halt", ["learned", "fixed", "verified"])
@pytest.mark.parametrize("retries", [0, 3])
def test_answers_are_the_engines(run, halt, retries):
    asked = {"puzzles": TEXTS, "halt": halt, "max_think_steps": 3, "retries": retries, "seed": 5}
    response = run(lambda service: ask(service, "/v1/solve", asked))
    assert response.status == 200
    found = response.json()
    assert (found["bundle"], found["task"], found["refused"]) == ("toy", toys.TASK.name, 0)
    want = solve_with_retries(toys.host_engine(), PUZZLES, retries, seed=5, max_think_steps=3, halt=halt)
    for index, result in enumerate(found["results"]):
        assert result["index"] == index
        assert result["answer"] == toys.TASK.format(want.answers.tokens[index])
        assert result["verified"] == want.verified[index]
        assert (result["steps"], result["halted"]) == (want.answers.steps[index], want.answers.halted[index])
        assert result["q"] == want.answers.q[index].tolist()
        assert result["variant"] == want.variant[index]
        assert result["segments"] >= result["steps"]
        assert min(result["ms"].values()) >= 0


def test_one_text_a_drawn_board_and_tokens_are_the_same_puzzle(run):
    board = toys.TASK.render(PUZZLES[0])
    floats = [float(token) for token in PUZZLES[0]]  # in JSON whole numbers too
    assert board.count("\n") == 4

    async def work(service):
        asked = (TEXTS[0], [TEXTS[0], board, PUZZLES[0].tolist(), floats])
        return [(await ask(service, "/v1/solve", {"puzzles": each})).json()["results"] for each in asked]

    (alone,), all_four = run(work)
    assert {alone["answer"], *(each["answer"] for each in all_four)} == {alone["answer"]}
    assert [each["tokens"] is None for each in (alone, *all_four)] == [True, True, True, False, False]
    assert toys.TASK.format(np.array(all_four[2]["tokens"])) == alone["answer"]


def test_what_is_wrong_with_one_puzzle_is_told_by_its_place(run):
    clash = "11" + "." * 14
    puzzles = [TEXTS[0], "12", clash, [1] * 15, [99] * 16, "\x1b[31m::error::" + "." * 3, TEXTS[1]]
    response = run(lambda service: ask(service, "/v1/solve", {"puzzles": puzzles}))
    found = response.json()
    assert (response.status, found["refused"]) == (200, 5)
    assert ["error" in each for each in found["results"]] == [False, True, True, True, True, True, False]
    lines = [each["error"] for each in found["results"] if "error" in each]
    assert all(line.isprintable() for line in lines)
    for line, words in zip(lines, ("2 characters", "row 1", "16 cells", "99", "characters"), strict=True):
        assert words in line


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"{", 400, "JSON"),
        (b'{"puzzles": "\\ud800"}', 400, "JSON"),
        ({}, 422, "'puzzles' is missing"),
        ({"puzzles": []}, 422, "list of puzzles"),
        ({"puzzles": [{"a": 1}]}, 422, "list of puzzles"),
        ({"puzzles": [[True]]}, 422, "list of puzzles"),
        ({"puzzles": "1", "puzzle": "1"}, 422, "unknown field 'puzzle'"),
        ({"puzzles": "1", "retries": "3"}, 422, "retries"),
        ({"puzzles": "1", "retries": 1.5}, 422, "retries"),
        ({"puzzles": "1", "retries": -1}, 422, "retries"),
        ({"puzzles": "1", "max_think_steps": 0}, 422, "max_think_steps"),
        ({"puzzles": "1", "halt": "sometimes"}, 422, "halt"),
        ({"puzzles": "1", "deadline": 0}, 422, "deadline"),
        (b'{"puzzles": "1", "deadline": NaN}', 422, "deadline"),
        ({"puzzles": "1", "max_think_steps": 5000}, 422, "4096"),
        ({"puzzles": ["1"] * 9}, 422, "8 puzzles"),
        ({"puzzles": ["1"], "puzzle_identifiers": [1, 2]}, 422, "puzzle_identifiers"),
        ({"puzzles": "1", "bundle": "\x1b[31m"}, 404, "toy"),
        (b"[" * 5000, 400, "JSON"),
    ],
)
def test_a_wrong_request_is_one_line(run, body, status, words):
    response = run(lambda service: ask(service, "/v1/solve", body), limits=Limits(puzzles=8))
    assert response.status == status
    error = response.json()["error"]
    assert words in error
    assert error.isprintable()


def test_a_body_is_json_by_its_header(run):
    header = {"content-type": "text/plain"}  # as a page of another site may send it
    response = run(lambda service: ask(service, "/v1/solve", {"puzzles": "1"}, headers=header))
    assert response.status == 415


# -- streams -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/v1/think", "/v1/solve"])
def test_every_segment_is_told_in_order_and_then_the_answer(run, path):
    header = {"accept": "text/event-stream"}
    asked = {"puzzles": [*TEXTS[:3], "12"], "max_think_steps": 4, "halt": "fixed"}
    response = run(lambda service: ask(service, path, asked, headers=header))
    assert response.status == 200
    assert response.headers["content-type"].startswith("text/event-stream")
    events = response.events
    assert events[-1] == ("done", {"bundle": "toy", "task": toys.TASK.name, "refused": 1})
    assert [event["index"] for kind, event in events if kind == "refused"] == [3]
    want = toys.host_engine().solve(PUZZLES[:3], 4, "fixed", trace=True)
    for index in range(3):
        own = [(kind, event) for kind, event in events if event.get("index") == index]
        assert [kind for kind, _ in own] == ["segment"] * 4 + ["answer"]
        assert [event["segment"] for _, event in own[:-1]] == [1, 2, 3, 4]
        guesses = [toys.TASK.format(guess) for guess in want.trace[:, index]]
        assert [event["guess"] for _, event in own[:-1]] == guesses
        verified = toys.TASK.verify(PUZZLES[[index] * 4], want.trace[:, index])
        assert [event["verified"] for _, event in own[:-1]] == verified.tolist()
        assert own[-1][1]["answer"] == guesses[-1]


@pytest.mark.parametrize("path", ["/v1/think", "/v1/solve"])
def test_hanging_up_cancels(run, path):
    engine = Gated()

    async def work(service):
        engine.gate.clear()
        gone, response = asyncio.Event(), Response()
        asked = {"puzzles": TEXTS[:6], "halt": "fixed", "max_think_steps": 1000}
        asking = asyncio.create_task(ask(service, path, asked, hang_up=gone, into=response))
        series = service.metrics.asked.labels("toy")._value
        await until(lambda: series.get() == 6)
        gone.set()
        await asking
        engine.gate.set()
        await until(lambda: series.get() == 0)
        return metrics((await ask(service, "/metrics")).body.decode())

    counts = run(work, make=lambda path: engine)
    assert counts["hrm_edge_puzzles_total", ("bundle", "toy"), ("outcome", "cancelled")] == 6
    assert engine.count < 100


# -- limits of time and queue --------------------------------------------------------------------------------


def test_a_full_queue_says_when_to_try_again_and_takes_nothing(run):
    engine = Gated()

    async def work(service):
        engine.gate.clear()
        first = asyncio.create_task(ask(service, "/v1/solve", {"puzzles": TEXTS[:8]}))
        await until(lambda: service.metrics.asked.labels("toy")._value.get() == 8)
        refused = await ask(service, "/v1/solve", {"puzzles": TEXTS[:8]})
        engine.gate.set()
        later = [await first, await ask(service, "/v1/solve", {"puzzles": TEXTS[:8]})]  # there is room by then
        return refused, later

    refused, later = run(work, make=lambda path: engine, limits=Limits(queue=8, puzzles=8), queue=8)
    assert refused.status == 429
    assert int(refused.headers["retry-after"]) >= 1
    assert all(each.json()["refused"] == 0 for each in later)


@pytest.mark.parametrize(("limits", "more"), [({}, {"deadline": 0.05}), ({"seconds": 0.05}, {"deadline": 50})])
def test_a_puzzle_past_its_deadline_has_no_answer(run, limits, more):
    engine = Gated()

    async def work(service):
        engine.gate.clear()
        asking = asyncio.create_task(ask(service, "/v1/solve", {"puzzles": TEXTS[:2], **more}))
        response = await asking  # though the engine is still at it
        engine.gate.set()
        return response, metrics((await ask(service, "/metrics")).body.decode())

    response, counts = run(work, make=lambda path: engine, limits=Limits(**limits))
    assert response.json()["refused"] == 2
    assert all("within 0.05 s" in each["error"] for each in response.json()["results"])
    assert counts["hrm_edge_puzzles_total", ("bundle", "toy"), ("outcome", "late")] == 2


def test_a_fault_of_the_engine_is_told_to_the_operator_and_not_to_the_caller(run):
    told = []

    def fails(*arrays):
        raise RuntimeError("a secret of the backend")

    engine = toys.host_engine()

    async def work(service):
        engine.segment = fails
        return await ask(service, "/v1/solve", {"puzzles": TEXTS[:1]})

    response = run(work, make=lambda path: engine, tell=told.append)
    assert "secret" not in response.body.decode()
    assert response.json()["refused"] == 1
    assert [str(error) for error in told] == ["a secret of the backend"]


# -- what is told --------------------------------------------------------------------------------------------


def test_bundles_are_told_with_their_warnings(run):
    response = run(lambda service: ask(service, "/v1/bundles"), names=("one", "two"))
    one, two = response.json()["bundles"]
    assert [one["name"], two["name"]] == ["one", "two"]
    assert (one["task"], one["vocabulary"][2:]) == (toys.TASK.name, ["1", "2", "3", "4"])
    assert (one["gated"], one["warning"], one["loaded"]) == (True, None, 1)


def test_an_ungated_bundle_is_told(run, tmp_path):
    from hrm_edge.bundle import Gate

    toys.write_hollow_bundle(tmp_path / "toy", gate=Gate(ran=False, passed=None, reason="--no-gate"))
    (told,) = run(lambda service: ask(service, "/v1/bundles")).json()["bundles"]
    assert told["gated"] is False
    assert "do not rely on its answers" in told["warning"]


def test_of_several_bundles_one_is_named(run):
    async def work(service):
        asked = [{"puzzles": TEXTS[0]}, {"puzzles": TEXTS[0], "bundle": "two"}]
        return [await ask(service, "/v1/solve", each) for each in asked]

    nameless, named = run(work, names=("one", "two"))
    assert (nameless.status, named.json()["bundle"]) == (404, "two")
    assert "one, two" in nameless.json()["error"]


def test_metrics_are_those_that_prometheus_reads(run):
    async def work(service):
        await ask(service, "/v1/solve", {"puzzles": [*TEXTS, "12"], "halt": "fixed", "max_think_steps": 2})
        await ask(service, "/v1/" + "\n" * 40)
        return await ask(service, "/metrics")

    response = run(work)
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    counts = metrics(response.body.decode())
    answers = toys.host_engine().solve(PUZZLES, 2, "fixed").tokens
    right = int(toys.TASK.verify(PUZZLES, answers).sum())
    outcome = {
        name: ("hrm_edge_puzzles_total", ("bundle", "toy"), ("outcome", name)) for name in ("verified", "wrong")
    }
    assert 0 < right < len(PUZZLES)
    assert (counts[outcome["verified"]], counts[outcome["wrong"]]) == (right, len(PUZZLES) - right)
    assert counts["hrm_edge_segments_total", ("bundle", "toy")] == 2 * len(PUZZLES)
    assert counts["hrm_edge_puzzles_in_progress", ("bundle", "toy")] == 0
    assert counts["hrm_edge_queue_length", ("bundle", "toy")] == 0
    assert counts["hrm_edge_puzzle_seconds_count", ("bundle", "toy"), ("part", "thinking")] == len(PUZZLES)
    labels = {"method": "POST", "path": "/v1/solve", "status": "200"}
    assert counts["hrm_edge_requests_total", *sorted(labels.items())] == 1
    assert counts["hrm_edge_requests_total", ("method", "GET"), ("path", "other"), ("status", "404")] == 1
    assert (
        counts[
            "hrm_edge_bundle_info",
            ("bundle", "toy"),
            ("gated", "yes"),
            ("precision", "fp32"),
            (
                "target",
                "onnx",
            ),
            ("task", toys.TASK.name),
        ]
        == 1
    )


def test_the_pages_example_asks_where_the_page_was_asked_for(run):
    def shown(host):
        return run(lambda service: ask(service, "/", headers={"host": host})).body.decode()

    assert "curl http://127.0.0.1:8901/v1/solve " in shown("127.0.0.1:8901")
    assert "With <code>Accept: text/event-stream</code> it is <code>/v1/think</code>." in shown("[::1]:80")
    for nobodys in ("x;reboot", "$(reboot)", "<b>", ""):
        assert "curl http://HOST:PORT/v1/solve " in shown(nobodys), nobodys


def test_the_page_links_the_document_and_is_all_that_its_policy_allows(run):
    response = run(lambda service: ask(service, "/"))
    page = response.body.decode()
    assert 'href="openapi.json"' in page
    assert "<script" not in page
    style = page.partition("<style>")[2].partition("</style>")[0]
    import base64
    import hashlib

    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"'sha256-{digest}'" in response.headers["content-security-policy"]


def test_the_document_names_what_there_is_and_nothing_else(run):
    async def work(service):
        document = (await ask(service, "/openapi.json")).json()
        wrong = []
        for path, methods in document["paths"].items():
            for method in methods:
                response = await ask(service, path, method=method.upper(), body=b"{" if method == "post" else None)
                if str(response.status) not in methods[method]["responses"]:
                    wrong.append((path, method, response.status))
        return document, wrong

    document, wrong = run(work)
    assert not wrong
    asked = document["components"]["schemas"]["SolveRequest"]
    assert set(asked["properties"]) >= {"puzzles", "bundle", "halt", "retries", "seed", "deadline", "priority"}
    assert asked["additionalProperties"] is False
    used = {part.split('"')[0] for part in json.dumps(document).split("#/components/schemas/")[1:]}
    assert used <= set(document["components"]["schemas"])
