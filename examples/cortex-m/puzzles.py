"""Write the first examples of a bundle as a C header: `puzzles.py BUNDLE COUNT > puzzles.h`."""

import json
import sys
from pathlib import Path


def main(folder: str, count: int) -> None:
    facts = json.loads((Path(folder) / "facts.json").read_text("utf-8"))
    some = facts["examples"][:count]
    if not some:
        raise ValueError("it holds no examples, as it was exported with --no-gate; export it again")
    print(f"#define PUZZLES {len(some)}")
    for name, key in (("questions", "question_tokens"), ("expected", "answer_tokens")):
        rows = ",\n    ".join("{" + ", ".join(map(str, each[key])) + "}" for each in some)
        print(f"static const int32_t {name}[PUZZLES][HRM_SEQ_LEN] = {{\n    {rows}}};")
    for name, key in (("expected_steps", "steps"), ("identifiers", "puzzle_identifier")):
        print(f"static const int32_t {name}[PUZZLES] = {{{', '.join(str(each[key]) for each in some)}}};")


if __name__ == "__main__":
    if len(sys.argv) != 3 or not sys.argv[2].isdecimal() or int(sys.argv[2]) < 1:
        print("puzzles.py: give a bundle's folder and how many puzzles: puzzles.py BUNDLE COUNT", file=sys.stderr)
        sys.exit(2)
    try:
        main(sys.argv[1], int(sys.argv[2]))
    except (OSError, ValueError) as error:
        print(f"puzzles.py: {sys.argv[1]}: {error}", file=sys.stderr)
        sys.exit(2)
