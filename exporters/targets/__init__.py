"""One file or folder a target: what it can be exported in, and what writes its files."""
