"""Graph passes: each does one thing to an ONNX model in place, and checks that it did.

They make a traced graph what the later stages rely on: every weight stored once, the way MatMul reads it (a
Transpose left on a shared weight hides it from every quantizer, silently); nothing wider than float32; names
that say what a value is; and the same bytes for the same weights.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping

import numpy as np
import onnx
import onnx_ir
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from onnx_ir.passes import common

from .edit import (
    all_graphs,
    all_nodes,
    array_of,
    attribute,
    ensure,
    initializers,
    rename,
    replace_initializers,
    replace_nodes,
    subgraphs,
    tensor_of,
    value_types,
)

PRODUCER = "hrm-edge"
BATCH = "batch"  # the symbolic first dimension
# Last part of the names of stored tensors that keep their module's name; all others are numbered.
_NAMED = {"weight", "bias", "gain", "cos", "sin", "table", "offset", "prefix", "H_init", "L_init"}
_NAMED |= {"weight_scale", "weight_zero_point", "input_scale", "output_scale", "zero_point"}  # of quantized tensors
# The one domain besides the standard: onnxruntime's product with 4- and 8-bit weights has no other form.
FOREIGN = "com.microsoft"


def clean(model: onnx.ModelProto, weights: Mapping[str, np.ndarray]) -> None:
    """Everything a freshly traced graph needs. ``weights`` are the traced module's own, by name."""
    drop_float64(model)
    fold_transposes(model)
    merge_equal_initializers(model)
    drop_unused(model)
    restore_weight_names(model, weights)
    finish(model)


def finish(model: onnx.ModelProto) -> None:
    """What every graph goes through after it was changed: canonical names and order, no metadata, checked."""
    drop_unused(model)
    strip_metadata(model)
    name_canonically(model)
    sort_initializers(model)
    check(model)


def fold_transposes(model: onnx.ModelProto) -> None:
    """Store weights the way they are used: once per weight, not per use, whatever the number of calls."""
    graph = model.graph
    stored = initializers(graph)
    folded: dict[tuple[str, tuple[int, ...]], str] = {}
    renamed: dict[str, str] = {}
    kept = []
    for node in graph.node:
        if node.op_type != "Transpose" or node.input[0] not in stored:
            kept.append(node)
            continue
        source = node.input[0]
        array = array_of(stored[source])
        perm = attribute(node, "perm", list(reversed(range(array.ndim))))
        key = (source, tuple(perm))
        if key not in folded:
            folded[key] = f"{source}.T{''.join(map(str, key[1]))}"
            graph.initializer.append(tensor_of(array.transpose(key[1]), folded[key]))
        renamed[node.output[0]] = folded[key]
    ensure(not {v.name for v in graph.output} & set(renamed), "fold_transposes: a transposed weight is an output")
    replace_nodes(graph, kept)
    rename(graph, renamed)
    drop_unused(model)
    stored = initializers(graph)
    left = [n.name for n in all_nodes(graph) if n.op_type == "Transpose" and n.input[0] in stored]
    ensure(not left, f"fold_transposes: weights are still transposed at {left[:3]}")


# What makes a part of a tensor, or another view of it.
_VIEWS = {"Identity", "Slice", "Split", "Gather", "Transpose", "Reshape", "Squeeze", "Unsqueeze"}


def fold_views(model: onnx.ModelProto) -> None:
    """Store the parts of weights that are read, where the graph cuts them out each time."""
    graph = model.graph
    stored = {name: array_of(tensor) for name, tensor in initializers(graph).items()}
    constants = (node for node in graph.node if node.op_type == "Constant")
    stored |= {
        node.output[0]: array_of(value) for node in constants if (value := attribute(node, "value")) is not None
    }
    results = {value.name for value in graph.output}
    kept = []
    for node in graph.node:
        read = [name for name in node.input if name]
        fixed = bool(read) and all(name in stored for name in read)
        if node.op_type not in _VIEWS or not fixed or results & set(node.output):
            kept.append(node)
            continue
        made = ReferenceEvaluator(node).run(None, {name: stored[name] for name in read})
        for name, array in zip(node.output, made, strict=True):
            stored[name] = array
            graph.initializer.append(tensor_of(array, name))
    replace_nodes(graph, kept)
    drop_unused(model)


def split_products(model: onnx.ModelProto) -> None:
    """Write every Gemm with a stored weight as a MatMul and an Add: what is quantized is a MatMul."""
    graph = model.graph
    stored = initializers(graph)
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        plain = node.op_type == "Gemm" and attribute(node, "alpha", 1.0) == attribute(node, "beta", 1.0) == 1
        if not plain or node.input[1] not in stored or attribute(node, "transA", 0):
            nodes.append(node)
            continue
        left, weight, *bias = node.input
        output = node.output[0]
        if attribute(node, "transB", 0):
            nodes.append(helper.make_node("Transpose", [weight], [f"{output}.weight"], perm=[1, 0]))
            weight = f"{output}.weight"
        product = f"{output}.product" if bias else output
        nodes.append(helper.make_node("MatMul", [left, weight], [product]))
        if bias:
            nodes.append(helper.make_node("Add", [product, bias[0]], [output]))
    replace_nodes(graph, nodes)


def merge_equal_initializers(model: onnx.ModelProto) -> None:
    """Store each distinct tensor once."""
    run(common.DeduplicateHashedInitializersPass(), model)


def drop_unused(model: onnx.ModelProto) -> None:
    """Remove nodes and initializers that nothing reads, and results that may be left out.

    On the messages themselves: this is done after every change, and a pass of onnx_ir reads the graph into objects
    and writes it again, which takes most of the time that changing a graph takes.
    """
    read = _drop_unread(model.graph)
    replace_initializers(model.graph, [tensor for tensor in model.graph.initializer if tensor.name in read])


def _drop_unread(graph: onnx.GraphProto) -> set[str]:
    """Remove nodes of which nobody reads a result, here and in bodies; the names that those left read."""
    read = {value.name for value in graph.output}
    unread = []
    for i, node in reversed(list(enumerate(graph.node))):  # whoever reads a result stands behind what makes it
        if read.isdisjoint(node.output):
            unread.append(i)
            continue
        if len(node.output) > 1:
            _drop_optional(node, read)
        read.update(node.input)
        for body in subgraphs(node):
            read |= _drop_unread(body)
    for i in unread:  # from the last
        del graph.node[i]
    return read


def _drop_optional(node: onnx.NodeProto, read: set[str]) -> None:
    """Leave out the last results of a node that nobody reads, as far as its operator may be without them."""
    if node.domain not in ("", "ai.onnx"):
        return
    results = onnx.defs.get_schema(node.op_type).outputs
    while len(results) >= len(node.output) > 1 and node.output[-1] not in read:
        if results[len(node.output) - 1].option != onnx.defs.OpSchema.FormalParameterOption.Optional:
            return
        del node.output[-1]


def run(ir_pass: onnx_ir.passes.InPlacePass, model: onnx.ModelProto) -> None:
    """Run a pass of onnx_ir; the model's graph stays the same message."""
    changed = onnx_ir.from_proto(model)
    ir_pass(changed)
    model.graph.CopyFrom(onnx_ir.to_proto(changed).graph)


def drop_float64(model: onnx.ModelProto) -> None:
    """Narrow every double to float32: no target computes in double, and one such scalar widens what it meets."""
    graph = model.graph
    narrowed = []
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.DOUBLE:
            tensor = tensor_of(array_of(tensor).astype(np.float32), tensor.name)
        narrowed.append(tensor)
    replace_initializers(graph, narrowed)
    for node in all_nodes(graph):
        for item in node.attribute:
            if node.op_type == "Cast" and item.name == "to" and item.i == TensorProto.DOUBLE:
                item.i = TensorProto.FLOAT
            if item.type == onnx.AttributeProto.TENSOR and item.t.data_type == TensorProto.DOUBLE:
                item.t.CopyFrom(tensor_of(array_of(item.t).astype(np.float32), item.t.name))
    for inner in all_graphs(graph):
        del inner.value_info[:]
    wide = [name for name, kind in value_types(model).items() if kind == TensorProto.DOUBLE]
    ensure(not wide, f"drop_float64: still double: {wide[:3]}")


def _content(array: np.ndarray) -> tuple:
    """Equal for arrays of the same type, shape and bits."""
    return array.dtype.str, array.shape, hashlib.sha256(array.tobytes()).digest()


def restore_weight_names(model: onnx.ModelProto, weights: Mapping[str, np.ndarray]) -> None:
    """Give weights their module's name again where folding gave them another, so that reports can name layers.

    A matrix may be stored as it is or transposed; a weight keeps one name either way.
    """
    by_content: dict[tuple, str] = {}
    for name, array in weights.items():
        for form in (array, array.T):
            by_content.setdefault(_content(form), name)
    renamed: dict[str, str] = {}
    for tensor in model.graph.initializer:
        array = array_of(tensor)
        original = by_content.get(_content(array)) if array.size > 1 else None
        if original is not None and original not in renamed.values():
            renamed[tensor.name] = original
    rename(model.graph, renamed)
    names = [tensor.name for tensor in model.graph.initializer]
    ensure(len(names) == len(set(names)), "restore_weight_names: two initializers have one name")


def strip_metadata(model: onnx.ModelProto) -> None:
    """Remove what tells of the machine and the tools rather than of the network."""
    opset = next(item.version for item in model.opset_import if item.domain in ("", "ai.onnx"))
    domains = {node.domain for node in all_nodes(model.graph)} - {"", "ai.onnx"}
    ensure(domains <= {FOREIGN}, f"strip_metadata: operators outside the standard: {sorted(domains)}")
    del model.opset_import[:], model.metadata_props[:], model.functions[:], model.training_info[:]
    model.opset_import.append(helper.make_opsetid("", opset))
    model.opset_import.extend(helper.make_opsetid(domain, 1) for domain in domains)
    model.ir_version = helper.find_min_ir_version_for(list(model.opset_import), ignore_unknown=True)
    model.producer_name, model.producer_version = PRODUCER, ""
    model.doc_string, model.domain, model.model_version = "", "", 0
    for graph in all_graphs(model.graph):
        graph.doc_string = ""
        del graph.value_info[:], graph.metadata_props[:], graph.quantization_annotation[:]
        for item in (*graph.initializer, *graph.input, *graph.output):
            item.doc_string = ""
            del item.metadata_props[:]
    for node in all_nodes(model.graph):
        node.doc_string, node.overload = "", ""
        node.domain = node.domain if node.domain == FOREIGN else ""
        del node.metadata_props[:]
        attributes = sorted(node.attribute, key=lambda item: item.name)
        for item in attributes:
            item.doc_string = ""
        copies = [onnx.AttributeProto.FromString(item.SerializeToString()) for item in attributes]
        del node.attribute[:]
        node.attribute.extend(copies)


def name_canonically(model: onnx.ModelProto) -> None:
    """Name nodes and values by what they are and where they stand, never by a tracer's counters.

    A product with a stored weight, quantized or not, is named after it and its call:
    ``L_level.layers.0.mlp.up_proj/3`` is the fourth use of that weight. Bindings and weights keep their names;
    small constants are numbered.
    """
    graph = model.graph
    model.graph.name = PRODUCER
    weights = {tensor.name for tensor in graph.initializer if keeps_name(tensor.name)}
    fixed = weights | {value.name for value in (*graph.input, *graph.output)}
    renamed: dict[str, str] = {}
    count: Counter[str] = Counter()

    def numbered(stem: str) -> str:
        count[stem] += 1
        return f"{stem}/{count[stem] - 1}"

    def visit(inner: onnx.GraphProto) -> None:
        for node in inner.node:
            for name in node.input:
                if name in constants and name not in renamed:
                    renamed[name] = numbered("constant")
            layer = node.op_type
            if layer in _PRODUCTS:
                read = (behind.get(name, name) for name in node.input)
                layer = next((name for name in read if name in weights), layer)
            node.name = numbered(layer.removesuffix(".weight"))
            for i, name in enumerate(node.output):
                if name and name not in fixed:
                    renamed[name] = node.name if len(node.output) == 1 else f"{node.name}:{i}"
            for body in subgraphs(node):
                body.name = f"{node.name}.body"
                for value in body.input:
                    renamed[value.name] = numbered("carried")
                visit(body)

    constants = {tensor.name for tensor in graph.initializer} - weights
    # Where a product reads a weight through a node that widens it, that weight names the product.
    behind = {n.output[0]: n.input[0] for n in all_nodes(graph) if n.op_type == "DequantizeLinear"}
    visit(graph)
    targets = [*renamed.values(), *fixed]
    ensure(len(targets) == len(set(targets)), "name_canonically: two values would have one name")
    rename(graph, renamed)


_PRODUCTS = ("MatMul", "Gemm", "MatMulNBits")


def keeps_name(initializer: str) -> bool:
    """Whether a stored tensor is called after its module rather than numbered."""
    return initializer.rsplit(".")[-1] in _NAMED


def sort_initializers(model: onnx.ModelProto) -> None:
    """Weights by name, so that the file does not depend on the order of tracing."""
    replace_initializers(model.graph, sorted(model.graph.initializer, key=lambda tensor: tensor.name))


def fix_batch(model: onnx.ModelProto, rows: int) -> None:
    """Replace the symbolic first dimension by a number."""
    for graph in all_graphs(model.graph):
        for value in (*graph.input, *graph.output):
            for dim in value.type.tensor_type.shape.dim:
                if dim.dim_param == BATCH:
                    dim.dim_value = rows
    check(model)
    free = [v.name for v in model.graph.input for dim in v.type.tensor_type.shape.dim if dim.dim_param]
    ensure(not free, f"fix_batch: free dimensions are left in {free}")


def check(model: onnx.ModelProto) -> None:
    """The checker's full test, strict shape inference, and bindings that every target takes."""
    onnx.checker.check_model(model, full_check=True)
    allowed = (TensorProto.FLOAT, TensorProto.INT32)
    for value in (*model.graph.input, *model.graph.output):
        kind = value.type.tensor_type.elem_type
        ensure(kind in allowed, f"check: binding {value.name} is {TensorProto.DataType.Name(kind)}")
