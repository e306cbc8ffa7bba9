"""What a text encoder knows before it touches an image: linear probes, and retrieval of paraphrases."""

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medtextdiff import __version__
from medtextdiff.config import Config, ConfigError
from medtextdiff.data.atomic import check_place
from medtextdiff.evaluation import probe_page
from medtextdiff.evaluation.linear_probe import linear_probe
from medtextdiff.evaluation.report_folder import check_free, csv_text, json_text, write_folder
from medtextdiff.evaluation.retrieval import ranks
from medtextdiff.evaluation.statistics import bootstrap_interval
from medtextdiff.text import probe_sentences
from medtextdiff.text.named import UNTRAINED, named
from medtextdiff.types import TextFeatures

Say = Callable[[str], None]
NUM_TRAIN, NUM_TEST, NUM_PARAPHRASES = 400, 300, 60
FEATURES = {
    "pooled": "The encoder's own one vector of a sentence.",
    "words": "The mean of the features of its words, special tokens left out.",
}
_BATCH = 64
_COLUMNS = ("encoder", "features", "probe", "metric", "mean", "low", "high", "chance", "num", "ridge")


def probe(
    encoder: str | Path,
    *,
    out: str | Path,
    against: Sequence[str | Path] = (),
    untrained: bool = False,
    seed: int = 0,
    overwrite: bool = False,
    progress: Say = lambda line: None,
) -> dict[str, list[list[str]]]:
    """Probe encoders and write report.json, table.csv and report.html.

    Args:
        encoder: a name that `text.named` knows: `modernbert-small`, a folder, `minilm`, `bag-of-words`, a hub id, or
            `untrained:` and one of these.
        against: further encoders, for rows of their own; one that fails is listed and the others go on.
        untrained: a row for an untrained copy of `encoder`.
        seed: of the sentences, of new weights and of the bootstrap.

    Returns:
        Tables by name, each a head and its rows.

    Raises:
        ConfigError: `encoder` itself cannot be read, or a name is given twice; OutputExists: `out` is there.
    """
    check_free(Path(out), overwrite)
    check_place(Path(out))
    names = [str(encoder), *([f"{UNTRAINED}{encoder}"] if untrained else []), *map(str, against)]
    if len(set(names)) < len(names):
        raise ConfigError("an encoder is named twice; name each once")
    settings = {name: named(name) for name in names}  # a wrong name is told before the work
    lines: list[dict[str, Any]] = []
    failures = []
    for name, config in settings.items():
        try:
            lines += _lines(name, _fast(config, seed).build(), seed, progress)  # type: ignore[attr-defined]
        except (ValueError, OSError) as error:
            if name == names[0]:
                raise
            failures.append({"encoder": name, "why": " ".join(str(error).split())})
            progress(f"failed: {name}: {failures[-1]['why']}")
    report = _report(names, lines, failures, seed, Path(out))
    files = {
        "report.json": json_text(report),
        "table.csv": csv_text(_COLUMNS, ([line[column] for column in _COLUMNS] for line in lines)),
        "report.html": probe_page.render(report),
    }
    progress(f"wrote {write_folder(Path(out), files)}")
    return {f"features: {features}": probe_page.table_lines(lines, features) for features in FEATURES}


def _lines(name: str, encoder: Any, seed: int, progress: Say) -> list[dict[str, Any]]:
    """All figures of one encoder."""
    found = []
    for task in probe_sentences.PROBES:
        train = probe_sentences.sentences(task, "train", NUM_TRAIN, seed)
        test = probe_sentences.sentences(task, "test", NUM_TEST, seed)
        x, z = (_features(encoder, [one.text for one in some]) for some in (train, test))
        labels, truth = [one.label for one in train], [one.label for one in test]
        chance = max(truth.count(label) for label in truth) / len(truth)
        for features in FEATURES:
            result = linear_probe(x[features], labels, z[features], truth, [one.template for one in train])
            line = _line(name, features, task, "accuracy", result.correct.astype(float), chance, seed)
            found.append(line | {"ridge": result.ridge})
        progress(f"{name}: {task} {100 * found[-2]['mean']:.1f} %")
    pairs = probe_sentences.paraphrases(NUM_PARAPHRASES, seed)
    queries, candidates = (_features(encoder, side) for side in map(list, zip(*pairs, strict=True)))
    for features in FEATURES:
        places = ranks(queries[features], candidates[features])
        first, mean = 1 / len(pairs), float(np.mean(1 / np.arange(1, len(pairs) + 1)))
        found.append(_line(name, features, "paraphrases", "recall@1", (places == 1).astype(float), first, seed))
        found.append(_line(name, features, "paraphrases", "MRR", 1 / places, mean, seed))
    return found


def _line(
    name: str, features: str, task: str, metric: str, values: np.ndarray, chance: float, seed: int
) -> dict[str, Any]:
    interval = bootstrap_interval(values, seed=seed)._asdict()
    about = {"encoder": name, "features": features, "probe": task, "metric": metric}
    return about | interval | {"chance": chance, "num": len(values), "ridge": ""}


@torch.no_grad()
def _features(encoder: Any, texts: Sequence[str]) -> dict[str, np.ndarray]:
    """By name of FEATURES, as [N D] in double precision."""
    found: dict[str, list[Tensor]] = {name: [] for name in FEATURES}
    for start in range(0, len(texts), _BATCH):
        read: TextFeatures = encoder(texts[start : start + _BATCH])
        found["pooled"].append(read.pooled)
        found["words"].append(_mean_of_words(read, special=hasattr(encoder, "tokenizer")))
    return {name: torch.cat(parts).double().numpy() for name, parts in found.items()}


def _mean_of_words(read: TextFeatures, special: bool) -> Tensor:
    """Without the first and the last token where the encoder adds two of its own."""
    mask = read.mask.clone()
    if special:
        rows = torch.arange(len(mask))
        mask[rows, read.mask.sum(1) - 1] = False
        mask[:, 0] = False
    weights = mask.float()[..., None]
    return (read.tokens * weights).sum(1) / weights.sum(1).clamp(min=1)


def _fast(config: Config, seed: int) -> Config:
    """The encoder's config for many sentences once: in batches, remembering none."""
    wanted = {"exact": False, "cache_size": 0, "seed": seed}
    return config.replace(**{name: value for name, value in wanted.items() if name in type(config).model_fields})


def _report(
    names: Sequence[str], lines: list[dict[str, Any]], failures: list[dict[str, str]], seed: int, out: Path
) -> dict[str, Any]:
    words = ["medtextdiff", "probe", names[0], *(w for name in names[1:] for w in ("--against", name))]
    meta = {
        "command": shlex.join([*words, "--seed", str(seed), "-o", str(out)]),
        "seed": seed,
        "probe": "multinomial logistic regression, ridge chosen on held-out training templates",
        "sentences": f"at most {NUM_TRAIN} of train and {NUM_TEST} of test templates a probe, made up",
        "retrieval": f"{NUM_PARAPHRASES} pairs, cosine of centred features",
        "medtextdiff": __version__,
        "torch": torch.__version__,
    }
    examples = {
        task: [one.text for one in probe_sentences.sentences(task, "test", 3 * 6, seed)[:3]]
        for task in probe_sentences.PROBES
    }
    return {
        "format": 1,
        "title": f"What {names[0]} knows",
        "meta": meta,
        "features": FEATURES,
        "lines": lines,
        "failures": failures,
        "examples": examples,
    }
