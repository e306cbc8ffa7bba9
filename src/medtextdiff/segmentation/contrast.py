"""Each image's own decision threshold: where the colours inside and outside the mask are best told apart.

A model of few labels draws too much in images with little foreground and too little in images with much. The image
itself says where to cut: of all masks `probability > threshold`, the one whose two sides differ most in colour, by
Fisher's criterion (Otsu's rule, doi:10.1109/TSMC.1979.4310076, over three channels and over the masks the model
offers). No label is used.
"""

import torch
from jaxtyping import Float
from torch import Tensor

_LEAST = 50  # pixels: on either side of a cut that is considered
_CUTS = torch.arange(-3.0, 3.01, 0.25, dtype=torch.float64)  # of the foreground's log odds: probabilities .05 to .95
_LEAST_PROBABILITY = 1e-6
_CHUNK = 1 << 20  # pixels at once
_RIDGE = 1e-6  # keeps the scatter of a grey image, whose three channels are one, invertible
_FLAT = 1e-6  # a share of the pixels: the score below which an image has one colour


@torch.no_grad()
def best_cut(image: Float[Tensor, "3 H W"], log_odds: Float[Tensor, "H W"]) -> float:
    """The cut of the foreground's log odds, -3 to 3, whose two sides differ most in colour.

    Of cuts that give one mask the one nearest to 0, and 0 where no cut has two sides or the image has one colour.
    `image`: RGB in [-1, 1]; it is compared in optical density, in which a stain counts by its amount.
    """
    sums = torch.zeros(13, len(_CUTS) + 1, dtype=torch.float64)
    for colours, odds in zip(image.flatten(1).split(_CHUNK, dim=1), log_odds.flatten().split(_CHUNK), strict=True):
        density = -((colours.cpu().double() + 1) / 2).clamp(2 / 255, 1).log()
        products = (density[:, None] * density[None]).flatten(0, 1)
        above = torch.bucketize(odds.cpu().double(), _CUTS)  # how many cuts a pixel lies above
        sums.index_add_(1, above, torch.cat([torch.ones_like(density[:1]), density, products]))
    inside = sums.flip(1).cumsum(1).flip(1)[:, 1:].T  # of the pixels above each cut
    outside = sums.sum(dim=1) - inside
    scatter = _scatter(inside) + _scatter(outside) + _RIDGE * log_odds.numel() * torch.eye(3, dtype=torch.float64)
    apart = inside[:, 1:4] / inside[:, :1].clamp(min=1) - outside[:, 1:4] / outside[:, :1].clamp(min=1)
    distance = (apart * torch.linalg.solve(scatter, apart)).sum(dim=1)
    score = inside[:, 0] * outside[:, 0] * distance
    score = score.masked_fill((inside[:, 0] < _LEAST) | (outside[:, 0] < _LEAST), 0.0)
    if score.max() <= _FLAT * log_odds.numel():
        return 0.0
    best = _CUTS[score >= score.max() * (1 - 1e-9)]
    return float(best[best.abs().argmin()])


def shift(image: Float[Tensor, "3 H W"], probs: Float[Tensor, "K H W"], strength: float) -> Float[Tensor, "K H W"]:
    """Probabilities whose foreground (all classes but 0) lost `strength` times the best cut in log odds.

    At 1 the pixels above the best cut become the mask: those whose likeliest class is not 0. They still sum to 1; the
    classes of the foreground keep their ratios.
    """
    background = _log(probs[0])
    strongest = torch.cat([torch.zeros_like(probs[:1]), probs[1:]]).amax(dim=0)
    cut = strength * best_cut(image, _log(strongest) - background)
    foreground = torch.sigmoid(_log(1 - probs[0]) - background - cut)
    ratio = foreground / (1 - probs[0]).clamp(min=_LEAST_PROBABILITY)
    return torch.cat([(1 - foreground)[None], probs[1:] * ratio])


def _log(probs: Float[Tensor, "H W"]) -> Float[Tensor, "H W"]:
    return probs.clamp(min=_LEAST_PROBABILITY).log()


def _scatter(sums: Float[Tensor, "N 13"]) -> Float[Tensor, "N 3 3"]:
    """The scatter about the mean of pixels given by their number, sum and sum of products."""
    number = sums[:, 0].clamp(min=1)[:, None, None]
    total = sums[:, 1:4]
    return sums[:, 4:].reshape(-1, 3, 3) - total[:, :, None] * total[:, None, :] / number
