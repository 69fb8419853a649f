"""One table for the undecided: every target and precision of a checkpoint, exported, gated and timed.

Called, it is :func:`hrm_edge.api.benchmark`.
"""

from ..callables import make_callable

make_callable(__name__, "hrm_edge.api:benchmark")
