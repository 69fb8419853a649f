"""What OpenVINO's own binding needs, tried in processes of their own."""

import subprocess
import sys

import pytest
import toys

pytest.importorskip("openvino")

FIRST_CALLS = """
import faulthandler, sys, threading
import numpy as np
from hrm_edge.runtimes.openvino import imported

sys.setswitchinterval(1e-6)
faulthandler.dump_traceback_later(20, exit=True)
ready, openvino = threading.Barrier(8), imported()

def call(number):
    ready.wait()
    if number % 2:
        openvino.Type.f32.to_dtype()
    openvino.Tensor(np.zeros((2, 3), np.float32), shared_memory=True)
    openvino.Tensor(openvino.Type.f32, [2]).data

threads = [threading.Thread(target=call, args=(number,)) for number in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
"""


def test_first_calls_from_several_threads_do_not_wait_for_each_other():
    """Of two processes, as without the tables made beforehand each of them hung three times in five."""
    started = [subprocess.Popen([sys.executable, "-c", FIRST_CALLS], stderr=subprocess.PIPE) for _ in range(2)]
    for process in started:
        said = process.communicate(timeout=60)[1].decode()
        assert process.returncode == 0, said


FREED = """
import gc, signal, sys, threading
from hrm_edge.runtimes import load_engine

def free():
    del opened[0]
    gc.collect()

heard = []
signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
opened = [load_engine(sys.argv[1], threads=1) for _ in range(2)]
while opened:
    if sys.argv[2] == "here":
        free()
    else:
        thread = threading.Thread(target=free)
        thread.start()
        thread.join()
signal.raise_signal(signal.SIGTERM)
assert heard == [signal.SIGTERM]
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals have no stack of their own there")
@pytest.mark.parametrize("where", ["here", "in a thread"])
def test_a_signal_is_heard_after_engines_were_freed_in_the_order_they_were_opened(tmp_path, where):
    """With a Core for each, both end in a segmentation fault."""
    bundle = toys.write_toy_bundle(tmp_path / "toy", "openvino")
    done = subprocess.run([sys.executable, "-c", FREED, bundle, where], capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr.decode()


@pytest.mark.parametrize(("threads", "streams", "tied"), [(1, 1, False), (1, 2, True), (2, 1, True)])
def test_threads_are_tied_to_cores_only_where_all_cores_are_this_process_s(threads, streams, tied, monkeypatch):
    """Each process ties them to the first cores: two of one thread would share one core."""
    from hrm_edge.runtimes import openvino

    monkeypatch.setattr(openvino, "usable_cores", lambda: 2)
    compiled = openvino.core().compile_model(
        openvino._product("fp32", 16), "CPU", openvino._settings(threads, streams)
    )
    assert bool(compiled.get_property("ENABLE_CPU_PINNING")) == tied
