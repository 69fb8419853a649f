"""The analyses people ask for: accuracy by segments and retries, halting, participation ratio, ablations."""
