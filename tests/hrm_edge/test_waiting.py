"""Idle threads of PyTorch's sleep: OpenMP is told so before it is loaded, unless the user told it otherwise."""

import os
import subprocess
import sys

import pytest

OWN = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def _ran(code: str, **given: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in OWN}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment | given, capture_output=True, text=True, check=True
    )


@pytest.mark.parametrize(("name", "value"), [("OMP_WAIT_POLICY", "ACTIVE"), *((name, "7") for name in OWN[1:])])
def test_what_the_user_set_stays(name, value):
    told = _ran(f"import os, hrm_edge; print([os.environ.get(name) for name in {OWN}])", **{name: value}).stdout
    assert told.strip() == str([value if each == name else None for each in OWN])


@pytest.mark.skipif(sys.platform != "linux", reason="other systems' PyTorch comes with another OpenMP")
def test_openmp_itself_says_that_its_threads_wait_passively():
    # Its library prints its settings as it is loaded; every room with PyTorch in it comes after the package itself.
    told = _ran("import hrm_edge.models", OMP_DISPLAY_ENV="TRUE").stderr
    if "OPENMP DISPLAY ENVIRONMENT" not in told:
        pytest.skip("this PyTorch's OpenMP does not print its settings")
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in told
