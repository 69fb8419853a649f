"""From a checkpoint to a bundle: segment → passes → precision → loop → target, one module per stage."""
