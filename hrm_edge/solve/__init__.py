"""Solving for a person: puzzles from arguments, files or standard input, retries on symmetric variants.

Called, it is :func:`hrm_edge.api.solve`.
"""

from ..callables import make_callable

make_callable(__name__, "hrm_edge.api:solve")
