"""How right files are changed at random, by what they are: bytes, lines of text, JSON, safetensors."""

from __future__ import annotations

import contextlib
import copy
import gzip
import json
import math
import random
from collections.abc import Iterator
from typing import Any

DEEP = "@deep@"
ODD: list[Any] = [
    None,
    True,
    False,
    0,
    1,
    -1,
    2,
    255,
    2**31,
    2**63,
    -(2**63),
    10**12,
    10**400,
    0.5,
    -0.0,
    1e308,
    1e-320,
]
ODD += [
    math.nan,
    math.inf,
    "",
    "a",
    "x" * 3000,
    "\ud800",
    "\x1b[2J\r\n::error::x",
    "[/red]",
    "../../etc/passwd",
    "/",
]
ODD += ["NaN", "0-9999999,0-9999999", "\0", ".DS_Store", [], {}, [[]], {"a": {}}, [1, 2, 3], [None], DEEP]
WORDS = [
    b"[",
    b"]",
    b"{",
    b"}",
    b'"',
    b"'",
    b",",
    b":",
    b"=",
    b"-",
    b"\n",
    b"\r",
    b"\0",
    b"\xff",
    b"\xef\xbb\xbf",
    b"&a",
    b"*a",
]
WORDS += [
    b"<<: *a",
    b"!!python/none",
    b"---",
    b"1e999",
    b"nan",
    b"inf",
    b"-1",
    b"0",
    b"9" * 30,
    b"9" * 5000,
    b"0x7f",
    b"#",
    b"\t",
]
WORDS += [
    b"[" * 3000,
    b"{a: " * 500,
    b"[[a]]",
    b"2001-99-99",
    b'"""',
    b"\\u0000",
    b"\xed\xa0\x80",
    "·".encode(),
    b"\x1b[0m",
]


def binary(rng: random.Random, content: bytes, seeds: list[bytes]) -> bytes:
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        at, kind = rng.randrange(len(data) + 1), rng.randrange(9)
        some = rng.choice((1, 2, 4, 8, 64, 1000))
        if kind == 0:
            data[at : at + 1] = bytes([rng.randrange(256)])
        elif kind == 1:
            data[at : at + 1] = bytes([data[at] ^ (1 << rng.randrange(8))]) if at < len(data) else b""
        elif kind == 2:
            del data[at : at + some]
        elif kind == 3:
            data[at:at] = rng.randbytes(some)
        elif kind == 4:
            data[at:at] = data[at : at + some] * rng.choice((1, 2, 50))
        elif kind == 5:
            width = rng.choice((1, 2, 4, 8))
            number = rng.choice((0, 1, 2 ** (8 * width) - 1, 2 ** (8 * width - 1), rng.getrandbits(8 * width)))
            data[at : at + width] = number.to_bytes(width, rng.choice(("little", "big")))
        elif kind == 6:
            del data[at:]
        elif kind == 7:
            other = rng.choice(seeds)
            start = rng.randrange(len(other) + 1)
            data[at:] = other[start : start + max(some, len(data) - at)]
        else:
            word = rng.choice(WORDS)
            data[at : at + rng.choice((0, len(word)))] = word
    return bytes(data)


def lines(rng: random.Random, content: bytes, seeds: list[bytes]) -> bytes:
    """Of text: lines and words come, go and change places."""
    rows = content.split(b"\n")
    for _ in range(rng.choice((1, 1, 2, 4))):
        at, kind = rng.randrange(len(rows)), rng.randrange(6)
        if kind == 0:
            del rows[at : at + rng.choice((1, 1, 5))]
        elif kind == 1:
            rows[at:at] = [rows[at]] * rng.choice((1, 2, 300))
        elif kind == 2:
            rows.insert(at, rows.pop(rng.randrange(len(rows))))
        elif kind == 3:
            words = rows[at].split(b" ")
            words[rng.randrange(len(words))] = rng.choice(WORDS)
            rows[at] = b" ".join(words)
        elif kind == 4:
            head, mark, tail = rows[at].partition(rng.choice((b"=", b":", b",")))
            rows[at] = head + mark + rng.choice((b" ", b"")) + rng.choice(WORDS) + rng.choice((b"", tail))
        else:
            rows[at] = rng.choice(rng.choice(seeds).split(b"\n"))
        rows = rows or [b""]
    changed = b"\n".join(rows)
    return binary(rng, changed, seeds) if rng.random() < 0.3 else changed


def structure(rng: random.Random, content: bytes, seeds: list[bytes]) -> bytes:
    """Of JSON: a value becomes an odd one, a key comes, goes or stands elsewhere; sometimes bytes change, too."""
    tree = changed_tree(rng, json.loads(content))
    text = json.dumps(tree, indent=rng.choice((None, 1, 2)), sort_keys=rng.random() < 0.7)
    text = text.replace(f'"{DEEP}"', rng.choice(("[" * 3000, "[" * 150 + "]" * 150, '{"a":' * 2000)))
    made = text.encode("utf-8", "surrogatepass")
    return binary(rng, made, seeds) if rng.random() < 0.2 else made


def changed_tree(rng: random.Random, tree: Any) -> Any:
    tree = {"": copy.deepcopy(tree)}
    for _ in range(rng.choice((1, 1, 2, 4))):
        places = list(_places(tree))
        holder, key = rng.choice(places)
        kind = rng.randrange(6)
        if kind < 3:
            holder[key] = copy.deepcopy(rng.choice(ODD))
        elif kind == 3 and key != "":
            del holder[key]
        elif kind == 4:
            other, its = rng.choice(places)
            with contextlib.suppress(KeyError, IndexError):
                holder[key] = copy.deepcopy(other[its])
        elif isinstance(holder[key], dict):
            holder[key][rng.choice(("extra", "", "a\nb", "format_version"))] = copy.deepcopy(rng.choice(ODD))
        elif isinstance(holder[key], list):
            holder[key] = holder[key] * rng.choice((0, 2, 40))
        elif isinstance(holder[key], int | float) and not isinstance(holder[key], bool):
            holder[key] = rng.choice((-holder[key], holder[key] + 1, holder[key] * 10**9, str(holder[key])))
    return tree[""]


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    for key, value in list(tree.items() if isinstance(tree, dict) else enumerate(tree)):
        yield tree, key
        if isinstance(value, dict | list):
            yield from _places(value)


def zipped(rng: random.Random, content: bytes, seeds: list[bytes]) -> bytes:
    """Text that may be compressed before or after it was damaged."""
    changed = lines(rng, content, seeds)
    if rng.random() < 0.1:
        packed = gzip.compress(changed, 1)
        return binary(rng, packed, [packed]) if rng.random() < 0.7 else packed
    return changed


def header(rng: random.Random, content: bytes, seeds: list[bytes]) -> bytes:
    """Of safetensors: mostly what its header says, in a header that can be read."""
    if rng.random() < 0.3:
        return binary(rng, content, seeds)
    end = 8 + int.from_bytes(content[:8], "little")
    changed = structure(rng, content[8:end], [content[8:end]])
    return len(changed).to_bytes(8, "little") + changed + content[end:]
