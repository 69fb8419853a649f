"""ARC-AGI from task files to a submission: augmented puzzle folders, and votes over a model's answers."""
