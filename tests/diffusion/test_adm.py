"""Conversion of guided-diffusion checkpoints: files, flags and faults. Numbers: tests/reference/test_adm.py."""

import json
import os
import pickle
from pathlib import Path

import pytest
import torch

from medtextdiff.diffusion import adm
from medtextdiff.diffusion.denoiser import Config, Denoiser
from tests.reference.fill import fill

ABOUT = json.loads((Path(__file__).parents[1] / "reference" / "goldens" / "adm_tiny.json").read_text())
FLAGS = adm.Flags(**ABOUT["flags"])


@pytest.fixture
def state():
    return fill(ABOUT["state_dict"], 0.05)


@pytest.fixture
def checkpoint(tmp_path, state):
    path = tmp_path / "tiny.pt"
    torch.save(state, path)
    return path


def one_line(caught):
    assert "\n" not in str(caught.value)


class TestConvertCheckpoint:
    def test_the_folder_is_loaded_by_diffusers_and_by_us(self, tmp_path, checkpoint, state):
        from diffusers import UNet2DModel

        used = adm.convert_checkpoint(checkpoint, FLAGS, tmp_path / "out")
        assert used == FLAGS
        unet = UNet2DModel.from_pretrained(tmp_path / "out")
        converted = adm.convert(state, FLAGS)
        assert all(torch.equal(value, converted[key]) for key, value in unet.state_dict().items())
        assert Config(path=str(tmp_path / "out")).build().num_blocks == 4
        assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "tiny.pt"]

    def test_flags_from_weights_and_a_short_file(self, tmp_path, checkpoint):
        flags = tmp_path / "flags.json"
        flags.write_text('{"num_head_channels": 16, "image_size": 32}')
        used = adm.convert_checkpoint(checkpoint, adm.read_flags(flags), tmp_path / "out")
        assert adm.unet_config(used) == adm.unet_config(FLAGS)

    def test_existing_output_is_kept_unless_overwritten(self, tmp_path, checkpoint):
        out = tmp_path / "out"
        out.mkdir()
        (out / "mine").touch()
        with pytest.raises(adm.CheckpointError, match="exists"):
            adm.convert_checkpoint(checkpoint, FLAGS, out)
        with pytest.raises(
            adm.CheckpointError, match="more than a denoiser"
        ):  # a folder of somebody's is never replaced
            adm.convert_checkpoint(checkpoint, FLAGS, out, overwrite=True)
        (out / "mine").rename(out / "config.json")
        adm.convert_checkpoint(checkpoint, FLAGS, out, overwrite=True)
        assert sorted(p.name for p in out.iterdir()) == ["config.json", "diffusion_pytorch_model.safetensors"]

    def test_nothing_is_left_of_a_failed_write(self, tmp_path, checkpoint, monkeypatch):
        def full(*_, **__):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("diffusers.UNet2DModel.save_pretrained", full)
        with pytest.raises(adm.CheckpointError, match="No space left on device") as caught:
            adm.convert_checkpoint(checkpoint, FLAGS, tmp_path / "out")
        one_line(caught)
        assert [path.name for path in tmp_path.iterdir()] == ["tiny.pt"]

    def test_the_old_folder_survives_a_failed_overwrite(self, tmp_path, checkpoint, monkeypatch):
        out = tmp_path / "out"
        out.mkdir()
        (out / "config.json").touch()
        rename = Path.rename

        def refuse(self, target):
            if self.name == "new":
                raise OSError(5, "Input/output error")
            return rename(self, target)

        monkeypatch.setattr(Path, "rename", refuse)
        with pytest.raises(adm.CheckpointError, match="Input/output error"):
            adm.convert_checkpoint(checkpoint, FLAGS, out, overwrite=True)
        assert (out / "config.json").exists()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "tiny.pt"]

    def test_a_file_is_no_folder(self, tmp_path, checkpoint):
        with pytest.raises(adm.CheckpointError, match="is a file"):
            adm.convert_checkpoint(checkpoint, FLAGS, checkpoint, overwrite=True)


class TestReadCheckpoint:
    def fails(self, path, message):
        with pytest.raises(adm.CheckpointError, match=message) as caught:
            adm.read_checkpoint(path)
        one_line(caught)

    @pytest.mark.parametrize("wrapper", ["model_state_dict", "state_dict"])
    def test_wrapped(self, tmp_path, state, wrapper):
        torch.save({wrapper: state, "epoch": 3}, tmp_path / "a.pt")
        assert adm.read_checkpoint(tmp_path / "a.pt").keys() == state.keys()

    @pytest.mark.parametrize("zipped", [True, False])
    def test_code_is_refused_and_not_run(self, tmp_path, zipped):
        class Evil:
            def __reduce__(self):
                return os.mkdir, (str(tmp_path / "ran"),)

        path = tmp_path / "evil.pt"
        torch.save({"a": Evil()}, path, _use_new_zipfile_serialization=zipped)
        self.fails(path, "refused: it is a pickle with code in it")
        path.write_bytes(pickle.dumps({"a": Evil()}))
        self.fails(path, "refused: it is a pickle with code in it")
        assert not (tmp_path / "ran").exists()

    def test_missing_empty_and_folder(self, tmp_path):
        self.fails(tmp_path / "none.pt", "no such file")
        self.fails(tmp_path, "it is a folder")
        (tmp_path / "empty.pt").touch()
        self.fails(tmp_path / "empty.pt", "is empty")

    @pytest.mark.parametrize("keep", [0.1, 0.5, 0.9, 0.999])
    def test_truncated(self, checkpoint, keep):
        content = checkpoint.read_bytes()
        checkpoint.write_bytes(content[: int(len(content) * keep)])
        self.fails(checkpoint, "truncated or damaged|is not a PyTorch checkpoint, or is damaged")

    def test_not_finite(self, tmp_path, state):
        key = next(iter(state))
        torch.save(state | {key: torch.full_like(state[key], torch.nan)}, tmp_path / "nan.pt")
        self.fails(tmp_path / "nan.pt", "not finite")

    def test_not_a_checkpoint(self, tmp_path):
        path = tmp_path / "a.pt"
        path.write_text("<html>404</html>")
        self.fails(path, "is not a PyTorch checkpoint")
        torch.save([1, 2], path)
        self.fails(path, "holds a list")
        torch.save({}, path)
        self.fails(path, "not a dict of named weights")
        torch.save({"a": 1}, path)
        self.fails(path, "entry 'a' is a int")


class TestConvert:
    def fails(self, state, flags, *messages):
        with pytest.raises(adm.CheckpointError) as caught:
            adm.convert(state, flags)
        one_line(caught)
        for message in messages:
            assert message in str(caught.value)

    def test_faults_are_listed(self, state):
        del state["out.2.bias"]
        for i in range(5):
            state[f"extra.{i}"] = torch.zeros(1)
        state["out.0.weight"] = torch.zeros(7)
        self.fails(
            state,
            FLAGS,
            "1 missing (out.2.bias)",
            "5 unexpected (extra.0, extra.1, extra.2, ...)",
            "1 ill-shaped (out.0.weight [7] instead of [32])",
        )

    def test_wrong_flags_are_told(self, state):
        self.fails(state, FLAGS.replace(channel_mult="1,2,2"), "missing")
        self.fails(state, FLAGS.replace(num_channels=64), "ill-shaped")
        self.fails(state, FLAGS.replace(class_cond=True), "1 missing (label_emb.weight)")
        self.fails(state, FLAGS.replace(resblock_updown=False), "missing", "unexpected")

    def test_it_only_moves_numbers(self, state):
        """Every number of the checkpoint is in the result exactly once."""
        for flags in (FLAGS, FLAGS.replace(use_new_attention_order=True)):
            before = torch.cat([value.flatten() for value in state.values()]).sort().values
            after = torch.cat([value.flatten() for value in adm.convert(state, flags).values()]).sort().values
            assert torch.equal(before, after)

    def test_plain_convolutions_between_levels(self, state):
        """resblock_updown off: `op` and `conv` change the size instead of resnets."""
        from diffusers import UNet2DModel

        plain = {k: v for k, v in state.items() if not k.startswith(("input_blocks.2.", "output_blocks.1.2."))}
        for name, width in (("input_blocks.2.0.op", 32), ("output_blocks.1.2.conv", 64)):
            plain |= fill({f"{name}.weight": (width, width, 3, 3), f"{name}.bias": (width,)}, 0.05)
        flags = adm.infer_flags(plain, adm.Flags(image_size=32, num_head_channels=16))
        assert not flags.resblock_updown
        unet = UNet2DModel(**adm.unet_config(flags))
        unet.load_state_dict(adm.convert(plain, flags))
        assert torch.equal(unet.down_blocks[0].downsamplers[0].conv.weight, plain["input_blocks.2.0.op.weight"])
        assert torch.equal(unet.up_blocks[0].upsamplers[0].conv.weight, plain["output_blocks.1.2.conv.weight"])
        assert Denoiser(unet).levels(torch.zeros(1, 3, 32, 32), torch.tensor([5]), (1,))[0].shape == (1, 64, 32, 32)

    def test_attention_orders(self, state):
        """Legacy: q, k, v of head 0, then of head 1, ...; new: q of all heads, then k, then v."""
        name, target = "middle_block.1.qkv.bias", "mid_block.attentions.0.to_{}.bias"
        state[name] = torch.arange(192.0)
        legacy = adm.convert(state, FLAGS)  # 64 channels, 4 heads of 16
        new = adm.convert(state, FLAGS.replace(use_new_attention_order=True))
        for i, part in enumerate("qkv"):
            heads = [torch.arange(16.0) + 48 * head + 16 * i for head in range(4)]
            assert torch.equal(legacy[target.format(part)], torch.cat(heads))
            assert torch.equal(new[target.format(part)], torch.arange(64.0) + 64 * i)

    def test_half_precision_becomes_float32(self, state):
        halves = {key: value.half() for key, value in state.items()}
        assert all(value.dtype == torch.float32 for value in adm.convert(halves, FLAGS).values())

    def test_class_conditional(self, state):
        state["label_emb.weight"] = torch.zeros(1000, 128)
        flags = adm.infer_flags(state, adm.Flags(image_size=32, num_head_channels=16))
        assert flags.class_cond
        assert adm.convert(state, flags)["class_embedding.weight"].shape == (1000, 128)


class TestFlags:
    def test_defaults_are_the_published_model(self):
        made = adm.unet_config(adm.Flags())
        assert made["block_out_channels"] == (256, 256, 512, 512, 1024, 1024)
        assert made["down_block_types"] == ("ResnetDownsampleBlock2D",) * 3 + ("AttnDownBlock2D",) * 3
        assert made["up_block_types"] == ("AttnUpBlock2D",) * 3 + ("ResnetUpsampleBlock2D",) * 3
        assert made["attention_head_dim"] == 64

    def test_num_heads_alone_means_no_head_channels(self):
        flags = FLAGS.model_dump() | {"attention_resolutions": ""}
        del flags["num_head_channels"]
        assert adm.unet_config(adm.Flags(**flags))["attention_head_dim"] == 16

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"channel_mult": "0.5,1"}, "must begin with 1"),
            ({"channel_mult": "1,x"}, "positive numbers"),
            ({"channel_mult": "1,1e400"}, "positive numbers"),
            ({"channel_mult": "1,nan"}, "positive numbers"),
            ({"channel_mult": "", "image_size": 96}, "channel_mult must be given"),
            ({"num_channels": 48}, "multiples of 32"),
            ({"num_res_blocks": 0}, "num_res_blocks at least 1"),
            ({"num_head_channels": 24}, "must divide"),
            ({"num_head_channels": -1, "attention_resolutions": "32,16"}, "cannot be converted"),
            ({"rescale_timesteps": True, "diffusion_steps": 4000}, "rescale_timesteps"),
        ],
    )
    def test_what_diffusers_cannot_say_is_refused(self, changes, message):
        with pytest.raises(adm.CheckpointError, match=message):
            adm.unet_config(FLAGS.replace(**changes))

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("{", "is not JSON"),
            ("[]", "one JSON object"),
            ('{"num_chanels": 3}', "did you mean 'num_channels'"),
            ('{"num_channels": "many"}', "flag 'num_channels'"),
        ],
    )
    def test_bad_files(self, tmp_path, text, message):
        path = tmp_path / "flags.json"
        path.write_text(text)
        with pytest.raises(adm.CheckpointError, match=message) as caught:
            adm.read_flags(path)
        one_line(caught)

    def test_missing_file(self, tmp_path):
        with pytest.raises(adm.CheckpointError, match="cannot read flags"):
            adm.read_flags(tmp_path / "none.json")

    def test_other_networks_are_not_inferred(self):
        with pytest.raises(adm.CheckpointError, match="not a guided-diffusion U-Net"):
            adm.infer_flags({"conv1.weight": torch.zeros(3, 3)})
