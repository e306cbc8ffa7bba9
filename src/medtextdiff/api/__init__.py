"""The only door to the machinery: what the commands, a server and notebooks call."""

from medtextdiff.api.banking import BankReport, fill_bank
from medtextdiff.api.data import data_check
from medtextdiff.api.evaluating import evaluate
from medtextdiff.api.evaluating_synthesis import evaluate_synthesis, read_seeds
from medtextdiff.api.exporting import export
from medtextdiff.api.importing import convert_adm, import_published
from medtextdiff.api.model import Model, Result, load
from medtextdiff.api.packing import pack
from medtextdiff.api.rating import rate_make, rate_score
from medtextdiff.api.segmenting import features, segment, segment_files
from medtextdiff.api.shelf import models
from medtextdiff.api.training import recipes, show, train

__all__ = [
    "BankReport",
    "Model",
    "Result",
    "convert_adm",
    "data_check",
    "evaluate",
    "evaluate_synthesis",
    "export",
    "features",
    "fill_bank",
    "import_published",
    "load",
    "models",
    "pack",
    "rate_make",
    "rate_score",
    "read_seeds",
    "recipes",
    "segment",
    "segment_files",
    "show",
    "train",
]
