"""Proof of quantization: the low-precision products that a backend compiled against those that were asked for.

What was asked for proves nothing: a weight that is stored transposed, a body quantized after it was put into a
loop or a pair that a backend does not fuse all run in float32 without a word.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from ..bundle.quantization import Products
from ..errors import GateFailed
from ..precision import PRECISIONS
from ..runtimes import backend
from ..runtimes.base import CompiledProduct
from .options import ExportOptions


def prove(
    options: ExportOptions,
    files: Iterable[Path],
    compiled: list[CompiledProduct] | None,
    expected: Iterable[str],
    what: str,
) -> Products:
    """The products that the backend compiled of a bundle's graphs; GateFailed unless they are as asked.

    ``compiled``: what the target's compiler said when it wrote ``files``, None: nothing.
    """
    if compiled is not None:
        products = compare_products(compiled, options.precision, expected)
    else:
        products = audit(options.target, files, options.precision, expected)
    raise_unless_quantized(products, what, options.precision)
    return products


def audit(target: str, files: Iterable[Path], precision: str, expected: Iterable[str]) -> Products:
    """Compile a bundle's graphs with their backend and look for every product in `expected` (names)."""
    compiler = backend(target)
    compiled = [product for file in files for product in compiler.compiled_products(file)]
    return compare_products(compiled, precision, map(compiler.compiled_name, expected))


def compare_products(compiled: list[CompiledProduct], precision: str, expected: Iterable[str]) -> Products:
    """The comparison itself, on what a backend said."""
    names = list(expected)
    wanted = PRECISIONS[precision]
    low = {p.name for p in compiled if p.right in wanted.right and (wanted.left is None or p.left in wanted.left)}
    return Products(
        expected=len(names),
        found=len(low & set(names)),
        kinds=dict(sorted(Counter(f"{p.left} × {p.right}" for p in compiled).items())),
        missing=tuple(name for name in names if name not in low),
    )


def raise_unless_quantized(products: Products, what: str, precision: str) -> None:
    """GateFailed, naming the layers, when the backend compiled fewer products than were asked for, or none."""
    if products.expected and not products.missing:
        return
    if not products.expected:
        raise GateFailed(
            f"{what}: {precision} was asked for, but not one product is quantized; nothing was published"
        )
    some = ", ".join(products.missing[:3]) + (", …" if len(products.missing) > 3 else "")
    raise GateFailed(
        f"{what}: {products.found} of {products.expected} {precision} products were compiled as such; "
        f"not {some}; nothing was published"
    )
