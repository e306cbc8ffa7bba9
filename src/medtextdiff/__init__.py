"""Text-conditioned diffusion for medical images.

    import medtextdiff

    model = medtextdiff.load("nuclei-small")
    result = model.segment("slide.png", "The nuclei density in the upper right is high.")
    result.mask            # Int[H W], at the image's own size

    images = medtextdiff.load(RUN).generate(["an image with one polyp"], seed=7)  # Float[B 3 H W] in [0, 1]

Nothing heavy is imported until the first call.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["__version__", "evaluate", "generate", "load", "segment", "train"]

if TYPE_CHECKING:
    from medtextdiff.api import evaluate, generate, load, segment, train


def __getattr__(name: str) -> Any:
    if name in __all__:
        from medtextdiff import api

        return getattr(api, name)
    raise AttributeError(f"module 'medtextdiff' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
