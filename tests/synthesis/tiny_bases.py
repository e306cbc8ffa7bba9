"""Tiny base folders in diffusers' layout: random weights, real classes, tokenizers of a made-up vocabulary."""

from pathlib import Path
from typing import Any

import torch

WORDS = 60
_SPECIAL = ("<bos>", "<eos>", "<pad>", "<unk>")
_WORDS = ["one", "a", "disc", "polyp", "on", "the", "left", "right", "upper", "lower", "red", "no", "with", "in"]
VOCABULARY = [*_SPECIAL, *_WORDS, *(f"w{k}" for k in range(WORDS - len(_WORDS)))]

CLIP_TEXT: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "projection_dim": 32,
    "max_position_embeddings": 77,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
}
CLIP_VISION: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 32,
    "patch_size": 8,
    "projection_dim": 32,
}
T5: dict[str, Any] = {
    "vocab_size": 64,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 64,
    "num_layers": 2,
    "num_heads": 4,
    "feed_forward_proj": "gated-gelu",
    "pad_token_id": 2,
    "eos_token_id": 1,
    "is_encoder_decoder": False,
    "use_cache": False,
}
FLUX: dict[str, Any] = {
    "patch_size": 1,
    "in_channels": 16,
    "num_layers": 1,
    "num_single_layers": 1,
    "attention_head_dim": 16,
    "num_attention_heads": 4,
    "joint_attention_dim": 32,
    "pooled_projection_dim": 32,
    "guidance_embeds": True,
    "axes_dims_rope": (4, 6, 6),
}
FLUX_VAE: dict[str, Any] = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (8, 8, 16, 16),
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 4,
    "sample_size": 32,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
    "shift_factor": 0.1159,
    "scaling_factor": 0.3611,
}
MOVQ: dict[str, Any] = {
    "down_block_types": ("DownEncoderBlock2D",) * 3 + ("AttnDownEncoderBlock2D",),
    "up_block_types": ("AttnUpDecoderBlock2D",) + ("UpDecoderBlock2D",) * 3,
    "block_out_channels": (32, 32, 32, 32),
    "layers_per_block": 1,
    "latent_channels": 4,
    "num_vq_embeddings": 16,
    "norm_num_groups": 8,
    "norm_type": "spatial",
    "vq_embed_dim": 4,
}
PRIOR: dict[str, Any] = {
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "num_layers": 2,
    "embedding_dim": 32,
    "num_embeddings": 77,
    "additional_embeddings": 4,
}
K22_UNET: dict[str, Any] = {
    "sample_size": 8,
    "in_channels": 4,
    "out_channels": 8,
    "down_block_types": ("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    "up_block_types": ("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
    "block_out_channels": (16, 32),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "cross_attention_dim": 32,
    "attention_head_dim": 8,
    "addition_embed_type": "image",
    "addition_embed_type_num_heads": 4,
    "encoder_hid_dim": 32,
    "encoder_hid_dim_type": "image_proj",
    "resnet_time_scale_shift": "scale_shift",
}
K3_UNET: dict[str, Any] = {
    "in_channels": 4,
    "time_embedding_dim": 16,
    "groups": 4,
    "attention_head_dim": 4,
    "layers_per_block": 2,
    "block_out_channels": (16, 32),
    "cross_attention_dim": 16,
    "encoder_hid_dim": 32,
}


def write_flux(folder: Path, seed: int = 0, **changes: Any) -> Path:
    """A FLUX; `changes` are the transformer's."""
    import diffusers
    import transformers

    torch.manual_seed(seed)
    diffusers.FluxTransformer2DModel(**(FLUX | changes)).save_pretrained(folder / "transformer")
    diffusers.AutoencoderKL(**FLUX_VAE).save_pretrained(folder / "vae")
    diffusers.FlowMatchEulerDiscreteScheduler().save_pretrained(folder / "scheduler")
    transformers.CLIPTextModel(transformers.CLIPTextConfig(**CLIP_TEXT)).save_pretrained(folder / "text_encoder")
    transformers.T5EncoderModel(transformers.T5Config(**T5)).save_pretrained(folder / "text_encoder_2")
    _tokenizer("<bos> $A <eos>", 77).save_pretrained(folder / "tokenizer")
    _tokenizer("$A <eos>", 512).save_pretrained(folder / "tokenizer_2")
    return folder


def write_kandinsky22(folder: Path, seed: int = 0, **changes: Any) -> tuple[Path, Path]:
    """The decoder's folder and the prior's; `changes` are the U-Net's."""
    import diffusers
    import transformers

    torch.manual_seed(seed)
    decoder, prior = folder / "decoder", folder / "prior"
    diffusers.UNet2DConditionModel(**(K22_UNET | changes)).save_pretrained(decoder / "unet")
    diffusers.VQModel(**MOVQ).save_pretrained(decoder / "movq")
    betas = {"beta_start": 0.00085, "beta_end": 0.012}
    schedule = diffusers.DDPMScheduler(beta_schedule="linear", variance_type="learned_range", **betas)
    schedule.save_pretrained(decoder / "scheduler")
    network = diffusers.PriorTransformer(**PRIOR)
    with torch.no_grad():
        network.clip_std.fill_(0.5)
        network.clip_mean.fill_(0.1)
    network.save_pretrained(prior / "prior")
    diffusers.UnCLIPScheduler(prediction_type="sample").save_pretrained(prior / "scheduler")
    text = transformers.CLIPTextModelWithProjection(transformers.CLIPTextConfig(**CLIP_TEXT))
    text.save_pretrained(prior / "text_encoder")
    image = transformers.CLIPVisionModelWithProjection(transformers.CLIPVisionConfig(**CLIP_VISION))
    image.save_pretrained(prior / "image_encoder")
    (prior / "image_processor").mkdir()
    about = '{"image_mean": [0.48, 0.46, 0.41], "image_std": [0.27, 0.26, 0.28]}'
    (prior / "image_processor" / "preprocessor_config.json").write_text(about)
    _tokenizer("<bos> $A <eos>", 77).save_pretrained(prior / "tokenizer")
    return decoder, prior


def write_kandinsky3(folder: Path, seed: int = 0, **changes: Any) -> Path:
    """A Kandinsky 3; `changes` are the U-Net's."""
    import diffusers
    import transformers

    torch.manual_seed(seed)
    diffusers.Kandinsky3UNet(**(K3_UNET | changes)).save_pretrained(folder / "unet")
    diffusers.VQModel(**MOVQ).save_pretrained(folder / "movq")
    diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2").save_pretrained(folder / "scheduler")
    transformers.T5EncoderModel(transformers.T5Config(**T5)).save_pretrained(folder / "text_encoder")
    _tokenizer("$A <eos>", 512).save_pretrained(folder / "tokenizer")
    return folder


def _tokenizer(template: str, length: int) -> Any:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    ids = {word: number for number, word in enumerate(VOCABULARY)}
    inner = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    inner.normalizer = normalizers.Lowercase()
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    special = [(word, ids[word]) for word in ("<bos>", "<eos>") if word in template]
    inner.post_processor = processors.TemplateProcessing(single=template, special_tokens=special)
    names = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=inner, model_max_length=length, **names)
