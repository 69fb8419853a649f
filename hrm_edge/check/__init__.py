"""`hrm-edge check`: bundles × data sets × rules, from a TOML spec; judged with what n puzzles can show."""
