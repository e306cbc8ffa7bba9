"""Run folders: checkpoints, components, locks and lock.json; what is damaged is named, never mended in silence."""

import errno
import json
import os
import subprocess
import sys

import psutil
import pytest
import tiny
import torch
from safetensors.torch import load_file
from torch import nn

from medtextdiff.training import checkpoint, disk, engine, lock, weights
from medtextdiff.training.components import check_components, load_components, save_components
from medtextdiff.training.errors import RunError
from medtextdiff.training.provenance import write_lock


def fit(run_dir, steps=10):
    model = tiny.Net()
    config = tiny.CONFIG.replace(max_steps=steps)
    return engine.fit(model, tiny.loss, tiny.Squares(), config, run_dir, validate=tiny.validate, device="cpu")


def damage(path):
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(bytes(content))


def truncate(path):
    path.write_bytes(path.read_bytes()[:-10])


def reword(path):
    path.write_text(path.read_text().replace('"step": 10', '"step": 9'))


@pytest.mark.parametrize("change", [damage, truncate, os.unlink])
@pytest.mark.parametrize("name", ["model.safetensors", "ema.safetensors", "optimizer.pt", "state.json"])
def test_a_damaged_checkpoint_is_named_with_what_to_do(tmp_path, name, change):
    fit(tmp_path)
    path = tmp_path / "checkpoints" / "step_000010" / name
    change(path)
    with pytest.raises(RunError, match=rf"{path}.*delete {tmp_path / 'checkpoints'} to start this run again"):
        fit(tmp_path, 12)


def test_an_edited_state_is_noticed_and_an_older_checkpoint_is_offered(tmp_path):
    fit(tmp_path)
    folder = tmp_path / "checkpoints"
    reword(folder / "step_000010" / "state.json")
    (folder / "step_000005").mkdir()
    with pytest.raises(RunError, match=r"was changed.*delete .*step_000010 to go on from step 5"):
        fit(tmp_path, 12)


def test_a_damaged_best_is_noticed(tmp_path):
    best = fit(tmp_path).best_step
    truncate(tmp_path / "checkpoints" / f"best_{best:06d}" / "model.safetensors")
    with pytest.raises(RunError, match=r"best_.*truncated"):
        fit(tmp_path)


def test_a_checkpoint_holds_what_is_trained_and_no_pickled_code(tmp_path):
    fit(tmp_path)
    folder = tmp_path / "checkpoints" / "step_000010"
    names = set(load_file(folder / "model.safetensors"))
    assert "bias" in names
    assert "head.1.running_mean" in names
    assert not any(name.startswith("backbone") for name in names)
    assert set(load_file(folder / "ema.safetensors")) == {n for n in names if "running" not in n and "num" not in n}
    torch.load(folder / "optimizer.pt", weights_only=True)


def test_leftovers_of_a_killed_process_go(tmp_path):
    fit(tmp_path)
    folder = tmp_path / "checkpoints"
    (folder / ".step_000011.abcd.tmp").mkdir()
    (folder / "best_000003").mkdir()
    fit(tmp_path, 12)
    assert sorted(path.name for path in folder.iterdir())[-1] == "step_000012"
    assert len(list(folder.iterdir())) == 2


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    fit(tmp_path)

    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(RunError, match=r"cannot write .*step_000012: No space left on device; free some space"):
        fit(tmp_path, 12)
    monkeypatch.undo()
    assert not list((tmp_path / "checkpoints").glob(".*"))
    assert checkpoint.latest(tmp_path / "checkpoints").name == "step_000010"
    assert fit(tmp_path, 12).last_step == 12


def test_a_metrics_line_cut_short_by_a_kill_is_dropped(tmp_path):
    fit(tmp_path)
    path = tmp_path / "metrics.jsonl"
    before = path.read_text()
    path.write_text(before + '{"event": "train", "st')
    fit(tmp_path)
    assert path.read_text() == before


class Pretrained(nn.Linear):
    def save_pretrained(self, folder):
        weights.write(folder / "diffusion_pytorch_model.safetensors", self.state_dict())
        (folder / "config.json").write_text('{"a": 1}')


class Model(nn.Module):
    def __init__(self, seed=0, width=3):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.denoiser = Pretrained(3, width)
            self.text = nn.Linear(3, 3).requires_grad_(False)
            self.head = nn.Sequential(nn.Linear(3, 3).requires_grad_(False), nn.Linear(3, 3), nn.BatchNorm1d(3))
            self.absent = nn.Parameter(torch.randn(4))
            self.still = nn.BatchNorm1d(2, affine=False)


def test_components_go_out_and_come_back(tmp_path):
    model = Model(0)
    model.head[2].running_mean += 2
    model.still.running_mean += 3
    hashes = save_components(model, tmp_path)
    assert set(hashes) == {
        "denoiser/config.json",
        "denoiser/diffusion_pytorch_model.safetensors",
        "head/model.safetensors",
        "model.safetensors",
    }
    assert check_components(tmp_path) == hashes
    other = Model(1)
    text, frozen = other.text.weight.clone(), other.head[0].weight.clone()
    load_components(other, tmp_path)
    for name in ("denoiser.weight", "head.1.bias", "absent", "head.2.running_mean", "still.running_mean"):
        assert torch.equal(other.state_dict()[name], model.state_dict()[name]), name
    assert torch.equal(other.text.weight, text)
    assert torch.equal(other.head[0].weight, frozen)
    frozen_model = Model(2).requires_grad_(False).eval()
    frozen_model.absent.requires_grad_(True)
    load_components(frozen_model, tmp_path)
    assert torch.equal(frozen_model.head[1].weight, model.head[1].weight)


def test_half_precision_halves_the_files_and_leaves_the_model(tmp_path):
    model = Model()
    before = tiny.weights(model)
    save_components(model, tmp_path, dtype=torch.float16)
    assert tiny.same(before, tiny.weights(model))
    saved = load_file(tmp_path / "denoiser" / "diffusion_pytorch_model.safetensors")
    assert {tensor.dtype for tensor in saved.values()} == {torch.float16}
    counts = load_file(tmp_path / "head" / "model.safetensors")["2.num_batches_tracked"]
    assert counts.dtype == torch.int64
    other = Model(1)
    load_components(other, tmp_path)
    assert other.absent.dtype == torch.float32
    torch.testing.assert_close(other.absent, model.absent, rtol=1e-3, atol=1e-3)


@pytest.mark.slow  # imports diffusers
def test_a_diffusers_component_is_read_by_its_own_library(tmp_path):
    from diffusers import UNet2DModel

    sizes = {"block_out_channels": (8, 16), "norm_num_groups": 4, "layers_per_block": 1, "sample_size": 8}
    blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    model = nn.ModuleDict({"denoiser": UNet2DModel(**sizes, **blocks, add_attention=False)})
    model.to(memory_format=torch.channels_last)  # as the engine does
    save_components(model, tmp_path, dtype=torch.float16)
    again = UNet2DModel.from_pretrained(tmp_path / "denoiser")
    for name, value in again.state_dict().items():
        assert torch.equal(value.half(), model["denoiser"].state_dict()[name].half())
    load_components(model, tmp_path)


def test_saving_again_replaces(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    save_components(Model(0), tmp_path)
    hashes = save_components(Model(1), tmp_path, also=["config.json"])
    assert "config.json" in hashes
    other = Model(2)
    load_components(other, tmp_path)
    assert torch.equal(other.absent, Model(1).absent)
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("change", [damage, truncate, os.unlink])
@pytest.mark.parametrize("name", ["head/model.safetensors", "model.safetensors", "denoiser/config.json"])
def test_a_damaged_component_is_named(tmp_path, name, change):
    save_components(Model(), tmp_path)
    change(tmp_path / name)
    with pytest.raises(RunError, match=f"{tmp_path / name} is .*copy it again"):
        load_components(Model(), tmp_path)


def test_components_of_another_model_are_refused(tmp_path):
    save_components(Model(), tmp_path)
    with pytest.raises(RunError, match=r"'(weight|bias)' is .* in the file"):
        load_components(Model(width=5), tmp_path)
    with pytest.raises(RunError, match="component that the model does not have"):
        load_components(nn.Linear(2, 2), tmp_path)
    more = Model()
    more.extra = nn.Linear(2, 2)
    with pytest.raises(RunError, match="no folder 'extra'"):
        load_components(more, tmp_path)
    deeper = Model()
    deeper.head.append(nn.Linear(3, 3))
    with pytest.raises(RunError, match=r"missing 3\.bias, 3\.weight; unexpected none"):
        load_components(deeper, tmp_path)


def test_a_folder_that_is_no_run_says_so(tmp_path):
    with pytest.raises(RunError, match="no finished run"):
        load_components(Model(), tmp_path)
    (tmp_path / "manifest.json").write_text("[]")
    with pytest.raises(RunError, match="damaged"):
        load_components(Model(), tmp_path)
    (tmp_path / "manifest.json").write_text('{"files": {"../x": "0"}}')
    with pytest.raises(RunError, match="outside the run folder"):
        load_components(Model(), tmp_path)


def test_tied_weights_are_needed_once(tmp_path):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
            self.b.weight = self.a.weight

        def save_pretrained(self, folder):
            weights.write(folder / "model.safetensors", {"b.weight": self.b.weight})

    first, second = nn.ModuleDict({"text": Tied()}), nn.ModuleDict({"text": Tied()})
    save_components(first, tmp_path)
    load_components(second, tmp_path)
    assert torch.equal(first["text"].a.weight, second["text"].a.weight)


def test_a_folder_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "x"

    def fail():
        with disk.whole_folder(path) as folder:
            (folder / "a").write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_the_lock_is_held_once(tmp_path):
    said = []
    twice = pytest.raises(RunError, match=f"process {os.getpid()} is writing")
    with lock.held(tmp_path, said.append), twice, lock.held(tmp_path, said.append):
        pass
    with lock.held(tmp_path, said.append):
        pass
    assert said == []
    assert list(tmp_path.iterdir()) == []


def test_a_lock_whose_process_is_gone_is_taken_over(tmp_path):
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    for pid in (int(gone.stdout), os.getpid()):  # the second: our own number, but of an earlier process
        (tmp_path / ".lock").write_text(json.dumps({"pid": pid, "started": 1.0}))
        said = []
        with lock.held(tmp_path, said.append):
            assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()
        assert f"lock of process {pid}, which is gone" in said[0]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not psutil.LINUX, reason="elsewhere the time at which a process started stays as it is")
def test_a_lock_is_held_when_the_clock_is_set_meanwhile(tmp_path, monkeypatch):
    with lock.held(tmp_path, print):
        later = psutil._psplatform.boot_time() + 3600
        monkeypatch.setattr(psutil._psplatform, "boot_time", lambda: later)
        with pytest.raises(RunError, match=f"process {os.getpid()} is writing"), lock.held(tmp_path, print):
            pass


def test_a_lock_that_is_none_is_left(tmp_path):
    (tmp_path / ".lock").write_text("hello")
    with pytest.raises(RunError, match="not a lock of ours"), lock.held(tmp_path, print):
        pass
    assert (tmp_path / ".lock").exists()


def test_a_full_disk_leaves_no_lock_behind(tmp_path, monkeypatch):
    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(lock.json, "dump", full)
    with pytest.raises(RunError, match=r"cannot write .*\.lock: No space left"), lock.held(tmp_path, print):
        pass
    assert list(tmp_path.iterdir()) == []


def test_lock_json_says_what_the_run_was_made_of(tmp_path):
    write_lock(tmp_path, config=tiny.CONFIG, data={"a": "1", "b": "2"}, seed=3)
    content = write_lock(tmp_path, config=tiny.CONFIG, data={"b": "2", "a": "1"}, seed=3)
    assert content == json.loads((tmp_path / "lock.json").read_text())
    assert content["config"]["max_steps"] == 24
    assert content["data"] == {"a": "1", "b": "2"}
    assert content["seed"] == 3
    assert len(content["sessions"]) == 2
    session = content["sessions"][0]
    assert session["packages"]["torch"] == torch.__version__
    assert {"python", "git", "cpu", "threads", "machine"} <= set(session)
    with pytest.raises(RunError, match="2 of its files or parts, the first is 'b'"):
        write_lock(tmp_path, config=tiny.CONFIG, data={"a": "1", "b": "3", "c": "4"}, seed=3)
    same = {"a": "1", "b": "2"}
    write_lock(tmp_path, config=tiny.CONFIG, data=same, seed=3)  # begun before masks and notes were noted
    write_lock(tmp_path / "new", config=tiny.CONFIG, data=same, also={"notes of a": "5"}, seed=3)
    with pytest.raises(RunError, match="1 of its files or parts, the first is 'notes of a'"):
        write_lock(tmp_path / "new", config=tiny.CONFIG, data=same, also={"notes of a": "6"}, seed=3)
    write_lock(tmp_path / "new", config=tiny.CONFIG, data=same, also={"notes of a": "5"}, frozen={"text": "7"}, seed=3)
    with pytest.raises(RunError, match="1 of its files or parts, the first is 'text'"):
        write_lock(
            tmp_path / "new", config=tiny.CONFIG, data=same, also={"notes of a": "5"}, frozen={"text": "8"}, seed=3
        )
    old = json.loads((tmp_path / "lock.json").read_text())
    del old["config"]["clip_norm"]  # begun before there was such a setting
    (tmp_path / "lock.json").write_text(json.dumps(old))
    write_lock(tmp_path, config=tiny.CONFIG, data=same, seed=3)
    with pytest.raises(RunError, match=r"begun with clip_norm=1\.0, now it is 2\.0"):
        write_lock(tmp_path, config=tiny.CONFIG.replace(clip_norm=2.0), data=same, seed=3)
    (tmp_path / "lock.json").write_text("{}")
    with pytest.raises(RunError, match="damaged"):
        write_lock(tmp_path, config=tiny.CONFIG, data={}, seed=3)
