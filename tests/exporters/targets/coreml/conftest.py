"""The Swift package of a manifest."""

from __future__ import annotations

from typing import Any

import pytest
from swift_packages import FILES

from hrm_edge.bundle import Manifest
from hrm_edge.exporters.targets.coreml.swift import write_package


@pytest.fixture
def package(tmp_path):
    def package(content: Manifest, **options: Any) -> dict[str, str]:
        write_package(tmp_path, content, **options)
        return {name: (tmp_path / "swift" / name).read_text(encoding="utf-8") for name in FILES}

    return package
