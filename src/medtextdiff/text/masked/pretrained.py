"""A BERT or ModernBERT that goes on from a local folder."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from medtextdiff import config
from medtextdiff.text.errors import TextError
from medtextdiff.text.loading import check_fit, find_folder, quiet

_HEADS = ("head.", "decoder.", "cls.", "pooler.")


class Config(config.Config):
    """Where the model lies: a plain Hugging Face folder, or builtin:NAME/text."""

    path: str = ""

    def tokenizer_path(self) -> str:
        """The folder that its tokenizer lies in.

        Raises:
            TextError: no folder was named.
        """
        if not self.path:
            raise TextError("no model to go on from; name its folder, --set model.path=DIR")
        return self.path

    def build(self, tokenizer: Any) -> nn.Module:
        """The model with its masked-word head, in float32; a folder without a head gets a fresh one.

        Raises:
            TextError: no such folder, incomplete, damaged, no BERT or ModernBERT, or `tokenizer` does not fit.
        """
        folder = find_folder(self.path)
        model, missing = _load(folder)
        lost = sorted(name for name in missing if not name.startswith(_HEADS))
        if lost:
            raise TextError(f"'{self.path}' lacks {len(lost)} weights, e.g. '{lost[0]}'; get the whole model again")
        check_fit(model, tokenizer, self.path)
        model.fresh = frozenset(missing)  # LoRA does not freeze these
        return model


def _load(folder: Path) -> tuple[Any, list[str]]:
    from transformers import AutoConfig, AutoModelForMaskedLM

    try:
        with quiet():
            kind = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False).model_type
            if kind not in ("bert", "modernbert"):
                raise TextError(f"'{folder}' holds a '{kind}'; pre-training goes on from a BERT or a ModernBERT")
            model, info = AutoModelForMaskedLM.from_pretrained(
                folder,
                local_files_only=True,
                trust_remote_code=False,
                weights_only=True,
                dtype=torch.float32,
                output_loading_info=True,
            )
    except TextError:
        raise
    except Exception as error:  # transformers, safetensors and pickle raise almost anything at a damaged file
        reason = (str(error).strip().splitlines() or [""])[0][:200]
        raise TextError(f"'{folder}' cannot be read ({type(error).__name__}: {reason}); get the model again") from None
    return model, list(info["missing_keys"])
