"""What a file is that is not what its name says: people are told that, rather than that it is damaged."""

from __future__ import annotations

from pathlib import Path

_BEGINNING = 1024  # bytes that are looked at

# How a file begins → what it is, and what to do.
_KNOWN: tuple[tuple[bytes, str], ...] = (
    (
        b"version https://git-lfs.github.com/",
        "a git-lfs pointer, not the file it stands for; run `git lfs pull` there",
    ),
    (b"/annex/objects/", "a git-annex pointer, not the file it stands for; run `git annex get` there"),
    (b"\x1f\x8b", "compressed with gzip; unpack it first"),
    (b"BZh", "compressed with bzip2; unpack it first"),
    (b"\xfd7zXZ\0", "compressed with xz; unpack it first"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd; unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive; unpack it first"),
    (b"Rar!", "a RAR archive; unpack it first"),
    (b"%PDF", "a PDF"),
    (b"\x89PNG", "an image"),
    (b"\x89HDF\r\n", "an HDF5 file, as Keras writes"),
    (b"GGUF", "a GGUF file"),
    (b"PAR1", "a Parquet file"),
)
_PAGES = (b"<!doctype", b"<html", b"<head", b"<?xml", b"<!--")


def what_it_is(path: Path) -> str | None:
    """What a file's first bytes tell of it ("an HTML page …"), with what to do; None where they tell nothing."""
    try:
        with path.open("rb") as file:
            start = file.read(_BEGINNING)
    except OSError:
        return None
    if not start:
        return "empty; fetch or write it again"
    for beginning, what in _KNOWN:
        if start.startswith(beginning):
            return what
    if not start.strip(b"\0"):
        return "nothing but zeros, as a download that was cut off leaves; fetch it again"
    shown = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if shown.startswith(_PAGES) or (shown.startswith(b"<") and _is_text(start)):
        return "a web page, as a server sends in place of a file that needs a login; fetch the file itself"
    if len(start) > 257 + 5 and start[257:262] == b"ustar":
        return "a tar archive; unpack it first"
    return "text" if _is_text(start) else None


def _is_text(start: bytes) -> bool:
    try:
        # A character may be cut at the end.
        text = start.decode("utf-8") if len(start) < _BEGINNING else start[:-3].decode("utf-8", "ignore")
    except UnicodeDecodeError:
        return False
    return (
        "\ufffd" not in text
        and all(c.isprintable() or c in "\t\r\n" for c in text)
        and len(text) * 2 > len(start[:-3])
    )
