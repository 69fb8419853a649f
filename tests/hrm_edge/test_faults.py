"""File operations of whole commands broken one after the other; the helper has the faults and the commands."""

import os
import shutil
import subprocess
from pathlib import Path

import fault_injection
import faults
import pytest
from fault_injection import Trial, Wrong, contents, run, sweep
from faults import scenarios
from faulty_disk import BY_NAME, Disk, Fault, watched

from hrm_edge.bundle import open_bundle

pytestmark = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="open files are named by /proc")

# All of both with HRM_EDGE_FAULTS=all, which takes a quarter of an hour.
OFTEN = ("export over a bundle", "import over a checkpoint", "data generate over a set", "train, resumed")
SELDOM = (
    *("solve -o", "solve -o over a file"),
    *("export", "export --target openvino", "import", "convert over one", "data generate", "train"),
    *("data convert over a file", "data arc over a set", "data download over a file"),
    *("check --update-baseline", "check --update-baseline over one"),
)
ALL = os.environ.get("HRM_EDGE_FAULTS") == "all"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    with faults.quick():
        yield {each.name: each for each in scenarios(tmp_path_factory.mktemp("made"))}


@pytest.fixture
def trial(made, tmp_path):
    def trial(name):
        return Trial(made[name], tmp_path)

    with faults.quick():
        yield trial


@pytest.mark.parametrize("name", [*OFTEN, *SELDOM] if ALL else [*OFTEN, SELDOM[-1]])
def test_the_old_or_the_new_stands_whole_and_nothing_else_has_changed(trial, name):
    """And the exit code says which; after a kill the same command works, and leaves nothing behind."""
    outcomes = sweep(trial(name), None if ALL else 1)
    assert set(outcomes) == set(BY_NAME)
    assert all(counted.total() for counted in outcomes.values())


def test_a_signal_that_comes_once_the_new_stands_fails_nothing(trial):
    tried = trial("data generate over a set")
    first, last = tried.kinds.index("rename"), len(tried.kinds) - tried.kinds[::-1].index("rename")
    outcomes = [tried.meet(BY_NAME["TERM"], at + 1) for at in (first - 1, first, last)]
    assert outcomes == ["exit 143, old stands", "exit 0, new stands", "exit 0, new stands"]


def test_the_old_is_put_back_into_a_folder_that_is_moved_away_in_between(trial):
    tried = trial("data generate over a set")
    outcomes = [tried.meet(BY_NAME["vanish"], at) for at, kind in enumerate(tried.kinds, 1) if kind == "rename"]
    assert outcomes[:2] == ["exit 2, old stands", "exit 2, old stands"]


def test_a_reader_at_any_moment_finds_the_old_bundle_or_the_new(trial):
    seen = set()

    def look(place):
        seen.add(open_bundle(place / "bundle").manifest.name)

    assert trial("export over a bundle").look_all_the_time(look) > 20
    look(trial("export over a bundle").place)
    assert seen == {"toy", "bundle"}


def test_a_reader_at_any_moment_finds_a_whole_checkpoint(trial):
    from hrm_edge.models import load_checkpoint

    seen = set()
    trial("import over a checkpoint").look_all_the_time(
        lambda place: seen.add(load_checkpoint(place / "model").content_hash)
    )
    assert len(seen) == 2


@pytest.mark.parametrize(
    ("fault", "spoil", "said"),
    [
        ("EIO", lambda place: (place / "notes.txt").write_text("ours"), "a neighbour was changed"),
        ("EIO", lambda place: (place / "extra").mkdir(), "extra has come"),
        ("EIO", lambda place: (place / "set" / "dataset.json").write_text("{}"), "neither the old nor the new"),
        ("kill", lambda place: (place / "set" / "dataset.json").unlink(), "neither the old nor the new"),
    ],
)
def test_the_harness_sees_what_is_wrong(trial, monkeypatch, fault, spoil, said):
    tried = trial("data generate over a set")
    real = Trial._run

    def spoiled(self, disk: Disk):
        outcome = real(self, disk)
        if disk.fault is not None:
            spoil(self.place)
        return outcome

    monkeypatch.setattr(Trial, "_run", spoiled)
    with pytest.raises(Wrong, match=said):
        tried.meet(BY_NAME[fault], 3)


def test_the_harness_sees_litter_and_wrong_exit_codes(trial, monkeypatch):
    tried = trial("data generate over a set")
    monkeypatch.setattr("hrm_edge.workspace._leave", lambda work, target, handle: os.close(handle))
    with pytest.raises(Wrong, match="is left behind"):
        tried.meet(BY_NAME["TERM"], 8)
    monkeypatch.undo()
    monkeypatch.setattr(fault_injection, "run", lambda arguments, real=run: (0, real(arguments)[1]))
    with pytest.raises(Wrong, match="exits 0, and the new does not stand there"):
        tried.meet(BY_NAME["EACCES"], 1)


def test_every_kind_of_operation_is_watched(tmp_path):
    (tmp_path / "w").mkdir()
    disk = Disk(tmp_path / "w")
    with watched(disk):
        (tmp_path / "w" / "a").write_text("a")
        os.replace(tmp_path / "w" / "a", tmp_path / "w" / "b")
        os.chmod(tmp_path / "w" / "b", 0o600)
        (tmp_path / "w" / "d").mkdir()
        with open(tmp_path / "w" / "d" / "c", "wb") as file:
            file.write(b"c")
        shutil.rmtree(tmp_path / "w" / "d")
        (tmp_path / "outside").write_text("not counted")
    assert disk.kinds == ["open", "rename", "chmod", "mkdir", "open", "remove", "remove"]
    full = Disk(tmp_path / "w", Fault("full", 28), at=1)
    with watched(full), pytest.raises(OSError, match="No space left"):
        (tmp_path / "w" / "e").write_text("e")


@pytest.fixture
def small_disk(tmp_path):
    """A real disk of a size that is asked for; skipped where none may be mounted."""
    place = tmp_path / "disk"
    place.mkdir()

    def of(kilobytes: int) -> Path:
        subprocess.run(["umount", place], capture_output=True)
        try:
            mounted = subprocess.run(
                ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "none", place], capture_output=True
            )
        except FileNotFoundError:
            pytest.skip("no mount here")
        if mounted.returncode:
            pytest.skip("no disk may be mounted here")
        return place

    yield of
    subprocess.run(["umount", place], capture_output=True)


@pytest.mark.parametrize("name", ["export over a bundle", "export --target openvino", "import", "data generate"])
def test_a_disk_that_is_really_full(made, small_disk, name):
    """Larger and larger ones: refused in one line with the old in its place, until it fits."""
    with faults.quick():
        for pages in (4, 6, 8, 12, 16, 24, 40, 64, 128, 256, 512):
            place = small_disk(4 * pages)
            try:
                made[name].prepare(place)
            except OSError:
                continue
            before = contents(place / made[name].target)
            code, said = run(made[name].arguments(place))
            left = {path.name for path in place.iterdir()}
            if code == 0:
                assert left == {made[name].target}
                return
            assert code == 2, said
            assert len([line for line in said.splitlines() if line.startswith("hrm-edge: ")]) == 1, said
            assert contents(place / made[name].target) == before
            assert left == ({made[name].target} if before else set())
    pytest.fail("it never fitted")
