"""Measuring: accuracy, the gate, drift, speed and memory of anything that answers puzzles."""
