"""For schemathesis (`SCHEMATHESIS_HOOKS`): what no JSON schema can say of a request to the service."""

from typing import Any

import schemathesis


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Puzzle identifiers are one a puzzle: as many as there are, where they are right but for that."""
    body = case.body
    if not (isinstance(body, dict) and isinstance(given := body.get("puzzle_identifiers"), list)):
        return
    puzzles = body.get("puzzles")
    if all(type(each) in (int, float) and each >= 0 and each == int(each) for each in given):
        case.body = {**body, "puzzle_identifiers": [0] * (len(puzzles) if isinstance(puzzles, list) else 1)}
