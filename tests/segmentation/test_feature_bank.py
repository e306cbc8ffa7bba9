"""The bank gives what the denoiser would give, never anything else, and runs it once."""

import logging
import multiprocessing
import os
from collections import namedtuple
from pathlib import Path

import pytest
import torch

from medtextdiff.config import ConfigError
from medtextdiff.diffusion import denoiser
from medtextdiff.segmentation import bank_store, consistency, feature_bank, features
from medtextdiff.segmentation.bank_store import Store
from tests.segmentation.conftest import small

NOTES = ["many nuclei upper right", "", "few"]
KEY = "ab" + 38 * "0"


@pytest.fixture
def bank(tmp_path):
    return feature_bank.Config(folder=str(tmp_path / "bank")).build()


@pytest.fixture
def calls(monkeypatch):
    """Batch sizes that the denoiser was run with."""
    seen, real = [], denoiser.Denoiser.levels

    def counting(self, x, t, taps):
        seen.append(len(x))
        return real(self, x, t, taps)

    monkeypatch.setattr(denoiser.Denoiser, "levels", counting)
    return seen


def files(bank):
    return sorted(Path(bank.settings.folder).rglob("*.levels"))


def same(levels, others):
    return all(torch.equal(one, other) for one, other in zip(levels, others, strict=True))


def keys(bank):
    return sorted(path.parent.name + path.stem for path in files(bank))


@torch.no_grad()
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("changes", [{}, {"normalise": "rms", "image": True, "timesteps": (50,), "noise": "per_image"}])
def test_kept_levels_are_the_computed_ones(made, images, bank, calls, order, changes):
    model = made(features=features.Config(taps=(0, 2), timesteps=(50, 150)).replace(**changes)).to(memory_format=order)
    fresh = [model.encode(image) for image in images.split(1)]
    model.keep_levels(bank)
    model.encode(images)
    calls.clear()
    for image, expected in zip(images.split(1), fresh, strict=True):
        kept = model.encode(image)
        assert same(kept, expected)
        assert [level.stride() for level in kept] == [level.stride() for level in expected]
    assert same(model.encode(images), [torch.cat(maps) for maps in zip(*fresh, strict=True)])
    assert calls == []
    assert (bank.made, bank.found) == (3, 6)


@torch.no_grad()
def test_the_function_is_the_same_with_and_without(made, images, bank):
    model, plain = made(), made()
    model.keep_levels(bank)
    for _ in range(2):
        torch.testing.assert_close(model(images, NOTES), plain(images, NOTES), rtol=1e-4, atol=1e-5)
    odd = images[..., :30, :45]  # padded before it is looked up
    torch.testing.assert_close(model(odd, NOTES), plain(odd, NOTES), rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize(("dtype", "rounding"), [("float16", 2**-11), ("bfloat16", 2**-8)])
def test_half_precision_is_within_rounding_and_the_same_each_time(made, images, tmp_path, dtype, rounding):
    model = made()
    fresh = model.encode(images[:1])
    model.keep_levels(feature_bank.Config(folder=str(tmp_path), dtype=dtype).build())
    first, second = model.encode(images[:1]), model.encode(images[:1])
    assert same(first, second)
    for level, expected in zip(second, fresh, strict=True):
        assert level.dtype == expected.dtype
        torch.testing.assert_close(level, expected, rtol=rounding, atol=1e-6)
        assert not torch.equal(level, expected)


@torch.no_grad()
def test_levels_too_large_for_float16_are_not_spoilt(made, images, tmp_path):
    model = made()
    model.denoiser.unet.up_blocks[0].resnets[0].conv2.bias.add_(1e6)
    fresh = model.encode(images[:1])
    bank = feature_bank.Config(folder=str(tmp_path), dtype="float16").build()
    model.keep_levels(bank)
    assert all(same(model.encode(images[:1]), fresh) for _ in range(2))
    assert files(bank) == []


@torch.no_grad()
def test_one_image_is_a_view_of_the_map_which_no_change_reaches(made, images, bank):
    model = made()
    model.keep_levels(bank)
    fresh = model.encode(images[:1])
    (file,) = files(bank)
    before, level = file.read_bytes(), model.encode(images[:1])[0]
    assert level.untyped_storage().nbytes() == len(before)
    level.zero_()
    assert file.read_bytes() == before
    assert same(model.encode(images[:1]), fresh)


@torch.no_grad()
def test_whatever_decides_the_levels_changes_the_key(made, images, tmp_path):
    def key(shown=images[:1], dtype="as_computed", model=None, **changes):
        settings = features.Config(taps=(0, 2), timesteps=(50, 150)).replace(**changes)
        bank = feature_bank.Config(folder=str(tmp_path), dtype=dtype).build()
        return bank.key(settings.build(), (model or made()).denoiser, shown)

    nudged, turned = images[:1].clone(), images[:1].reshape(1, 3, 48, 32)
    nudged[0, 1, 3, 4] += 1e-6
    other, wider = made(), made(denoiser=denoiser.Scratch.tiny().replace(trainable=False, norm_num_groups=2))
    other.denoiser.unet.conv_in.bias[0] += 1e-6
    wider.load_state_dict(made().state_dict())  # the same weights in another architecture
    found = [key(), key(nudged), key(turned), key(images[:1].double()), key(model=other), key(model=wider)]
    found += [key(dtype="float16"), key(dtype="bfloat16")]
    found += [key(taps=(0, 3)), key(timesteps=(50,)), key(timesteps=(150, 50)), key(noise="none"), key(noise_seed=1)]
    found += [key(normalise="rms"), key(image=True), key(channel_order="bgr")]
    found += [key(schedule=features.Config(taps=(0,)).schedule.replace(beta_end=0.03))]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found.append(key())
    found.append(key(model=made().to(torch.bfloat16)))
    assert len(set(found)) == len(found)
    assert key() == found[0] == key(images[:1].contiguous(memory_format=torch.channels_last))
    assert key(model=made().to(memory_format=torch.channels_last)) == found[0]


@torch.no_grad()
def test_a_weight_that_changes_later_never_meets_old_levels(made, images, bank):
    model = made()
    model.keep_levels(bank)
    old = model.encode(images[:1])
    model.denoiser.unet.conv_in.weight.mul_(1.5)
    new = model.encode(images[:1])
    assert not torch.equal(old[0], new[0])
    model.keep_levels(None)
    assert same(model.encode(images[:1]), new)


@torch.no_grad()
@pytest.mark.parametrize("damage", ["empty", "cut", "longer", "first", "length", "header", "last", "other", "again"])
def test_a_damaged_entry_is_computed_again(made, images, bank, calls, damage):
    model = made()
    model.keep_levels(bank)
    fresh = model.encode(images[:1])
    (file,) = files(bank)
    whole = file.read_bytes()
    spoilt = bytearray(whole)
    at = {"first": 0, "length": 13, "header": 40, "last": len(whole) - 1}.get(damage, len(whole) // 2)
    spoilt[at] ^= 4
    content = {"empty": b"", "cut": whole[: len(whole) // 2], "longer": whole + b"x"}.get(damage, bytes(spoilt))
    if damage == "other":  # another image's levels under this name
        model.encode(images[1:2])
        content = next(path for path in files(bank) if path != file).read_bytes()
    readers = [bank, feature_bank.Config(folder=bank.settings.folder).build()]
    for reader in readers[: 1 if damage == "again" else 2]:  # one that has read it before, and a new one
        file.write_bytes(content)
        model.keep_levels(reader)
        calls.clear()
        assert same(model.encode(images[:1]), fresh)
        assert len(calls) == 1
        assert same(model.encode(images[:1]), fresh)
        assert len(calls) == 1
        assert file.read_bytes() == whole


def test_a_half_written_entry_is_not_seen(tmp_path, monkeypatch):
    store = Store(tmp_path, 10**9)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as context:
        context.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            store.write(KEY, [torch.ones(3)], [torch.float32])
    assert store.read(KEY) is None
    left = tmp_path / "ab" / ".0123.tmp"  # as a killed process leaves it
    left.write_bytes(b"half")
    os.utime(left, (1, 1))
    store.write(KEY, [torch.ones(3)], [torch.float32])
    assert not left.exists()


def number(k):
    return f"{k:02x}" + 38 * "0"


def put(store, k, size=1000):
    return store.write(number(k), [torch.full((size,), float(k))], [torch.float32])


def there(store):
    return {int(path.parent.name, 16) for path in store.folder.rglob("*.levels")}


def test_the_least_used_are_dropped(tmp_path):
    store = Store(tmp_path, 4 * 4400)
    for k in range(4):
        put(store, k)
    assert store.read(number(0)) is not None  # used again
    put(store, 4)
    assert there(store) == {0, 2, 3, 4}
    put(store, 5, size=5000)  # larger than all of the budget: it alone is kept
    assert there(store) == {5}
    assert store.dropped == 5
    later = Store(tmp_path, 10**9)
    assert torch.equal(later.read(number(5))[0], torch.full((5000,), 5.0))


def test_the_budget_counts_what_others_wrote(tmp_path):
    for k in range(6):
        put(Store(tmp_path, 10**9), k)
    store = Store(tmp_path, 3 * 4400)
    put(store, 6)
    assert there(store) == {4, 5, 6}


def test_what_is_dropped_stays_readable_where_it_is_open(tmp_path):
    store = Store(tmp_path, 4400)
    put(store, 1)
    (level,) = store.read(number(1))
    put(store, 2)
    assert there(store) == {2}
    assert torch.equal(level, torch.ones(1000))


@torch.no_grad()
@pytest.mark.parametrize("how", ["fsync", "free", "folder"])
def test_a_full_disk_costs_one_warning_and_no_result(made, images, bank, monkeypatch, caplog, how):
    model = made()
    fresh = model.encode(images[:1])
    if how == "fsync":
        monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    elif how == "free":
        usage = namedtuple("usage", "total used free")
        monkeypatch.setattr(bank_store.shutil, "disk_usage", lambda _: usage(10**12, 10**12, bank_store.RESERVE))
    else:
        Path(bank.settings.folder).write_text("mine")
    model.keep_levels(bank)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert same(model.encode(images[:1]), fresh)
    (record,) = caplog.records
    assert "keeps no more levels" in record.getMessage()
    assert not [path for path in Path(bank.settings.folder).rglob("*") if path.is_file()]


def _fill(folder, seed, results):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = small().build().eval()
    bank = feature_bank.Config(folder=folder).build()
    model.keep_levels(bank)
    images = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    with torch.no_grad():
        sums = [model.encode(images)[0].double().sum().item() for _ in range(2)]
    results.put((sums, bank.found + bank.made, bank.found))


def test_two_processes_fill_one_bank(tmp_path):
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    workers = [context.Process(target=_fill, args=(str(tmp_path), 7, results)) for _ in range(2)]
    for worker in workers:
        worker.start()
    told = [results.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join()
    assert told[0][0] == told[1][0]
    assert len({*told[0][0], *told[1][0]}) == 1
    assert all(total == 16 and found >= 8 for _, total, found in told)
    assert len(list(tmp_path.rglob("*.levels"))) == 8
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_trained_denoiser_has_no_bank(made, images, bank):
    trained = made(denoiser=denoiser.Scratch.tiny())
    with pytest.raises(ConfigError, match="freeze it"):
        trained.keep_levels(bank)
    frozen = made()
    frozen.keep_levels(bank)
    frozen.denoiser.requires_grad_(True)
    frozen.denoiser.trainable = True
    assert all(level.requires_grad for level in frozen.encode(images))
    assert bank.made == 0


def test_a_bank_is_no_part_of_the_weights_and_a_copy_shares_it(made, images, bank):
    model = made()
    names = list(model.state_dict())
    model.keep_levels(bank)
    assert list(model.state_dict()) == names
    teacher = consistency.Config().build(model).teacher
    with torch.no_grad():
        model.encode(images)
        teacher.encode(images)
    assert (bank.made, bank.found) == (3, 3)


@torch.no_grad()
def test_endless_views_are_kept_out_of_it(made, images, bank):
    model = made()
    model.keep_levels(bank, training=False)
    model.train().encode(images)
    assert bank.made == 0
    model.eval().encode(images)
    assert bank.made == 3


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("mine")
    for name in ("file", "file/bank"):
        with pytest.raises(ConfigError, match="is a file; give a folder"):
            feature_bank.Config(folder=str(tmp_path / name)).build()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="tells memory on Linux only")
def test_memory_does_not_grow_with_the_number_of_entries(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: None)  # slow on a busy disk
    store = Store(tmp_path, 10**9)
    level, seen = torch.zeros(64, 64, 64), []
    for k in range(80):  # 80 MB
        store.write(number(k), [level + k], [torch.float32])
    for k in range(80):
        assert store.read(number(k))[0][0, 0, 0] == k
        seen.append(_resident_mb())
    assert max(seen) - seen[0] < 20


def _resident_mb():
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise AssertionError
