"""The only door to the machinery: what the commands, a server and notebooks call."""

from medtextdiff.api.banking import BankReport, fill_bank
from medtextdiff.api.comparing import compare
from medtextdiff.api.data import data_check
from medtextdiff.api.evaluating import evaluate
from medtextdiff.api.evaluating_synthesis import evaluate_synthesis
from medtextdiff.api.exporting import export
from medtextdiff.api.generating import GenerateReport, generate, generate_files
from medtextdiff.api.generator import Generator
from medtextdiff.api.importing import convert_adm, import_published
from medtextdiff.api.loading import load
from medtextdiff.api.measuring import measure_autoencoder
from medtextdiff.api.merging import merge
from medtextdiff.api.model import Model, Result
from medtextdiff.api.packing import pack
from medtextdiff.api.probing import probe
from medtextdiff.api.pseudo_labelling import PseudoLabels, pseudo_label
from medtextdiff.api.rating import rate_make, rate_score
from medtextdiff.api.sampling_sweep import sweep
from medtextdiff.api.segmenting import features, segment, segment_files
from medtextdiff.api.sensitivity import sensitivity
from medtextdiff.api.shelf import models
from medtextdiff.api.training import recipes, show, train

__all__ = [
    "BankReport",
    "GenerateReport",
    "Generator",
    "Model",
    "PseudoLabels",
    "Result",
    "compare",
    "convert_adm",
    "data_check",
    "evaluate",
    "evaluate_synthesis",
    "export",
    "features",
    "fill_bank",
    "generate",
    "generate_files",
    "import_published",
    "load",
    "measure_autoencoder",
    "merge",
    "models",
    "pack",
    "probe",
    "pseudo_label",
    "rate_make",
    "rate_score",
    "recipes",
    "segment",
    "segment_files",
    "sensitivity",
    "show",
    "sweep",
    "train",
]
