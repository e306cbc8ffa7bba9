"""The figures of a report on synthesis, from sets of images and an extractor: features joined with what prompts say."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch

from medtextdiff.api.image_sets import ImageSet
from medtextdiff.config import ConfigError
from medtextdiff.data import prompts
from medtextdiff.data.errors import DataError
from medtextdiff.data.generated import Generated
from medtextdiff.evaluation import adherence, attribute_probe, challenge, distances, memorisation, synthesis, utility
from medtextdiff.evaluation.diversity import pair_similarities
from medtextdiff.evaluation.statistics import Interval, bootstrap_interval
from medtextdiff.synthesis.extraction import Extractor, FeatureSet, extract

Say = Callable[[str], None]
_MIN_OF_EACH = 20  # yes and no among the training images, for a classifier of an attribute
_SAYS = {
    "medvqa2024": "ImageCLEF MEDVQA-GI 2024, its script's formulas with this extractor's class probabilities: images "
    "are 'resized' by repeating the raw buffer, so the figures hardly depend on what they show; no FID.",
    "medvqa2025": "ImageCLEF MEDVQA-GI 2025, its script's formulas with this extractor's features (the challenge's is "
    "BiomedCLIP): covariances of a few images, half of the pairs scored; 'all pairs' mends the latter. Agreement is "
    "highest for a model that always gives one image.",
}


@dataclass(frozen=True)
class Sets:
    """The images of a report, all of one size."""

    generated: ImageSet
    held_out: ImageSet
    train: ImageSet
    reconstructions: ImageSet | None = None

    def with_reconstructions(self, reconstructions: ImageSet) -> "Sets":
        """The same, with the held-out images as an autoencoder gives them back."""
        return replace(self, reconstructions=reconstructions)


class Figures:
    """All figures of one report. Features and classifiers are made once, when first asked for."""

    def __init__(
        self, sets: Sets, extractor: Extractor, *, seed: int, device: torch.device, progress: Say = lambda line: None
    ) -> None:
        self.sets, self.extractor, self.seed, self.progress = sets, extractor, seed, progress
        self.device = device
        if isinstance(extractor, torch.nn.Module):
            extractor.to(device)
        self.remarks: list[str] = []
        self.train, self.held_out = self._features("train", sets.train), self._features("held out", sets.held_out)
        self.generated = self._features("generated", sets.generated)

    def quality_rows(self) -> list[synthesis.Row]:
        """The floor, the reconstructions if there are any, the generated images, and these with shuffled prompts."""
        by_round = self._by_round()
        num = min(len(self.held_out), len(self.train) // 2, *map(len, by_round))
        rng = np.random.default_rng(self.seed)
        chosen = np.sort(rng.permutation(len(self.held_out))[:num])
        reference = self._sample("real, held out", self.sets.held_out, self.held_out, chosen, self._vectors(self.train))
        # Not the first ones: a folder is often in an order that says something, as file names do.
        drawn = [np.sort(rng.permutation(places)[:num]) for places in by_round]
        rows = synthesis.rows(self._references(chosen, num, rng), reference, seed=self.seed, progress=self.progress)
        for shuffled in (False, True):
            name = "generated, prompts shuffled" if shuffled else "generated"
            each = [self._generated(name, places, shuffled) for places in drawn]
            found = synthesis.rows(each, reference, seed=self.seed, progress=self.progress)
            rows.append(synthesis.over_rounds(name, found))
        return rows

    def adherence_lines(self) -> tuple[list[adherence.Line], list[adherence.Line]]:
        """Lines by group and by attribute; none where the prompts follow no known template."""
        claims = self.sets.generated.labels()[:, self._asked]
        if not self._asked or (claims == attribute_probe.UNKNOWN).all():
            self.remarks.append("The prompts follow no template that is known here: adherence cannot be asked.")
            return [], []
        # Prompt by prompt on both sides: what all prompts of an image imply has other shares of yes and no.
        places, said = self.sets.held_out.prompt_labels()
        names = [prompts.ATTRIBUTES[a] for a in self._asked]
        groups = {group: [one for one in members if one in names] for group, members in prompts.GROUPS.items()}
        return adherence.table(
            names,
            {group: members for group, members in groups.items() if members},
            answers=self.probe.answers(self.generated.cells),
            claims=claims,
            real_answers=self.probe.answers(self.held_out.cells)[places],
            real_claims=said[:, self._asked],
            seed=self.seed,
        )

    def audits(self) -> dict[str, memorisation.Audit]:
        """Memorisation in pixels and in features."""
        train = np.concatenate([self._thumbnails["train"], self._thumbnails["mirrored"]])
        return {
            "pixels": memorisation.audit(self._thumbnails["generated"], train, self._thumbnails["held out"]),
            "features": memorisation.audit(
                self._vectors(self.generated), self._vectors(self.train), self._vectors(self.held_out)
            ),
        }

    def closest_pairs(self, audit: memorisation.Audit, num: int = 12) -> list[np.ndarray]:
        """Generated image and its nearest training image, in turn, the closest pairs first."""
        found: list[np.ndarray] = []
        for k in np.argsort(audit.distance, kind="stable")[:num]:
            at = int(audit.nearest[k])
            near = self.sets.train.pixels[at % len(self.train)]
            mirrored = at >= len(self.train)
            found += [self.sets.generated.pixels[k], near[:, ::-1] if mirrored else near]
        return found

    def utility_lines(self) -> tuple[list[utility.Line], list[str]]:
        """Classifiers trained on real, generated and both; and the attributes they are a mean over."""
        made = (self.generated.cells, self.sets.generated.labels())
        places = np.random.default_rng(self.seed).permutation(len(self.train))[: len(self.generated)]
        same = (self.train.cells[places], self.sets.train.take(places).one_prompt_labels(self.seed))
        if len(made[0]) < 10 or not self._asked:
            return [], []
        everything = (self.train.cells, self.sets.train.labels())
        sets = {
            "real, as many, one prompt each": same,
            "generated": made,
            "real and generated": tuple(np.concatenate(pair) for pair in zip(same, made, strict=True)),
            "real, all images and prompts": everything,
        }
        test = (self.held_out.cells, self.sets.held_out.labels())
        lines, columns = utility.table(sets, test, seed=self.seed, progress=self.progress)  # type: ignore[arg-type]
        if not lines:
            self.remarks.append("Utility: no attribute is claimed and denied at least five times in every set.")
        return lines, [prompts.ATTRIBUTES[column] for column in columns]

    def challenge_figures(self, protocol: str | None, items: Sequence[Generated]) -> tuple[dict[str, float], str]:
        """A challenge's figures, and what to know of them. See `check_classifies` and `check_pairs` first."""
        if protocol is None:
            return {}, ""
        if protocol == "medvqa2024":
            made, real = (list(one.pixels) for one in (self.sets.generated, self.sets.held_out))
            return challenge.medvqa2024(made, real, self._classify), _SAYS[protocol]
        return challenge.medvqa2025(self._pairs(items)), _SAYS[protocol]

    def per_image(self, audits: dict[str, memorisation.Audit]) -> tuple[list[str], list[list[object]]]:
        """Head and rows of a table of the generated images."""
        head = ["file", "seed"]
        head += [f"{space}_{what}" for space in audits for what in ("distance", "nearest_train", "copied")]
        asked = self._asked
        right = [(0, 0)] * len(self.generated)
        if asked:
            claims = self.sets.generated.labels()[:, asked]
            right = adherence.right_per_image(self.probe.answers(self.generated.cells), claims)
        rows: list[list[object]] = []
        for k, name in enumerate(self.sets.generated.ids):
            row: list[object] = [name, self.sets.generated.seeds[k]]
            for found in audits.values():
                near = self.sets.train.ids[int(found.nearest[k]) % len(self.train)]
                row += [float(found.distance[k]), near, int(found.copied[k])]
            rows.append([*row, *right[k]])
        return [*head, "claims_right", "claims"], rows

    @cached_property
    def probe(self) -> attribute_probe.Probe:
        """Classifiers of the attributes, trained on the real training images."""
        found = attribute_probe.fit(self.train.cells, self.sets.train.labels()[:, self._asked], seed=self.seed)
        self.progress(f"trained classifiers of {len(self._asked)} attributes on {len(self.train)} real images")
        return found

    @cached_property
    def _asked(self) -> list[int]:
        """Attributes that enough training images are known to have, and not to have."""
        labels = self.sets.train.labels()
        counts = np.minimum((labels == 1).sum(axis=0), (labels == 0).sum(axis=0))
        least = min(_MIN_OF_EACH, max(2, len(self.train) // 10))
        return [int(a) for a in np.flatnonzero(counts >= least)]

    @cached_property
    def _thumbnails(self) -> dict[str, np.ndarray]:
        train = self.sets.train
        mirrored = replace(train, pixels=train.pixels[:, :, ::-1].copy())
        sets = {"train": train, "mirrored": mirrored, "held out": self.sets.held_out, "generated": self.sets.generated}
        return {name: one.thumbnails() for name, one in sets.items()}

    def _features(self, name: str, images: ImageSet) -> FeatureSet:
        def say(done: int, total: int) -> None:
            if done % 400 == 0 or done == total:
                self.progress(f"features: {name} {done}/{total}")

        return extract(self.extractor, images.pixels, device=self.device, progress=say)

    def _vectors(self, features: FeatureSet) -> np.ndarray:
        """For distances: standardised on the training images where the extractor has no scale of its own."""
        if not self.extractor.standardised:
            return features.vectors
        scale = self.train.vectors.std(axis=0)
        return (features.vectors - self.train.vectors.mean(axis=0)) / np.where(scale > 1e-9, scale, 1.0)

    def _by_round(self) -> list[np.ndarray]:
        """Places of each round's images; of all as one, where rounds have too few images to be rows of their own."""
        rounds = np.asarray(self.sets.generated.rounds)
        places = [np.flatnonzero(rounds == one) for one in np.unique(rounds)]
        return places if min(map(len, places)) >= synthesis.MIN_IMAGES else [np.arange(len(rounds))]

    def _references(self, chosen: np.ndarray, num: int, rng: np.random.Generator) -> list[synthesis.Sample]:
        order = rng.permutation(len(self.train))
        rest = self._vectors(self.train)[order[num:]]
        made = [self._sample("real, trained on (the floor)", self.sets.train, self.train, order[:num], rest)]
        again = self.sets.reconstructions
        if again is not None:
            features = self._features("reconstructions", again)
            whole = self._vectors(self.train)
            made.append(self._sample("real, held out, reconstructed", again, features, chosen, whole, paired=True))
        return made

    def _generated(self, name: str, places: np.ndarray, shuffled: bool) -> synthesis.Sample:
        train = self._vectors(self.train)
        sample = self._sample(name, self.sets.generated, self.generated, places, train)
        if not shuffled or sample.claims is None:
            return sample
        order = np.random.default_rng(self.seed).permutation(len(places))
        return replace(sample, claims=sample.claims[order])

    def _sample(
        self, name: str, images: ImageSet, features: FeatureSet, places: np.ndarray, train: np.ndarray, *,
        paired: bool = False,
    ) -> synthesis.Sample:  # fmt: skip
        said = images.take(places).one_prompt_labels(self.seed)
        known = (said != attribute_probe.UNKNOWN).any()
        claims = np.where(said == attribute_probe.UNKNOWN, 0, 2 * said - 1).astype(np.float64) if known else None
        similar = bootstrap_interval(pair_similarities(images.take(places).tensors(), seed=self.seed), seed=self.seed)
        vectors = self._vectors(features)[places]
        return synthesis.Sample(name, vectors, train, claims, self._score(features, places), similar, paired)

    def _score(self, features: FeatureSet, places: np.ndarray) -> Callable[[np.ndarray], float] | None:
        if features.probs is not None:
            probs = features.probs[places]
            return lambda at: distances.inception_score(probs[at])
        if not self._asked:
            return None
        chances = self.probe.probabilities(features.cells[places])
        return lambda at: distances.attribute_score(chances[at])

    def _classify(self, images: Sequence[np.ndarray]) -> np.ndarray:
        found = extract(self.extractor, np.stack(list(images)), device=self.device).probs
        assert found is not None
        return found

    def _pairs(self, items: Sequence[Generated]) -> list[challenge.Pair]:
        found = []
        real = self.sets.held_out.labels()
        for first, second in check_pairs(items):
            claims = prompts.claims(items[first[0]].prompt) or prompts.claims(items[second[0]].prompt)
            said = np.asarray(prompts.as_labels(claims))
            fits = np.flatnonzero(((said == attribute_probe.UNKNOWN) | (said == real)).all(axis=1))
            if not claims or len(fits) < 2:
                raise DataError(
                    f"protocol medvqa2025: pair '{items[first[0]].pair}' has no two held-out real images that fit; "
                    "one wording of each pair must follow the data set's templates"
                )
            vectors = self.generated.vectors
            found.append(challenge.Pair(vectors[first], vectors[second], self.held_out.vectors[fits]))
        return found


def check_classifies(extractor: Extractor) -> None:
    """Raise ConfigError for an extractor that gives no class probabilities, which the protocol of 2024 needs."""
    if extractor(torch.zeros(1, 3, extractor.size, extractor.size)).probs is None:
        raise ConfigError(
            "protocol medvqa2024 needs an extractor that classifies, e.g. efficientnet_lite0, or a TorchScript "
            "file with --set gives=logits"
        )


def check_pairs(items: Sequence[Generated]) -> list[tuple[list[int], list[int]]]:
    """Places of the images of both wordings of each pair.

    Raises:
        ConfigError: a run instead of a folder, no column `pair`, or a pair that is not two wordings of two images.
    """
    named = [item for item in items if item.pair]
    if not named:
        raise ConfigError(
            "protocol medvqa2025 compares pairs of wordings: generate them first, and add the column 'pair' to "
            "prompts.csv (the same name for both wordings of one thing)"
        )
    found = []
    for pair in dict.fromkeys(item.pair for item in named):
        places: dict[str, list[int]] = {}
        for place, item in enumerate(items):
            if item.pair == pair:
                places.setdefault(item.prompt, []).append(place)
        if len(places) != 2 or min(map(len, places.values())) < 2:
            raise ConfigError(f"prompts.csv: pair '{pair}' needs two wordings with at least two images each")
        first, second = places.values()
        found.append((first, second))
    return found


def as_text(row: synthesis.Row, audits: dict[str, memorisation.Audit]) -> dict[str, str]:
    """A row's figures and the shares of copies, for a terminal."""

    def told(interval: Interval, digits: int = 3) -> str:
        return f"{interval.mean:.{digits}g} [{interval.low:.{digits}g}, {interval.high:.{digits}g}]"

    found = {synthesis.NAMES[name]: told(interval) for name, interval in row.figures.items()}
    for space, audit in audits.items():
        percent = Interval(*(100 * value for value in audit.copies))
        found[f"copies by {space} (%)"] = told(percent)
    return found | {"images": str(row.images)}
