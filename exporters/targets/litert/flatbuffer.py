"""A TensorFlow Lite model under construction, and the flatbuffer that it becomes.

The format is the schema that ships with LiteRT's runtime (``ai_edge_litert.schema_py_generated``). The same graph
gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

_TYPES = {"float32": "FLOAT32", "float16": "FLOAT16", "int32": "INT32", "int8": "INT8", "bool": "BOOL"}
# Of each stored tensor: kernels read vectors of this many bytes.
_ALIGNMENT = 16
_VERSION = 3  # of the schema
# Operator → the version that has what is used of it, where that is not the first.
_VERSIONS = {"BROADCAST_TO": 2, "DEQUANTIZE": 3, "FULLY_CONNECTED": 5}
# Operator → its options, where it has any.
_OPTIONS = {
    "ADD": "Add",
    "ARG_MAX": "ArgMax",
    "BATCH_MATMUL": "BatchMatMul",
    "CAST": "Cast",
    "CONCATENATION": "Concatenation",
    "CONV_2D": "Conv2D",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2D",
    "DIV": "Div",
    "FULLY_CONNECTED": "FullyConnected",
    "GATHER": "Gather",
    "GELU": "Gelu",
    "MEAN": "Reducer",
    "MUL": "Mul",
    "REDUCE_MAX": "Reducer",
    "REDUCE_MIN": "Reducer",
    "RESHAPE": "Reshape",
    "SOFTMAX": "Softmax",
    "STRIDED_SLICE": "StridedSlice",
    "SUB": "Sub",
    "SUM": "Reducer",
}


class Model:
    """One subgraph: its tensors and operators, in the order of execution."""

    def __init__(self) -> None:
        self.tensors: list[Any] = []
        self._data: list[np.ndarray | None] = []  # by tensor
        self._operators: list[tuple[str, list[int], list[int], dict[str, Any]]] = []

    def tensor(
        self,
        name: str,
        shape: Sequence[int],
        dtype: str,
        data: np.ndarray | None = None,
        scale: np.ndarray | None = None,
    ) -> int:
        """A tensor's number. ``scale`` float32[1], or one an output channel (dimension 0): the value of a step."""
        from ai_edge_litert import schema_py_generated as schema

        made = schema.TensorT()
        made.name, made.shape = name.encode(), [int(size) for size in shape]
        made.type = getattr(schema.TensorType, _TYPES[dtype])
        made.hasRank = True
        if scale is not None:
            steps = schema.QuantizationParametersT()
            steps.scale = np.asarray(scale, np.float32)
            steps.zeroPoint = np.zeros(len(scale), np.int64)
            made.quantization = steps
        self.tensors.append(made)
        self._data.append(data)
        return len(self.tensors) - 1

    def operator(self, code: str, inputs: Sequence[int], outputs: Sequence[int], **options: Any) -> None:
        """``inputs``: −1 for one that is left out. ``options``: as the schema names them."""
        self._operators.append((code, list(inputs), list(outputs), options))

    def serialized(self, inputs: dict[str, int], outputs: dict[str, int], description: str) -> bytes:
        """The file, which holds only what the outputs depend on."""
        import flatbuffers
        from ai_edge_litert import schema_py_generated as schema

        live = self._live(set(outputs.values()))
        kept = sorted({*inputs.values(), *(i for op in live for side in op[1:3] for i in side if i >= 0)})
        place = {old: new for new, old in enumerate(kept)} | {-1: -1}
        made, graph = schema.ModelT(), schema.SubGraphT()
        made.version, made.description = _VERSION, description.encode()
        made.buffers = [schema.BufferT()]  # the first is empty by convention
        graph.tensors = []
        stored: dict[int, int] = {}  # what is stored, by identity → its buffer: tensors may share it
        for old in kept:
            tensor, data = self.tensors[old], self._data[old]
            tensor.buffer = 0
            if data is not None:
                if id(data) not in stored:
                    stored[id(data)] = len(made.buffers)
                    made.buffers.append(_Aligned(data))
                tensor.buffer = stored[id(data)]
            graph.tensors.append(tensor)
        codes = sorted({op[0] for op in live})
        made.operatorCodes = [_code(name) for name in codes]
        graph.operators = []
        for code, reads, writes, options in live:
            operator = schema.OperatorT()
            operator.opcodeIndex = codes.index(code)
            operator.inputs, operator.outputs = [place[i] for i in reads], [place[i] for i in writes]
            if code in _OPTIONS:
                kind = f"{_OPTIONS[code]}Options"
                operator.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
                operator.builtinOptions = getattr(schema, f"{kind}T")()
                for field, value in options.items():
                    setattr(operator.builtinOptions, field, value)
            graph.operators.append(operator)
        graph.inputs = [place[i] for i in inputs.values()]
        graph.outputs = [place[i] for i in outputs.values()]
        graph.name = b"main"
        made.subgraphs = [graph]
        signature = schema.SignatureDefT()
        signature.signatureKey, signature.subgraphIndex = b"serving_default", 0
        signature.inputs = [_named(name, place[i]) for name, i in inputs.items()]
        signature.outputs = [_named(name, place[i]) for name, i in outputs.items()]
        made.signatureDefs = [signature]
        builder = flatbuffers.Builder(1 << 16)
        builder.Finish(made.Pack(builder), file_identifier=b"TFL3")
        return bytes(builder.Output())

    def _live(self, wanted: set[int]) -> list[tuple[str, list[int], list[int], dict[str, Any]]]:
        found = []
        for operator in reversed(self._operators):
            if wanted & set(operator[2]):
                wanted |= set(operator[1])
                found.append(operator)
        return found[::-1]


class _Aligned:
    """A stored tensor's bytes where they can be read in place: the schema's own Python code aligns them to 1."""

    def __init__(self, array: np.ndarray) -> None:
        self.bytes = np.ascontiguousarray(array).tobytes()

    def Pack(self, builder: Any) -> int:
        from ai_edge_litert import schema_py_generated as schema

        count = len(self.bytes)
        builder.StartVector(1, count, _ALIGNMENT)
        builder.head -= count
        builder.Bytes[builder.head : builder.head + count] = self.bytes
        data = builder.EndVector()
        schema.BufferStart(builder)
        schema.BufferAddData(builder, data)
        return int(schema.BufferEnd(builder))


def _code(name: str) -> Any:
    from ai_edge_litert import schema_py_generated as schema

    number = getattr(schema.BuiltinOperator, name)
    made = schema.OperatorCodeT()
    made.builtinCode = number
    made.deprecatedBuiltinCode = min(number, 127)  # where readers from before 2020 look
    made.version = _VERSIONS.get(name, 1)
    return made


def _named(name: str, tensor: int) -> Any:
    from ai_edge_litert import schema_py_generated as schema

    made = schema.TensorMapT()
    made.name, made.tensorIndex = name.encode(), tensor
    return made
