"""The tools for language models, asked by the protocol's own client: in-process, over a pipe, and over HTTP."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("mcp", reason="needs the extra mcp")

import mcp
import toys
from services import SECRET, Gated, serving, until

from hrm_edge.runtimes import HostLoop
from hrm_edge.serve.mcp import PATH, Tools
from hrm_edge.serve.settings import Limits
from hrm_edge.tasks.boards import wrong_cells

ROOT = Path(__file__).parents[3]
PUZZLES = toys.puzzles(40)
ANSWERS = toys.host_engine().solve(PUZZLES, halt="verified", trace=True)
RIGHT = toys.TASK.verify(PUZZLES, ANSWERS.tokens)
SLOW = int(np.argmax(ANSWERS.steps * RIGHT))  # solved, and in the most segments
NEVER = int(np.flatnonzero(~RIGHT)[0])


def text(row):
    return toys.TASK.format(PUZZLES[row])


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Run ``work(client, tools)`` with the protocol's client, connected in-process."""

    def run(work, limits=None, **options):
        async def main():
            service = serving(monkeypatch, tmp_path, **options)
            tools = Tools(service.bundles, limits or Limits(), told.append)
            try:
                async with mcp.Client(tools.server) as client:
                    return await work(client, tools)
            finally:
                await service.bundles.close(drain=False)

        found = asyncio.run(main())
        assert not told
        return found

    told: list[BaseException] = []
    return run


async def call(client, name, **arguments):
    """What a tool gives; its error as a text."""
    result = await client.call_tool(name, arguments)
    return result.content[0].text if result.is_error else result.structured_content


async def read(client, uri):
    return (await client.read_resource(uri)).contents[0].text


def test_the_tools_say_what_they_take(run):
    async def work(client, tools):
        listed = (await client.list_tools()).tools
        templates = (await client.list_resource_templates()).resource_templates
        return listed, [each.uri_template for each in templates], client.server_info

    listed, templates, info = run(work)
    assert [tool.name for tool in listed] == ["solve", "think_further", "explain"]
    assert listed[0].input_schema["required"] == ["puzzle"]
    assert all(tool.description and tool.output_schema and tool.annotations.read_only_hint for tool in listed)
    assert templates == ["hrm-edge://thoughts/{thought}", "hrm-edge://thoughts/{thought}/{segment}"]
    assert info.name == "hrm-edge"


def test_it_solves_and_shows_each_segment(run):
    steps = int(ANSWERS.steps[SLOW])
    assert steps > 1

    async def work(client, tools):
        found = await call(client, "solve", puzzle=text(SLOW))
        uri = f"hrm-edge://thoughts/{found['thought']}"
        boards = [await read(client, f"{uri}/{segment}") for segment in range(1, steps + 1)]
        return found, await read(client, uri), boards, await read(client, "hrm-edge://bundles")

    found, board, boards, bundles = run(work)
    answer = toys.TASK.format(ANSWERS.tokens[SLOW])
    assert (found["answer"], found["verified"], found["wrong"], found["segments"]) == (answer, True, None, steps)
    before = PUZZLES[SLOW]
    for drawn, guess, count in zip(boards, ANSWERS.trace[:steps, SLOW], found["changed"], strict=True):
        assert [cell for cell in drawn if cell in "1234."] == list(toys.TASK.format(guess))
        changed, wrong = guess != before, wrong_cells(toys.TASK, PUZZLES[SLOW], guess)
        assert count == changed.sum()
        assert drawn.count("!") == wrong.sum()
        assert drawn.count("*") == (changed & ~wrong).sum()
        before = guess
    assert found["board"] == board
    assert [cell for cell in board if cell in "1234"] == list(answer)
    assert json.loads(bundles)["bundles"][0]["name"] == "toy"


@pytest.mark.parametrize("loop", ["host", "graph"])
def test_it_thinks_further_from_where_it_was(run, loop):
    """In parts it comes to what it comes to at once, and a host loop thinks no segment twice."""
    whole = toys.host_engine().solve(PUZZLES[[SLOW]], 6, "fixed", trace=True).trace[:, 0]
    count = 0

    def segment(*arrays):
        nonlocal count
        count += 1
        return toys.segment(*arrays)

    def make(path):
        if loop == "graph":
            return toys.graph_engine()
        return HostLoop(toys.TASK, toys.HALT_MAX_STEPS, toys.start, segment, backend="toy")

    async def work(client, tools):
        found = await call(client, "solve", puzzle=text(SLOW), max_think_steps=1, halt="fixed", retries=0)
        name, begun = found["thought"], count
        parts = [found]
        for segments in (1, 1):
            if not parts[-1]["verified"]:
                parts.append(await call(client, "think_further", thought=name, segments=segments, halt="fixed"))
        guesses = [await read(client, f"hrm-edge://thoughts/{name}/{k + 1}") for k in range(parts[-1]["segments"])]
        return parts, guesses, count - begun

    parts, guesses, further = run(work, make=make)
    assert [part["segments"] for part in parts] == list(range(1, len(parts) + 1))
    assert len(parts) >= 2
    for part, guess in zip(parts, whole, strict=False):
        assert part["answer"] == toys.TASK.format(guess)
    for drawn, guess in zip(guesses, whole, strict=False):
        assert [cell for cell in drawn if cell in "1234."] == list(toys.TASK.format(guess))
    if loop == "host":
        assert further == len(parts)  # the first one again, and each further one once


def test_it_thinks_until_the_rules_are_met_and_then_no_further(run):
    async def work(client, tools):
        found = await call(client, "solve", puzzle=text(SLOW), max_think_steps=1, halt="fixed", retries=0)
        further = await call(client, "think_further", thought=found["thought"])
        return further, await call(client, "think_further", thought=found["thought"])

    further, refused = run(work)
    assert (further["verified"], further["halted"]) == (True, True)
    assert further["segments"] == int(ANSWERS.steps[SLOW])
    assert "verified" in refused


def test_it_explains_what_is_wrong_and_what_changed(run):
    async def work(client, tools):
        solved = await call(client, "solve", puzzle=text(SLOW))
        good = await call(client, "explain", thought=solved["thought"])
        answer = solved["answer"]
        cell = text(SLOW).index(".")
        bad = answer[:cell] + next(d for d in "1234" if d != answer[cell]) + answer[cell + 1 :]
        return (
            cell,
            answer,
            bad,
            good,
            [
                await call(client, "explain", thought=solved["thought"], answer=bad),
                await call(client, "explain", puzzle=text(SLOW), answer=bad),
            ],
        )

    cell, answer, bad, good, found = run(work)
    assert (good["verified"], good["wrong"], good["broken"]) == (True, None, [])
    assert [each["segment"] for each in good["segments"]] == list(range(1, len(good["segments"]) + 1))
    filled = sum(len(each["changed"]) for each in good["segments"])
    assert filled >= text(SLOW).count(".")
    place = f"row {cell // 4 + 1}, column {cell % 4 + 1}"
    for each in found:
        assert each["verified"] is False
        assert each["wrong"]
        assert f"{place}: {bad[cell]}" in each["broken"]
        assert "!" in each["board"]
    assert found[0]["compared"] == [f"{place}: {bad[cell]} -> {answer[cell]} ({bad[cell]} broke a rule)"]


def test_what_is_wrong_with_a_call_is_told_in_a_line(run):
    async def work(client, tools):
        calls = (
            ("solve", {"puzzle": "12"}),
            ("solve", {"puzzle": text(0), "bundle": "other"}),
            ("solve", {"puzzle": text(0), "max_think_steps": 5000}),
            ("think_further", {"thought": "\x1b[31m"}),
            ("explain", {}),
            ("explain", {"puzzle": text(0), "answer": "z" * 16}),
        )
        found = [await call(client, name, **arguments) for name, arguments in calls]
        with pytest.raises(mcp.MCPError):
            await read(client, "hrm-edge://thoughts/none")
        return found, tools.busy

    found, busy = run(work)
    assert all(isinstance(line, str) and line.isprintable() for line in found), found
    for line, words in zip(found, ("2 characters", "toy", "4096", "solve", "thought", "'z'"), strict=True):
        assert words in line
    assert busy == 0


def test_a_call_that_is_given_up_is_thought_about_no_more(run):
    engine = Gated()

    async def work(client, tools):
        engine.gate.clear()
        before = engine.count
        asking = asyncio.create_task(call(client, "solve", puzzle=text(NEVER), halt="fixed", max_think_steps=4000))
        await until(lambda: tools.busy)
        asking.cancel()
        await until(lambda: not tools.busy)
        engine.gate.set()
        (served,) = tools._bundles
        await until(lambda: not served.scheduler.waiting + served.scheduler.running)
        return engine.count - before

    assert run(work, make=lambda path: engine) < 100


# -- as a process --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    return toys.write_toy_bundle(tmp_path_factory.mktemp("served") / "toy")


def test_over_a_pipe(bundle, tmp_path):
    """Nothing but the protocol is on its standard output, or its client would choke."""
    from mcp import StdioServerParameters
    from mcp.client.stdio import stdio_client

    arguments = ["-m", "hrm_edge.cli", "serve", "--mcp", str(bundle), "--threads", "1"]
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    server = StdioServerParameters(command=sys.executable, args=arguments, env=environment)

    async def main():
        with open(tmp_path / "errors", "w") as errors:
            async with mcp.Client(stdio_client(server, errlog=errors)) as client:
                found = await call(client, "solve", puzzle=text(SLOW), max_think_steps=1, halt="fixed", retries=0)
                further = await call(client, "think_further", thought=found["thought"])
                explained = await call(client, "explain", thought=found["thought"])
                board = await read(client, f"hrm-edge://thoughts/{found['thought']}")
                return found, further, explained, board

    found, further, explained, board = asyncio.run(main())
    assert found["verified"] is False
    assert (further["verified"], further["answer"]) == (True, toys.TASK.format(ANSWERS.tokens[SLOW]))
    assert len(explained["segments"]) == further["segments"]
    assert board == further["board"]
    assert (tmp_path / "errors").read_text() == ""


@pytest.mark.parametrize("end", ["input", "SIGTERM"])
def test_it_ends_with_its_input_or_when_it_is_asked_to(bundle, end):
    command = [sys.executable, "-m", "hrm_edge.cli", "serve", "--mcp", str(bundle)]
    process = subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "0"}}
    message = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello}
    process.stdin.write(json.dumps(message) + "\n")
    process.stdin.flush()
    assert json.loads(process.stdout.readline())["result"]["serverInfo"]["name"] == "hrm-edge"
    if end == "input":
        process.stdin.close()
    else:
        process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    assert "Traceback" not in process.stderr.read()
    for stream in (process.stdin, process.stdout, process.stderr):
        stream.close()


def test_over_http_beside_the_service(bundle):
    """With the service's token, and not without."""
    httpx = pytest.importorskip("httpx2")
    from mcp.client.streamable_http import streamable_http_client

    command = [sys.executable, "-m", "hrm_edge.cli", "serve", str(bundle), "--port", "0", "--json", "--mcp-http"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HRM_EDGE_TOKEN": SECRET}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        url = json.loads(process.stdout.readline())["url"] + PATH

        async def main():
            async with httpx.AsyncClient() as client:
                refused = await client.post(url, json={})
            headers = {"authorization": f"Bearer {SECRET}"}
            async with (
                httpx.AsyncClient(headers=headers) as http,
                mcp.Client(streamable_http_client(url, http_client=http)) as client,
            ):
                return refused.status_code, await call(client, "solve", puzzle=text(SLOW))

        refused, found = asyncio.run(main())
        assert refused == 401
        assert (found["verified"], found["answer"]) == (True, toys.TASK.format(ANSWERS.tokens[SLOW]))
    finally:
        process.terminate()
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "Traceback" not in errors
