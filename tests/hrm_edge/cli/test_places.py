"""Where commands may write, and what they leave: data, import, check and report."""

import json
import shutil
import signal
import subprocess
import sys

import pytest
import toys
from commands import run

from hrm_edge.check import output
from hrm_edge.check.run import Runner
from hrm_edge.data.puzzles import generate_puzzles, load_puzzles, save_puzzles
from hrm_edge.errors import InputError
from hrm_edge.tasks import get_task

TASK = get_task("sudoku-4x4")
SPEC = 'baseline = "baseline.json"\n[[check]]\nname = "x"\nbundle = "toy"\nmax_size_mb = 1\n'


def everything(folder):
    return {path.relative_to(folder): path.is_file() and path.read_bytes() for path in folder.rglob("*")}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_puzzles(generate_puzzles(TASK, 3, seed=1), tmp_path / "p.csv")
    save_puzzles(generate_puzzles(TASK, 3, seed=2), tmp_path / "set")
    return tmp_path


# -- data ----------------------------------------------------------------------------------------------

COMMANDS = {
    "convert": ("data", "convert", "p.csv"),
    "generate": ("data", "generate", "--n", "3"),
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", ["README.md", ".gitignore", "all__extra.npy", "train/all__inputs.npy"])
def test_a_set_with_a_file_of_the_users_is_not_replaced(folder, capsys, command, name):
    (folder / "set" / name).parent.mkdir(exist_ok=True)
    (folder / "set" / name).write_text("mine")
    before = everything(folder)
    code, _, err = run(capsys, *COMMANDS[command], "--task", TASK.name, "--force", "-o", "set")
    assert (code, len(err.splitlines())) == (2, 1)
    assert f"set exists and is no puzzle set alone: it holds {name.split('/')[0]!r}" in err
    assert everything(folder) == before


@pytest.mark.parametrize("content", ['{"name": "my dataset"}', "[]", "not JSON", "\xff"])
def test_a_dataset_json_of_another_program_is_not_ours(folder, capsys, content):
    (folder / "other").mkdir()
    (folder / "other" / "dataset.json").write_text(content)
    code, _, err = run(capsys, *COMMANDS["convert"], "--task", TASK.name, "--force", "-o", "other")
    assert (code, "other exists and is no puzzle set" in err) == (2, True)
    assert (folder / "other" / "dataset.json").read_text() == content


def test_a_set_is_replaced_with_what_the_system_left_in_it(folder, capsys):
    for name in (".DS_Store", "Thumbs.db", "._dataset.json", "desktop.ini"):
        (folder / "set" / name).write_bytes(b"x")
    assert len(load_puzzles(folder / "set", TASK)) == 3
    assert run(capsys, *COMMANDS["convert"], "--task", TASK.name, "-o", "set")[0] == 2  # without --force
    assert run(capsys, *COMMANDS["convert"], "--task", TASK.name, "--force", "-o", "set")[0] == 0
    assert (load_puzzles(folder / "set", TASK).questions == load_puzzles(folder / "p.csv", TASK).questions).all()


def test_a_set_behind_a_link_is_replaced_and_the_link_stays(folder, capsys):
    (folder / "link").symlink_to("set")
    (folder / "link.csv").symlink_to("p.csv")
    assert run(capsys, *COMMANDS["convert"], "--task", TASK.name, "--force", "-o", "link")[0] == 0
    assert run(capsys, *COMMANDS["generate"], "--task", TASK.name, "--force", "-o", "link.csv")[0] == 0
    assert (folder / "link").is_symlink()
    assert (folder / "link.csv").is_symlink()
    assert (load_puzzles(folder / "set", TASK).questions != load_puzzles(folder / "p.csv", TASK).questions).any()


def test_a_set_that_was_cut_off_is_read_where_it_stands(folder):
    work = folder / ".set.hrm-edge"
    work.mkdir()
    (work / "owner").write_text(
        "hrm-edge writes beside this folder; it may be deleted when that has ended: process 1"
    )
    (folder / "set").rename(work / "old")
    before = everything(folder)
    assert len(load_puzzles(folder / "set", TASK)) == 3
    assert everything(folder) == before


def test_nothing_is_generated_for_a_folder_one_is_in(folder, capsys, monkeypatch):
    (folder / "empty").mkdir()
    monkeypatch.chdir(folder / "empty")
    monkeypatch.setattr("hrm_edge.data.puzzles.generate_distinct", lambda *_: pytest.fail("worked"))
    code, _, err = run(capsys, "data", "generate", "-o", ".")
    assert (code, "is the folder that you are in" in err) == (2, True)


# -- import --------------------------------------------------------------------------------------------


def test_an_import_does_not_replace_another_programs_checkpoint(folder, capsys):
    """Of the very names that ours has."""
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text('{"architectures": ["BertModel"]}')
    (folder / "model" / "model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    (folder / "model" / "card.md").write_text("mine")
    before = everything(folder)
    code, _, err = run(capsys, "import", "nowhere", "-o", "model")
    assert (code, "model: holds something else than a checkpoint" in err) == (2, True)
    assert everything(folder) == before


# -- check and report ----------------------------------------------------------------------------------


@pytest.fixture
def spec(folder):
    pytest.importorskip("onnxruntime")
    toys.write_toy_bundle(folder / "toy")
    (folder / "spec.toml").write_text(SPEC)
    return folder / "spec.toml"


@pytest.mark.parametrize("flag", ["--junit", "--markdown"])
@pytest.mark.parametrize("place", ["p.csv/x", "p.csv/a/b", "/proc/x", "{long}"])
def test_an_output_that_cannot_be_written_is_refused_before_measuring(spec, capsys, monkeypatch, flag, place):
    monkeypatch.setattr(Runner, "measure", lambda *_: pytest.fail("measured"))
    place = place.format(long="x" * 300)
    code, out, err = run(capsys, "check", spec, flag, place)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1


def test_figures_are_printed_when_their_file_cannot_be_written_in_the_end(spec, capsys, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device", "out.xml")

    monkeypatch.setattr(output, "write_atomically", full)
    code, out, err = run(capsys, "check", spec, "--junit", "out.xml")
    assert (code, err) == (2, "hrm-edge: out.xml: No space left on device\n")
    assert "1 of 1 rules hold" in out


@pytest.mark.parametrize("content", ['{"name": "package"}', "mine", "[1]"])
def test_an_update_replaces_no_file_that_is_no_baseline(spec, capsys, content):
    (spec.parent / "baseline.json").write_text(content)
    code, _, err = run(capsys, "check", spec, "--update-baseline")
    assert (code, "baseline.json: holds something else than a baseline" in err) == (2, True)
    assert (spec.parent / "baseline.json").read_text() == content


def test_an_update_replaces_a_baseline_with_a_merge_conflict_in_it(spec, capsys):
    assert run(capsys, "check", spec, "--update-baseline")[0] == 0
    good = (spec.parent / "baseline.json").read_text()
    (spec.parent / "baseline.json").write_text(f"<<<<<<< ours\n{good}=======\n{good}>>>>>>> theirs\n")
    assert run(capsys, "check", spec, "--update-baseline")[0] == 0
    assert json.loads((spec.parent / "baseline.json").read_text()) == json.loads(good)


def test_a_bundle_of_links_says_how_to_copy_it(spec, capsys):
    toy = spec.parent / "toy"
    shutil.move(toy, spec.parent / "blobs")
    toy.mkdir()
    for file in (spec.parent / "blobs").iterdir():
        (toy / file.name).symlink_to(file)
    code, _, err = run(capsys, "report", "toy")
    assert (code, len(err.splitlines())) == (2, 1)
    assert "is a link" in err
    assert "`cp -rL toy COPY`" in err
    subprocess.run("cp -rL toy COPY", shell=True, check=True)
    assert "is a link" not in run(capsys, "report", "COPY")[2]


# -- signals -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_command_as_an_error_does(folder, number):
    before = everything(folder)
    script = (
        "import signal; signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"  # also where the tests run under nohup
        "import hrm_edge.data.puzzles as puzzles\n"
        f"puzzles.generate_distinct = lambda *_: signal.raise_signal({int(number)})\n"
        "from hrm_edge.cli import main\n"
        "main(['data', 'generate', '-o', 'new'])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (128 + number, "", "hrm-edge: stopped\n")
    assert everything(folder) == before


def test_the_handlers_are_the_callers_again(folder, capsys):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    assert run(capsys, "data", "generate", "--task", "sudoku-4x4", "--n", "2", "-o", "new")[0] == 0
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


def test_under_nohup_a_hang_up_is_nothing(tmp_path):
    script = (
        "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "import hrm_edge.data.puzzles as puzzles\n"
        "real = puzzles.generate_distinct\n"
        "puzzles.generate_distinct = lambda *a: (signal.raise_signal(signal.SIGHUP), real(*a))[1]\n"
        "from hrm_edge.cli import main\n"
        "main(['data', 'generate', '--task', 'sudoku-4x4', '--n', '2', '-o', 'p.csv'])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, (tmp_path / "p.csv").exists()) == (0, True), done.stderr


def test_a_check_that_says_no_is_asked_about_a_file_too(tmp_path):
    (tmp_path / "set").write_text("mine")
    with pytest.raises(InputError, match="is no puzzle set"):
        save_puzzles(generate_puzzles(TASK, 2, seed=0), tmp_path / "set")
    assert (tmp_path / "set").read_text() == "mine"


@pytest.mark.parametrize("flag", ["--junit", "--markdown"])
@pytest.mark.parametrize("name", ["spec.toml", "baseline.json", "p.csv", "twice"])
def test_a_check_writes_over_nothing_that_it_reads(spec, folder, capsys, monkeypatch, flag, name):
    spec.write_text(SPEC + 'data = "p.csv"\nmin_exact = 0\n')
    (folder / "baseline.json").write_text("{}")
    before = everything(folder)
    monkeypatch.setattr(Runner, "measure", lambda *_: pytest.fail("measured"))
    others = ["--junit", "twice", "--markdown"] if name == "twice" else [flag]
    code, out, err = run(capsys, "check", spec, "--update-baseline", *others, name)
    assert (code, out) == (2, "")
    assert f"hrm-edge: {name}: is " in err
    assert everything(folder) == before


@pytest.mark.parametrize(
    "arguments",
    [
        ("solve", "toy", "p.csv", "--trace-html", "p.csv"),
        ("solve", "toy", "--data", "p.csv", "--trace-html", "p.csv"),
        ("solve", "toy", "p.csv", "--gif", "x.gif", "--trace-html", "x.gif"),
        ("analyze", "halting", "toy", "--data", "p.json", "-o", "p.json"),
        ("analyze", "segments", "toy", "--data", "p.csv", "-o", "x.md", "-o", "x.md"),
        ("data", "generate", "--task", TASK.name, "--n", "2", "-o", "toy/x.csv"),
        ("data", "convert", "p.csv", "--task", TASK.name, "-o", "toy/x"),
    ],
)
def test_no_command_writes_over_what_it_reads_or_into_a_bundle(spec, folder, capsys, arguments):
    shutil.copy("p.csv", "p.json")
    before = everything(folder)
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert "would be lost" in err or "lies inside" in err
    assert everything(folder) == before
