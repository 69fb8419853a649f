"""Pages: a static site that thinks on the visitor's machine, and a recorded trace to look at."""
