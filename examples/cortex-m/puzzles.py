"""Write the first examples of a bundle as a C header: `puzzles.py BUNDLE COUNT > puzzles.h`."""

import json
import sys
from pathlib import Path


def main(folder: str, count: str) -> None:
    facts = json.loads((Path(folder) / "facts.json").read_text("utf-8"))
    some = facts["examples"][: int(count)]
    if not some:
        sys.exit(f"{folder}: holds no examples, as it was exported with --no-gate; export it again")
    print(f"#define PUZZLES {len(some)}")
    for name, key in (("questions", "question_tokens"), ("expected", "answer_tokens")):
        rows = ",\n    ".join("{" + ", ".join(map(str, each[key])) + "}" for each in some)
        print(f"static const int32_t {name}[PUZZLES][HRM_SEQ_LEN] = {{\n    {rows}}};")
    for name, key in (("expected_steps", "steps"), ("identifiers", "puzzle_identifier")):
        print(f"static const int32_t {name}[PUZZLES] = {{{', '.join(str(each[key]) for each in some)}}};")


if __name__ == "__main__":
    main(*sys.argv[1:])
