"""`python -m hrm_edge.cli`: the same as the `hrm-edge` script, for launchers that take a module."""

from . import main

main()
