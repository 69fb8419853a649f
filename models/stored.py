"""What a file of weights holds, as its content tells, not its name; nothing of a stranger's is run or imported."""

from __future__ import annotations

import json
import pickle
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from ..errors import InputError
from ..foreign import what_it_is
from ..limits import HEADER_BYTES
from .checkpoint import read_tensors, stored_shapes

_PICKLE = b"\x80"  # how a pickle begins
_OF_LIGHTNING = (
    "lightning.fabric.utilities.data",
    "lightning_fabric.utilities.data",
    "pytorch_lightning.utilities.parsing",
)


def content(path: Path) -> Any:
    """What a file holds, as its content tells and not its name."""
    # Asked first: such a file begins with a number, which may look like the beginning of anything.
    if _is_safetensors(path):
        if _ends_early(path):
            raise InputError(f"{path}: is the beginning of a safetensors file, cut off; fetch it again")
        stored_shapes(path, floats=False)
        return read_tensors(path)
    if what := _what_else(path):
        raise InputError(f"{path}: is {what}; give the trainer's step_N file")
    return _unpickled(path)


def _is_safetensors(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(10)
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= HEADER_BYTES:
        return True
    return path.suffix == ".safetensors" and not zipfile.is_zipfile(path)


def _ends_early(path: Path) -> bool:
    """Whether a safetensors file is shorter than it says."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > HEADER_BYTES or 8 + length > size:
            return length <= HEADER_BYTES
        header = file.read(length)
    try:
        tensors = [tensor for name, tensor in json.loads(header).items() if name != "__metadata__"]
        return bool(8 + length + max((tensor["data_offsets"][1] for tensor in tensors), default=0) > size)
    except (ValueError, TypeError, AttributeError, LookupError, RecursionError):
        return False  # the library says what is wrong


def _what_else(path: Path) -> str | None:
    """What a file is that is no checkpoint, as far as its beginning tells."""
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            start = file.read(4)
        if start == b"PK\3\4":
            return "the beginning of a zip archive, cut off; fetch it again"
        what = what_it_is(path)
        return "nothing that torch or safetensors wrote" if what is None and start[:1] != _PICKLE else what
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except Exception:  # of a damaged one nearly every kind is raised
        return "a damaged zip archive; fetch it again"
    names = [entry.filename for entry in entries]
    if not any(name.endswith("data.pkl") for name in names):
        return f"a zip archive of something else ({', '.join(names[:3])[:80]})"
    if any(name.endswith("/constants.pkl") for name in names):
        return "a TorchScript program; save the model's state_dict() alone"
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        return "a compressed zip archive, which torch never writes; save it again"
    return None


class _Ignored:
    """Stands for an object that trainers save beside weights: whatever it is made of is dropped."""

    def __new__(cls, *args: object) -> _Ignored:
        return object.__new__(cls)

    def __init__(self, *args: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


class _AsDict:
    """Stands for a kind of dict: it is one."""

    def __new__(cls, *args: object) -> Any:
        return {}


# By the names that files have for them. Nothing of theirs is run, or even imported.
_STAND_INS: list[Any] = [
    *((_AsDict, name) for name in ("collections.defaultdict", *(f"{m}.AttributeDict" for m in _OF_LIGHTNING))),
    *((_Ignored, name) for name in ("argparse.Namespace", "types.SimpleNamespace", "builtins.int")),
    *((_Ignored, f"pathlib{m}.{name}") for m in ("", "._local") for name in ("Path", "PosixPath", "WindowsPath")),
    *((_Ignored, f"numpy.{name}") for name in ("dtype", "ndarray", "random._pickle.__randomstate_ctor")),
    *((_Ignored, f"numpy.{m}.multiarray.{name}") for m in ("core", "_core") for name in ("scalar", "_reconstruct")),
]


def _unpickled(path: Path) -> Any:
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(_STAND_INS), path.open("rb") as file:
            warnings.simplefilter("ignore")  # of torch's unpickler, about files that are refused anyway
            # Mapped, not read, where the format can be: shapes are compared before memory is taken. It maps what it
            # is given by path; but by a path that ends so, it would take the file for safetensors.
            mapped = zipfile.is_zipfile(path) and path.suffix != ".safetensors"
            return torch.load(path if mapped else file, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL (\S+)", str(error))
        raise InputError(
            f"{path}: is not a plain table of weights (a pickle with other objects or code is never opened"
            f"{f', and this one names {named[1][:80]}' if named else ''}); save the model's state_dict() alone"
        ) from None
    except Exception as error:  # of a damaged file, torch's unpickler raises nearly every kind
        detail = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: not a checkpoint that torch can read ({detail[:120]})") from None


def save_pickled(content: Any, file: Path) -> None:
    """Write ``content`` as `torch.save` does. InputError where the disk refuses, which it tells of otherwise."""
    try:
        torch.save(content, file)
    except RuntimeError as error:
        raise InputError(f"{file}: cannot be written; is the disk full? ({str(error).splitlines()[0]})") from None
