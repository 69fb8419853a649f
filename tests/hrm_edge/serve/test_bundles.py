"""Bundles by name, tested by their own examples before they are asked, and replaced without losing a request."""

import asyncio

import pytest

pytest.importorskip("starlette", reason="needs the extra serve")
pytest.importorskip("prometheus_client", reason="needs the extra serve")

import toys
from services import SECRET, Gated, ask, serving, until

from hrm_edge.bundle.examples import write_examples
from hrm_edge.data.puzzles import PuzzleSet
from hrm_edge.errors import GateFailed, InputError
from hrm_edge.serve import bundles
from hrm_edge.serve.bundles import Loading, named
from hrm_edge.serve.settings import Limits, Token
from hrm_edge.solve.choice import WORTH
from hrm_edge.solve.scheduler import Closed

WITH_TOKEN = {"authorization": f"Bearer {SECRET}"}
PUZZLES = toys.puzzles(20)
TEXTS = [toys.TASK.format(row) for row in PUZZLES]
RIGHT = [toys.TASK.format(row) for row in toys.host_engine().solve(PUZZLES).tokens]


@pytest.fixture
def gated(tmp_path):
    """A hollow bundle that carries examples of its own."""

    def produce(folder):
        for name in wanted.graphs.values():
            (folder / name).write_bytes(b"graph" * 20)
        answers = toys.host_engine().solve(PUZZLES)
        write_examples(folder, PuzzleSet(toys.TASK, PUZZLES, None, TEXTS, "toys"), answers, toys.HALT_MAX_STEPS)

    wanted = toys.manifest()
    toys.write_bundle(tmp_path / "toy", wanted, produce, toys.accuracy())
    return tmp_path


def wrong_engine():
    """It answers, and not as it should."""

    def segment(*arrays):
        z_H, z_L, logits, q = toys.segment(*arrays)
        return [z_H, z_L, logits[..., ::-1].copy(), q]

    engine = toys.host_engine()
    engine.segment = segment
    return engine


async def reload(service):
    return await ask(service, "/v1/reload", method="POST", headers=WITH_TOKEN)


def test_a_bundle_is_served_by_its_folders_name_or_another(tmp_path):
    for name in ("a", "b=c", "b"):
        (tmp_path / name).mkdir()
    found = named([f"{tmp_path}/a", f"{tmp_path}/a/../b", f"second={tmp_path}/a"])
    assert {name: path.resolve().name for name, path in found.items()} == {"a": "a", "b": "b", "second": "a"}
    assert list(named([f"x={tmp_path}/b=c"])) == ["x"]
    for wrong, words in (
        ([f"{tmp_path}/a", f"{tmp_path}/b/../a"], "another name"),
        ([f"{tmp_path}/b=c"], "NAME="),
        (["/"], "no name"),
        ([], "no bundle"),
    ):
        with pytest.raises(InputError, match=words):
            named(wrong)


def test_what_answers_otherwise_than_at_its_gate_is_not_served(gated, monkeypatch):
    async def main(make):
        service = serving(monkeypatch, gated, make)
        (info,) = (await ask(service, "/v1/bundles")).json()["bundles"]
        await service.bundles.close(drain=True)
        return info["self_test"]

    assert asyncio.run(main(lambda path: toys.host_engine())).startswith("equal: all 16 answers are the same")
    with pytest.raises(GateFailed):
        asyncio.run(main(lambda path: wrong_engine()))


@pytest.mark.parametrize("carried", [True, False])
def test_streams_are_chosen_by_its_own_examples_unless_they_are_given(carried, request, tmp_path, monkeypatch):
    asked = []

    def choose(opened, threads, rows, say):
        asked.append((threads, rows))
        return toys.host_engine()

    request.getfixturevalue("gated") if carried else toys.write_hollow_bundle(tmp_path / "toy")
    monkeypatch.setattr(bundles, "open_for_many", choose)
    bundles.load("toy", tmp_path / "toy", Loading(threads=3)).scheduler.close()
    ((threads, rows),) = asked
    assert threads == 3
    if carried:
        own = {tuple(row) for row in PUZZLES.tolist()}
        assert len(rows.questions) == WORTH
        assert {tuple(row) for row in rows.questions.tolist()} <= own
    else:
        assert rows is None


def test_what_answers_otherwise_does_not_take_the_place_of_what_does_not(gated, monkeypatch):
    engines = [toys.host_engine(), wrong_engine(), toys.host_engine()]

    async def main():
        service = serving(monkeypatch, gated, lambda path: engines.pop(0), token=Token(SECRET))
        found = []
        for _ in range(2):
            reloaded = await reload(service)
            answered = await ask(service, "/v1/solve", {"puzzles": TEXTS}, headers=WITH_TOKEN)
            found.append((reloaded, [each["answer"] for each in answered.json()["results"]]))
        await service.bundles.close(drain=True)
        return found, service.metrics.reloads

    found, counted = asyncio.run(main())
    assert [(response.status, answers == RIGHT) for response, answers in found] == [(409, True), (200, True)]
    (failed,), (loaded,) = (response.json()["bundles"] for response, _ in found)
    assert "answers differ" in failed["error"]
    assert (failed["name"], loaded["error"]) == ("toy", None)
    assert [counted.labels("toy", name)._value.get() for name in ("failed", "loaded")] == [1, 1]


def test_a_bundle_that_is_damaged_on_the_disk_goes_on_being_served(tmp_path, monkeypatch):
    async def main():
        service = serving(monkeypatch, tmp_path, token=Token(SECRET))
        (tmp_path / "toy" / "segment.onnx").write_bytes(b"x")
        reloaded = await reload(service)
        answered = await ask(service, "/v1/solve", {"puzzles": TEXTS[0]}, headers=WITH_TOKEN)
        await service.bundles.close(drain=True)
        return reloaded, answered

    reloaded, answered = asyncio.run(main())
    (error,) = (each["error"] for each in reloaded.json()["bundles"])
    assert reloaded.status == 409
    assert "segment.onnx" in error
    assert error.isprintable()
    assert answered.json()["results"][0]["answer"] == RIGHT[0]


def test_without_a_token_no_request_reloads(tmp_path, monkeypatch):
    async def main():
        service = serving(monkeypatch, tmp_path)
        response = await ask(service, "/v1/reload", method="POST")
        await service.bundles.close(drain=True)
        return response

    response = asyncio.run(main())
    assert response.status == 403
    assert "SIGHUP" in response.json()["error"]


def test_no_request_is_lost_while_bundles_are_replaced(tmp_path, monkeypatch):
    """Many ask all the time, and each answer is its own puzzle's."""
    made = []

    def make(path):
        made.append(toys.host_engine())
        return made[-1]

    async def main():
        service = serving(monkeypatch, tmp_path, make, token=Token(SECRET), limits=Limits(queue=512), queue=512)
        going, asked, answered, wrong = True, 0, 0, []

        async def client(number):
            nonlocal asked, answered
            while going:
                rows = [(number * 7 + k) % len(TEXTS) for k in range(5)]
                asked += 5
                body = {"puzzles": [TEXTS[row] for row in rows]}
                path = "/v1/solve" if number % 2 else "/v1/think"
                response = await ask(service, path, body, headers=WITH_TOKEN)
                results = (
                    response.json()["results"]
                    if number % 2
                    else sorted((e for kind, e in response.events if kind == "answer"), key=lambda e: e["index"])
                )
                answered += len(results)
                if [each.get("answer") for each in results] != [RIGHT[row] for row in rows]:
                    wrong.append((response.status, results))

        clients = [asyncio.create_task(client(number)) for number in range(6)]
        old = []
        for _ in range(6):
            await asyncio.sleep(0.05)
            old += list(service.bundles)
            assert (await reload(service)).status == 200
        going = False
        await asyncio.gather(*clients)
        await until(lambda: not service.bundles._retiring)
        for each in old:
            with pytest.raises(Closed):
                each.scheduler.submit(PUZZLES[0])
        (info,) = (each.info for each in service.bundles)
        await service.bundles.close(drain=True)
        return asked, answered, wrong, info.loaded

    asked, answered, wrong, loaded = asyncio.run(main())
    assert (wrong, loaded, len(made)) == ([], 7, 7)
    assert asked == answered > 100


def test_what_was_replaced_thinks_on_until_it_has_answered(tmp_path, monkeypatch):
    old, new = Gated(), toys.host_engine()
    engines = [old, new]

    async def main():
        service = serving(monkeypatch, tmp_path, lambda path: engines.pop(0), token=Token(SECRET))
        old.gate.clear()
        first = asyncio.create_task(ask(service, "/v1/solve", {"puzzles": TEXTS[:4]}, headers=WITH_TOKEN))
        await until(lambda: service.metrics.asked.labels("toy")._value.get() == 4)
        assert (await reload(service)).status == 200
        second = await ask(service, "/v1/solve", {"puzzles": TEXTS[4:8]}, headers=WITH_TOKEN)
        assert not first.done()
        old.gate.set()
        found = [*(await first).json()["results"], *second.json()["results"]]
        await service.bundles.close(drain=True)
        return [each["answer"] for each in found]

    assert asyncio.run(main()) == RIGHT[:8]
