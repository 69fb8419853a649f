"""Puzzle sets: generated, read from the files people have, compared, downloaded, and kept apart."""
