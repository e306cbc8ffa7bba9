"""OpenAI guided-diffusion checkpoints as diffusers `UNet2DModel`, exactly.

guided-diffusion (ADM, arXiv 2105.05233) and diffusers compute the same U-Net; only the names, the shape of the
attention's 1x1 convolutions and the order inside `qkv` differ.
"""

import pickle
import pickletools
import re
import shutil
import tempfile
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medtextdiff.diffusion.adm_flags import CheckpointError, Flags, infer_flags, read_flags, unet_config

__all__ = [
    "CheckpointError",
    "Flags",
    "convert",
    "convert_checkpoint",
    "infer_flags",
    "read_checkpoint",
    "read_flags",
    "unet_config",
]

_WRAPPERS = ("model_state_dict", "state_dict", "model", "ema")
_CODE = re.compile(r"GLOBAL |Trying to call|Can only (create|build)")  # torch's words for what it did not run
_CODE_OPERATIONS = ("STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX")
_OURS = re.compile(r"config\.json|diffusion_pytorch_model.*")
_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_ATTENTION = {"group_norm": "norm", "to_q": "qkv", "to_k": "qkv", "to_v": "qkv", "to_out.0": "proj_out"}
_OUTER = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "class_embedding": "label_emb",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The tensors of a guided-diffusion `.pt` file, on the CPU. Code inside the file is never run.

    Raises:
        CheckpointError: missing, empty, truncated, not a PyTorch file, not a dict of finite tensors, or holding code.
    """
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}: {'it is a folder' if path.is_dir() else 'no such file'}")
    if path.stat().st_size == 0:
        raise CheckpointError(f"{path} is empty: fetch the checkpoint again")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of strange pickles, which the error below tells better
            content = torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # torch raises any of a dozen types on a damaged file
        if _CODE.search(str(error)) or _names_code(path):
            raise CheckpointError(f"{path} is refused: it is a pickle with code in it, not only weights") from None
        if isinstance(error, pickle.UnpicklingError):
            raise CheckpointError(f"{path} is not a PyTorch checkpoint, or is damaged: fetch it again") from None
        raise CheckpointError(f"{path} is truncated or damaged, fetch it again: {_one_line(error)}") from None
    return _tensors(content, path)


def convert(state: Mapping[str, Tensor], flags: Flags) -> dict[str, Tensor]:
    """A guided-diffusion state dict as that of `UNet2DModel(**unet_config(flags))`: float32, on the same device.

    Works on the meta device too. No number changes, each only gets another place.

    Raises:
        CheckpointError: missing, unexpected or ill-shaped keys: the first few and how many.
    """
    _check(state, checkpoint_shapes(flags))
    blocks = _blocks(flags)
    ours = _empty_unet(flags).state_dict()
    return {key: _converted(state[_source(key, blocks)], key, tuple(value.shape), flags) for key, value in ours.items()}


def checkpoint_shapes(flags: Flags) -> dict[str, tuple[int, ...]]:
    """The keys and shapes of a guided-diffusion checkpoint with these flags; nothing is allocated."""
    blocks = _blocks(flags)
    sources = {
        key: (_source(key, blocks), tuple(value.shape)) for key, value in _empty_unet(flags).state_dict().items()
    }
    return {source: _source_shape(source, shape) for source, shape in sources.values()}


def convert_checkpoint(path: Path, flags: Flags | None, out_dir: Path, overwrite: bool = False) -> Flags:
    """Write `out_dir`, which `UNet2DModel.from_pretrained` loads, and return the flags that were used.

    The folder appears whole or not at all. Flags that were not given are inferred, see `infer_flags`.

    Raises:
        CheckpointError: bad checkpoint or flags, `out_dir` exists and `overwrite` is False, or it cannot be written.
    """
    _check_free(out_dir, overwrite)
    state = read_checkpoint(path)
    flags = infer_flags(state, flags)
    unet = _empty_unet(flags)
    unet.load_state_dict(convert(state, flags), assign=True)
    try:
        _write_folder(unet, out_dir)
    except Exception as error:  # safetensors wraps a full disk in a type of its own
        raise CheckpointError(f"cannot write {out_dir}: {_one_line(error)}") from None
    return flags


def _check_free(out_dir: Path, overwrite: bool) -> None:
    if not out_dir.exists():
        return
    if not overwrite:
        raise CheckpointError(f"{out_dir} exists: choose another folder, or replace it with --overwrite")
    if not out_dir.is_dir():
        raise CheckpointError(f"{out_dir} is a file: choose a folder")
    strange = [path.name for path in sorted(out_dir.iterdir()) if not _OURS.fullmatch(path.name)]
    if strange:
        raise CheckpointError(
            f"{out_dir} holds more than a denoiser ({strange[0]}), so it is not replaced: choose another"
        )


def _names_code(path: Path) -> bool:
    """Whether a plain pickle, which torch refuses for its form alone, names functions; nothing is run."""
    with path.open("rb") as file:
        try:
            operations = [(code.name, str(argument)) for code, argument, _ in pickletools.genops(file)]
        except Exception:  # not a pickle, or cut off: then it is damaged, whatever it names
            return False
    return any(
        name in _CODE_OPERATIONS or (name == "GLOBAL" and not argument.startswith(("torch", "collections")))
        for name, argument in operations
    )


def _tensors(content: Any, path: Path) -> dict[str, Tensor]:
    for name in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            content = content[name]
    if not isinstance(content, dict) or not content:
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not a dict of named weights")
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise CheckpointError(f"{path} is not a dict of named weights: entry {key!r} is a {type(value).__name__}")
        if not torch.isfinite(value).all():
            raise CheckpointError(f"{path} is damaged: '{key}' holds values that are not finite; fetch it again")
    return dict(content)


def _empty_unet(flags: Flags) -> Any:
    from diffusers import UNet2DModel  # heavy

    with torch.device("meta"):
        return UNet2DModel(**unet_config(flags))


def _blocks(flags: Flags) -> dict[str, str]:
    """Blocks of a UNet2DModel -> those of guided-diffusion, which numbers them through all levels."""
    num_levels, per_level = len(flags.multipliers), flags.num_res_blocks + 1
    blocks = {"mid_block.resnets.0": "middle_block.0", "mid_block.resnets.1": "middle_block.2"}
    blocks["mid_block.attentions.0"] = "middle_block.1"
    for i in range(num_levels):
        first = i * per_level
        for j in range(per_level):
            for part, place in (("resnets", 0), ("attentions", 1)):
                blocks[f"down_blocks.{i}.{part}.{j}"] = f"input_blocks.{1 + first + j}.{place}"
                blocks[f"up_blocks.{i}.{part}.{j}"] = f"output_blocks.{first + j}.{place}"
        attended = num_levels - 1 - i in flags.attention_levels
        blocks[f"down_blocks.{i}.downsamplers.0"] = f"input_blocks.{first + per_level}.0"
        blocks[f"up_blocks.{i}.upsamplers.0"] = f"output_blocks.{first + per_level - 1}.{2 if attended else 1}"
    return blocks


def _source(key: str, blocks: Mapping[str, str]) -> str:
    """The guided-diffusion key from which `key` of a UNet2DModel comes."""
    name, _, kind = key.rpartition(".")
    if name in _OUTER:
        return f"{_OUTER[name]}.{kind}"
    block, part, inner = re.fullmatch(r"(.+\.(\w+)\.\d+)\.([a-z]\w*(?:\.0)?)", name).groups()  # type: ignore[union-attr]
    if inner == "conv":  # resblock_updown off: plain convolutions change the size
        inner = "op" if part == "downsamplers" else "conv"
    else:
        inner = (_ATTENTION if part == "attentions" else _RESNET)[inner]
    return f"{blocks[block]}.{inner}.{kind}"


def _source_shape(source: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    if ".qkv." in source:
        shape = (3 * shape[0], *shape[1:])
    is_conv1d = source.endswith((".qkv.weight", ".proj_out.weight"))
    return (*shape, 1) if is_conv1d else shape


def _check(state: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]]) -> None:
    wrong = [
        f"{key} {list(state[key].shape)} instead of {list(shape)}"
        for key, shape in expected.items()
        if key in state and tuple(state[key].shape) != shape
    ]
    faults = {
        "missing": [key for key in expected if key not in state],
        "unexpected": [key for key in state if key not in expected],
        "ill-shaped": wrong,
    }
    told = [f"{len(keys)} {fault} ({_first_few(keys)})" for fault, keys in faults.items() if keys]
    if told:
        raise CheckpointError(f"the checkpoint does not fit its flags: {'; '.join(told)}; check the flags")


def _converted(value: Tensor, key: str, shape: tuple[int, ...], flags: Flags) -> Tensor:
    part = {"to_q": 0, "to_k": 1, "to_v": 2}.get(key.split(".")[-2])
    if part is not None:
        channels = shape[0]
        if flags.use_new_attention_order:  # q of all heads, then k, then v
            value = value.reshape(3, channels, -1)[part]
        else:  # QKVAttentionLegacy: q, k, v of the first head, then of the second, ...
            head_dim = _head_dim(channels, flags)
            value = value.reshape(channels // head_dim, 3, head_dim, -1)[:, part]
    # A copy: safetensors takes no two tensors of one storage.
    return value.reshape(shape).to(torch.float32, copy=True).contiguous()


def _head_dim(channels: int, flags: Flags) -> int:
    return channels // flags.num_heads if flags.num_head_channels == -1 else flags.num_head_channels


def _write_folder(unet: Any, out_dir: Path) -> None:
    """Write beside `out_dir`, then rename: nobody ever sees half of it."""
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{out_dir.name}.", dir=out_dir.parent))
    try:
        new, old = temporary / "new", temporary / "old"
        unet.save_pretrained(new, safe_serialization=True)
        if out_dir.exists():
            out_dir.rename(old)
        try:
            new.rename(out_dir)
        except OSError:
            if old.exists():
                old.rename(out_dir)
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _first_few(keys: Iterable[str]) -> str:
    keys = list(keys)
    return ", ".join(keys[:3]) + (", ..." if len(keys) > 3 else "")


def _one_line(error: Exception) -> str:
    """The first sentence; torch tells much more than that, and a KeyError nothing but its key."""
    text = (str(error).strip().splitlines() or [""])[0].partition(". ")[0]
    return text if " " in text else type(error).__name__
