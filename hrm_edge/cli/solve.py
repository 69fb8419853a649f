"""Placeholder."""


def command() -> None:
    """Not written yet."""
