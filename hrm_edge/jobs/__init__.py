"""Many puzzles: a file of them answered into a file, in shards, by workers that may be lost; see README.md."""
