"""Target c: what may be asked for, and what a bundle of C says of itself."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ....errors import InputError
from ....files import read_text
from ..base import Context, DeviceFigures, Target, Tools, Written, as_in_graphs

# What a bundle's README says of calling it; the declarations are the header's own.
_FUNCTIONS = """\
`hrm.h` declares them, and `hrm.c` has them for any C99 compiler; of the C library they call `<math.h>` alone,
and nothing is allocated. One caller needs an `hrm_state`, {ram:,} bytes of RAM, which the program keeps where it
likes; callers with a state each may think at the same time. Weights and code are about {flash:,} bytes of
flash{apart}.

```c
{declared}
```

### Two models in one program

All names begin with `hrm_` or `HRM_`, so two models cannot stand in one program as they are: a second `hrm.h` is an
`#error`. In a copy of this folder, give one of them names of its own, here `other_` and `OTHER_`:

```sh
{renaming}
```

Then one file may include both headers, and the program is linked of both sources: `other_solve` answers puzzles of
`OTHER_SEQ_LEN` cells."""
_RENAMING = """sed 's/hrm_/other_/g; s/HRM_/OTHER_/g; s/"hrm[.]h"/"other.h"/' {file} > other{end}"""
RENAMING = "\n".join(_RENAMING.format(file="hrm" + end, end=end) for end in (".h", ".c"))

if TYPE_CHECKING:
    from pathlib import Path

    import onnx

    from ....bundle import Manifest
    from ....portable.readme import Interface
    from ...options import ExportOptions

# Bytes that an artifact takes, in the manifest's architecture; of them, those of a file of weights.
RAM, FLASH, APART = "ram_bytes", "flash_bytes", "weights_file_bytes"


class CTarget(Target):
    """Self-contained C99: weights as arrays or a file to map, the halting loop included, one puzzle at a time."""

    name, order = "c", 6
    precisions = ("fp32", "int8")
    loops, default_loop = ("host",), "host"
    always_audited = True
    # Compiling takes seconds, and a search for a plan tries dozens of candidates.
    emulated = True

    def write(self, graphs: dict[str, onnx.ModelProto], context: Context) -> Written:
        """Write ``hrm.h`` and ``hrm.c``, which holds both graphs, and many weights as a file.

        InputError: an operator has no form in C.
        """
        from ....identifiers import ranges_in_table
        from ....runtimes.c.trust import trust
        from ....runtimes.c.weights import WEIGHTS
        from ...graph.edit import copied
        from ...graph.passes import fix_batch
        from .source import write_source

        single = {stem: copied(model) for stem, model in graphs.items()}
        for model in single.values():
            fix_batch(model, 1)
        checkpoint = context.checkpoint
        made = write_source(
            single["start"],
            single["segment"],
            checkpoint.task,
            name=checkpoint.name,
            max_think_steps=checkpoint.config.halt_max_steps,
            no_ACT_continue=checkpoint.config.no_ACT_continue,
            identifiers=ranges_in_table(checkpoint.config.num_puzzle_identifiers, checkpoint.kept_identifiers),
        )
        (context.folder / "hrm.h").write_bytes(made.header.encode())
        (context.folder / "hrm.c").write_bytes(made.source.encode())
        trust(made.header.encode(), made.source.encode())
        facts = {RAM: made.sizes.state, FLASH: made.sizes.flash}
        if made.weights:
            made.weights.write(context.folder / WEIGHTS)
            facts[APART] = made.weights.bytes
        return replace(as_in_graphs(dict.fromkeys(single, "hrm.c"), single), facts=facts)

    def check(self, options: ExportOptions) -> None:
        if options.batch is not None:
            raise InputError(
                f"--batch {options.batch}: C code takes one puzzle at a time, and its runtime any number; leave it "
                "out"
            )

    def summary(self, options: ExportOptions, manifest: Manifest) -> str:
        sizes = [manifest.architecture.get(name, 0) / 1000 for name in (RAM, FLASH)]
        return f", {sizes[0]:.0f} kB of RAM for each caller, about {sizes[1]:.0f} kB of flash"

    def device_figures(self, folder: Path, manifest: Manifest) -> DeviceFigures:
        from .emulated import COUNTED_BY, instructions

        figures, counted = super().device_figures(folder, manifest), instructions(folder)
        return figures if counted is None else figures._replace(instructions=counted, emulated=COUNTED_BY)

    def notes(self, options: ExportOptions) -> Sequence[str]:
        return ("hrm.c compiles with any C99 compiler: cc -std=c99 -O3 -c hrm.c",)

    def interface(self, folder: Path, manifest: Manifest) -> Interface:
        from ....portable.readme import Interface

        facts = manifest.architecture
        apart = f", of them {facts[APART]:,} in `weights.bin`" if APART in facts else ""
        text = _FUNCTIONS.format(
            ram=facts[RAM],
            flash=facts[FLASH],
            apart=apart,
            declared=_declared(read_text(folder / "hrm.h")),
            renaming=RENAMING,
        )
        return Interface(text, "`hrm_solve`", "halt_mode")

    def tools(self, gpus: Sequence[str]) -> Tools:
        from ....runtimes.c.compiler import find

        return Tools("C99", None, None if find()[0] else "only with --no-gate: the gate needs a C compiler")


def _declared(header: str) -> str:
    """What a header has for its callers: all but its guards, and the members of the state."""
    inside = header.partition('extern "C" {\n#endif\n')[2].rpartition("#ifdef __cplusplus")[0].strip()
    return re.sub(r"(?s)(typedef struct hrm_state) \{.*?\} hrm_state;", r"\1 hrm_state;", inside)


TARGET = CTarget()
