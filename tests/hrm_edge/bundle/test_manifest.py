"""A manifest is read as it was written or refused in one line, even by who knows how to fix its digest."""

import dataclasses
import os

import pytest
import toys
from bundle_refusals import refusal, resealed
from hypothesis import given, settings
from hypothesis import strategies as st

from hrm_edge.bundle import Manifest, open_bundle
from hrm_edge.errors import InputError


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


def test_so_many_rows_that_no_machine_holds_their_states():
    architecture = {**toys.manifest().architecture, "hidden_size": 8192}
    with pytest.raises(InputError, match="batch is 65535, and at most"):
        toys.manifest(batch=65535, architecture=architecture)


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


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150)
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
