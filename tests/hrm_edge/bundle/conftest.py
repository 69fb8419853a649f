"""A small bundle whose graphs hold nothing."""

import pytest
import toys


@pytest.fixture
def bundle(tmp_path):
    return toys.write_hollow_bundle(tmp_path / "b")


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return toys.write_hollow_bundle(tmp_path_factory.mktemp("shared") / "b")
