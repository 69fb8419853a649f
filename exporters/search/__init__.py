"""What to quantize and how, chosen by the answers after re-rolling every candidate."""
