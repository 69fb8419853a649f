"""Protocol buffers in their text form, as `config.pbtxt` is: nested fields, texts, numbers and words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, TypeAlias

# Field → a text, a number, a `Word`, a message, or a list of these, each of which is the field once more.
Message: TypeAlias = dict[str, Any]

# Types of tensors as bundles name them → as the server does.
DTYPES = {
    "bool": "TYPE_BOOL",
    "int8": "TYPE_INT8",
    "uint8": "TYPE_UINT8",
    "int32": "TYPE_INT32",
    "int64": "TYPE_INT64",
    "float16": "TYPE_FP16",
    "float32": "TYPE_FP32",
}


class Word(str):
    """What stands without quotes: a name of an enumeration, or true and false."""


def shown(message: Message) -> str:
    """The text of a message, a field a line."""
    return "".join(f"{line}\n" for line in _lines(message))


def _lines(message: Message) -> Iterator[str]:
    for name, value in message.items():
        if isinstance(value, list) and all(isinstance(item, int) for item in value):
            yield f"{name}: [{', '.join(map(str, value))}]"
            continue
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, dict):
                yield f"{name} {{"
                yield from (f"  {line}" for line in _lines(item))
                yield "}"
            else:
                # JSON's escapes in ASCII are those of this form too, but for characters beyond it.
                text = item if isinstance(item, Word) else json.dumps(item, ensure_ascii=True)
                yield f"{name}: {text}"
