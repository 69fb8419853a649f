"""Working folders for `hrm-edge check`. Nothing here imports torch before a test asks for it."""

import pytest
from toy_checks import SPEC, different, run, write_variant
from toys import TASK, host_engine, write_toy_bundle

from hrm_edge.data.puzzles import save_puzzles


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A float checkpoint, another one, and bundles that say they were made from the first."""
    import torch

    from hrm_edge.models import HRMConfig, build_model, load_checkpoint, save_checkpoint

    folder = tmp_path_factory.mktemp("made")
    config = HRMConfig(TASK.vocab_size, TASK.seq_len, hidden_size=16, num_heads=2, H_layers=1, L_layers=1)
    for seed, name in enumerate(("float", "retrained")):
        torch.manual_seed(seed)
        save_checkpoint(folder / name, build_model(config, TASK), TASK.name, "# test", {})
    source = {"name": "float", "content_hash": load_checkpoint(folder / "float").content_hash}
    write_toy_bundle(folder / "honest", source=source)
    write_variant(folder / "degraded", source, threshold=7.5)
    save_puzzles(different(0), folder / "puzzles.csv")
    return folder


@pytest.fixture
def folder(made, tmp_path, monkeypatch):
    """A working folder with the honest bundle in place; the float checkpoint answers as the toy does."""
    from hrm_edge.measure import reference

    monkeypatch.setenv("HRM_EDGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(reference, "TorchEngine", lambda *_, **__: host_engine())
    monkeypatch.chdir(tmp_path)
    for name in ("float", "retrained", "puzzles.csv", "honest", "degraded"):
        (tmp_path / name).symlink_to(made / name)
    (tmp_path / "toy").symlink_to(made / "honest")
    (tmp_path / "spec.toml").write_text(SPEC)
    return tmp_path


@pytest.fixture
def based(folder, capsys):
    """The folder after its baseline was written."""
    code, out, _ = run(capsys, "spec.toml", "--update-baseline")
    assert code == 0
    assert "toy / toy / puzzles.csv: new, exact" in out
    return folder
