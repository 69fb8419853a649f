"""Several clients, for minutes, on a real `hrm-edge serve`: `python tests/helpers/serve_load.py MINUTES BUNDLE…`.

Clients ask puzzles one and many at a time, as JSON and as events; some hang up, some ask what is wrong, some more
than there is room for; bundles are loaded anew all the while, by SIGHUP and by requests. What is right was asked of
the engine before; each answer is compared with its own puzzle's. Told at the end: counts by what came of requests,
times of those that were answered, memory by the tenth of the time, and what the service itself counted.
"""

from __future__ import annotations

import http.client
import itertools
import json
import random
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from services import SECRET, Process

from hrm_edge.runtimes import load_engine
from hrm_edge.solve.retries import solve_with_retries

CLIENTS = 8
PUZZLES = 200
HEADERS = {"Authorization": f"Bearer {SECRET}", "Content-Type": "application/json"}
WRONG: list[tuple[bytes, int]] = [  # (body, status)
    (b"{", 400),
    (b'{"puzzles": []}', 422),
    (b'{"puzzles": "12", "bundle": "none"}', 404),
    (b'{"puzzles": "1", "retries": -1}', 422),
    (b"x" * (2**20 + 1), 413),
]


class Load:
    """What is asked, what is right, and what came."""

    def __init__(self, bundle: Path, name: str) -> None:
        engine = load_engine(bundle, threads=1)
        task = engine.task
        questions, _ = task.generate(PUZZLES, np.random.default_rng(7), task.difficulties[0])
        self.name, self.texts = name, task.format_many(questions)
        self.right: dict[tuple[str, int], list[str]] = {}
        for halt, retries in itertools.product(("learned", "verified"), (0, 2)):
            found = solve_with_retries(engine, questions, retries, seed=3, halt=halt)
            self.right[halt, retries] = task.format_many(found.answers.tokens)


class Client(threading.Thread):
    """Asks until ``until``, on a connection that it keeps while that stands."""

    def __init__(self, number: int, port: int, loads: list[Load], until: float) -> None:
        super().__init__()
        self.random, self.port, self.loads, self.ends = random.Random(number), port, loads, until
        self.counts: Counter[str] = Counter()
        self.errors: list[str] = []
        self.seconds: list[float] = []
        self.connection: http.client.HTTPConnection | None = None

    def run(self) -> None:
        while time.monotonic() < self.ends:
            try:
                self.random.choices([self.solve, self.think, self.hang_up, self.wrong], [70, 12, 8, 10])[0]()
            except (OSError, http.client.HTTPException) as error:
                self.errors.append(f"{type(error).__name__}: {error}")
                self.connection = None

    def asked(self, many: int) -> tuple[Load, list[int], tuple[str, int], dict[str, Any]]:
        load = self.random.choice(self.loads)
        rows = [self.random.randrange(PUZZLES) for _ in range(many)]
        halt, retries = way = self.random.choice(list(load.right))
        body = {"bundle": load.name, "puzzles": [load.texts[row] for row in rows], "halt": halt, "retries": retries}
        return load, rows, way, {**body, "seed": 3, "priority": self.random.randrange(-1, 2)}

    def post(self, path: str, body: bytes) -> http.client.HTTPResponse:
        for fresh in (False, True):
            if self.connection is None:
                self.connection, fresh = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120), True
            try:
                self.connection.request("POST", path, body, HEADERS)
                return self.connection.getresponse()
            except (http.client.RemoteDisconnected, ConnectionError):
                self.connection.close()
                self.connection = None
                if fresh:  # one that was kept may have been closed as idle, which is no error
                    raise
        raise AssertionError

    def solve(self) -> None:
        load, rows, way, body = self.asked(self.random.choice((1, 1, 1, 4, 16, 64)))
        begin = time.perf_counter()
        response = self.post("/v1/solve", json.dumps(body).encode())
        content = json.loads(response.read())
        if response.status == 429:
            self.counts["429"] += 1
            assert int(response.headers["Retry-After"]) >= 1
            time.sleep(0.05)
            return
        if len(rows) == 1:
            self.seconds.append(time.perf_counter() - begin)
        self.compare(load, rows, way, content.get("results", []), response.status)

    def think(self) -> None:
        load, rows, way, body = self.asked(2)
        response = self.post("/v1/think", json.dumps(body).encode())
        content = response.read().decode()
        if response.status == 429:
            self.counts["429"] += 1
            return
        events = [block.split("\n") for block in content.split("\n\n")[:-1] if not block.startswith(":")]
        found = [json.loads(data[6:]) for kind, data in events if kind == "event: answer"]
        self.compare(load, rows, way, sorted(found, key=lambda each: each["index"]), response.status)
        self.counts["segments told"] += sum(kind == "event: segment" for kind, _ in events)

    def compare(self, load: Load, rows: list[int], way: tuple[str, int], found: list[Any], status: int) -> None:
        answers = [each.get("answer") for each in found]
        if status != 200 or answers != [load.right[way][row] for row in rows]:
            told = next((each.get("error") for each in found if "error" in each), None)
            self.errors.append(f"status {status}, {len(found)} of {len(rows)} results, error {told}")
        self.counts["answered"] += 1
        self.counts["puzzles answered"] += len(rows)

    def hang_up(self) -> None:
        *_, body = self.asked(self.random.choice((1, 32)))
        path = self.random.choice(("/v1/solve", "/v1/think"))
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        connection.request("POST", path, json.dumps(body), HEADERS)
        time.sleep(self.random.random() * 0.02)
        connection.close()
        self.counts["hung up"] += 1

    def wrong(self) -> None:
        body, status = self.random.choice(WRONG)
        response = self.post("/v1/solve", body)
        response.read()
        if response.headers.get("connection") == "close":
            self.connection = None
        if response.status != status:
            self.errors.append(f"status {response.status} and not {status}")
        self.counts["refused"] += 1


def memory_mb(process: int) -> float:
    """Resident memory of a process, where Linux tells."""
    lines = Path(f"/proc/{process}/status").read_text().split("\n")
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


def main(minutes: float, bundles: list[str]) -> int:
    names = [f"b{number}" for number, _ in enumerate(bundles)]
    loads = [Load(Path(bundle), name) for name, bundle in zip(names, bundles, strict=True)]
    arguments = [f"{name}={bundle}" for name, bundle in zip(names, bundles, strict=True)]
    server = Process(*arguments, "--threads", "2", "--streams", "2", "--queue", "256")
    begin = time.monotonic()
    until = begin + 60 * minutes
    clients = [Client(number, server.port, loads, until) for number in range(CLIENTS)]
    for client in clients:
        client.start()
    memory = []
    for tenth in range(1, 11):
        while time.monotonic() < begin + 6 * minutes * tenth:
            time.sleep(0.2)
        memory.append(memory_mb(server.run.pid))
        if tenth % 2:
            server.run.send_signal(signal.SIGHUP)
        elif tenth < 10:
            assert server.ask("/v1/reload", {})[0] == 200
    for client in clients:
        client.join()
    counted = server.ask("/metrics")[1].decode()
    (loaded, *_) = (each["loaded"] for each in server.ask("/v1/bundles")[1]["bundles"])
    code, told = server.end(signal.SIGTERM)
    counts = sum((client.counts for client in clients), Counter())
    errors = [error for client in clients for error in client.errors]
    times = np.array([second for client in clients for second in client.seconds]) * 1000
    print(f"{minutes:g} min, {CLIENTS} clients, {loaded - 1} reloads: {dict(sorted(counts.items()))}")
    print(
        f"{counts['puzzles answered'] / (60 * minutes):.0f} puzzles a second, each compared with its own puzzle's"
    )
    p50, p99 = np.percentile(times, [50, 99])
    print(f"requests of one puzzle: n {len(times)}, p50 {p50:.1f}, p99 {p99:.1f} ms")
    print("memory in MB by tenth: " + ", ".join(f"{each:.0f}" for each in memory))
    wanted = ("hrm_edge_puzzles_total", "hrm_edge_puzzles_in_progress", "hrm_edge_reloads_total")
    for line in counted.split("\n"):
        if line.startswith(wanted):
            print(f"  {line}")
    print(f"errors: {len(errors)}, exit code {code}")
    for error in [*errors[:20], *(line for line in told.split("\n") if "fault" in line)]:
        print(f"  {error}")
    return int(bool(errors or code or "fault" in told))


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), sys.argv[2:]))
