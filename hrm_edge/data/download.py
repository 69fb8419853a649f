"""The public puzzle sets from the Hugging Face Hub: fetched beside their place, checked, then put there."""

from __future__ import annotations

import errno
import gzip
import shutil
from pathlib import Path

from ..errors import InputError
from ..files import replacing_file
from ..packages import install
from ..tasks import get_task
from ..workspace import NEW, behind, workspace
from .puzzles import PuzzleSet, check_writable, load_puzzles, save_puzzles

# Dataset repositories with `train.csv` and `test.csv` (source,question,answer,rating), and the task they hold.
PUBLIC_SETS = {
    "sapientinc/sudoku-extreme": "sudoku",
    "sapientinc/maze-30x30-hard-1k": "maze-30x30",
}


def download(name: str, split: str, output: Path) -> PuzzleSet:
    """Fetch ``split`` (train or test) of a public set into ``output``: a .csv, a .csv.gz or a .npy folder.

    A CSV is kept as published, with its ratings, once every answer in it was seen to be right. Whatever goes
    wrong (no network, an interrupted or damaged download, a full disk) raises InputError and leaves nothing.
    """
    if name not in PUBLIC_SETS:
        raise InputError(f"unknown public set {name!r}; there are {', '.join(PUBLIC_SETS)}")
    if split not in ("train", "test"):
        raise InputError(f"--split {split}: choose train or test")
    check_writable(output)
    place = behind(output)
    try:
        # On the disk that `output` will be on, as another may be too small.
        with workspace(place.with_name(f"{place.name}.download")) as scratch:
            (scratch / NEW).mkdir()
            file = _fetch(name, f"{split}.csv", scratch / NEW)
            try:
                puzzles = load_puzzles(file, get_task(PUBLIC_SETS[name]))
            except InputError as error:
                wrong = str(error).removeprefix(f"{file} ")
                raise InputError(f"what came of {name} {file.name} is damaged, nothing was kept: {wrong}") from None
            if output.suffix == "":
                save_puzzles(puzzles, output)
            else:
                _publish(file, output)
    except OSError as error:
        raise InputError(f"cannot write {output}: {error.strerror or error}") from None
    return puzzles


def _fetch(name: str, filename: str, folder: Path) -> Path:
    try:
        import huggingface_hub
        from huggingface_hub import errors
    except ImportError:
        raise InputError(f"downloading needs huggingface_hub; install it: {install('hub')}") from None
    huggingface_hub.logging.set_verbosity_error()  # its retries are no news: the last one's failure is
    what = f"cannot download {filename} of {name}"
    try:
        return Path(huggingface_hub.hf_hub_download(name, filename, repo_type="dataset", local_dir=folder))
    except errors.LocalEntryNotFoundError:
        raise InputError(f"{what}: the Hub cannot be reached; check the network and try again") from None
    except (errors.RepositoryNotFoundError, errors.EntryNotFoundError):
        raise InputError(f"{what}: the Hub has no such file (any more), or it needs a login") from None
    except Exception as error:  # whatever the client, its HTTP library and its transfer library raise
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise InputError(f"{what}: the disk that holds {folder.parent} is full") from None
        reason = next(iter(str(error).strip().splitlines()), "") or "no reason given"
        raise InputError(f"{what}: {type(error).__name__}: {reason}; try again") from None


def _publish(file: Path, output: Path) -> None:
    """Put a fetched CSV at ``output``, compressed if it is called so."""
    with open(file, "rb") as plain, replacing_file(output, result=True) as scratch, open(scratch, "wb") as out:
        if output.suffix == ".gz":
            # no name and time in it: equal puzzles give equal bytes
            with gzip.GzipFile("", "wb", fileobj=out, mtime=0) as packed:
                shutil.copyfileobj(plain, packed)
        else:
            shutil.copyfileobj(plain, out)
