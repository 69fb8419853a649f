"""A service in this process."""

import asyncio

import pytest


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Run ``work(service)`` in an event loop; ``options`` are those of `serving`."""
    from services import serving  # needs the extra serve

    def run(work, **options):
        async def main():
            service = serving(monkeypatch, tmp_path, **options)
            try:
                return await work(service)
            finally:
                await service.bundles.close(drain=False)

        return asyncio.run(main())

    return run
