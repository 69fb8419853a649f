"""`hrm-edge check`: bundles × data sets × rules, from a TOML spec; judged with what n puzzles can show.

Called, it is :func:`hrm_edge.api.check`.
"""

from ..callables import make_callable

make_callable(__name__, "hrm_edge.api:check")
