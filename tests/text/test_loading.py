import json
import os
import pickle
import zipfile

import pytest
import torch
from safetensors.torch import load_file, save_file

from medtextdiff.text import loading
from medtextdiff.text.encoders import huggingface
from medtextdiff.text.errors import TextError


def refused(path, **changes):
    with pytest.raises(TextError) as caught:
        huggingface.Config(path=str(path), **changes).build()
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_saved_encoder_comes_back(folder, make, notes):
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(os.listdir(folder))
    ours, theirs = make()(notes), huggingface.Config(path=str(folder)).build()(notes)
    assert torch.equal(ours.tokens, theirs.tokens)
    assert torch.equal(ours.pooled, theirs.pooled)


def test_half_precision_on_disk_is_computed_in_single(folder):
    encoder = huggingface.Config(path=str(folder)).build()
    encoder.half().save_pretrained(str(folder))
    assert load_file(folder / "model.safetensors").popitem()[1].dtype == torch.float16
    assert huggingface.Config(path=str(folder)).build()(["left"]).tokens.dtype == torch.float32


def test_loading_says_nothing_on_the_screen(folder, capfd):
    huggingface.Config(path=str(folder)).build()
    assert capfd.readouterr() == ("", "")


def test_a_masked_word_model_can_be_read(tmp_path):
    from medtextdiff.text import tokenizer
    from medtextdiff.text.masked import modernbert

    words = tokenizer.bytes_only()
    model = modernbert.Config(width=32, layers=2, heads=2, mlp_width=32).build(words)
    with loading.quiet():
        model.save_pretrained(tmp_path)
        words.save_pretrained(tmp_path)
    encoder = huggingface.Config(path=str(tmp_path)).build()
    assert torch.equal(encoder.model.embeddings.tok_embeddings.weight, model.decoder.weight)


def test_an_encoder_that_ships_is_found_by_name(folder, monkeypatch):
    monkeypatch.setattr(loading, "SHIPPED", folder.parent)
    assert huggingface.Config(path="builtin:model").build().width == 32


@pytest.mark.parametrize("path", ["", "nowhere", "builtin:nowhere", "./nowhere", "/no/such/folder"])
def test_a_missing_folder_says_what_to_give(path):
    assert "give a folder" in refused(path)


def test_a_hub_id_without_network_asks_for_a_folder(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "without network give a local folder" in refused("someone/no-such-model")


@pytest.mark.parametrize(
    ("name", "message"),
    [("config.json", "config.json"), ("model.safetensors", "weights"), ("tokenizer.json", "tokenizer")],
)
def test_an_incomplete_folder_names_what_lacks(folder, name, message):
    (folder / name).unlink()
    assert message in refused(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"\x00" * 64])
def test_a_damaged_file_is_refused(folder, name, content):
    (folder / name).write_bytes(content)
    assert "again" in refused(folder) or "cannot be read" in refused(folder)


def test_truncated_weights_are_refused(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    assert "get the model again" in refused(folder)


def test_missing_weights_are_refused_not_made_up(folder):
    weights = load_file(folder / "model.safetensors")
    key = sorted(key for key in weights if "layer" in key)[0]
    del weights[key]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert key in refused(folder)


def test_weights_of_another_shape_are_refused(folder):
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | {"intermediate_size": 96}))
    assert "cannot be read" in refused(folder)


def test_weights_that_are_not_finite_are_refused(folder):
    weights = load_file(folder / "model.safetensors")
    weights[sorted(weights)[0]].view(-1)[0] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert "not finite" in refused(folder)


def test_a_tokenizer_with_unknown_numbers_is_refused(folder):
    tokenizer = huggingface.Config(path=str(folder)).build().tokenizer
    tokenizer.add_tokens(["extraword"])
    tokenizer.save_pretrained(folder)
    assert "does not fit its model" in refused(folder)


def test_a_tokenizer_with_other_special_tokens_is_refused(tmp_path):
    from medtextdiff.text.encoders import tiny

    encoder = tiny.Config().build()
    encoder.model.config.cls_token_id = 9
    encoder.save_pretrained(str(tmp_path))
    assert "cls_token_id" in refused(tmp_path)


def test_plain_pickled_weights_are_read(folder):
    weights = load_file(folder / "model.safetensors")
    expected = huggingface.Config(path=str(folder)).build()(["left"])
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    assert torch.equal(huggingface.Config(path=str(folder)).build()(["left"]).tokens, expected.tokens)


class _Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (self.path,))


@pytest.mark.parametrize("as_zip", [True, False])
def test_a_pickle_with_code_is_refused_and_does_not_run(folder, tmp_path, as_zip):
    trap = tmp_path / "sprung"
    (folder / "model.safetensors").unlink()
    if as_zip:
        torch.save({"weight": _Trap(str(trap))}, folder / "pytorch_model.bin")
        assert zipfile.is_zipfile(folder / "pytorch_model.bin")
    else:
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"weight": _Trap(str(trap))}))
    assert "pickle" in refused(folder)
    assert not trap.exists()


def test_code_of_a_folder_is_never_run(folder, tmp_path):
    trap = tmp_path / "sprung"
    (folder / "code.py").write_text(f"import os\nos.mkdir({str(trap)!r})\nclass Model: pass\n")
    settings = json.loads((folder / "config.json").read_text())
    settings |= {"auto_map": {"AutoConfig": "code.Model", "AutoModel": "code.Model"}, "model_type": "stranger"}
    (folder / "config.json").write_text(json.dumps(settings))
    refused(folder)
    assert not trap.exists()
