"""One segment as a static graph: traced, cleaned, edited, wrapped in the halting loop."""
