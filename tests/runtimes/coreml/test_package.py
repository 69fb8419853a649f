"""Reading saved packages: every stored type, compressed weights, and damage of every kind in one line."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("coremltools")

from hypothesis import given, settings
from hypothesis import strategies as st
from mil_programs import ct, loop_program, mb, save_program, spec, types

from hrm_edge.errors import InputError
from hrm_edge.runtimes.coreml.interpreter import load_program
from hrm_edge.runtimes.coreml.package import input_shapes, read_package, unpacked
from hrm_edge.runtimes.coreml.program import PACKED, Constant, operations

RNG = np.random.default_rng(11)
WEIGHT = RNG.standard_normal((32, 64)).astype(np.float32)
MODEL = "Data/com.apple.CoreML/model.mlmodel"
BLOB = "Data/com.apple.CoreML/weights/weight.bin"


def constants(path):
    """Every constant of a package's operations."""
    return [
        item
        for operation, _ in operations(read_package(path).main.block)
        for bound in operation.inputs.values()
        for item in bound
        if isinstance(item, Constant)
    ]


@pytest.mark.parametrize("dtype", PACKED)
@pytest.mark.parametrize("count", [1, 3, 8, 61])
def test_packed_values_are_read_as_coremltools_writes_them(tmp_path, dtype, count):
    storage = pytest.importorskip("coremltools.libmilstoragepython")
    low, high = (-8, 8) if dtype == "int4" else (0, 2 ** PACKED[dtype])
    values = RNG.integers(low, high, count).astype(np.int8 if dtype == "int4" else np.uint8)
    writer = storage._BlobStorageWriter(str(tmp_path / "w.bin"))
    offset = getattr(writer, f"write_{dtype}_data")(values)
    del writer
    data = (tmp_path / "w.bin").read_bytes()
    start = int.from_bytes(data[offset + 16 : offset + 24], "little")
    packed = np.frombuffer(data, np.uint8, -(-count * PACKED[dtype] // 8), start)
    got = unpacked(packed, dtype, count)
    assert got.dtype == values.dtype
    assert np.array_equal(got, values)


@pytest.mark.parametrize("size", [3, 40])  # in the model file, and in the weight file
@pytest.mark.parametrize("dtype", ["float32", "float16", "int32", "int8", "uint8", "int16", "uint16", "bool"])
def test_constants_of_every_type(tmp_path, dtype, size):
    values = RNG.integers(-100, 100, size)
    values = values.astype(np.uint8).astype(dtype) if dtype.startswith("u") else values.astype(dtype)

    def program(x):
        stored = mb.const(val=values)
        return mb.add(x=x, y=mb.cast(x=stored, dtype="fp32"))

    path = save_program(tmp_path / "p.mlpackage", program, [spec((size,))], ios=18)
    found = [item for item in constants(path) if item.dtype == dtype and np.size(item.value) == size]
    assert np.array_equal(found[0].value, values.astype(np.float32) if dtype == "float16" else values)
    (got,) = load_program(path)({"x": np.zeros(size, np.float32)}).values()
    assert np.array_equal(got, values.astype(np.float32))


def linear_model(ios, half=False):
    """x float32[2, 64] → two products with one stored weight, as a model of coremltools."""

    def program(x):
        w = mb.const(val=WEIGHT, name="w")
        first = mb.linear(x=x, weight=w, name="first")
        return mb.linear(x=mb.concat(values=(first, first), axis=1), weight=w, name="second")

    target = {16: ct.target.iOS16, 17: ct.target.iOS17, 18: ct.target.iOS18}[ios]
    built = mb.program(input_specs=[spec((2, 64))], opset_version=target)(program)
    precision = ct.precision.FLOAT16 if half else ct.precision.FLOAT32
    return ct.convert(
        built,
        convert_to="mlprogram",
        minimum_deployment_target=target,
        compute_precision=precision,
        skip_model_load=True,
    )


def quantized(ios, **how):
    opt = ct.optimize.coreml
    config = opt.OptimizationConfig(opt.OpLinearQuantizerConfig(weight_threshold=0, **how))
    return opt.linear_quantize_weights(linear_model(ios), config)


def palettized(ios, weight=None, **how):
    opt = ct.optimize.coreml
    config = opt.OptimizationConfig(opt.OpPalettizerConfig(weight_threshold=0, **how))
    return opt.palettize_weights(linear_model(ios), config)


# name → (model, kind of operation that holds the weight, largest error of a decoded weight)
COMPRESSED = {
    "int8": (lambda: quantized(16, mode="linear_symmetric"), "constexpr_affine_dequantize", 0.02),
    "uint8": (lambda: quantized(16, mode="linear", dtype="uint8"), "constexpr_affine_dequantize", 0.02),
    "int8 iOS18": (lambda: quantized(18, mode="linear_symmetric"), "constexpr_blockwise_shift_scale", 0.02),
    "int4 blocks": (
        lambda: quantized(18, mode="linear_symmetric", dtype="int4", granularity="per_block", block_size=32),
        "constexpr_blockwise_shift_scale",
        0.3,
    ),
    "uint4 blocks": (
        lambda: quantized(18, mode="linear", dtype="uint4", granularity="per_block", block_size=16),
        "constexpr_blockwise_shift_scale",
        0.3,
    ),
    "palette4": (lambda: palettized(16, mode="uniform", nbits=4), "constexpr_lut_to_dense", 0.4),
    "palette6 iOS18": (lambda: palettized(18, mode="uniform", nbits=6), "constexpr_lut_to_dense", 0.1),
    "palette2 iOS18": (lambda: palettized(18, mode="uniform", nbits=2), "constexpr_lut_to_dense", 1.5),
    "palette4 groups": (
        lambda: palettized(18, mode="uniform", nbits=4, granularity="per_grouped_channel", group_size=8),
        "constexpr_lut_to_dense",
        0.4,
    ),
}


def decompressed(model):
    """The weight as coremltools itself decodes it."""
    with_float = ct.optimize.coreml.decompress_weights(model)
    return [
        op.outputs[0].val
        for op in with_float._mil_program.functions["main"].operations
        if op.op_type == "const" and op.outputs[0].shape == WEIGHT.shape
    ]


@pytest.mark.parametrize("name", COMPRESSED)
def test_compressed_weights_are_what_coremltools_decodes(tmp_path, name):
    make, kind, error = COMPRESSED[name]
    model = make()
    model.save(str(tmp_path / "p.mlpackage"))
    package = read_package(tmp_path / "p.mlpackage")
    assert kind in {operation.kind for operation, _ in operations(package.main.block)}
    (theirs, *_) = decompressed(model)
    assert 0 < np.abs(theirs - WEIGHT).max() <= error
    x = RNG.standard_normal((2, 64)).astype(np.float32)
    first = x.astype(np.float64) @ theirs.astype(np.float64).T
    wanted = np.concatenate([first, first], 1) @ theirs.astype(np.float64).T
    (got,) = load_program(tmp_path / "p.mlpackage")({"x": x}).values()
    assert np.allclose(got, wanted, rtol=1e-4, atol=1e-4)


def test_vectors_in_a_palette_are_refused(tmp_path):
    indices = np.zeros((1, 2, 2), np.uint8).astype(types.np_uint1_dtype)
    table = np.arange(6, dtype=np.float32).reshape(1, 1, 1, 2, 3)

    def program(x):
        return mb.add(x=x, y=mb.constexpr_lut_to_dense(indices=indices, lut=table, vector_axis=1))

    path = save_program(tmp_path / "p.mlpackage", program, [spec((1,))], ios=18)
    with pytest.raises(InputError, match="'vector_axis' is not supported"):
        load_program(path)


def test_weights_used_twice_are_decoded_once(tmp_path):
    linear_model(17).save(str(tmp_path / "p.mlpackage"))
    large = [item.value for item in constants(tmp_path / "p.mlpackage") if np.size(item.value) == WEIGHT.size]
    assert len(large) == 1
    assert np.array_equal(large[0], WEIGHT)
    products = [
        op for op, _ in operations(read_package(tmp_path / "p.mlpackage").main.block) if op.kind == "linear"
    ]
    assert products[0].inputs["weight"] == products[1].inputs["weight"]


def test_the_default_function_of_several(tmp_path):
    def times_two(x):
        return mb.mul(x=x, y=np.float32(2), name="y")

    def times_three(x):
        return mb.mul(x=x, y=np.float32(3), name="y")

    for name, function in (("one", times_two), ("other", times_three)):
        save_program(tmp_path / f"{name}.mlpackage", function, [spec((2,))], ios=18)
    both = ct.utils.MultiFunctionDescriptor()
    for name in ("one", "other"):
        both.add_function(str(tmp_path / f"{name}.mlpackage"), "main", name)
    both.default_function_name = "other"
    ct.utils.save_multifunction(both, str(tmp_path / "both.mlpackage"))
    package = read_package(tmp_path / "both.mlpackage")
    assert (sorted(package.functions), package.default) == (["one", "other"], "other")
    assert input_shapes(tmp_path / "both.mlpackage") == {"x": (2,)}
    assert load_program(tmp_path / "both.mlpackage")({"x": np.ones(2, np.float32)})["y"].tolist() == [3, 3]


def test_reading_runs_neither_coremltools_nor_torch(tmp_path):
    path, _ = loop_program(tmp_path / "p.mlpackage")
    script = (
        "import sys; sys.modules['torch'] = sys.modules['coremltools'] = None\n"
        "import importlib.util, numpy as np\n"
        "from importlib.machinery import PathFinder\n"
        "importlib.util.find_spec = lambda name: PathFinder.find_spec(name)\n"
        "from hrm_edge.runtimes.coreml.interpreter import load_program\n"
        f"program = load_program({str(path)!r})\n"
        "print(program({'x': np.ones((2, 8), 'f4'), 'count': np.ones(1, 'i4')})['rounds'])\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.stdout == "[1]\n", result.stderr
    assert result.stderr == ""


# Damage


@pytest.fixture
def package(tmp_path):
    path, _ = loop_program(tmp_path / "p.mlpackage")
    return path


def refused(path, message):
    with pytest.raises(InputError, match=message) as caught:
        load_program(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_package(tmp_path, package):
    refused(tmp_path / "none.mlpackage", "not a Core ML package")
    (package / "Manifest.json").write_text("{}")
    refused(package, "does not say which file is the model")


UNHASHED = (".DS_Store", "._model.mlmodel", "._weight.bin", "weights/.DS_Store", "Thumbs.db", "desktop.ini")


@pytest.mark.parametrize("inner", ["../../x", "/etc/passwd", "a/../../b", "x\0y", *UNHASHED])
def test_a_model_outside_the_package(package, inner):
    manifest = json.loads((package / "Manifest.json").read_text())
    manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]["path"] = inner
    (package / "Manifest.json").write_text(json.dumps(manifest))
    refused(package, "must lie inside the package")


@pytest.mark.parametrize("name", UNHASHED)
def test_weights_in_what_no_hash_vouches_for(package, name):
    """Such files are passed over when a bundle is hashed; a Mac's Core ML would read what they hold."""

    def point(message, block):
        weight(block).blobFileValue.fileName = f"@model_path/{name}"

    edited(package, point)
    with pytest.raises(InputError, match="must lie inside the package"):
        input_shapes(package)  # all that is read of it here before Core ML reads the rest
    refused(package, "must lie inside the package")


def test_a_model_file_that_is_missing_cut_or_of_another_kind(package):
    whole = (package / MODEL).read_bytes()
    (package / MODEL).write_bytes(whole[: len(whole) // 2])
    refused(package, "its model file is damaged")
    (package / MODEL).write_bytes(b"")
    refused(package, "not an ML program but empty")
    message = ct.proto.Model_pb2.Model(specificationVersion=1)
    message.identity.SetInParent()
    (package / MODEL).write_bytes(message.SerializeToString())
    refused(package, "not an ML program but identity")
    (package / MODEL).unlink()
    refused(package, "its model file can not be read")


def test_a_weight_file_that_is_missing_cut_or_overwritten(package):
    whole = (package / BLOB).read_bytes()
    (package / BLOB).write_bytes(whole[:-1])
    refused(package, "the weight at 64 of weight.bin ends after its end")
    (package / BLOB).write_bytes(whole[:80])
    refused(package, "the weight at 64 of weight.bin begins after its end")
    (package / BLOB).write_bytes(whole[:64] + b"\0" + whole[65:])
    refused(package, "the weight at 64 of weight.bin has no header")
    (package / BLOB).write_bytes(whole[:68] + b"\1" + whole[69:])
    refused(package, "the weight at 64 of weight.bin is float16 instead of float32")
    (package / BLOB).unlink()
    refused(package, "weight file weight.bin can not be read")


def edited(package, edit):
    message = ct.proto.Model_pb2.Model()
    message.ParseFromString((package / MODEL).read_bytes())
    (block,) = message.mlProgram.functions["main"].block_specializations.values()
    edit(message, block)
    (package / MODEL).write_bytes(message.SerializeToString())


def weight(block):
    return next(op for op in block.operations if op.attributes["val"].HasField("blobFileValue")).attributes["val"]


def stored(number):
    def edit(message, block):
        block.operations[0].outputs[0].type.tensorType.dataType = number

    return edit


DAMAGES = {
    "has type number 13": stored(13),
    "is a value without a type": lambda m, b: b.operations[0].outputs[0].type.Clear(),
    "has no function 'other'": lambda m, b: setattr(m.description, "defaultFunctionName", "other"),
    "has no block for its opset": lambda m, b: setattr(m.mlProgram.functions["main"], "opset", "CoreML99"),
    "must lie inside the package": lambda m, b: setattr(weight(b).blobFileValue, "fileName", "@model_path/../x"),
    "at 'weight.bin'": lambda m, b: setattr(weight(b).blobFileValue, "fileName", "weight.bin"),
    "begins after its end": lambda m, b: setattr(weight(b).blobFileValue, "offset", 2**63),
    "which is too large": lambda m, b: setattr(weight(b).type.tensorType.dimensions[0].constant, "size", 2**40),
    "has 256 bytes instead of 288": lambda m, b: setattr(
        weight(b).type.tensorType.dimensions[0].constant, "size", 9
    ),
    "which nothing before it gives": lambda m, b: b.outputs.__setitem__(0, "nobody"),
    r"'no\\nname' 'y': this operation is not supported": lambda m, b: setattr(b.operations[-2], "type", "no\nname"),
    "neither a tensor nor in the weight file": lambda m, b: weight(b).ClearField("blobFileValue"),
}


@pytest.mark.parametrize("message", DAMAGES)
def test_a_damaged_program_says_what_is_wrong(package, message):
    edited(package, DAMAGES[message])
    refused(package, message)


@pytest.fixture(scope="module")
def compressed_loop(tmp_path_factory):
    """A package with everything in it: a loop, a compressed weight, int8 products, and a sound run's outputs."""
    folder = tmp_path_factory.mktemp("fuzz")
    table = RNG.standard_normal((1, 1, 16, 1)).astype(np.float32)
    entries = RNG.integers(0, 16, (8, 8)).astype(np.uint8).astype(types.np_uint4_dtype)
    plain = RNG.standard_normal((8, 8)).astype(np.float32)

    def program(x, count):
        w = mb.constexpr_lut_to_dense(indices=entries, lut=table)

        def body(h, done):
            whole = mb.reshape(x=h, shape=[2, 8])
            first, second = (mb.slice_by_index(x=whole, begin=[0, i], end=[2, i + 4]) for i in (0, 4))
            turned = mb.transpose(x=mb.concat(values=(second, first), axis=1), perm=[0, 1])
            near = mb.quantize(input=mb.sigmoid(x=turned), scale=np.float32(1 / 127), output_dtype="int8")
            small = mb.dequantize(input=near, scale=np.float32(1 / 127))
            return mb.linear(x=small, weight=w), mb.add(x=done, y=np.ones(1, np.int32))

        h, done = mb.while_loop(
            _cond=lambda h, done: mb.squeeze(x=mb.less(x=done, y=count)),
            _body=body,
            loop_vars=(x, mb.const(val=np.zeros(1, np.int32))),
        )
        return mb.softmax(x=mb.matmul(x=h, y=plain), axis=-1, name="y"), mb.identity(x=done, name="rounds")

    path = save_program(folder / "p.mlpackage", program, [spec((2, 8)), spec((1,), "int32")], ios=18)
    feeds = {"x": RNG.standard_normal((2, 8)).astype(np.float32), "count": np.array([3], np.int32)}
    assert load_program(path)(feeds)["rounds"].tolist() == [3]
    return path, feeds


FLIPS = st.lists(st.tuples(st.integers(0, 2**20), st.integers(1, 255)), max_size=3)


@pytest.mark.slow
@settings(max_examples=400)
@given(file=st.sampled_from([MODEL, MODEL, BLOB, "Manifest.json"]), flips=FLIPS, cut=st.integers(0, 400))
def test_damaged_bytes_give_a_run_or_one_line(compressed_loop, tmp_path_factory, file, flips, cut):
    path, feeds = compressed_loop
    copy = tmp_path_factory.mktemp("damaged") / "p.mlpackage"
    shutil.copytree(path, copy)
    data = bytearray((copy / file).read_bytes())
    for place, bits in flips:
        data[place % len(data)] ^= bits
    (copy / file).write_bytes(bytes(data[: len(data) - cut] if cut < 40 else data))
    try:
        outputs = load_program(copy)(feeds)
    except InputError as error:
        assert "\n" not in str(error)
        assert str(copy) in str(error)
    else:
        assert all(isinstance(value, np.ndarray) for value in outputs.values())
    finally:
        shutil.rmtree(copy)
