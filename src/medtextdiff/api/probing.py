"""What a text encoder knows before it touches an image: linear probes, and retrieval of paraphrases."""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
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
from medtextdiff.evaluation.statistics import bootstrap_intervals
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
_COLUMNS_ASKED = ("encoder", "features", "probe", "metric")
_COLUMNS_AHEAD = ("first_ahead", "first_ahead_low", "first_ahead_high")
_COLUMNS = (*_COLUMNS_ASKED, "mean", "low", "high", *_COLUMNS_AHEAD, "chance", "num", "ridge")
_Asked = tuple[str, str, str]  # features, probe, metric


@dataclass
class _Answers:
    """One value a test sentence (right or not, or 1 / rank), the sentences, and the ridge of each draw."""

    chance: float
    values: list[float] = field(default_factory=list)
    sentences: list[str] = field(default_factory=list)
    ridges: list[float] = field(default_factory=list)

    def add(self, values: np.ndarray, sentences: Sequence[str]) -> None:
        self.values += values.astype(float).tolist()
        self.sentences += sentences


def probe(
    encoder: str | Path,
    *,
    out: str | Path,
    against: Sequence[str | Path] = (),
    untrained: bool = False,
    draws: int = 5,
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
        draws: of the sentences, of train and test, and of new weights: each figure is the mean over them.
        seed: of the first draw, the next ones count on from it; and of the bootstrap.

    Returns:
        Tables by name, each a head and its rows.

    Raises:
        ConfigError: `encoder` itself cannot be read, a name is given twice, or no draw is asked for;
        OutputExists: `out` is there.
    """
    if draws < 1:
        raise ConfigError(f"draws={draws}: at least one draw of the sentences is needed")
    check_free(Path(out), overwrite)
    check_place(Path(out))
    names = [str(encoder), *([f"{UNTRAINED}{encoder}"] if untrained else []), *map(str, against)]
    if len(set(names)) < len(names):
        raise ConfigError("an encoder is named twice; name each once")
    settings = {name: named(name) for name in names}  # a wrong name is told before the work
    seeds = range(seed, seed + draws)
    found: dict[str, dict[_Asked, _Answers]] = {}
    failures = []
    for name, config in settings.items():
        try:
            found[name] = _answers(name, config, seeds, progress)
        except (ValueError, OSError, RuntimeError, MemoryError) as error:
            if name == names[0]:
                raise
            failures.append({"encoder": name, "why": " ".join(str(error).split())})
            progress(f"failed: {name}: {failures[-1]['why']}")
    first = found[names[0]]
    lines = [_line(name, asked, one, first[asked], seed) for name, of in found.items() for asked, one in of.items()]
    report = _report(names, lines, failures, draws, seed, Path(out))
    files = {
        "report.json": json_text(report),
        "table.csv": csv_text(_COLUMNS, ([line[column] for column in _COLUMNS] for line in lines)),
        "report.html": probe_page.render(report),
    }
    progress(f"wrote {write_folder(Path(out), files)}")
    tables = {f"features: {features}": probe_page.table_lines(lines, features) for features in FEATURES}
    if len(found) > 1:
        pooled = next(iter(FEATURES))
        tables[f"how far {names[0]} is ahead, features: {pooled}"] = probe_page.table_of_leads(lines, pooled)
    return tables


def _answers(name: str, config: Config, seeds: Sequence[int], progress: Say) -> dict[_Asked, _Answers]:
    """All that one encoder is asked, over all draws of the sentences."""
    found: dict[_Asked, _Answers] = {}
    for number, seed in enumerate(seeds, 1):
        encoder = _fast(config, seed).build()  # type: ignore[attr-defined]
        for task in probe_sentences.PROBES:
            _ask_probe(found, encoder, task, seed)
        _ask_paraphrases(found, encoder, seed)
        progress(f"{name}: draw {number} of {len(seeds)}")
    return found


def _ask_probe(found: dict[_Asked, _Answers], encoder: Any, task: str, seed: int) -> None:
    train = probe_sentences.sentences(task, "train", NUM_TRAIN, seed)
    test = probe_sentences.sentences(task, "test", NUM_TEST, seed)
    x, z = (_features(encoder, [one.text for one in some]) for some in (train, test))
    labels, truth = [one.label for one in train], [one.label for one in test]
    chance = max(truth.count(label) for label in truth) / len(truth)
    for features in FEATURES:
        result = linear_probe(x[features], labels, z[features], truth, [one.template for one in train])
        answers = found.setdefault((features, task, "accuracy"), _Answers(chance))
        answers.add(result.correct, [one.text for one in test])
        answers.ridges.append(result.ridge)


def _ask_paraphrases(found: dict[_Asked, _Answers], encoder: Any, seed: int) -> None:
    pairs = probe_sentences.paraphrases(NUM_PARAPHRASES, seed)
    queries, candidates = (_features(encoder, side) for side in map(list, zip(*pairs, strict=True)))
    asked = [query for query, _ in pairs]
    by_chance = {"recall@1": 1 / len(pairs), "MRR": float(np.mean(1 / np.arange(1, len(pairs) + 1)))}
    for features in FEATURES:
        places = ranks(queries[features], candidates[features])
        for metric, values in (("recall@1", places == 1), ("MRR", 1 / places)):
            found.setdefault((features, "paraphrases", metric), _Answers(by_chance[metric])).add(values, asked)


def _line(name: str, asked: _Asked, answers: _Answers, first: _Answers, seed: int) -> dict[str, Any]:
    """A figure with its interval, and how far `first` is ahead on the same sentences.

    A sentence that comes in several draws is one case, however often it was asked.
    """
    values = np.stack([answers.values, np.array(first.values) - answers.values], axis=1)
    figure, lead = bootstrap_intervals(values, seed=seed, groups=answers.sentences)
    return {
        **dict(zip(_COLUMNS_ASKED, (name, *asked), strict=True)),
        **figure._asdict(),
        **dict(zip(_COLUMNS_AHEAD, lead, strict=True)),
        "chance": answers.chance,
        "num": len(answers.values),
        "ridge": " ".join(f"{ridge:g}" for ridge in answers.ridges),
    }


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
    names: Sequence[str], lines: list[dict[str, Any]], failures: list[dict[str, str]], draws: int, seed: int, out: Path
) -> dict[str, Any]:
    words = ["medtextdiff", "probe", names[0], *(w for name in names[1:] for w in ("--against", name))]
    meta = {
        "command": shlex.join([*words, "--draws", str(draws), "--seed", str(seed), "-o", str(out)]),
        "seed": seed,
        "draws": draws,
        "probe": "multinomial logistic regression, ridge chosen on held-out training templates",
        "sentences": f"at most {NUM_TRAIN} of train and {NUM_TEST} of test templates a probe and draw, made up",
        "retrieval": f"{NUM_PARAPHRASES} pairs a draw, cosine of centred features",
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
