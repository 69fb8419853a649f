"""What a C program sees of a bundle: its README's functions, and two models in one program."""

import re
import shutil
import subprocess

import numpy as np
import pytest
from c_sources import COMPILERS, WARNINGS, answers, compiled, written
from small_networks import checkpoint, network
from traced_networks import calibration
from ungated import build_bundle

from hrm_edge.exporters.options import ExportOptions
from hrm_edge.exporters.targets.c.target import RENAMING
from hrm_edge.portable.readme import README
from hrm_edge.runtimes.c.weights import WEIGHTS

ONE, OTHER = ("rope", "fp32"), ("grid", "int8")
# Both models answer the question on standard input, in turn and with states of their own.
BOTH = """
#include <stdio.h>
#include "hrm.h"
#include "other.h"
static hrm_state one;
static other_state another;
int main(void)
{
    int32_t tokens[HRM_SEQ_LEN], answer[HRM_SEQ_LEN], theirs[OTHER_SEQ_LEN];
    for (int i = 0; i < HRM_SEQ_LEN; i++)
        if (scanf("%d", &tokens[i]) != 1)
            return 1;
    int32_t steps = hrm_solve(&one, tokens, 0, 4, HRM_HALT_FIXED, answer);
    int32_t others = other_solve(&another, tokens, 0, 4, OTHER_HALT_FIXED, theirs);
    for (int i = 0; i < HRM_SEQ_LEN * HRM_VOCAB; i++)
        printf("%.9g %.9g ", (double)hrm_logits(&one)[i], (double)other_logits(&another)[i]);
    return steps != 4 || others != 4;
}
"""


@pytest.fixture
def pair(tmp_path):
    """Two models in a folder: one as it was written, the other renamed as a bundle's README says."""
    for made, rename in ((written(*OTHER), True), (written(*ONE), False)):
        (tmp_path / "hrm.h").write_text(made.header)
        (tmp_path / "hrm.c").write_text(made.source)
        if rename:
            subprocess.run(["sh", "-ec", RENAMING], cwd=tmp_path, check=True)
    return tmp_path


@pytest.mark.skipif(not COMPILERS or not shutil.which("sed"), reason="no C compiler, or no sed")
def test_two_models_in_one_program_compute_what_each_computes_alone(pair):
    (pair / "both.c").write_text(BOTH)
    command = [COMPILERS[0], *WARNINGS, "-O2", "both.c", "hrm.c", "other.c", "-o", "both", "-lm"]
    done = subprocess.run(command, cwd=pair, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    alone = []
    for name in (ONE, OTHER):
        (pair / name[0]).mkdir()
        alone.append(compiled(pair / name[0], written(*name), COMPILERS[0], "-O2"))
    for question in calibration().questions[:3]:
        text = " ".join(map(str, question))
        told = subprocess.run([pair / "both"], input=text, capture_output=True, text=True, check=True).stdout
        found = np.array(told.split(), np.float32).reshape(-1, 2)
        for column, program in enumerate(alone):
            numbers, _ = answers(program, question)
            np.testing.assert_array_equal(found[:, column], numbers[-1, 2:])


@pytest.mark.skipif(not COMPILERS, reason="no C compiler")
def test_the_header_of_another_model_is_an_error_and_the_same_one_is_not(tmp_path):
    for folder, name in (("one", ONE), ("two", (ONE[0], "int8"))):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "hrm.h").write_text(written(*name).header)

    def done(*headers):
        text = "".join(f'#include "{folder}/hrm.h"\n' for folder in headers) + "int x;\n"
        command = [COMPILERS[-1], *WARNINGS, "-fsyntax-only", "-x", "c", "-I", tmp_path, "-"]
        return subprocess.run(command, input=text, capture_output=True, text=True, check=False)

    assert done("one", "one").returncode == done("two", "two").returncode == 0
    told = done("one", "two")
    assert told.returncode != 0
    assert "another model's hrm.h is included already" in told.stderr


@pytest.mark.parametrize("apart", [False, True])
def test_the_readme_tells_the_functions_that_the_header_declares(one_trace, tmp_path, monkeypatch, apart):
    from hrm_edge.exporters.targets.c import source

    if apart:
        monkeypatch.setattr(source, "MOST_NUMBERS", 0)
    monkeypatch.setenv("HRM_EDGE_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "b"
    folder.mkdir()
    identifiers = {"num_puzzle_identifiers": 3, "puzzle_emb_ndim": 8} if apart else {}
    manifest = build_bundle(
        checkpoint(network(H_cycles=1, L_cycles=1, **identifiers)), ExportOptions.for_target("c"), folder, "small"
    )
    text, header = (folder / README).read_text(), (folder / "hrm.h").read_text()
    declared = re.findall(r"^\w[\w *]*\b(hrm_\w+)\(", header, re.M)
    assert {"hrm_begin", "hrm_segment", "hrm_solve", "hrm_says_stop"} <= set(declared)
    assert ("hrm_take_weights" in declared) == apart == (f"in `{WEIGHTS}`" in text)
    (shown,) = re.findall(r"## Functions\n.*?```c\n(.*?)\n```", text, re.S)
    assert re.findall(r"^\w[\w *]*\b(hrm_\w+)\(", shown, re.M) == declared
    assert f"{manifest.architecture['ram_bytes']:,} bytes of RAM" in text
    assert "arena[" not in text
    assert text.count("| `hrm.c` |") == 1
    assert RENAMING in text
    assert ("`puzzle_row` tells which kind of puzzle it is" in text) == apart
    for of_graphs in ("z_H", "Every call takes", "## Inputs and outputs", "The loop is yours"):
        assert of_graphs not in text
