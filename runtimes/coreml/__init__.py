"""Core ML packages: read, interpreted on any machine, run by Core ML on macOS."""
