"""Solving for a person: puzzles from arguments, files or standard input, retries on symmetric variants."""
