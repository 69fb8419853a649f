"""The table of rules in the room's README is what the rules say. Run as a script, this file writes it again."""

from pathlib import Path

from hrm_edge.check.rules import RULES

README = Path(__file__).parents[3] / "hrm_edge" / "check" / "README.md"
BEGIN = "<!-- rules: written by `python tests/hrm_edge/check/test_readme.py` -->\n"
END = "<!-- end of rules -->\n"


def table() -> str:
    lines = ["| rule | limit | holds when | needs |", "|---|---|---|---|"]
    for rule in RULES.values():
        needs = [need for need in ("data", "checkpoint", "baseline", "speed") if need in rule.needs]
        lines.append(f"| `{rule.name}` | {rule.unit.expected} | {rule.text} | {', '.join(needs)} |")
    return "\n".join(lines) + "\n"


def with_table(text: str) -> str:
    before, _, rest = text.partition(BEGIN)
    return before + BEGIN + "\n" + table() + "\n" + END + rest.partition(END)[2]


def test_the_readme_holds_what_the_rules_say():
    text = README.read_text(encoding="utf-8")
    assert text == with_table(text), f"run: python {Path(__file__).name}"


if __name__ == "__main__":
    README.write_text(with_table(README.read_text(encoding="utf-8")), encoding="utf-8")
