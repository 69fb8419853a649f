"""Proof of quantization: the low-precision products that a backend compiled against those that were asked for.

What was asked for proves nothing: a weight that is stored transposed, a body quantized after it was put into a
loop or a pair that a backend does not fuse all run in float32 without a word.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ..bundle import Bundle
from ..bundle.quantization import BLOCKS, Products, Quantization
from ..errors import GateFailed, InputError
from ..packages import install
from ..precision import PRECISIONS
from ..runtimes import backend
from ..runtimes.base import CompiledProduct

if TYPE_CHECKING:
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
    compiled = _compiled(target, files)
    if compiled is None:
        raise GateFailed(
            f"{target} does not tell what it compiled, so nothing shows that it is {precision}; "
            "nothing was published"
        )
    return compare_products(compiled, precision, map(backend(target).compiled_name, expected))


def _compiled(target: str, files: Iterable[Path]) -> list[CompiledProduct] | None:
    """All products of some graphs; None where the backend does not tell."""
    told = [backend(target).compiled_products(file) for file in files]
    return None if None in told else [product for products in told for product in products or ()]


def audit_bundle(bundle: Bundle, record: Quantization) -> Products | None:
    """Compile a bundle's graphs here, and look for all that its record says; None: its backend does not tell.

    The record says which layers are quantized, not that they are: every product of theirs must be found, as many
    as it counted, and none of a layer that it does not name may be in float.
    """
    compiler = backend(bundle.manifest.target)
    files = [bundle.path / name for name in dict.fromkeys(bundle.manifest.graphs.values())]
    try:
        compiled = _compiled(bundle.manifest.target, files)
    except ImportError as error:
        raise InputError(
            f"{bundle.path}: to see what is compiled here takes the package {error.name}, which is not installed; "
            f"run: {install('export')}"
        ) from None
    if compiled is None:
        return None
    named = {compiler.compiled_name(name): layer for layer in record.layers for name in layer.products}
    low = [name for name, layer in named.items() if layer.dtype != "float32"]
    blocks = tuple(map(compiler.compiled_name, BLOCKS))
    unnamed = [p.name for p in compiled if p.name.startswith(blocks) and p.name not in named]
    there = compare_products(compiled, record.precision, low)
    others = compare_products(compiled, record.precision, dict.fromkeys(unnamed))
    counted = record.products.expected if record.products else 0
    missing = there.missing + others.missing
    expected = max(there.expected + others.expected, counted)
    return Products(expected, there.found + others.found, there.kinds, missing)


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
