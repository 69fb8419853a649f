"""What each backend says it compiled, against what was asked for: every precision, both loops."""

import itertools
from collections import Counter

import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from small_networks import checkpoint
from traced_networks import expected_products, plan, traced, weight_plan

from hrm_edge.bundle.quantization import Products
from hrm_edge.errors import GateFailed
from hrm_edge.exporters.audit import audit, compare_products, raise_unless_quantized
from hrm_edge.exporters.build import ExportOptions, build_graphs, write_graphs
from hrm_edge.exporters.targets.base import Context
from hrm_edge.runtimes import backend
from hrm_edge.runtimes.base import CompiledProduct

TARGETS = ("onnx", "openvino")
LOOPS = ("host", "graph")
# What both operands of a block's product are.
KINDS = {
    ("onnx", "int8"): ("uint8", "int8"),
    ("openvino", "int8"): ("int8", "int8"),
    ("onnx", "int8-weights"): ("float32", "int8"),
    ("openvino", "int8-weights"): ("float32", "int8"),
    ("onnx", "int4-weights"): ("float32", "int4"),
    ("openvino", "int4-weights"): ("float32", "int4"),
    ("onnx", "fp32"): ("float32", "float32"),
    ("openvino", "fp32"): ("float32", "float32"),
}


def network_of(precision):
    """Layers that are called several times where products are int8; elsewhere once, which compiles faster."""
    return "rope" if precision == "int8" else "grid"


def made(precision):
    if precision == "fp32":
        return None
    return plan("rope") if precision == "int8" else weight_plan("grid", precision)


def names(precision):
    return expected_products(traced(network_of(precision))[0])


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """(target, precision, loop, batch) → (graph files, names of the products that are low)."""
    folder, known = tmp_path_factory.mktemp("graphs"), {}

    def write(target, precision, loop, batch=None):
        pytest.importorskip({"onnx": "onnxruntime"}.get(target, target))
        options = ExportOptions(target, precision, loop, batch)
        if options not in known:
            model, start, segment = traced(network_of(precision))
            source = checkpoint(model)
            built = build_graphs(source, start, segment, options, made(precision))
            place = folder / f"{options.suffix}-{batch}"
            place.mkdir()
            context = Context(source, options, place, plan=made(precision))
            manifest, _ = write_graphs(built.graphs, context, "small")
            known[options] = [place / name for name in manifest.graphs.values()], built.products
        return known[options]

    return write


def compiled(target, files):
    return [product for file in files for product in backend(target).compiled_products(file)]


@pytest.mark.parametrize(("target", "loop"), itertools.product(TARGETS, LOOPS))
@pytest.mark.parametrize("precision", ["int8", "int8-weights", "int4-weights"])
def test_all_that_was_asked_for_is_found_by_name(written, target, precision, loop):
    files, asked = written(target, precision, loop)
    expected = names(precision)
    assert sorted(asked) == sorted(expected)
    products = compiled(target, files)
    low = [p for p in products if (p.left, p.right) == KINDS[target, precision]]
    # Each once, under the name it has in the graph; besides them nothing is low-precision.
    assert Counter(p.name for p in low) == Counter(expected)
    rest = [p for p in products if p not in low]
    assert all((p.left, p.right) == ("float32", "float32") for p in rest)
    # The head; a product whose result is an output is called after that.
    assert {"lm_head/0", "logits"} & {p.name for p in rest}
    found = audit(target, files, precision, expected)
    assert (found.expected, found.found, found.missing) == (len(expected), len(expected), ())
    assert sum(found.kinds.values()) == len(products)
    assert found.kinds[" × ".join(KINDS[target, precision])] == len(expected)
    raise_unless_quantized(found, "b", precision)


@pytest.mark.parametrize("target", TARGETS)
def test_both_halves_of_a_wide_product_are_found(tmp_path, target):
    pytest.importorskip({"onnx": "onnxruntime"}.get(target, target))
    model, start, segment = traced("grid")
    layer = "L_level.layers.0.mlp.gate_up_proj"
    wide, options = plan("grid").widening({layer: "told to"}), ExportOptions(target, "int8", "graph")
    built = build_graphs(checkpoint(model), start, segment, options, wide)
    expected = [*names("int8-weights"), *(f"L_level.layers.0.mlp.{part}_proj/1" for part in ("gate", "up"))]
    assert sorted(built.products) == sorted(expected)
    context = Context(checkpoint(model), options, tmp_path, plan=wide)
    manifest, _ = write_graphs(built.graphs, context, "small")
    found = audit(target, [tmp_path / name for name in manifest.graphs.values()], "int8", expected)
    assert (found.found, found.missing) == (16, ())


@pytest.mark.parametrize(("target", "loop"), itertools.product(TARGETS, LOOPS))
def test_a_float_bundle_has_its_products_by_name_and_none_is_low(written, target, loop):
    files, asked = written(target, "fp32", loop)
    products = compiled(target, files)
    assert {(p.left, p.right) for p in products} == {("float32", "float32")}
    expected = names("fp32")
    assert sorted(asked) == sorted(expected)
    assert set(expected) <= {p.name for p in products}
    for precision in ("int8", "int8-weights", "int4-weights"):
        found = audit(target, files, precision, expected)
        assert (found.found, list(found.missing)) == (0, expected)
        with pytest.raises(GateFailed, match=f"0 of {len(expected)} {precision} products"):
            raise_unless_quantized(found, "b", precision)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("loop", LOOPS)
def test_a_fixed_batch_is_compiled_alike(written, target, loop):
    files, asked = written(target, "int8-weights", loop, 2)
    assert asked
    assert audit(target, files, "int8-weights", asked).missing == ()


@pytest.mark.parametrize("target", TARGETS)
def test_one_precision_is_not_taken_for_another(written, target):
    """8-bit weights are no int8 products, nor 4-bit ones 8-bit ones; whole int8 has 8-bit weights as well."""
    for built, claimed, found in (
        ("int8-weights", "int8", 0),
        ("int4-weights", "int8-weights", 0),
        ("int8-weights", "int4-weights", 0),
        ("int4-weights", "int8", 0),
        ("int8", "int8-weights", len(names("int8"))),
    ):
        files, _ = written(target, built, "host")
        assert audit(target, files, claimed, names(built)).found == found, (built, claimed)


# -- the comparison itself -----------------------------------------------------------------------------


def test_missing_are_those_that_are_float_or_not_there():
    seen = [CompiledProduct("a/0", "uint8", "int8"), CompiledProduct("a/1", "float32", "float32")]
    seen.append(CompiledProduct("other", "int8", "int8"))
    found = compare_products(seen, "int8", ["a/0", "a/1", "b/0"])
    kinds = {"float32 × float32": 1, "int8 × int8": 1, "uint8 × int8": 1}
    assert found == Products(expected=3, found=1, kinds=kinds, missing=("a/1", "b/0"))


def test_a_product_asked_for_twice_is_two():
    found = compare_products([CompiledProduct("a", "int8", "int8")], "int8", iter(["a", "b"]))
    assert (found.expected, found.missing) == (2, ("b",))


@pytest.mark.parametrize(
    ("missing", "expected", "said"),
    [
        ((), 0, "b: int8 was asked for, but not one product is quantized; nothing was published"),
        (("x/0",), 5, "b: 4 of 5 int8 products were compiled as such; not x/0; nothing was published"),
        (tuple("abcde"), 5, "b: 0 of 5 int8 products were compiled as such; not a, b, c, …; nothing was published"),
    ],
)
def test_the_failure_names_layers(missing, expected, said):
    products = Products(expected, expected - len(missing), {}, missing)
    with pytest.raises(GateFailed) as caught:
        raise_unless_quantized(products, "b", "int8")
    assert str(caught.value) == said


@pytest.mark.parametrize("target", TARGETS)
def test_a_profile_has_every_product_that_was_compiled(written, target):
    files, _ = written(target, "int8", "host")
    (segment,) = (file for file in files if file.stem == "segment")
    times = backend(target).profile(segment, 1, 2)
    assert [each.ms for each in times] == sorted((each.ms for each in times), reverse=True)
    integers = [each for each in times if "Integer" in each.operator or "i8" in each.kernel.lower()]
    products = [p for p in compiled(target, [segment]) if p.right == "int8"]
    assert sum(each.count for each in integers if "Mat" in each.operator or "Full" in each.operator) == len(
        products
    )
