"""Sites, served, in headless Chromium: for `make test-web`.

With HRM_EDGE_SHOTS=FOLDER pictures of the pages are left there.
"""

import contextlib
import shutil

import pytest
from sites import bundle_of

with contextlib.suppress(ImportError):  # the whole suite reads this file, too, without the extra `browser`
    from browser import Served, browser

from hrm_edge.errors import InputError
from hrm_edge.web.engines import Wishes, engine_for
from hrm_edge.web.site import build_site


@pytest.fixture(autouse=True, scope="session")
def driven():
    if shutil.which("chromedriver") is None:
        pytest.skip("chromium-driver is not installed")


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The folder of a site, of a bundle that a model is exported to."""
    made = {}

    def site_of(model="sudoku-9x9", target="onnx", precision="fp32", webgpu=False):
        key = model, target, precision, webgpu
        if key not in made:
            bundle = bundle_of(model, target, precision)
            try:
                engine_for(bundle)
            except InputError as error:
                pytest.skip(str(error))
            made[key] = tmp_path_factory.mktemp("sites") / "site"
            build_site(bundle, made[key], Wishes(webgpu=webgpu))
        return made[key]

    return site_of


@pytest.fixture
def serve():
    """Serves a folder until the test ends."""
    servers = []

    def serve_folder(folder):
        servers.append(Served(folder))
        return servers[-1]

    yield serve_folder
    for server in servers:
        server.stop()


@pytest.fixture
def served(site, serve):
    return lambda *named, **parts: serve(site(*named, **parts))


@pytest.fixture
def page():
    with browser() as opened:
        yield opened
