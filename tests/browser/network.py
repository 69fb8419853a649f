"""A site beyond its first visit: offline, replaced, damaged, and asking no other host."""

import shutil

import pytest
from sites import PUZZLE


def test_it_is_loaded_once_and_works_offline_and_is_installable(page, site, serve):
    server = serve(site())
    page.open(server.address)
    page.driver.execute_async_script("const done = arguments[0]; navigator.serviceWorker.ready.then(() => done())")
    page.until("navigator.serviceWorker.controller !== null")
    assert sum(size for _, size in server.asked) < 1.01 * sum(
        f.stat().st_size for f in site().rglob("*") if f.is_file()
    )
    problems = page.driver.execute_cdp_cmd("Page.getInstallabilityErrors", {})["installabilityErrors"]
    assert [each for each in problems if each["errorId"] != "in-incognito"] == []
    server.stop()
    page.open(server.address + "?from=home")
    page.ask(PUZZLE)
    page.think()
    assert page.verdict == ("good", "Verified")


def test_a_new_site_takes_the_place_of_the_one_that_was_kept(page, site, serve, tmp_path):
    folder = tmp_path / "site"
    shutil.copytree(site(), folder)
    server = serve(folder)
    page.open(server.address)
    page.driver.execute_async_script("const done = arguments[0]; navigator.serviceWorker.ready.then(() => done())")
    kept = page.driver.execute_async_script("const done = arguments[0]; caches.keys().then(done)")
    assert len(kept) == 1
    worker = folder / "sw.js"
    worker.write_text(worker.read_text().replace('VERSION = "', 'VERSION = "0'))
    (folder / "style.css").write_text("body { color: rgb(1, 2, 3) }")
    page.driver.execute_async_script(
        "const done = arguments[0];"
        "navigator.serviceWorker.addEventListener('controllerchange', () => done());"
        "navigator.serviceWorker.ready.then((ready) => ready.update());"
    )
    page.open(server.address)
    assert page.js("return getComputedStyle(document.body).color") == "rgb(1, 2, 3)"
    now = page.driver.execute_async_script("const done = arguments[0]; caches.keys().then(done)")
    assert len(now) == 1
    assert now != kept


def test_it_asks_no_other_host_and_its_policy_bites(page, served):
    server = served()
    page.open(server.address)
    page.ask(PUZZLE)
    page.think()
    assert page.clean
    places = page.js("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert all(place.startswith(server.address) for place in places)
    page.js(
        "const made = document.createElement('script'); made.text = 'window.ran = 1'; document.body.append(made)"
    )
    page.js("const image = new Image(); image.src = 'http://192.0.2.1/x.png'; document.body.append(image)")
    page.until("window.stopped.length >= 2")
    assert page.js("return window.ran") is None
    assert {each.split()[0] for each in page.stopped} == {"script-src-elem", "img-src"}


@pytest.mark.parametrize(
    ("file", "change", "told"),
    [
        ("site.json", lambda text: text[:-9], "site.json is damaged; write the site again with hrm-edge web"),
        ("site.json", lambda text: "[]", "site.json is damaged; write the site again with hrm-edge web"),
        ("site.json", lambda text: text.replace('"subtitle"', '"title"'), "site.json is damaged; write the"),
        ("facts.json", lambda text: text.replace("1", "2", 1), "facts.json is damaged; write the site again"),
        ("site.json", None, "site.json could not be loaded (404)"),
        ("model/segment.onnx", None, "model/segment.onnx could not be loaded (404)"),
        ("model/segment.onnx", lambda text: "no graph", "The model could not be loaded: "),
        ("app/worker.js", None, "the worker that thinks could not be started"),
    ],
)
def test_a_damaged_site_says_so_in_a_line(page, site, serve, tmp_path, file, change, told):
    folder = tmp_path / "site"
    shutil.copytree(site(), folder)
    if change is None:
        (folder / file).unlink()
    else:
        (folder / file).write_text(change((folder / file).read_text(errors="replace")))
    page.open(serve(folder).address)
    state, words = page.verdict
    assert state == "bad"
    assert told in words
    assert "\n" not in words
    assert page.js("return document.getElementById('think').disabled")
    assert page.stopped == []
