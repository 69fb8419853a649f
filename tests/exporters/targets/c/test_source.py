"""The C that is written: no warning of a compiler, clean under sanitizers, and what the graphs say."""

import shutil

import numpy as np
import pytest
from c_sources import (
    ARM_CC,
    ARM_EMULATOR,
    ARM_FLAGS,
    ARM_MISSING,
    COMPILERS,
    DOTTED,
    SEGMENTS,
    UNDOTTED,
    answers,
    compiled,
    expected,
    graphs,
    sanitizers,
    written,
)
from small_networks import TASK
from traced_networks import CONFIGS, calibration, expected_products, traced

from hrm_edge.errors import InputError
from hrm_edge.exporters.graph.edit import PassFailed, rename
from hrm_edge.exporters.graph.passes import fix_batch
from hrm_edge.exporters.targets.c.source import write_source
from hrm_edge.halting import RULES, HaltRule
from hrm_edge.runtimes.c import BACKEND
from hrm_edge.runtimes.c.weights import WEIGHTS

pytestmark = pytest.mark.skipif(not COMPILERS, reason="neither gcc nor clang is installed")
NO_ARM = pytest.mark.skipif(bool(ARM_MISSING), reason=f"not installed: {', '.join(ARM_MISSING)}")


@pytest.mark.parametrize("number", range(len(CONFIGS)))
def test_every_network_computes_what_its_graphs_say(number, tmp_path):
    """Under both sanitizers, with every compiler in turn, with and without vectors."""
    name, compiler = list(CONFIGS)[number], COMPILERS[number % len(COMPILERS)]
    model, start, segment = graphs(name)
    plain = ("-DHRM_PLAIN",) if number % 3 == 0 else ("-march=native",)
    program = compiled(tmp_path, written(name), compiler, "-O1", *sanitizers(compiler), *plain)
    identifier = model.config.num_puzzle_identifiers - 1
    for question in calibration().questions[:2]:
        numbers, (learned, fixed, verified) = answers(program, question, identifier)
        wanted = expected(model, start, segment, question, identifier)
        np.testing.assert_allclose(numbers, wanted, atol=2e-4)
        guesses = wanted[:, 2:].reshape(SEGMENTS, TASK.seq_len, -1).argmax(-1)
        stops = wanted[:, 0] > (0 if model.config.no_ACT_continue else wanted[:, 1])
        right = TASK.verify(np.repeat(question[None], SEGMENTS, 0), guesses.astype(np.int32))
        for (steps, *answer), halts in ((learned, stops), (fixed, stops & False), (verified, right)):
            assert steps == (halts.argmax() + 1 if halts.any() else SEGMENTS)
            assert answer == guesses[steps - 1].tolist()


@pytest.mark.parametrize(
    "other",
    [
        ("clang", "-O3", "-march=native"),
        ("gcc", "-O3", "-march=native", "-DHRM_PLAIN"),
        ("gcc", "-O1", "-fsanitize=undefined"),
        ("gcc", "-std=gnu99", "-O3", "-march=native", "-ffp-contract=fast"),
        (ARM_CC, *ARM_FLAGS, DOTTED),
        (ARM_CC, *ARM_FLAGS, UNDOTTED),
    ],
)
def test_int8_is_the_same_bits_on_every_machine(other, tmp_path):
    """A last bit that differed would turn a rounding over, and answers with it."""
    emulator = [ARM_EMULATOR] if other[0] == ARM_CC else []
    for tool in (other[0], *emulator):
        if not shutil.which(tool):
            pytest.skip(f"{tool} is not installed")
    source = written("grid", "int8")
    (tmp_path / "other").mkdir()
    native = compiled(tmp_path, source, COMPILERS[0], "-O3", "-march=native")
    elsewhere = compiled(tmp_path / "other", source, *other)
    for question in calibration().questions[:3]:
        numbers, halting = answers(native, question)
        theirs, also = answers(elsewhere, question, emulator=emulator)
        np.testing.assert_array_equal(theirs, numbers)
        assert also == halting


@NO_ARM
def test_an_arm_core_computes_what_the_graphs_say(tmp_path):
    model, start, segment = graphs("grid")
    program = compiled(tmp_path, written("grid"), ARM_CC, *ARM_FLAGS, DOTTED)
    for question in calibration().questions[:2]:
        numbers, _ = answers(program, question, emulator=[ARM_EMULATOR])
        np.testing.assert_allclose(numbers, expected(model, start, segment, question), atol=2e-4)


@pytest.mark.parametrize(("name", "precision"), [("rope", "fp32"), ("units", "fp32"), ("grid", "int8")])
def test_weights_in_a_file_of_their_own_compute_the_same_to_the_last_bit(name, precision, tmp_path):
    """Under both sanitizers; the driver also sees that weights of another model, or fewer, are not taken."""
    checks = ("-O1", *sanitizers(COMPILERS[-1]), "-march=native")
    told = []
    for apart in (False, True):
        made = written(name, precision, apart)
        (tmp_path / str(apart)).mkdir()
        program = compiled(tmp_path / str(apart), made, COMPILERS[-1], *checks)
        told.append([answers(program, question) for question in calibration().questions[:2]])
        assert (made.weights is not None) == apart
    for (numbers, halting), (theirs, also) in zip(*told, strict=True):
        np.testing.assert_array_equal(numbers, theirs)
        assert halting == also
    assert "hrm_k0[" not in made.source
    assert (tmp_path / "True" / WEIGHTS).stat().st_size == made.weights.bytes == made.sizes.weights
    assert all(begin % 64 == 0 for _, begin in made.weights.arrays.values())


def test_products_are_counted_from_the_calls(tmp_path):
    (tmp_path / "hrm.c").write_text(written("rope").source)
    found = {product.name: product.left for product in BACKEND.compiled_products(tmp_path / "hrm.c")}
    assert set(expected_products(traced("rope")[0])) <= set(found)
    assert set(found.values()) == {"float32"}


def test_code_does_not_grow_with_the_steps_of_a_segment():
    """Each block is one function; every call more is a line."""
    calls = [line for line in written("rope").source.splitlines() if line.lstrip().startswith("hrm_block_1(")]
    assert len(calls) > 4
    assert written("rope").source.count("static void hrm_block_") == 1
    assert written("rope").sizes.code < 15_000


def test_an_operator_without_a_form_in_c_is_named():
    _, start, segment = traced("grid")
    for graph in (start, segment):
        fix_batch(graph, 1)
    next(node for node in segment.graph.node if node.op_type == "Sigmoid").op_type = "HardSwish"
    with pytest.raises(InputError, match=r"the operator HardSwish .* has no form in C"):
        write_source(start, segment, TASK, name="grid", max_think_steps=4, no_ACT_continue=True)


def test_a_numbered_rule_that_the_template_does_not_know_stops_the_export(monkeypatch):
    """`hrm_solve` would take its number, and never stop early."""
    monkeypatch.setitem(RULES, "once", HaltRule("once", 3, "at once", lambda task, questions, guesses, says: says))
    with pytest.raises(PassFailed, match=r"no form for the halting rules \['once'\]"):
        written.__wrapped__("rope")


def test_a_state_tensor_may_be_called_by_a_word_of_c(tmp_path):
    _, start, segment = traced("grid")
    for graph in (start, segment):
        fix_batch(graph, 1)
        for old, new in (("z_H", "long"), ("z_L", "arena")):
            rename(graph.graph, {old: new, f"{old}_next": f"{new}_next"})
    source = write_source(start, segment, TASK, name="words", max_think_steps=4, no_ACT_continue=True)
    renamed = answers(compiled(tmp_path, source, COMPILERS[0]), calibration().questions[0])
    plain = answers(compiled(tmp_path, written("grid"), COMPILERS[0]), calibration().questions[0])
    np.testing.assert_array_equal(renamed[0], plain[0])
