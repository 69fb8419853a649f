"""Fewer bits in a segment's graph: float16, int8 products, weights stored in few bits."""
