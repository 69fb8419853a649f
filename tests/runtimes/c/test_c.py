"""Bundles of C: compiled here, kept where nobody else can write, and answering as every engine does."""

import os
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

pytest.importorskip("onnxscript")

import shared_traces
from small_networks import TASK, checkpoint, network
from traced_networks import CONFIGS

from hrm_edge.errors import InputError
from hrm_edge.export import GateOptions, export_bundle
from hrm_edge.exporters import build
from hrm_edge.exporters.options import ExportOptions
from hrm_edge.models.engine import TorchEngine
from hrm_edge.runtimes import _kept, load_engine
from hrm_edge.runtimes.c import BACKEND, compiler, trust

pytestmark = pytest.mark.skipif(not compiler.find()[0], reason="there is no C compiler")
QUESTIONS = TASK.generate(7, np.random.default_rng(5))[0]


@pytest.fixture(scope="module")
def model():
    return checkpoint(network(**CONFIGS["grid"]))


@pytest.fixture(scope="module")
def bundle(model, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HRM_EDGE_CACHE", str(tmp_path_factory.mktemp("cache")))
        for name in ("trace_start", "trace_segment"):
            patch.setattr(build, name, getattr(shared_traces, name))
        folder = tmp_path_factory.mktemp("bundles") / "b"
        export_bundle(model, ExportOptions.for_target("c"), folder, GateOptions(None))
        yield folder


@pytest.fixture
def scratch(monkeypatch, tmp_path):
    """A cache and a folder for temporary files that nobody has used."""
    for name in ("cache", "temporary"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HRM_EDGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setattr(trust, "_exported", set(trust._exported))
    return tmp_path


def same(ours, theirs):
    for name in ("tokens", "steps", "halted"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
    np.testing.assert_allclose(ours.q, theirs.q, atol=1e-4)


@pytest.mark.parametrize("halt", ["learned", "fixed", "verified"])
def test_answers_are_pytorchs_however_they_are_asked(bundle, model, halt):
    reference = TorchEngine(model)
    for threads, steps in ((1, None), (2, 9)):
        engine = load_engine(bundle, threads)
        wanted = reference.solve(QUESTIONS, steps, halt, True)
        traced = engine.solve(QUESTIONS, steps, halt, True)
        same(engine.solve(QUESTIONS, steps, halt), wanted)
        same(traced, wanted)
        np.testing.assert_array_equal(traced.trace, wanted.trace)


def test_several_callers_at_once_do_not_disturb_each_other(bundle):
    engine = load_engine(bundle, threads=1)
    alone = [engine.solve(row[None]) for row in QUESTIONS]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            together = list(pool.map(lambda row: engine.solve(row[None]), QUESTIONS))
            for name in ("tokens", "steps", "halted", "q"):
                assert np.array_equal(*([getattr(each, name) for each in side] for side in (together, alone)))


def test_segment_by_segment_is_the_same_thinking(bundle, model):
    engine = load_engine(bundle, threads=1)
    one = engine.request(QUESTIONS[:1], 3, "fixed")
    reference = TorchEngine(model).segments(one)
    for ours, theirs, _ in zip(engine.segments(one), reference, range(4), strict=False):
        np.testing.assert_array_equal(ours.guess, theirs.guess)
        np.testing.assert_allclose(ours.logits, theirs.logits, atol=1e-4)
        for mine, wanted in zip(ours.state, theirs.state, strict=True):
            np.testing.assert_allclose(mine, wanted, atol=1e-4)


def test_a_source_from_elsewhere_runs_only_when_the_user_says_so(bundle, scratch, monkeypatch):
    trust._exported.clear()
    with pytest.raises(InputError, match="HRM_EDGE_TRUST_SOURCE=1"):
        load_engine(bundle)
    monkeypatch.setenv("HRM_EDGE_TRUST_SOURCE", "1")
    assert load_engine(bundle).solve(QUESTIONS).tokens.shape == QUESTIONS.shape


def test_what_was_compiled_is_kept_unless_others_could_have_written_it(bundle, scratch, monkeypatch):
    made, really = [], compiler._build
    monkeypatch.setattr(compiler, "_build", lambda *arguments: made.append(1) or really(*arguments))
    load_engine(bundle)
    load_engine(bundle)
    assert len(made) == 1
    (kept,) = (scratch / "cache" / "c").glob("*.so")
    assert kept.stat().st_mode & 0o077 == 0
    whole = kept.read_bytes()

    def spoil():
        yield kept.write_bytes(whole[:-1] + b"x")
        yield kept.chmod(0o666)
        kept.rename(scratch / "elsewhere")
        yield kept.symlink_to(scratch / "elsewhere")
        assert (scratch / "elsewhere").read_bytes() == whole

    for number, _ in enumerate(spoil(), 2):
        load_engine(bundle)
        assert len(made) == number
        assert not kept.is_symlink()
        kept.write_bytes(whole)
        kept.chmod(0o600)
    assert not list((scratch / "temporary").iterdir())


def test_what_was_kept_for_one_source_does_not_stand_for_another(scratch):
    """In a folder that others may write they can give our own files other names."""
    trust.trust(b"header", b"ours")
    trust._exported.clear()
    trust.require_trusted(b"header", b"ours", "b")
    trust._place(trust._digest(b"header", b"ours")).rename(trust._place(trust._digest(b"header", b"theirs")))
    with pytest.raises(InputError, match="was not exported here"):
        trust.require_trusted(b"header", b"theirs", "b")
    place = scratch / "cache" / "c" / "one.so"
    _kept.keep(place, b"library")
    assert _kept.kept(place) == b"library"
    assert _kept.kept(place.rename(place.with_name("other.so"))) is None


def test_threads_that_keep_files_leave_the_umask_alone(scratch, monkeypatch):
    """It is the whole process's."""
    monkeypatch.setattr(os, "umask", lambda mask: pytest.fail("the umask was changed"))
    _kept.keep(scratch / "cache" / "c" / "one.so", b"library")
    assert _kept.kept(scratch / "cache" / "c" / "one.so") == b"library"


def test_a_cache_that_cannot_be_written_costs_only_time(bundle, scratch, monkeypatch):
    monkeypatch.setenv("HRM_EDGE_CACHE", os.devnull + "/nowhere")
    assert load_engine(bundle).solve(QUESTIONS).tokens.shape == QUESTIONS.shape
    assert not list((scratch / "temporary").iterdir())


def test_a_compiler_that_is_none_is_told_in_a_line(bundle, scratch, monkeypatch):
    monkeypatch.setenv("CC", "no-such-compiler -O2")
    assert BACKEND.available()[:3] == (False, None, "CC names no-such-compiler, which is not on the PATH")
    with pytest.raises(InputError, match="no-such-compiler"):
        load_engine(bundle)
    monkeypatch.setenv("CC", f"{shutil.which('cc') or shutil.which('gcc')} -fno-such-thing-at-all")
    with pytest.raises(InputError, match=r"can not be compiled .*no-such-thing-at-all") as told:
        load_engine(bundle)
    assert "\n" not in str(told.value)
    monkeypatch.setenv("CC", "cc '")
    assert not BACKEND.available().usable
    assert not list((scratch / "temporary").iterdir())


def test_a_cc_with_fast_math_answers_as_one_without():
    command, _ = compiler.find()
    loose = (*command, "-ffast-math")
    assert "__FAST_MATH__" in compiler._run([*loose, "-dM", "-E", "-x", "c", os.devnull])
    assert compiler._flags(loose) == compiler._flags(command)


def test_rows_of_a_call_are_not_for_the_export_to_choose():
    with pytest.raises(InputError, match="--batch 4: C code takes one puzzle at a time"):
        ExportOptions.for_target("c", batch=4)
    with pytest.raises(InputError, match="--loop graph: not for c; choose host"):
        ExportOptions.for_target("c", loop="graph")
