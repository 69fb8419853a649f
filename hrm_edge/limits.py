"""The largest sizes that a file may name: far above anything real, and low enough to be refused before memory is.

A config, a manifest or a list of identifiers is a few bytes that ask for any number of bytes. They are compared
with the numbers here before anything is allocated, traced or run by them.
"""

from __future__ import annotations

# The paper's model is 512 wide with 4 layers a level, 2 cycles each, 16 segments and 27 million weights. The
# largest published ones have a table of 1.2 million ARC puzzles, 512 wide: 640 million weights.
PARAMETERS = 2**30  # weights of one model: 4 GiB in float32
WIDTH = 8192  # of a state, an embedding, a head
LAYERS = 256  # of one level
CYCLES = 256
BLOCK_CALLS = 8192  # blocks of one segment, which an export unrolls
EXPANSION = 64
SEQUENCE = 2**16  # tokens; the largest task has 4096
PREFIX = 1024  # of these, before the puzzle
VOCABULARY = 2**16
IDENTIFIERS = 10_000_000  # puzzles with an embedding
SEGMENTS = 2**16
ROWS = 2**16 - 1  # of one call
FLOPS = 2**62  # of one segment
STATE = 2**28  # values of one state of all rows of a call: 1 GiB in float32
NAME = 64  # characters of a task's name
SYMBOL = 16  # characters of a token's
GROUPS = 2**12  # of a task
GROUP_CELLS = 2**22  # comparisons that verify an answer: of every cell of every group with every value
SYMMETRIES = 256  # that generate a task's
SYMMETRY_NUMBERS = 2**21  # of all of these together
SIZE = 2**31 - 1  # any dimension of a tensor, which is an int32 in most backends

# Text that is parsed whole. Configs are a few kilobytes; a header takes some hundred bytes a tensor.
CONFIG_BYTES = 2**24
TASK_BYTES = 2**23
YAML_BYTES = 2**17  # its parser takes seconds for more
HEADER_BYTES = 2**24
NESTING = 32  # tables and lists within each other

# Field of a config or of a bundle's architecture → the largest.
OF_FIELD = {
    "vocab_size": VOCABULARY,
    "seq_len": SEQUENCE,
    "num_puzzle_identifiers": IDENTIFIERS,
    "puzzle_emb_ndim": PREFIX * WIDTH,
    "puzzle_emb_len": PREFIX,
    "prefix_len": PREFIX,
    "H_cycles": CYCLES,
    "L_cycles": CYCLES,
    "H_layers": LAYERS,
    "L_layers": LAYERS,
    "hidden_size": WIDTH,
    "expansion": EXPANSION,
    "num_heads": WIDTH,
    "halt_max_steps": SEGMENTS,
    "conv_kernel": 255,
    "parameters": PARAMETERS,
    "segment_flops": FLOPS,
}
