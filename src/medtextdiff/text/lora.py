"""LoRA: learn small matrices beside the frozen weights of a model (arXiv 2106.09685), by peft."""

import copy
from typing import Any

import torch
from pydantic import Field
from torch import nn

from medtextdiff import config
from medtextdiff.config import ConfigError

_LAYERS = {  # the linear maps inside the layers, by peft's suffixes
    "modernbert": ["Wqkv", "attn.Wo", "Wi", "mlp.Wo"],
    "bert": ["query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"],
}


class Config(config.Config):
    """`rank` 0: no LoRA, every weight is trained."""

    rank: int = Field(default=0, ge=0)
    alpha: int = Field(default=16, ge=1)  # what is learned counts alpha / rank
    dropout: float = Field(default=0.0, ge=0, lt=1)

    def apply(self, model: Any) -> None:
        """Freeze the model and put LoRA beside each linear map of its layers; with rank 0 nothing changes.

        Parameters that `model.fresh` names are new and random (a masked-word head): they are trained. Draws from
        torch's global random state.

        Raises:
            ConfigError: peft is not installed, or the model is new, so that there is nothing to adapt.
        """
        if not self.rank:
            return
        if not hasattr(model, "fresh"):
            raise ConfigError(
                "lora.rank adapts a model that was trained before; this one's weights are new and would stay so: give "
                "model.path, or leave out lora.rank"
            )
        try:
            from peft import LoraConfig, inject_adapter_in_model
        except ModuleNotFoundError:
            raise ConfigError("lora.rank needs the package peft: pip install 'medtextdiff[lora]'") from None
        names = _LAYERS[model.config.model_type]
        settings = LoraConfig(
            r=self.rank, lora_alpha=self.alpha, lora_dropout=self.dropout, target_modules=names, bias="none"
        )
        model.requires_grad_(False)
        inject_adapter_in_model(settings, model)
        for name, parameter in model.named_parameters():
            if name in model.fresh:
                parameter.requires_grad_(True)


def merged(model: nn.Module) -> Any:
    """The model itself, or, where it has LoRA, a copy with the same outputs and plain layers, fit to be saved."""
    if not any("lora_" in name for name, _ in model.named_parameters()):
        return model
    from peft.tuners.tuners_utils import BaseTunerLayer

    plain: Any = copy.deepcopy(model)
    with torch.no_grad():
        for name, module in list(plain.named_modules()):
            if isinstance(module, BaseTunerLayer):
                module.merge()
                plain.set_submodule(name, module.get_base_layer())
    plain.peft_config = None
    return plain
