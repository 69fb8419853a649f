"""Core ML programs for tests, written with coremltools' own builder and saved as it saves them."""

import logging
import warnings

import numpy as np

logging.getLogger("coremltools").setLevel(logging.ERROR)

import coremltools as ct  # noqa: E402
from coremltools.converters.mil import Builder as mb  # noqa: E402
from coremltools.converters.mil.mil import types  # noqa: E402

__all__ = ["ct", "loop_program", "mb", "save_program", "save_torch", "spec", "types"]

IOS = {15: ct.target.iOS15, 16: ct.target.iOS16, 17: ct.target.iOS17, 18: ct.target.iOS18}
_TYPES = {
    "float32": types.fp32,
    "float16": types.fp16,
    "int32": types.int32,
    "bool": types.bool,
    "int8": types.int8,
}


def spec(shape, dtype="float32"):
    """An input of a program."""
    return mb.TensorSpec(tuple(shape), dtype=_TYPES[dtype])


def save_program(path, function, inputs, ios=17, half=False, passes=False):
    """A builder's function as a package. Without ``passes`` every operation is saved as it was written."""
    program = mb.program(input_specs=inputs, opset_version=IOS[ios])(function)
    return save(path, program, ios, half, None if passes else ct.PassPipeline.EMPTY)


def save(path, source, ios=17, half=False, pipeline=None, **options):
    """Convert and save whatever ``ct.convert`` takes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = ct.convert(
            source,
            convert_to="mlprogram",
            minimum_deployment_target=IOS[ios],
            compute_precision=ct.precision.FLOAT16 if half else ct.precision.FLOAT32,
            skip_model_load=True,
            **({"pass_pipeline": pipeline} if pipeline is not None else {}),
            **options,
        )
        model.save(str(path))
    return path


def save_torch(path, module, example, ios=17, half=False):
    """A torch module as a package."""
    import torch

    exported = torch.export.export(module.eval(), tuple(example)).run_decompositions({})
    return save(path, exported, ios, half)


def loop_program(path, half=False, ios=17):
    """x float32[2, 8], count int32[1] → x multiplied by a stored weight and put through sigmoid `count` times."""
    weight = np.random.default_rng(0).standard_normal((8, 8)).astype(np.float32)

    def program(x, count):
        w = mb.const(val=weight)
        zero = mb.const(val=np.zeros(1, np.int32))

        def going(h, done):
            return mb.squeeze(x=mb.less(x=done, y=count))

        def body(h, done):
            return mb.sigmoid(x=mb.linear(x=h, weight=w)), mb.add(x=done, y=np.ones(1, np.int32))

        h, done = mb.while_loop(_cond=going, _body=body, loop_vars=(x, zero))
        return mb.identity(x=h, name="y"), mb.identity(x=done, name="rounds")

    save_program(path, program, [spec((2, 8)), spec((1,), "int32")], ios, half, passes=half)
    return path, weight
