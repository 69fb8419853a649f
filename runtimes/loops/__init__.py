"""The three loops around a graph: on the host, inside the graph, and over a device's slots."""
