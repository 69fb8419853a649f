"""`hrm-edge serve` as a process on a socket: what signals do, its time limits, its exit codes and its lines."""

import json
import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

pytest.importorskip("starlette", reason="needs the extra serve")
pytest.importorskip("uvicorn", reason="needs the extra serve")
pytest.importorskip("prometheus_client", reason="needs the extra serve")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

import numpy as np
import toys
from services import SECRET, SERVE, Process

ROOT = Path(__file__).parents[3]
PUZZLES = toys.puzzles(6)
TEXTS = [toys.TASK.format(row) for row in PUZZLES]
RIGHT = [toys.TASK.format(row) for row in toys.host_engine().solve(PUZZLES).tokens]
UNSOLVED = TEXTS[int(np.flatnonzero(~toys.TASK.verify(PUZZLES, toys.host_engine().solve(PUZZLES).tokens))[0])]
LONG = {"puzzles": TEXTS[0], "halt": "fixed", "max_think_steps": 4000}  # a second or so


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return toys.write_toy_bundle(tmp_path_factory.mktemp("served") / "toy")


@pytest.fixture
def server(request, bundle):
    """Started as by `nohup`, which has it ignore the signal that reloads."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        process = Process(bundle, *getattr(request, "param", ()))
    finally:
        signal.signal(signal.SIGHUP, before)
    yield process
    if process.run.poll() is None:
        process.run.kill()
    process.run.communicate()


def test_it_answers_reloads_drains_and_ends_with_0(server):
    assert server.told["bundles"][0]["name"] == "toy"
    assert server.ask("/v1/solve", {"puzzles": TEXTS}, token=None)[0] == 401
    status, found = server.ask("/v1/solve", {"puzzles": TEXTS})
    assert (status, [each["answer"] for each in found["results"]]) == (200, RIGHT)
    begun = server.ask("/v1/solve", LONG, wait=False)
    server.until_busy()
    server.run.send_signal(signal.SIGHUP)
    while server.ask("/v1/bundles")[1]["bundles"][0]["loaded"] == 1:
        time.sleep(0.02)
    server.run.send_signal(signal.SIGTERM)
    while server.ask("/readyz", token=None)[0] != 503:
        time.sleep(0.01)
    assert server.ask("/healthz", token=None)[0] == 200
    status, refused = server.ask("/v1/solve", {"puzzles": TEXTS})
    assert (status, "stopping" in refused["error"]) == (503, True)
    response = begun.getresponse()
    (answer,) = json.loads(response.read())["results"]
    assert (response.status, answer["steps"]) == (200, LONG["max_think_steps"])
    _, errors = server.run.communicate(timeout=60)
    assert server.run.returncode == 0
    assert "toy: reloaded" in errors
    assert SECRET not in errors + json.dumps(server.told)
    assert "Traceback" not in errors


def test_a_reload_that_comes_as_it_ends_changes_nothing(server):
    server.run.send_signal(signal.SIGTERM)
    while server.run.poll() is None:
        server.run.send_signal(signal.SIGHUP)
        time.sleep(0.001)
    assert server.run.returncode == 0


def test_a_crash_tells_where_each_thread_was(server):
    code, told = server.end(signal.SIGSEGV)
    assert code == -signal.SIGSEGV
    assert "Segmentation fault" in told
    assert len(re.findall("^(Current thread|Thread) ", told, re.MULTILINE)) > 1


def test_what_the_readme_shows_works(server, capsys):
    from hrm_edge.serve.records import SolveRequest

    text = (ROOT / "hrm_edge" / "serve" / "README.md").read_text("utf-8")
    (python,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    code = python.replace("http://127.0.0.1:8000", server.told["url"])
    exec(compile(code, "README.md", "exec"), {"puzzle": TEXTS[0], "token": SECRET})
    assert capsys.readouterr().out.split()[0] == RIGHT[0]
    asked = re.findall(r"-d '(\{.*?\})'", text, re.DOTALL)
    assert len(asked) == 2
    for body in asked:
        SolveRequest.model_validate_json(body)


@pytest.mark.parametrize("server", [["--drain-seconds", "0.2"]], indirect=True)
def test_what_takes_longer_than_the_drain_is_cut_off_and_told(server):
    begun = server.ask("/v1/solve", {"puzzles": UNSOLVED, "halt": "fixed", "retries": 1000}, wait=False)
    server.until_busy()
    code, errors = server.end(signal.SIGTERM)
    assert code == 128 + signal.SIGTERM
    assert "1 requests took over 0.2 s" in errors
    assert "Traceback" not in errors
    (result,) = json.loads(begun.getresponse().read())["results"]
    assert result["error"] == "was cancelled"


@pytest.mark.parametrize("server", [["--header-seconds", "0.3"]], indirect=True)
def test_who_does_not_finish_a_request_is_not_waited_for(server):
    """Nor is one that goes on by drips, nor one that is no HTTP at all; and ten of them hinder nobody."""
    slow = [socket.create_connection(("127.0.0.1", server.port), timeout=20) for _ in range(10)]
    begin = time.monotonic()
    for connection in slow[1:]:
        connection.send(b"POST /v1/solve HTTP/1.1\r\nHost: x\r\n")
    garbage = socket.create_connection(("127.0.0.1", server.port), timeout=20)
    garbage.send(b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n")
    assert garbage.recv(100).startswith(b"HTTP/1.1 400")
    assert server.ask("/v1/solve", {"puzzles": TEXTS[0]})[0] == 200
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        drip(slow[1], begin + 20)
    for connection in (slow[0], *slow[2:]):
        assert connection.recv(1000) == b""
    code, errors = server.end(signal.SIGINT)
    assert code == 0
    assert "Invalid HTTP request" in errors


def drip(connection, until):
    while time.monotonic() < until:
        connection.send(b"X-A: b\r\n")
        time.sleep(0.05)


def test_what_cannot_be_served_is_told_in_a_line(bundle, tmp_path):
    taken = socket.create_server(("127.0.0.1", 0))
    port = str(taken.getsockname()[1])
    for arguments, words in (
        ([str(tmp_path / "nothing")], "nothing"),
        ([str(bundle), "--port", port], f"127.0.0.1:{port}"),
        ([str(bundle), "--host", "0.0.0.0"], "--token-file"),
        ([str(bundle), "--max-puzzles", "9", "--queue", "8"], "--queue"),
    ):
        done = subprocess.run(
            [*SERVE, *arguments],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.count("\n") == 1
        assert words in done.stderr
