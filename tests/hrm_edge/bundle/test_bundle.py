"""Bundles open whole and untouched or not at all, and every refusal is one line."""

import dataclasses
import hashlib
import json
import os
import shutil

import pytest
import toys
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hrm_edge.bundle import Gate, Manifest, TensorSpec, open_bundle, seal_bundle
from hrm_edge.errors import InputError
from hrm_edge.records import from_json


@pytest.fixture
def bundle(tmp_path):
    return toys.write_hollow_bundle(tmp_path / "b")


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return toys.write_hollow_bundle(tmp_path_factory.mktemp("shared") / "b")


def refusal(path) -> str:
    with pytest.raises(InputError) as caught:
        open_bundle(path)
    line = str(caught.value)
    assert "\n" not in line
    return line


def resealed(path, change) -> None:
    """Change the manifest as someone would who also knows how to fix its digest."""
    content = json.loads((path / "manifest.json").read_text())
    content.pop("digest")
    change(content)
    text = json.dumps(content, indent=2, sort_keys=True) + "\n"
    content["digest"] = hashlib.sha256(text.encode()).hexdigest()
    (path / "manifest.json").write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")


def test_what_was_written_is_what_is_read(bundle):
    opened = open_bundle(bundle)
    assert opened.manifest.task == "sudoku-4x4"
    assert opened.manifest.inputs["segment"][0] == TensorSpec("z_H", "float32", ("batch", 16, 4))
    assert set(opened.manifest.files) == {"start.onnx", "segment.onnx", "accuracy.json"}
    assert dataclasses.asdict(opened.accuracy)["n"] == toys.accuracy()["n"]
    assert opened.ungated_warning is None
    assert opened.size == sum(path.stat().st_size for path in bundle.iterdir() if path.name != "manifest.json")
    assert from_json(Manifest, json.dumps(dataclasses.asdict(opened.manifest)), "here") == opened.manifest


def test_same_content_same_bytes(tmp_path):
    one, two = (toys.write_hollow_bundle(tmp_path / name) for name in ("one", "two"))
    for path in one.iterdir():
        assert path.read_bytes() == (two / path.name).read_bytes()


def test_a_bundle_may_move_and_be_reached_through_a_link(bundle, tmp_path):
    shutil.copytree(bundle, tmp_path / "copy")
    (tmp_path / "link").symlink_to(tmp_path / "copy")
    assert open_bundle(str(tmp_path / "link")).manifest.name == "toy"


def test_sealed_again_after_the_gate(tmp_path):
    folder = tmp_path / "b"
    folder.mkdir()
    for name in ("start.onnx", "segment.onnx"):
        (folder / name).write_bytes(b"graph")
    seal_bundle(folder, toys.manifest(gate=Gate(False, None, "not yet")))
    assert open_bundle(folder).accuracy is None
    assert "never checked (not yet)" in open_bundle(folder).ungated_warning
    seal_bundle(folder, toys.manifest(), toys.accuracy(n=9))
    assert open_bundle(folder).accuracy.n == 9
    assert open_bundle(folder).ungated_warning is None


def test_nothing_is_published_when_writing_fails(tmp_path):
    def produce(folder):
        (folder / "start.onnx").write_bytes(b"half")
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError):
        toys.write_bundle(tmp_path / "b", toys.manifest(), produce)
    assert list(tmp_path.iterdir()) == []


def test_a_manifest_that_would_not_open_is_not_written(tmp_path):
    with pytest.raises(InputError, match="precision must be fp32 or fp16 or bf16 or int8"):
        toys.write_hollow_bundle(tmp_path / "b", precision="fp8")
    assert list(tmp_path.iterdir()) == []


def test_what_a_mac_leaves_in_a_folder_is_no_damage(bundle):
    (bundle / ".DS_Store").write_bytes(b"Bud1")
    assert ".DS_Store" not in open_bundle(bundle).manifest.files


@pytest.mark.parametrize("name", ["._segment.onnx", "Thumbs.db", "desktop.ini"])
def test_what_a_system_leaves_in_a_folder_is_read_by_nobody(bundle, name):
    (bundle / name).write_bytes(b"x")
    opened = open_bundle(bundle)
    assert name not in opened.manifest.files
    assert name not in seal_bundle(bundle, opened.manifest, dataclasses.asdict(opened.accuracy)).files

    def listed(content):
        content["files"][name] = {"sha256": hashlib.sha256(b"x").hexdigest(), "size": 1}
        content["graphs"]["segment"] = name

    resealed(bundle, listed)
    assert repr(name) in refusal(bundle)


def test_a_replacement_that_was_cut_off_is_read_where_it_stands(bundle):
    work = bundle.parent / ".b.hrm-edge"
    work.mkdir()
    bundle.rename(work / "old")
    assert "no such bundle folder" in refusal(bundle)  # nothing says that it is ours
    (work / "owner").write_text(
        "hrm-edge writes beside this folder; it may be deleted when that has ended: process 1"
    )
    assert open_bundle(bundle).manifest.name == "toy"
    assert sorted(path.name for path in work.iterdir()) == ["old", "owner"]


# -- what is no bundle at all ----------------------------------------------------------------------------


def test_no_such_folder(tmp_path):
    assert "no such bundle folder" in refusal(tmp_path / "nothing")


def test_a_file(bundle):
    assert "is a file; give the bundle's folder" in refusal(bundle / "start.onnx")


def test_an_empty_folder(tmp_path):
    assert "is not a bundle" in refusal(tmp_path)


def test_a_checkpoint_is_told_what_to_do(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert f"is a checkpoint, not a bundle; first run `hrm-edge export {tmp_path}" in refusal(tmp_path)


@pytest.mark.parametrize("name", ["a\0b", "x" * 5000, "a\nb"])
def test_names_no_file_can_have(name):
    refusal(name)


# -- what asks for too much ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: m["architecture"].update(halt_max_steps=10**12), "architecture.halt_max_steps is 1000000000000"),
        (lambda m: m["architecture"].update(hidden_size=10**12), "architecture.hidden_size is 1000000000000"),
        (lambda m: m["architecture"].update(seq_len=10**12), "architecture.seq_len is 1000000000000"),
        (lambda m: m["architecture"].update(L_layers=20_000), "architecture.L_layers is 20000"),
        (lambda m: m["architecture"].update(parameters=10**18), "architecture.parameters is 1000000000000000000"),
        (
            lambda m: m["architecture"].update(segment_flops=2**63),
            "architecture.segment_flops is 9223372036854775808",
        ),
        (lambda m: m["architecture"].update(segment_flops=-1), "architecture.segment_flops is -1"),
        (lambda m: m["architecture"].update(segment_flops="many"), "architecture.segment_flops is 'many'"),
        (lambda m: m.update(batch=10**12), "batch must be 'dynamic' or a number from 1 to 65535"),
        (lambda m: m.update(batch=65_536), "batch must be 'dynamic' or a number from 1 to 65535"),
        (
            lambda m: m["inputs"]["segment"][0].update(shape=[10**12, 16, 4]),
            "must be a number from 1 to 2147483647",
        ),
        (lambda m: m["source"].pop("content_hash"), "source lacks 'content_hash'"),
        (lambda m: m["source"].pop("name"), "source lacks 'name'"),
    ],
)
def test_a_manifest_that_asks_for_too_much_or_leaves_its_origin_out(bundle, change, said):
    resealed(bundle, change)
    assert said in refusal(bundle)


# -- what was done to it ---------------------------------------------------------------------------------


def test_a_flipped_byte(bundle):
    data = bytearray((bundle / "segment.onnx").read_bytes())
    data[3] ^= 1
    (bundle / "segment.onnx").write_bytes(data)
    assert "segment.onnx: its content was changed (SHA-256 differs)" in refusal(bundle)


def test_a_cut_file(bundle):
    os.truncate(bundle / "segment.onnx", 5)
    assert "has 5 bytes instead of 240" in refusal(bundle)


def test_a_newer_format(bundle):
    resealed(bundle, lambda content: content.update(format_version=2, brand_new={"x": 1}))
    assert "has format version 2, and this hrm-edge reads up to 1; upgrade hrm-edge" in refusal(bundle)


@pytest.mark.parametrize("version", [0, -1, "1", True, 1.0, None])
def test_a_format_that_never_was(bundle, version):
    resealed(bundle, lambda content: content.update(format_version=version))
    assert "format" in refusal(bundle)


@pytest.mark.parametrize(
    "name",
    ["/etc/passwd", "../b/segment.onnx", "a/../../x", "./segment.onnx", "a//b", "C:\\x", "a\\b", "", ".hidden"],
)
def test_names_that_lead_out(bundle, name):
    def change(content):
        content["files"][name] = content["files"]["segment.onnx"]
        content["graphs"]["segment"] = name

    resealed(bundle, change)
    assert "is not a plain name inside the bundle" in refusal(bundle)


def test_a_graph_that_is_not_listed(bundle):
    resealed(bundle, lambda content: content["graphs"].update(segment="/etc/passwd"))
    assert "not among its files" in refusal(bundle)


@pytest.mark.parametrize("target", ["start.onnx", "/etc/passwd", "nowhere"])
def test_links(bundle, target):
    (bundle / "segment.onnx").unlink()
    (bundle / "segment.onnx").symlink_to(target)
    assert "'segment.onnx' is a link" in refusal(bundle)


def test_a_linked_folder(bundle, tmp_path):
    (bundle / "more").symlink_to(tmp_path)
    assert "is a link" in refusal(bundle)


def test_a_linked_manifest(bundle):
    (bundle / "manifest.json").rename(bundle.parent / "elsewhere.json")
    (bundle / "manifest.json").symlink_to(bundle.parent / "elsewhere.json")
    assert "is a link" in refusal(bundle)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_does_not_hang_it(bundle):
    os.mkfifo(bundle / "pipe")
    assert "not a plain file" in refusal(bundle)


@pytest.mark.parametrize("name", ["extra.onnx", "sub/extra.onnx"])
def test_an_unlisted_file(bundle, name):
    (bundle / name).parent.mkdir(exist_ok=True)
    (bundle / name).write_bytes(b"x")
    assert "is not listed in its manifest" in refusal(bundle)


@pytest.mark.parametrize("name", ["start.onnx", "accuracy.json"])
def test_a_missing_file(bundle, name):
    (bundle / name).unlink()
    assert f"{name!r} is missing" in refusal(bundle)


def test_accuracy_may_not_be_taken_out_of_the_list(bundle):
    (bundle / "accuracy.json").unlink()
    resealed(bundle, lambda content: content["files"].pop("accuracy.json"))
    assert "its gate ran, but accuracy.json is missing" in refusal(bundle)


def with_accuracy(path, **changes):
    """A bundle sealed with another accuracy.json; None takes a field out."""
    content = {name: value for name, value in toys.accuracy(**changes).items() if value is not None}
    seal_bundle(path, toys.manifest(), content)
    return path


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"drop_points": 37.5}, "drop_points is 37.5, which is not what was lost and won"),
        ({"drop_points": 12.5, "lost": 1}, "it passed, and its figures are beyond the limits that it names"),
        ({"halt_shift": -0.5}, "it passed, and its figures are beyond the limits that it names"),
        ({"max_think_steps": 16}, "its gate allowed 16 segments, and manifest.json allows 8"),
    ],
)
def test_a_gate_that_contradicts_itself_or_the_model(bundle, changes, said):
    assert said in refusal(with_accuracy(bundle, **changes))


def test_so_many_rows_that_no_machine_holds_their_states():
    architecture = {**toys.manifest().architecture, "hidden_size": 8192}
    with pytest.raises(InputError, match="batch is 65535, and at most"):
        toys.manifest(batch=65535, architecture=architecture)


def test_a_manifest_and_a_gate_that_contradict_each_other(bundle):
    line = refusal(with_accuracy(bundle, passed=False, reason="dropped 4 points"))
    assert "manifest.json says that its gate passed, and accuracy.json that it did not" in line


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"n": None}, "field 'n' is missing"),
        ({"n": 0}, "n must be a whole number"),
        ({"lost": 5, "won": 4}, "n is 8, and more puzzles than that"),
        ({"more": 1}, "unknown field 'more'"),
        ({"reference": {"engine": "toy"}}, "reference lacks"),
        ({"calls": [{"call": "one", "n": 8, "agree": 0.0, "wrong": "all"}]}, "one of its calls went wrong"),
        ({"notes": "text"}, "notes must be a list"),
    ],
)
def test_accuracy_is_a_strict_record(bundle, changes, words):
    assert words in refusal(with_accuracy(bundle, **changes))


def test_what_later_gates_tell_is_read_and_not_asked_of_older_ones(bundle):
    assert open_bundle(bundle).accuracy.reference_hash == ""
    later = {"reference_name": "m", "reference_hash": "0" * 64, "arithmetic": "ONNX Runtime 1, x86-64"}
    calls = [{"call": "fixed", "n": 8, "agree": 1.0, "wrong": None}]
    found = open_bundle(with_accuracy(bundle, **later, calls=calls)).accuracy
    assert (found.reference_name, found.arithmetic, found.calls[0].call) == ("m", "ONNX Runtime 1, x86-64", "fixed")


def test_a_key_that_stands_twice(bundle):
    text = (bundle / "manifest.json").read_text()
    (bundle / "manifest.json").write_text(text.replace('"name": "toy"', '"name": "toy",\n  "name": "toy"', 1))
    assert "key 'name' stands twice" in refusal(bundle)


def test_an_edited_manifest(bundle):
    text = (bundle / "manifest.json").read_text()
    (bundle / "manifest.json").write_text(text.replace('"name": "toy"', '"name": "joy"'))
    assert "was changed after it was written" in refusal(bundle)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"a": NaN}', b"[" * 100_000, b"9" * 9999]
)
def test_a_manifest_that_is_no_object(bundle, content):
    (bundle / "manifest.json").write_bytes(content)
    assert "manifest.json" in refusal(bundle)


def test_an_endless_manifest(bundle):
    os.truncate(bundle / "manifest.json", 2**34)
    assert "too large" in refusal(bundle)


def test_a_folder_in_the_manifests_place(bundle):
    (bundle / "manifest.json").unlink()
    (bundle / "manifest.json").mkdir()
    refusal(bundle)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_no_permission(bundle):
    (bundle / "start.onnx").chmod(0)
    assert "Permission denied" in refusal(bundle)


BAD_FIELDS = {
    "batch": [0, -1, "many", 1.5, True, None],
    "loop": ["while", None, 3],
    "task": ["", None, 7],
    "vocabulary": ["abc", [1], None],
    "graphs": [{}, {"model": "segment.onnx"}, {"start": 1, "segment": "segment.onnx"}, []],
    "inputs": [{}, {"start": 1, "segment": []}, {"start": [1], "segment": []}, None],
    "outputs": [{"start": [{"name": "e", "dtype": "float32", "shape": [0]}], "segment": []}],
    "gate": [{}, {"ran": 1, "passed": None, "reason": None}, {"ran": True, "passed": None, "reason": None}, "yes"],
    "architecture": [{}, [], {"seq_len": "81"}],
    "files": [[], {"segment.onnx": {}}, {"segment.onnx": {"sha256": "00", "size": 1}}],
    "tools": [{"numpy": 2}, None],
    "surprise": [1],
}


@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field, values in BAD_FIELDS.items() for value in values]
)
def test_fields_of_the_wrong_kind(bundle, field, value):
    resealed(bundle, lambda content: content.update({field: value}))
    assert "manifest.json" in refusal(bundle)


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(Manifest)])
def test_a_field_that_is_missing(bundle, field):
    resealed(bundle, lambda content: content.pop(field))
    refusal(bundle)


# -- fuzzing ---------------------------------------------------------------------------------------------

FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FUZZ
@given(data=st.data())
def test_any_flipped_byte_in_any_file(shared, data):
    name = data.draw(st.sampled_from(sorted(path.name for path in shared.iterdir())))
    before = (shared / name).read_bytes()
    where = data.draw(st.integers(0, len(before) - 1))
    mask = data.draw(st.integers(1, 255))
    try:
        (shared / name).write_bytes(before[:where] + bytes([before[where] ^ mask]) + before[where + 1 :])
        refusal(shared)
    finally:
        (shared / name).write_bytes(before)
    open_bundle(shared)


@FUZZ
@given(data=st.data())
def test_any_cut_or_lengthened_file(shared, data):
    name = data.draw(st.sampled_from(sorted(path.name for path in shared.iterdir())))
    before = (shared / name).read_bytes()
    keep = data.draw(st.integers(0, len(before)))
    tail = data.draw(st.binary(max_size=20))
    if before[:keep] + tail == before:
        return
    try:
        (shared / name).write_bytes(before[:keep] + tail)
        refusal(shared)
    finally:
        (shared / name).write_bytes(before)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@FUZZ
@given(data=st.data())
def test_any_value_anywhere_in_the_manifest(shared, data):
    """Even with a right digest a strange value is either harmless or refused in one line."""
    before = (shared / "manifest.json").read_bytes()

    def change(content):
        place = content
        while True:
            key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else list(range(len(place)))))
            if isinstance(place[key], dict | list) and place[key] and data.draw(st.booleans()):
                place = place[key]
            else:
                place[key] = data.draw(JSON)
                return

    try:
        resealed(shared, change)
        try:
            open_bundle(shared)
        except InputError as error:
            assert "\n" not in str(error)
    finally:
        (shared / "manifest.json").write_bytes(before)
