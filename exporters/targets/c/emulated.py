"""Instructions of one segment on an emulated microcontroller: `arm-none-eabi-gcc` builds, QEMU counts."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from ....runtimes.c.weights import WEIGHTS

_TEMPLATES = Path(__file__).parent / "templates" / "cortex-m"
_CC, _QEMU = "arm-none-eabi-gcc", "qemu-system-arm"
_CPU = ("-mcpu=cortex-m7", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv5-sp-d16")
_FLAGS = ("-std=c99", "-O3", "-fno-math-errno", "-ffunction-sections", "-I.")
_LINK = ("-nostartfiles", "--specs=nano.specs", "--specs=nosys.specs", "-Wl,--gc-sections", "-Tcount.ld", "-lm")
_MACHINE = ("-M", "mps2-an500", "-nographic", "-monitor", "none", "-serial", "none", "-icount", "shift=0")
_HOST = ("-semihosting-config", "enable=on,target=native")
_SECONDS = 300  # for each of the two
COUNTED_BY = "a Cortex-M7 in QEMU"


def instructions(bundle: Path) -> int | None:
    """What one segment of a bundle of C takes; None: the tools are absent, or it is too large for the machine."""
    if (bundle / WEIGHTS).exists() or not (shutil.which(_CC) and shutil.which(_QEMU)):
        return None
    with tempfile.TemporaryDirectory(prefix="hrm-edge-cortex-m-") as scratch:
        folder = Path(scratch)
        sources = [bundle / "hrm.h", bundle / "hrm.c", *_TEMPLATES.iterdir()]
        for file in sources:
            (folder / file.name).write_bytes(file.read_bytes())
        if _said(folder, _CC, *_CPU, *_FLAGS, "count.c", "hrm.c", *_LINK, "-o", "count.elf") is None:
            return None
        told = _said(folder, _QEMU, *_MACHINE, *_HOST, "-kernel", "count.elf")
    return int(told) if told and told.isdecimal() else None


def _said(folder: Path, *command: str) -> str | None:
    """What a command prints, wherever it prints it; None: it failed."""
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return (done.stdout + done.stderr).strip() if done.returncode == 0 else None
