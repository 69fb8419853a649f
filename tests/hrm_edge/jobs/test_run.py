"""Jobs: every row once and in order, whoever is lost; what goes on, and what must not be mixed."""

import csv
import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import job_workers
import numpy as np
import pytest
import toys
from job_workers import ROWS, SHARD, left, rows, solve

import hrm_edge as he
from hrm_edge.cli import main
from hrm_edge.errors import InputError
from hrm_edge.jobs import crew, folder
from hrm_edge.jobs.crew import Piece


def command(*arguments):
    with pytest.raises(SystemExit) as ended:
        main(["solve", *map(str, arguments)])
    return ended.value.code


def test_rows_are_those_of_the_engine_alone_in_their_order(bundle, place, expected):
    done, log = solve(bundle, place)
    assert rows(place / "out.jsonl") == expected
    assert sum(piece.last - piece.first for piece in log) == ROWS
    assert (done.rows, done.verified, done.errors) == (ROWS, sum(row["verified"] for row in expected), 0)
    assert 0 < done.verified < ROWS
    assert left(place) == ["out.jsonl"]


def test_forms_of_output_say_the_same(bundle, place, expected):
    for name in ("out.csv", "out.csv.gz"):
        solve(bundle, place, name)
    with open(place / "out.csv", newline="") as file:
        table = list(csv.DictReader(file))
    as_text = [{name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in row.items()}
               for row in expected]  # fmt: skip
    assert table == as_text
    assert gzip.decompress((place / "out.csv.gz").read_bytes()) == (place / "out.csv").read_bytes()


def test_parquet_holds_the_same_in_its_types(bundle, place, expected):
    pyarrow = pytest.importorskip("pyarrow", reason="needs the extra parquet")
    from pyarrow import parquet

    table = pyarrow.table({"puzzle": [row["question"] for row in expected], "note": list(range(ROWS))})
    parquet.write_table(table, place / "in.parquet", row_group_size=40)
    with job_workers.in_place_of_engines():
        he.solve_file(bundle, place / "in.parquet", place / "out.parquet")
    found = parquet.read_table(place / "out.parquet")
    assert found.to_pylist() == expected
    assert str(found.schema.field("steps").type) == "int32"
    assert str(found.schema.field("verified").type) == "bool"


@pytest.mark.parametrize("seed", range(4))
def test_lost_workers_lose_and_repeat_nothing(bundle, place, seed):
    """Every ninth moment ends a worker, before or after it has answered: the bytes are those of none lost."""
    solve(bundle, place, "calm.jsonl", workers=1)
    said = []
    solve(bundle, place, "out.jsonl", lambda at, count: count % 9 == 2 * seed + 1, workers=4, say=said.append)
    assert (place / "out.jsonl").read_bytes() == (place / "calm.jsonl").read_bytes()
    assert any("worker was lost" in line for line in said)


@pytest.mark.parametrize("on_error", ["fail", "record"])
def test_a_row_that_ends_workers_is_found(bundle, place, expected, on_error):
    def fate(at, count):
        return isinstance(at, Piece) and at.first <= 37 < at.last

    if on_error == "fail":
        with pytest.raises(InputError, match="row 38: it ended every worker that it was given to; --on-error"):
            solve(bundle, place, fate=fate)
        assert not (place / "out.jsonl").exists()
        return
    done, _ = solve(bundle, place, fate=fate, on_error=on_error)
    found = rows(place / "out.jsonl")
    assert found[37] == dict.fromkeys(expected[37]) | {
        "question": expected[37]["question"],
        "error": "it ended every worker that it was given to",
    }
    assert found[:37] + found[38:] == [row | {"error": None} for row in expected[:37] + expected[38:]]
    assert done.errors == 1


def test_workers_that_never_start_end_the_job(bundle, place, monkeypatch):
    monkeypatch.setattr(crew, "_LONGEST_WAIT", 0)
    with pytest.raises(InputError, match="workers do not start: killed at start"):
        solve(bundle, place, fate=lambda at, count: at == "start")
    assert not (place / "out.jsonl").exists()


def test_starts_that_fail_are_no_end_while_others_answer(monkeypatch):
    """As where a host is dead and nobody knows yet: one worker answers, and others fail once for each answer."""
    monkeypatch.setattr(crew, "_LONGEST_WAIT", 0)
    permits, failed = threading.Semaphore(0), threading.Semaphore(0)

    class Good:
        def start(self):
            pass

        def stop(self):
            permits.release(2)

        def answer(self, piece):
            permits.release()
            assert failed.acquire(timeout=30)
            return piece

    class Bad(Good):
        def start(self):
            permits.acquire()
            failed.release()
            raise crew.WorkerLost("the host is gone")

    came = list(crew.work([Piece(row, row + 1) for row in range(40)], [Good(), Bad(), Bad()]))
    assert sorted(piece.first for piece, _ in came) == list(range(40))


# -- going on ----------------------------------------------------------------------------------------------


class Killed(BaseException):
    """As far as this process's files are concerned, kill -9."""


@pytest.mark.parametrize("number", [0, 1, 2, 5])
def test_it_goes_on_where_it_was_cut_off(bundle, place, expected, monkeypatch, number):
    put, count = folder.Work._put, iter(range(10**6))

    def dying(self, name, data):
        if next(count) == number:
            (self.path / f"{name}.part").write_bytes(data[: len(data) // 2])
            raise Killed
        put(self, name, data)

    with monkeypatch.context() as patch:
        patch.setattr(folder.Work, "_put", dying)
        with pytest.raises(Killed):
            solve(bundle, place)
    assert not (place / "out.jsonl").exists()
    done, log = solve(bundle, place)
    assert rows(place / "out.jsonl") == expected
    assert done.kept == max(0, number - 1) * SHARD or number > 1
    assert sum(piece.last - piece.first for piece in log) == ROWS - done.kept
    assert left(place) == ["out.jsonl"]


def test_a_killed_process_is_gone_on_with(bundle, place, expected):
    """`kill -9` of the real command at some shard, several times over; the last run finds the work of all."""
    code = (
        "import os, signal, sys\n"
        f"sys.path.insert(0, {str(Path(job_workers.__file__).parent)!r})\n"
        "import job_workers, toys\n"
        "import hrm_edge as he\n"
        "from hrm_edge.jobs import folder, run\n"
        "built, shard, left = run.job_of, folder.Work.write_shard, [int(sys.argv[1])]\n"
        f"run.job_of = lambda *given: folder.replace(built(*given), shard_rows={SHARD})\n"
        "def dying(*given):\n"
        "    left[0] -= 1\n"
        "    name = shard(*given)\n"
        "    left[0] or os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return name\n"
        "folder.Work.write_shard = dying\n"
        "with job_workers.in_place_of_engines() as log:\n"
        "    he.solve_file(*sys.argv[2:])\n"
    )
    for _ in range(2):
        given = ["3", str(bundle), str(place / "in.csv"), str(place / "out.jsonl")]
        assert subprocess.run([sys.executable, "-c", code, *given], check=False).returncode == -signal.SIGKILL
        assert not (place / "out.jsonl").exists()
    done, _ = solve(bundle, place)
    assert rows(place / "out.jsonl") == expected
    assert done.kept == 6 * SHARD
    assert left(place) == ["out.jsonl"]


def test_what_is_damaged_or_of_another_job_is_answered_anew(bundle, place, expected):
    stop_after(bundle, place, "other.jsonl", 3, seed=1)  # the same rows, of another job
    stop_after(bundle, place, "out.jsonl", 4)
    work, other = (place / f".{name}.work.hrm-edge" for name in ("out.jsonl", "other.jsonl"))
    first, second, *_ = sorted(work.glob("*.npz"))
    first.write_bytes(first.read_bytes()[:-1] + b"!")
    second.unlink()
    strange = sorted(other.glob("*.npz"))[1]
    shutil.copy(strange, work / strange.name)
    done, _ = solve(bundle, place)
    assert rows(place / "out.jsonl") == expected
    assert done.kept == 2 * SHARD


def stop_after(bundle, place, name, shards, **options):
    """A run that is cut off when so many shards are written."""
    write = folder.Work.write_shard

    def dying(self, job, number, made):
        if len(self.shards(job)) == shards:
            raise Killed
        return write(self, job, number, made)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folder.Work, "write_shard", dying)
        with pytest.raises(Killed):
            solve(bundle, place, name, workers=1, **options)


def test_other_work_is_not_mixed_in(bundle, place, expected, tmp_path_factory):
    stop_after(bundle, place, "out.jsonl", 3)
    another = toys.write_hollow_bundle(tmp_path_factory.mktemp("b") / "toy", name="another")
    for given, what in (
        ({"halt": "fixed"}, "--halt learned"),
        ({"max_think_steps": 3}, "--max-think-steps None"),
        ({"retries": 2}, "--retries 0"),
        ({"bundle": another}, "another bundle"),
    ):
        with pytest.raises(InputError, match=f"has not ended is kept there, with {what}; end that one first"):
            solve(**{"bundle": bundle, "place": place, **given})
    before = (place / "in.csv").read_text()
    (place / "in.csv").write_text(before + "150," + expected[0]["question"] + "\n")
    with pytest.raises(InputError, match="with another input"):
        solve(bundle, place)
    done, _ = solve(bundle, place, force=True)
    assert (done.kept, done.rows) == (0, ROWS + 1)
    assert rows(place / "out.jsonl") == [*expected, expected[0]]


def test_what_stands_there_is_replaced_only_when_told_so(bundle, place):
    (place / "out.jsonl").write_text("mine")
    with pytest.raises(InputError, match=r"out.jsonl exists; choose another name, or replace it with --force"):
        solve(bundle, place)
    assert left(place) == ["out.jsonl"]
    solve(bundle, place, force=True)
    assert len(rows(place / "out.jsonl")) == ROWS
    (place / ".strange.jsonl.work.hrm-edge").mkdir()
    (place / ".strange.jsonl.work.hrm-edge" / "letter").write_text("mine")
    with pytest.raises(InputError, match="is in the way and not ours"):
        solve(bundle, place, "strange.jsonl", force=True)
    assert (place / ".strange.jsonl.work.hrm-edge" / "letter").read_text() == "mine"


def test_who_stops_a_job_is_told_what_is_kept(bundle, place, capsys, monkeypatch):
    write, answered = folder.Work.write_shard, iter(range(100))

    def interrupted(*given):
        if next(answered) == 3:
            raise KeyboardInterrupt
        return write(*given)

    with monkeypatch.context() as patch, job_workers.in_place_of_engines():
        patch.setattr(folder.Work, "write_shard", interrupted)
        assert command(bundle, place / "in.csv", "-o", place / "out.jsonl") == 130
    kept = f"hrm-edge: {3 * SHARD} of {ROWS} puzzles are answered and kept; the same command goes on from there"
    assert capsys.readouterr().err.splitlines()[-2:] == [kept, "hrm-edge: stopped"]
    done, _ = solve(bundle, place)
    assert done.kept == 3 * SHARD


# -- what is no puzzle -------------------------------------------------------------------------------------

BAD = ["1.3Q............", "11..............", "1.3............."[:-1], ""]
WHY = ["'Q' at position 4", "two 1s in row 1", "puzzle has 15 characters, expected 16", "puzzle has 0 characters"]


@pytest.fixture
def poisoned(place, questions):
    lines = toys.TASK.format_many(questions[:20])
    for row, text in enumerate(BAD):
        lines.insert(3 + 4 * row, text)
    (place / "in.csv").write_text("question,id\n" + "".join(f"{text},0\n" for text in lines))
    objects = "".join(json.dumps({"puzzle": text}) + "\n" for text in lines)
    (place / "in.jsonl").write_text(objects)
    return place


@pytest.mark.parametrize("name", ["in.csv", "in.jsonl", "in.parquet"])
def test_rows_that_are_no_puzzles_are_recorded(bundle, poisoned, expected, name):
    if name == "in.parquet":
        pyarrow = pytest.importorskip("pyarrow", reason="needs the extra parquet")
        from pyarrow import parquet

        lines = [json.loads(line)["puzzle"] for line in (poisoned / "in.jsonl").read_text().splitlines()]
        parquet.write_table(pyarrow.table({"question": [text or None for text in lines]}), poisoned / name)
    with job_workers.in_place_of_engines():
        done = he.solve_file(bundle, poisoned / name, poisoned / "out.jsonl", on_error="record")
    found = rows(poisoned / "out.jsonl")
    bad = [3 + 4 * row for row in range(len(BAD))]
    assert [row for number, row in enumerate(found) if number not in bad] == [
        row | {"error": None} for row in expected[:20]
    ]
    for number, why in zip(bad, WHY, strict=True):
        assert why in found[number]["error"]
        assert found[number]["answer"] is found[number]["verified"] is found[number]["steps"] is None
    assert found[bad[1]]["question"] == BAD[1]
    assert (done.rows, done.errors) == (24, 4)


def test_a_row_that_is_no_puzzle_fails_in_one_line_and_leaves_nothing(bundle, poisoned, capsys):
    for name, where in (("in.csv", "in.csv line "), ("in.jsonl", "in.jsonl line ")):
        with job_workers.in_place_of_engines():
            code = command(bundle, poisoned / name, "-o", poisoned / "out.csv")
        said = capsys.readouterr().err
        assert code == 2
        assert where in said
        assert any(why in said for why in WHY)
        assert said.count("\n") == 1
        assert left(poisoned) == ["in.jsonl"]


def test_what_has_no_solution_is_told_where_one_wants_to_know(bundle, place, questions, capsys):
    nothing_fits = "12....3........."  # the first row lacks a 3, which its second box has elsewhere
    lines = [*toys.TASK.format_many(questions[:4]), nothing_fits]
    (place / "in.csv").write_text("question\n" + "".join(f"{text}\n" for text in lines))
    done, _ = solve(bundle, place, on_error="record")
    assert done.errors == 0
    done, _ = solve(bundle, place, "told.jsonl", on_error="record", check_solvable=True)
    assert [row["error"] for row in rows(place / "told.jsonl")] == [
        *[None] * 4,
        "the puzzle has no solution; check its givens",
    ]
    with job_workers.in_place_of_engines():
        assert command(bundle, place / "in.csv", "-o", place / "o.csv", "--check-solvable") == 2
        assert "row 5: the puzzle has no solution" in capsys.readouterr().err
        assert command(bundle, place / "in.csv", "-o", place / "o.csv") == 2
    assert "is kept there, with --check-solvable; end that one first" in capsys.readouterr().err


def test_arguments_that_do_not_go_together(bundle, place, capsys):
    out = ["-o", place / "out.csv"]
    for arguments, what in (
        (["--workers", "2"], "--workers: goes with -o"),
        ([*out, "--watch"], "-o and --watch"),
        ([*out, "--threads", "2"], "-o and --threads"),
        ([*out, "--distributed", "dask"], "--distributed dask: unknown; choose ray"),
        ([*out, "--address", "here"], "--address is of a cluster"),
        ([*out, "--on-error", "ignore"], "--on-error ignore: choose fail or record"),
        ([*out, "--halt", "never"], "halt must be one of"),
        (["-o", place / "out.txt"], "cannot write .*out.txt: end it in .* or .jsonl"),
        (["-o", place], "end it in"),
        (["-o", place / "in.csv"], "is read too, and would be lost"),
    ):
        assert command(bundle, place / "in.csv", *arguments) == 2
        assert re.search(what, capsys.readouterr().err), what
    assert command(bundle, "-", *out) == 2
    assert "reads files" in capsys.readouterr().err
    assert left(place) == []


def test_the_command_says_what_came_of_it(bundle, place, capsys):
    with job_workers.in_place_of_engines():
        assert command(bundle, place / "in.csv", "-o", place / "o.csv", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {
        "output": str(place / "o.csv"),
        "rows": ROWS,
        "verified": told["verified"],
        "errors": 0,
        "kept": 0,
    }


def test_real_engines_of_one_thread_say_the_same(place, expected, tmp_path_factory):
    made = toys.write_toy_bundle(tmp_path_factory.mktemp("real") / "toy", loop="graph")
    he.solve_file(made, [place / "in.csv"], place / "out.jsonl", workers=2)
    assert rows(place / "out.jsonl") == expected
    assert os.listdir(place).count("out.jsonl") == 1


def test_retries_and_limits_are_asked_for(bundle, place, questions):
    done, _ = solve(bundle, place, retries=3, seed=2, max_think_steps=2)
    alone = he.solve_with_retries(toys.host_engine(), questions, 3, seed=2, max_think_steps=2)
    found = rows(place / "out.jsonl")
    for name in ("variant", "segments", "verified"):
        np.testing.assert_array_equal([row[name] for row in found], getattr(alone, name))
    assert done.verified == alone.verified.sum() > 0
