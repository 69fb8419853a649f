"""What the server of `forked` has loaded, so that no process of it need: for training, exports, measures, plots."""

import matplotlib.figure  # noqa: F401
import torch._dynamo
import torch.distributed  # noqa: F401

import hrm_edge.benchmark.run
import hrm_edge.cli.train
import hrm_edge.export
import hrm_edge.trainer  # noqa: F401
from hrm_edge.exporters.graph import trace

trace._operators()  # torch.onnx reads the sources of its operators for them, which takes longer than a small trace
