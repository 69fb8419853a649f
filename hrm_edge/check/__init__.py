"""`hrm-edge check`: bundles × data sets × rules, from a TOML spec; judged with what n puzzles can show.

``run`` reads a spec (``spec``), opens and answers (``measure``), judges (``verdicts``) by the rules (``rules``)
and keeps the baseline (``baseline``); ``output`` prints. See README.md.
"""
