"""What is counted and timed, in Prometheus' terms; each service has a registry of its own."""

from __future__ import annotations

import time
from collections import deque
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.process_collector import ProcessCollector

from .records import BundleInfo

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# Seconds. A segment takes a tenth of a millisecond to some; a puzzle in a long queue, a minute.
_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
# What comes of a puzzle: the label is the first word.
OUTCOMES = (
    "verified",
    "answered, as its task has no rules",
    "wrong by the rules",
    "refused",
    "late",
    "cancelled",
    "failed",
)
_RECENT = 64  # puzzles, by which it is told how long a queue takes
_LONGEST_WAIT = 60  # seconds that somebody is told to stay away


class Metrics:
    """Counts of one service. Used in the event loop's thread."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)  # memory, CPU time, files; where the system tells
        counter, gauge = partial(Counter, registry=self.registry), partial(Gauge, registry=self.registry)
        histogram = partial(Histogram, registry=self.registry, buckets=_BUCKETS)
        self.requests = counter("hrm_edge_requests", "Requests.", ["method", "path", "status"])
        self.request_seconds = histogram(
            "hrm_edge_request_seconds", "From a request's headers to its last byte.", ["path"]
        )
        self.puzzles = counter("hrm_edge_puzzles", f"Puzzles: {'; '.join(OUTCOMES)}.", ["bundle", "outcome"])
        self.puzzle_seconds = histogram(
            "hrm_edge_puzzle_seconds",
            "Of answered puzzles: time in the queue, and time of thinking.",
            ["bundle", "part"],
        )
        self.segments = counter("hrm_edge_segments", "Segments of answered puzzles.", ["bundle"])
        self.asked = gauge("hrm_edge_puzzles_in_progress", "Puzzles without an answer yet.", ["bundle"])
        self.queue = gauge("hrm_edge_queue_length", "Of these, those that nobody thinks about yet.", ["bundle"])
        self.reloads = counter("hrm_edge_reloads", "Bundles loaded anew, or not.", ["bundle", "outcome"])
        self.info = gauge(
            "hrm_edge_bundle_info", "1 for each bundle.", ["bundle", "task", "target", "precision", "gated"]
        )
        self._finished: dict[str, deque[float]] = {}

    def served(self, infos: list[BundleInfo]) -> None:
        """What is served now; every series of it begins at zero."""
        self.info.clear()
        for each in infos:
            gated = "yes" if each.gated else "no"
            self.info.labels(each.name, each.task, each.target, each.precision, gated).set(1)
            self.asked.labels(each.name)
            self.segments.labels(each.name)
            for outcome in OUTCOMES:
                self.puzzles.labels(each.name, outcome.replace(",", "").split()[0])

    def begun(self, bundle: str) -> None:
        """A puzzle was given to a scheduler."""
        self.asked.labels(bundle).inc()

    def ended(self, bundle: str, outcome: str) -> None:
        """What came of one that had begun."""
        self.asked.labels(bundle).dec()
        self.puzzles.labels(bundle, outcome).inc()
        self._finished.setdefault(bundle, deque(maxlen=_RECENT)).append(time.monotonic())

    def retry_after(self, bundle: str, waiting: int) -> int:
        """Seconds in which ``waiting`` puzzles should be answered, by the pace of the last ones; at least 1."""
        recent = self._finished.get(bundle)
        if not recent:
            return 1
        each = (time.monotonic() - recent[0]) / len(recent)
        return max(1, min(_LONGEST_WAIT, round(each * waiting)))

    def text(self) -> bytes:
        """Everything, as Prometheus reads it."""
        return generate_latest(self.registry)
