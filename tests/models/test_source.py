"""Networks by name, package.module:factory: imported from where a user has them, built, given all their weights."""

import json
import shutil

import pytest
import torch
from foreign_networks import LoopedEncoder
from small_networks import TASK

from hrm_edge.errors import InputError
from hrm_edge.models import load_checkpoint, save_checkpoint
from hrm_edge.models.source import NetworkSource, build_network, code_hash


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("nothing", "write package.module:factory"),
        ("no_such_module:make", "is its folder on PYTHONPATH"),
        ("foreign_networks:Nobody", "cannot be imported"),
        ("foreign_networks:rms_norm.__doc__", "is NoneType, not a function"),
        ("foreign_networks:rotary", "fails"),
    ],
)
def test_factories_that_make_no_network(spec, said):
    with pytest.raises(InputError, match=said):
        build_network(spec, TASK)


def test_weights_are_all_there_and_fit():
    weights = LoopedEncoder(TASK).state_dict()
    network = build_network("foreign_networks:LoopedEncoder", TASK, weights)
    assert torch.equal(network.state_dict()["layer.up.weight"], weights["layer.up.weight"])
    for change, said in (
        (lambda w: w.pop("norm.weight"), "lack 'norm.weight'"),
        (lambda w: w.update(more=torch.zeros(1)), "hold another 'more'"),
        (lambda w: w.update({"norm.weight": torch.zeros(3)}), r"is \[3\], and \[48\]"),
        (lambda w: w.update({"norm.weight": torch.full((48,), float("nan"))}), "not finite"),
    ):
        changed = dict(weights)
        change(changed)
        with pytest.raises(InputError, match=said):
            build_network("foreign_networks:LoopedEncoder", TASK, changed)


def test_whatever_code_a_network_reaches_is_part_of_its_checkpoints_hash(tmp_path, monkeypatch):
    (tmp_path / "reached_net.py").write_text(
        "import reached_ops\nfrom foreign_networks import LoopedEncoder as Net\n"
    )
    ops = tmp_path / "reached_ops.py"
    ops.write_text("LIMIT = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    network = build_network("reached_net:Net", TASK)
    before = code_hash(network, "reached_net:Net")
    assert before == code_hash(network, "reached_net:Net") != code_hash(network, "foreign_networks:LoopedEncoder")
    ops.write_text("LIMIT = 2\n")
    assert code_hash(network, "reached_net:Net") != before


# -- named by a checkpoint, which may be a stranger's --------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A checkpoint of another's network."""
    model = NetworkSource("foreign_networks:ConvMixer").build(TASK)
    return save_checkpoint(tmp_path_factory.mktemp("saved") / "c", model, TASK, "card")


def rewritten(folder, copy, factory, **arch):
    shutil.copytree(folder, copy)
    config = json.loads((copy / "config.json").read_text())
    config["arch"] |= {"factory": factory, **arch}
    (copy / "config.json").write_text(json.dumps(config))
    return copy


@pytest.mark.parametrize(
    ("factory", "arch", "said"),
    [
        ("gone_away:make", {}, "gone_away.*is its folder on PYTHONPATH"),
        ("own_code:make", {}, "is code of its own folder; it is not run"),
        ("own_package.inner:make", {}, "is code of its own folder; it is not run"),
        ("c.own_code:make", {}, "is code of its own folder; it is not run"),  # by the folder above it
        ("linked:make", {}, "is code of its own folder; it is not run"),  # which lies elsewhere
        ("os:abort", {}, "Python's own; it is not run"),
        ("torch:os.abort", {}, "a checkpoint may name nothing else"),
        ("torch:sys.exit", {}, "a checkpoint may name nothing else"),
        ("pytest:main", {}, "a checkpoint may name nothing else"),
        ("torch.utils.collect_env:main", {}, "a checkpoint may name nothing else"),
        ("foreign_networks:ConvMixer", {"width": 3}, "arch.width is its factory's to decide"),
        (3, {}, "arch.factory must be package.module:factory"),
    ],
)
def test_checkpoints_that_name_no_network(saved, tmp_path, monkeypatch, factory, arch, said):
    folder = rewritten(saved, tmp_path / "c", factory, **arch)
    for code in ("own_code.py", "own_package/__init__.py", "own_package/inner.py"):
        (folder / code).parent.mkdir(exist_ok=True)
        (folder / code).write_text("raise SystemExit('a stranger was run')\n")
    (tmp_path / "elsewhere.py").write_text("raise SystemExit('a stranger was run')\n")
    (folder / "linked.py").symlink_to(tmp_path / "elsewhere.py")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.syspath_prepend(folder)
    with pytest.raises(InputError, match=said) as caught:
        load_checkpoint(folder)
    assert "\n" not in str(caught.value)


def test_code_beside_a_runs_checkpoint_is_not_run_either(saved, tmp_path, monkeypatch):
    rewritten(saved, tmp_path / "run" / "checkpoint", "run.beside:make")
    (tmp_path / "run" / "beside.py").write_text("raise SystemExit('a stranger was run')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match="is code of its own folder; it is not run"):
        load_checkpoint(tmp_path / "run")


def test_weights_that_do_not_fit_the_code(saved, tmp_path, monkeypatch):
    (tmp_path / "narrower.py").write_text(
        "from foreign_networks import ConvMixer\n\n\ndef make(task):\n    return ConvMixer(task, width=32)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    for number, (factory, said) in enumerate(
        (("foreign_networks:SingleZ", "(is missing|is unknown)"), ("narrower:make", "has shape"))
    ):
        with pytest.raises(InputError, match=f"weight '.*' {said}"):
            load_checkpoint(rewritten(saved, tmp_path / str(number), factory))
