"""A bundle as a static site: what it holds, what it may replace, and that nothing in it comes from elsewhere."""

import hashlib
import io
import json
import re
import tarfile

import pytest
from toys import write_hollow_bundle, write_toy_bundle

import hrm_edge as he
from hrm_edge.bundle import open_bundle
from hrm_edge.cli import main
from hrm_edge.errors import InputError
from hrm_edge.web import engines, runtime
from hrm_edge.web.pages import SITE_POLICY
from hrm_edge.web.site import SITE, build_site


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return open_bundle(write_toy_bundle(tmp_path_factory.mktemp("bundles") / "toy"))


@pytest.fixture(autouse=True)
def hollow_runtime(monkeypatch):
    monkeypatch.setattr(engines, "runtime_files", lambda names, archive: {name: name.encode() for name in names})


def files_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_site_holds_the_bundle_and_all_that_thinks(bundle, tmp_path):
    site = build_site(bundle, tmp_path / "site")
    found = files_of(tmp_path / "site")
    assert {name: len(data) for name, data in found.items()} == site.files
    for file in bundle.manifest.graphs.values():
        assert found[f"model/{file}"] == (bundle.path / file).read_bytes()
    assert json.loads(found["facts.json"])["task"] == "sudoku-4x4"
    described = json.loads(found[SITE])
    assert {described["engine"]["cpu"]["module"], described["engine"]["cpu"]["wasm"]} <= set(found)
    listed = {name: hashlib.sha256(data).hexdigest() for name, data in found.items() if name != SITE}
    assert described["files"] == listed
    icons = [icon["src"] for icon in json.loads(found["manifest.webmanifest"])["icons"]]
    assert set(icons) <= set(found)


def test_the_worker_keeps_every_file_under_a_name_of_their_content(bundle, tmp_path):
    build_site(bundle, tmp_path / "site")
    worker = (tmp_path / "site" / "sw.js").read_text("utf-8")
    kept = json.loads(re.search(r"const FILES = (\[.*?\]);", worker)[1])
    assert set(kept) - {"./"} == set(files_of(tmp_path / "site")) - {"sw.js"}
    assert len(kept) == len(set(kept))
    version = re.search(r'const VERSION = "([0-9a-f]{16})";', worker)[1]
    build_site(bundle, tmp_path / "again")
    assert version in (tmp_path / "again" / "sw.js").read_text("utf-8")
    engines_differ = engines.Wishes(webgpu=True)
    build_site(bundle, tmp_path / "again", engines_differ)
    assert version not in (tmp_path / "again" / "sw.js").read_text("utf-8")


def test_nothing_of_a_page_is_inline_or_from_elsewhere(bundle, tmp_path):
    build_site(bundle, tmp_path / "site")
    found = files_of(tmp_path / "site")
    page = found["index.html"].decode()
    assert f'content="{SITE_POLICY}"' in page
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=|javascript:", page)
    for reference in re.findall(r'(?:src|href)="([^"]+)"', page):
        assert reference.startswith("#") or reference in found
    own = {
        name: data.decode() for name, data in found.items() if name.startswith(("app/", "lib/")) or "." not in name
    }
    for name, text in own.items():
        for other in re.findall(r'(?:from|import) "([^"]+)"', text):
            assert (tmp_path / "site" / name).parent.joinpath(other).is_file(), (name, other)
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text
        ), name
    addresses = {at for text in (page, *own.values()) for at in re.findall(r"https?://[^\s\"'`]+", text)}
    assert addresses == {"http://www.w3.org/2000/svg"}


def test_a_site_makes_way_for_a_site_and_nothing_else_does(bundle, tmp_path):
    folder = tmp_path / "site"
    build_site(bundle, folder)
    before = files_of(folder)
    build_site(bundle, folder)
    assert files_of(folder) == before

    (folder / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"'notes\.txt', which is no part of its site"):
        build_site(bundle, folder)
    (folder / "notes.txt").unlink()
    (folder / "style.css").write_text("body {}")
    with pytest.raises(InputError, match=r"'style\.css' was changed"):
        build_site(bundle, folder)
    (folder / "style.css").write_bytes(before["style.css"])
    listed = json.loads((folder / SITE).read_bytes())
    listed["files"]["notes.txt"] = "0" * 64
    (folder / SITE).write_text(json.dumps(listed))
    with pytest.raises(InputError, match="something else than a site"):
        build_site(bundle, folder)

    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("mine")
    with pytest.raises(InputError, match="something else than a site"):
        build_site(bundle, other)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="is a file"):
        build_site(bundle, tmp_path / "file")
    assert (other / "thesis.tex").read_text() == (tmp_path / "file").read_text() == "mine"


def test_a_site_that_cannot_be_made_leaves_nothing(bundle, tmp_path, monkeypatch):
    def refuse(names, archive):
        raise InputError("npm could not fetch it")

    monkeypatch.setattr(engines, "runtime_files", refuse)
    with pytest.raises(InputError, match="npm could not fetch it"):
        build_site(bundle, tmp_path / "site")
    assert not list(tmp_path.iterdir())


def test_a_bundle_that_no_page_can_run_says_what_to_do(tmp_path, capsys):
    folder = write_hollow_bundle(
        tmp_path / "toy", target="openvino", graphs={"start": "start.xml", "segment": "segment.xml"}
    )
    with pytest.raises(SystemExit) as stop:
        main(["web", str(folder), "-o", str(tmp_path / "site")])
    assert stop.value.code == 2
    assert re.search(r"no page can run \w+\.xml .* --target onnx or c", capsys.readouterr().err)


def test_the_command_says_what_it_wrote(bundle, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["web", str(bundle.path), "-o", str(tmp_path / "site"), "--json"])
    assert stop.value.code == 0
    told = json.loads(capsys.readouterr().out)
    assert told["bytes"] == sum(len(data) for data in files_of(tmp_path / "site").values())


# -- the runtime ---------------------------------------------------------------------------------------------


def archive_of(path, files):
    with tarfile.open(path, "w:gz") as package:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"package/dist/{name}")
            entry.size = len(content)
            package.addfile(entry, io.BytesIO(content))
    return path


def test_only_the_known_runtime_is_taken(tmp_path, monkeypatch):
    archive = archive_of(tmp_path / "runtime.tgz", {"a.mjs": b"a", "b.wasm": b"b"})
    with pytest.raises(InputError, match=r"is not onnxruntime-web 1\.\d+\.\d+ as npm has it"):
        runtime.runtime_files(["a.mjs"], archive)
    monkeypatch.setattr(runtime, "_SHA512", runtime._digest(archive.read_bytes()))
    assert runtime.runtime_files(["a.mjs", "b.wasm"], archive) == {"a.mjs": b"a", "b.wasm": b"b"}


def test_it_is_fetched_once_and_again_where_the_cache_was_damaged(tmp_path, monkeypatch):
    content = archive_of(tmp_path / "runtime.tgz", {"a.mjs": b"a"}).read_bytes()
    fetched = []
    monkeypatch.setenv("HRM_EDGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(runtime, "_SHA512", runtime._digest(content))
    monkeypatch.setattr(runtime, "_fetched", lambda: fetched.append(1) or content)
    assert runtime.runtime_files(["a.mjs"]) == runtime.runtime_files(["a.mjs"]) == {"a.mjs": b"a"}
    assert len(fetched) == 1
    (kept,) = (tmp_path / "cache").rglob("*.tgz")
    kept.write_bytes(b"damaged")
    assert runtime.runtime_files(["a.mjs"]) == {"a.mjs": b"a"}
    assert len(fetched) == 2
    monkeypatch.setattr(runtime, "_fetched", lambda: b"another")
    kept.unlink()
    with pytest.raises(InputError, match="npm gave another"):
        runtime.runtime_files(["a.mjs"])
    assert not kept.exists()


def test_without_npm_it_says_how_to_go_on(monkeypatch, tmp_path):
    monkeypatch.setenv("HRM_EDGE_CACHE", str(tmp_path))
    monkeypatch.setattr(runtime.shutil, "which", lambda name: None)
    with pytest.raises(InputError, match=r"npm, which fetches it, is not here; .* --runtime"):
        runtime.runtime_files(["a.mjs"])


def test_nothing_is_written_into_the_bundle_that_is_read(tmp_path, capsys):
    """It could not be opened again."""
    bundle = write_toy_bundle(tmp_path / "toy")
    (tmp_path / "link").symlink_to(bundle)
    puzzle = ["solve", str(bundle), "1...............", "--max-think-steps", "1"]
    for place in (bundle, tmp_path / "link"):
        for command in (
            ["web", str(bundle), "-o", str(place / "site")],
            [*puzzle, "--trace-html", str(place / "x.html")],
            [*puzzle, "--gif", str(place / "x.gif")],
        ):
            with pytest.raises(SystemExit) as stopped:
                main(command)
            assert stopped.value.code == 2
            assert "lies inside" in capsys.readouterr().err
    with pytest.raises(InputError, match="lies inside"):
        he.solve(bundle, puzzle[2], gif=bundle / "x.gif")
    assert open_bundle(bundle).manifest.name == "toy"
