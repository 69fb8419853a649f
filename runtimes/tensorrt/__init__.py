"""TensorRT and TensorRT-RTX: engines built, audited, kept, and run with their state on the GPU."""
