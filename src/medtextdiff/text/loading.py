"""Read a BERT or ModernBERT and its tokenizer from a folder or the hub: strictly, quietly, and no code of theirs."""

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from medtextdiff.text.errors import TextError

SHIPPED = Path(__file__).parents[1] / "pretrained"  # encoders that come with the package: builtin:FOLDER
_BUILTIN = "builtin:"
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
_TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json", "tokenizer.model", "spiece.model")


def load_pretrained(path: str, model_class: Any = None) -> tuple[Any, Any]:
    """The model (float32, no task head) and the tokenizer called `path`.

    Args:
        path: `builtin:NAME/text` for an encoder that ships with the package, a folder, or a hub id.
        model_class: a transformers class that reads the folder; None: the one that its config names.

    Raises:
        TextError: not there, incomplete, damaged, weights that would run code, or a tokenizer that does not fit.
    """
    source = _find(path)
    try:
        with quiet():
            model, info = _load_model(source, model_class)
            tokenizer = load_tokenizer(source)
    except TextError:
        raise
    except Exception as error:  # transformers, safetensors and pickle raise almost anything at a damaged file
        raise TextError(_explain(path, source, error)) from None
    missing = sorted(key for key in info["missing_keys"] if not key.startswith("pooler."))
    if missing:
        raise TextError(f"'{path}' lacks {len(missing)} weights, e.g. '{missing[0]}'; get the whole model again")
    check_fit(model, tokenizer, path)
    return model, tokenizer


def read_tokenizer(path: str) -> Any:
    """The tokenizer in a local folder, or of builtin:NAME.

    Raises:
        TextError: there is none, or it cannot be read.
    """
    folder = SHIPPED / path.removeprefix(_BUILTIN) if path.startswith(_BUILTIN) else Path(path).expanduser()
    if not path or not any((folder / name).is_file() for name in _TOKENIZERS):
        raise TextError(f"no tokenizer in the folder '{path}'; give a folder with tokenizer.json")
    try:
        with quiet():
            return load_tokenizer(folder)
    except Exception as error:  # transformers raises almost anything at a damaged file
        raise TextError(f"the tokenizer in '{path}' cannot be read ({type(error).__name__}); get it again") from None


def check_fit(model: Any, tokenizer: Any, name: str) -> None:
    """That the tokenizer belongs to the model and the weights are numbers.

    Raises:
        TextError: a token number that the model has no embedding for, other special tokens, or weights not finite.
    """
    known = model.get_input_embeddings().num_embeddings
    largest = max(tokenizer.get_vocab().values())
    if largest >= known:
        raise TextError(
            f"the tokenizer of '{name}' does not fit its model: it gives token numbers up to {largest}, the model "
            f"knows {known}; use the tokenizer that the model was trained with"
        )
    for token in ("cls_token_id", "sep_token_id"):
        ours, theirs = getattr(tokenizer, token), getattr(model.config, token, None)
        if None not in (ours, theirs) and theirs < known and ours != theirs:
            raise TextError(
                f"the tokenizer of '{name}' does not fit its model: {token} is {ours}, the model says {theirs}; "
                "use the tokenizer that the model was trained with"
            )
    for key, weight in model.state_dict().items():
        if weight.is_floating_point() and not torch.isfinite(weight).all():
            raise TextError(f"'{name}' is damaged: '{key}' holds values that are not finite; get the model again")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the progress bars, load reports and retries of transformers, torch and the hub off the screen.

    Afterwards all is as before.
    """
    import huggingface_hub.utils
    from transformers.utils import logging

    hub = huggingface_hub.utils.logging
    hub_level = hub.get_verbosity()
    hub.set_verbosity_error()
    level, had_bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's, of a pickle that the error below tells of
            yield
    finally:
        hub.set_verbosity(hub_level)
        logging.set_verbosity(level)
        if had_bar:
            logging.enable_progress_bar()


def find_folder(path: str) -> Path:
    """The complete local folder that `path` (or builtin:NAME) leads to.

    Raises:
        TextError: none there, incomplete, or a hub id.
    """
    found = _find(path)
    if not isinstance(found, Path):
        raise TextError(f"no text encoder folder '{path}'; download the model first and give its folder")
    return found


def _find(path: str) -> Path | str:
    is_builtin = path.startswith(_BUILTIN)
    folder = SHIPPED / path.removeprefix(_BUILTIN) if is_builtin else Path(path).expanduser()
    if path and folder.is_dir():
        _check_complete(folder)
        return folder
    looks_local = path.startswith((".", "/", "~")) or path.count("/") != 1
    if is_builtin or not path or folder.exists() or looks_local:
        raise TextError(
            f"no text encoder folder '{path}'; give a folder with config.json, model.safetensors and tokenizer.json, "
            f"or a hub id such as answerdotai/ModernBERT-base"
        )
    return path


def _check_complete(folder: Path) -> None:
    for what, names in (("config.json", ("config.json",)), ("weights", _WEIGHTS), ("a tokenizer", _TOKENIZERS)):
        if not any((folder / name).is_file() for name in names):
            raise TextError(f"the text encoder folder '{folder}' lacks {what} ({' or '.join(names[:3])}); add it")


def _load_model(source: Path | str, model_class: Any) -> tuple[Any, dict[str, Any]]:
    from transformers import AutoConfig, AutoModel

    local = isinstance(source, Path)
    model_config = AutoConfig.from_pretrained(source, local_files_only=local, trust_remote_code=False)
    options = {"add_pooling_layer": False} if model_config.model_type == "bert" else {}
    return (model_class or AutoModel).from_pretrained(
        source,
        local_files_only=local,
        trust_remote_code=False,
        weights_only=True,
        dtype=torch.float32,  # else a model saved in half precision stays so
        output_loading_info=True,
        **options,
    )


def load_tokenizer(source: Path | str) -> Any:
    """The tokenizer of a folder or hub id; raises what transformers raises."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(source, local_files_only=isinstance(source, Path), trust_remote_code=False)


def _explain(path: str, source: Path | str, error: Exception) -> str:
    if isinstance(source, Path):
        if "UnpicklingError" in type(error).__name__ or "weights_only" in str(error).lower():
            return (
                f"the weights of '{path}' are a pickle that is damaged or would run code, which is refused; "
                "save the model as model.safetensors"
            )
        reason = (str(error).strip().splitlines() or [""])[0][:200]
        return f"'{path}' cannot be read as a text encoder ({type(error).__name__}: {reason}); get the model again"
    return (
        f"no folder '{path}', and the model hub did not give it ({type(error).__name__}); check the name, or on a "
        "machine without network give a local folder with config.json, model.safetensors and tokenizer.json"
    )
