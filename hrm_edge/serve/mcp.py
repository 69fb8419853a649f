"""The same bundles as tools for language models, by the Model Context Protocol: over standard streams, or HTTP.

A model that fails at a puzzle hands it over here: `solve` answers it, `think_further` goes on where that stopped,
and `explain` says what is wrong with an answer and what each segment changed. Boards are resources.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ResourceNotFoundError, ToolError
from mcp.server.transport_security import TransportSecuritySettings
from mcp_types import ToolAnnotations
from pydantic import Field
from starlette.routing import BaseRoute

from .. import __version__
from ..errors import HrmEdgeError, InputError
from ..halting import LEARNED, VERIFIED
from ..signals import STOP_SIGNALS
from .asking import Tell, read_question
from .bundles import Bundles, Served
from .log import log_to_lines
from .records import RETRIES, BundleList, Halt, Wire
from .settings import Limits
from .thoughts import Thought, Thoughts, broken, changed, drawn, how_many, why

PATH = "/mcp"
_URI = "hrm-edge://"
_READS = ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False)

Puzzle = Annotated[str, Field(description="The puzzle as text: its cells row by row, '.' for a blank in a Sudoku.")]
Name = Annotated[str | None, Field(description="Which bundle, where several are served.")]


class Thinking(Wire):
    """What a tool says of a puzzle that was thought about. ``thought`` names it to the other tools."""

    thought: str
    bundle: str
    answer: Annotated[str, Field(description="The board on one line.")]
    board: Annotated[str, Field(description="The answer, drawn; ! marks cells that break a rule.")]
    verified: Annotated[bool | None, Field(description="Does it keep the rules? null: the task has none.")]
    wrong: Annotated[str | None, Field(description="What is wrong with it.")]
    segments: Annotated[int, Field(description="Segments thought so far.")]
    halted: Annotated[bool, Field(description="Whether its halting rule ended it, and not the limit.")]
    changed: Annotated[list[int], Field(description="How many cells each segment changed.")]
    boards: Annotated[str, Field(description="Resource template of the board after each segment.")]
    warning: Annotated[str | None, Field(description="Why not to rely on the bundle's answers.")]


class Segment(Wire):
    """One segment: the cells it changed, and by how much the halting head then said stop (above 0: it stops)."""

    segment: int
    changed: list[str]
    margin: float


class Explanation(Wire):
    """What is wrong with an answer, and how it came about."""

    verified: bool | None
    wrong: Annotated[str | None, Field(description="The first rule that it breaks.")]
    broken: Annotated[list[str], Field(description="Cells that by themselves show it to be wrong.")]
    board: str
    segments: Annotated[list[Segment], Field(description="Of a thought, what each segment changed.")]
    compared: Annotated[list[str], Field(description="Where the answer that was given differs from the thought's.")]


class Tools:
    """The tool server of some bundles. ``busy``: calls under way."""

    def __init__(self, bundles: Bundles, limits: Limits, tell: Tell) -> None:
        log_to_lines(tell)  # before the library sets up its own
        self._bundles, self._limits = bundles, limits
        self._thoughts = Thoughts()
        self.busy = 0
        tasks = sorted({served.task.name for served in bundles})
        self.server: MCPServer[None] = MCPServer(
            "hrm-edge",
            title="hrm-edge",
            version=__version__,
            instructions="Solves puzzles that language models fail at, with small networks that think in segments: "
            f"{', '.join(tasks)}. Call solve with the puzzle; trust answers that are verified. Where one is not, "
            "call think_further, or solve again with retries.",
            log_level="WARNING",
        )
        for tool in (self.solve, self.think_further, self.explain):
            self.server.add_tool(tool, annotations=_READS)
        self.server.resource(f"{_URI}bundles", mime_type="application/json")(self.bundles)
        self.server.resource(f"{_URI}thoughts/{{thought}}")(self.board)
        self.server.resource(f"{_URI}thoughts/{{thought}}/{{segment}}")(self.guess)

    # -- tools -----------------------------------------------------------------------------------------------

    async def solve(
        self,
        puzzle: Puzzle,
        bundle: Name = None,
        halt: Annotated[Halt, Field(description="When to stop thinking.")] = Halt(VERIFIED.name),
        max_think_steps: Annotated[int | None, Field(ge=1, description="Segments at most.")] = None,
        retries: Annotated[
            int, Field(ge=0, le=RETRIES, description="Symmetric variants to try where the answer does not verify.")
        ] = 8,
        seed: Annotated[int, Field(ge=0, description="Which variants are tried.")] = 0,
    ) -> Thinking:
        """Solve a puzzle, and say whether the answer keeps the rules."""
        served = self._served(bundle)
        rules = served.task.has_rules
        with self._told():
            if (max_think_steps or 0) > self._limits.segments:
                raise InputError(f"max_think_steps may be {self._limits.segments}, not {max_think_steps}")
            thought = Thought(served, read_question(served, puzzle))
            outcome = await asyncio.wait_for(
                served.scheduler.solve(
                    thought.question,
                    # What has no rules verifies nothing.
                    halt=halt.value if rules or halt.value != VERIFIED.name else LEARNED.name,
                    max_think_steps=max_think_steps,
                    retries=retries if rules else 0,
                    seed=seed,
                    on_segment=thought.seen,
                    deadline=self._limits.seconds,
                ),
                self._limits.seconds,
            )
        thought.answer, thought.variant, thought.halted = outcome.tokens, outcome.variant, outcome.halted
        self._thoughts.keep(thought)
        return self._result(thought)

    async def think_further(
        self,
        thought: Annotated[str, Field(description="As solve named it.")],
        segments: Annotated[int, Field(ge=1, description="How many more at most.")] = 16,
        halt: Annotated[Halt, Field(description="When to stop before that.")] = Halt(VERIFIED.name),
    ) -> Thinking:
        """Go on thinking about a puzzle from where it was, for more segments."""
        found = self._thought(thought)
        if found.verified:
            raise ToolError("that answer is verified: there is nothing to think about any more")
        rule = halt.value if found.task.has_rules or halt.value != VERIFIED.name else LEARNED.name
        stop = threading.Event()
        with self._told():
            if len(found.guesses) + segments > self._limits.segments:
                raise InputError(f"a puzzle may be thought about for {self._limits.segments} segments in all")
            try:
                async with asyncio.timeout(self._limits.seconds):
                    await asyncio.to_thread(found.further, segments, rule, stop)
            finally:
                stop.set()
        return self._result(found)

    async def explain(
        self,
        thought: Annotated[str | None, Field(description="As solve named it.")] = None,
        puzzle: Annotated[str | None, Field(description="Without a thought: the puzzle.")] = None,
        answer: Annotated[
            str | None, Field(description="An answer to judge, by whomever; without it the thought's own.")
        ] = None,
        bundle: Name = None,
    ) -> Explanation:
        """Say what is wrong with an answer, which cells changed in each segment, and why."""
        found = None if thought is None else self._thought(thought)
        with self._told():
            if found is None and (puzzle is None or answer is None):
                raise InputError("name a thought, or give a puzzle and an answer")
            served = self._served(bundle) if found is None else found.served
            task = served.task
            question = read_question(served, puzzle or "") if found is None else found.question
            if answer is None:
                assert found is not None
                judged = found.answer
            else:
                judged = task.parse(answer)
            compared = [] if found is None or answer is None else changed(task, question, judged, found.answer)
        segments = [] if found is None else zip(found.changes(), found.margins, strict=True)
        verified = bool(task.verify(question[None], judged[None])[0]) if task.has_rules else None
        return Explanation(
            verified=verified,
            wrong=why(task, question, judged),
            broken=broken(task, question, judged),
            board=drawn(task, question, judged),
            segments=[
                Segment(segment=number, changed=cells, margin=margin)
                for number, (cells, margin) in enumerate(segments, 1)
            ],
            compared=compared,
        )

    # -- resources -------------------------------------------------------------------------------------------

    def bundles(self) -> str:
        """What is served, with tasks, symbols and warnings."""
        return BundleList(bundles=[each.info for each in self._bundles]).model_dump_json(indent=1)

    def board(self, thought: str) -> str:
        """The answer to a puzzle that was thought about, as a drawn board."""
        return self._resource(thought).board()

    def guess(self, thought: str, segment: str) -> str:
        """The board after a segment, counted from 1; * marks what it changed, ! what breaks a rule."""
        found = self._resource(thought)
        if not (segment.isascii() and segment.isdigit() and 1 <= int(segment[:9]) <= len(found.guesses)):
            raise ResourceNotFoundError(f"segments of that thought are 1 to {len(found.guesses)}")
        return found.board(int(segment))

    # -- transports ------------------------------------------------------------------------------------------

    def routes(self, *, local: bool) -> list[BaseRoute]:
        """Of the streamable HTTP transport, below `PATH`. ``local``: only names of this machine are answered."""
        # Whose names are right, and who has the token, was asked before.
        security = None if local else TransportSecuritySettings(enable_dns_rebinding_protection=False)
        made = self.server.streamable_http_app(
            streamable_http_path=PATH, max_request_body_size=self._limits.body, transport_security=security
        )
        return list(made.routes)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """While requests come by these routes."""
        async with self.server.session_manager.run():
            yield

    # -- what is common --------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """What is wrong with a call, told to the model in a line."""
        self.busy += 1
        try:
            yield
        except HrmEdgeError as error:
            raise ToolError(str(error)) from None
        except TimeoutError:
            raise ToolError(f"it took over {self._limits.seconds:g} s") from None
        finally:
            self.busy -= 1

    def _served(self, name: str | None) -> Served:
        served = self._bundles.find(name)
        if served is None:
            raise ToolError(f"bundle must be one of {', '.join(self._bundles.names)}")
        return served

    def _thought(self, name: str) -> Thought:
        if (found := self._thoughts.find(name)) is None:
            raise ToolError("no such thought is kept any more; solve the puzzle again")
        return found

    def _resource(self, name: str) -> Thought:
        if (found := self._thoughts.find(name)) is None:
            raise ResourceNotFoundError("no such thought is kept any more")
        return found

    def _result(self, thought: Thought) -> Thinking:
        task = thought.task
        return Thinking(
            thought=thought.name,
            bundle=thought.served.name,
            answer=task.format(thought.answer),
            board=thought.board(),
            verified=thought.verified,
            wrong=why(task, thought.question, thought.answer),
            segments=len(thought.guesses),
            halted=thought.halted,
            changed=how_many(thought),
            boards=f"{_URI}thoughts/{thought.name}/{{segment}}",
            warning=thought.served.info.warning,
        )


def run_stdio(bundles: Bundles, limits: Limits, tell: Tell) -> int:
    """Serve standard input and output, on which nothing else is printed, until the first ends or a signal stops it.

    Returns the exit code: 0, or 128 + the signal's number where that cut off a call.
    """
    tools = Tools(bundles, limits, tell)
    code = 0

    def stop(number: int, frame: object) -> None:
        nonlocal code
        code = 128 + number if tools.busy else 0
        end()

    async def main() -> None:
        try:
            await tools.server.run_stdio_async()
        finally:
            await bundles.close(drain=False)

    end = _endable_input()
    before = {number: signal.signal(number, stop) for number in STOP_SIGNALS}
    try:
        asyncio.run(main())
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return code


def _endable_input() -> Callable[[], None]:
    """Put a pipe in the place of standard input; what is returned ends it, which nothing else does while a thread
    reads."""
    given, (source, sink) = os.dup(0), os.pipe()
    os.dup2(source, 0)
    os.close(source)
    ended = threading.Lock()

    def end() -> None:
        if ended.acquire(blocking=False):
            os.close(sink)

    def copy() -> None:
        with contextlib.suppress(OSError):  # it was ended
            while part := os.read(given, 2**16):
                view = memoryview(part)
                while view and not ended.locked():
                    view = view[os.write(sink, view) :]
        end()

    threading.Thread(target=copy, daemon=True).start()
    return end
