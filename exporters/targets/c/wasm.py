"""WebAssembly of a bundle of C: one module without imports, with 128-bit vectors, from clang and its linker alone.

The module exports ``memory``, every function of ``hrm.h``, and where its own memory for one caller lies::

    const { instance } = await WebAssembly.instantiate(bytes);
    const { memory, hrm_begin, hrm_segment, hrm_wasm_state, hrm_wasm_tokens } = instance.exports;
    new Int32Array(memory.buffer, hrm_wasm_tokens(), hrm_wasm_seq_len()).set(tokens);
    hrm_begin(hrm_wasm_state(), hrm_wasm_tokens(), 0);
    hrm_segment(hrm_wasm_state());
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from ....errors import InputError
from ....files import read_text, write_atomically
from ....runtimes.c.trust import require_trusted
from ....runtimes.c.weights import WEIGHTS
from ....text import printable

_TEMPLATES = Path(__file__).parent / "templates"
_NEEDED = ("clang", "wasm-ld")
_FLAGS = (
    "--target=wasm32",
    "-std=c99",
    "-O3",
    "-msimd128",
    "-mbulk-memory",
    "-ffreestanding",
    "-fno-math-errno",
    "-nostdlib",
    "-Wl,--no-entry",
    "-Wl,--strip-all",
    "-Wl,-z,stack-size=65536",
)
# Where distributions put functions such as erff, which some networks call; only what is called gets in.
_LIBRARIES = ("/usr/lib/wasm32-wasi/libc.a",)


def missing() -> str | None:
    """Why no module can be built here; None: it can."""
    absent = [name for name in _NEEDED if shutil.which(name) is None]
    return f"{' and '.join(absent)} not on the PATH" if absent else None


def build(bundle: Path, output: Path) -> int:
    """Write the module of a bundle of C to ``output``; returns its bytes.

    Raises:
        InputError: clang or wasm-ld is absent, the bundle holds no source that was exported here, or that does not
            compile.
    """
    if why := missing():
        raise InputError(f"WebAssembly needs clang and lld: {why}; install them (apt-get install clang lld)")
    try:
        header, source = ((bundle / name).read_bytes() for name in ("hrm.h", "hrm.c"))
    except OSError as error:
        raise InputError(f"{bundle}: holds no C source ({error.strerror}); export with --target c") from None
    require_trusted(header, source, bundle)
    if (bundle / WEIGHTS).exists():
        raise InputError(
            f"{bundle}: its weights ({WEIGHTS}) are too many for a module that holds them; export for onnx"
        )
    with tempfile.TemporaryDirectory(prefix="hrm-edge-wasm-") as scratch:
        folder = Path(scratch)
        (folder / "hrm.h").write_bytes(header)
        (folder / "hrm.c").write_bytes(source)
        for name in ("math.h", "wasm.c"):
            (folder / name).write_bytes((_TEMPLATES / name).read_bytes())
        command = ["clang", *_FLAGS, "-I.", *map("-Wl,--export={}".format, _functions(folder))]
        command += ["hrm.c", "wasm.c", *(name for name in _LIBRARIES if Path(name).exists()), "-o", "hrm.wasm"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if "error" in line] or ["clang failed"]
            raise InputError(printable(f"{bundle}: does not compile to WebAssembly: {lines[0]}"))
        module = (folder / "hrm.wasm").read_bytes()
    write_atomically(output, module)
    return len(module)


def _functions(folder: Path) -> list[str]:
    """Names of all functions that a caller may use."""
    texts = [read_text(folder / name) for name in ("hrm.h", "wasm.c")]
    return sorted({name for text in texts for name in re.findall(r"^[\w ]+[ *](hrm_\w+)\(", text, re.MULTILINE)})
