"""A trained segmenter, ready to use: `load(...)`, then `segment`, or `encode` once and `decode` for every note."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from medtextdiff.api import exports, shelf
from medtextdiff.config import ConfigError
from medtextdiff.data import images, transforms
from medtextdiff.data.errors import ImageError
from medtextdiff.evaluation.calibration import confidence
from medtextdiff.recipes import run_folder, segmentation_run
from medtextdiff.recipes.segmentation_run import mirror_note
from medtextdiff.segmentation import feature_bank
from medtextdiff.segmentation.graphs.description import is_export
from medtextdiff.segmentation.graphs.description import read as read_description
from medtextdiff.segmentation.predict import Mode
from medtextdiff.segmentation.views import Encoded
from medtextdiff.training.components import check_components, load_components
from medtextdiff.types import Levels, Picture

Image = str | Path | Picture | np.ndarray


@dataclass(frozen=True)
class Result:
    """One segmented image, at its own size. `confidence` in [0, 1] is the model's own (docs/method.md)."""

    mask: Int[np.ndarray, "H W"]
    probabilities: Float[np.ndarray, "K H W"]
    foreground: float  # share of the image, in percent
    confidence: float
    seconds: float


class Model:
    """A segmenter with its settings of use. Made by `load`."""

    def __init__(
        self,
        name: str,
        run: segmentation_run.Run,
        segmenter: Any,
        device: torch.device,
        precision: str,
        sha256: str,
        runtime: str = exports.TORCH,
    ) -> None:
        self.name, self.run, self.segmenter = name, run, segmenter
        self.device, self.precision, self.sha256, self.runtime = device, precision, sha256, runtime

    @property
    def num_classes(self) -> int:
        """K, background included."""
        return int(self.segmenter.num_classes)

    def segment(self, image: Image, note: str = "", *, mode: Mode | None = None) -> Result:
        """Segment one image: a path, a `Picture`, or an array [H W], [H W 1] or [H W 3], uint8 or float in [0, 1].

        `note` "" means there is none. `mode` departs from what the model was validated with.

        Raises:
            ImageError: an image that cannot be read or is no image.
        """
        started = time.perf_counter()
        tensor = self._tensor(image)
        use = self._use(mode)
        with self._computing():
            probs = use.probabilities(self.segmenter, tensor, note, mirror_note)
        return self._result(probs, started)

    def warm(self, image: Image) -> None:
        """Encode an image, view by view as `segment` would read it, so that the model's bank keeps the levels.

        Raises:
            ImageError: as `segment`.
        """
        with self._computing():
            self.run.use.probabilities(_Encoder(self.segmenter), self._tensor(image), "", mirror_note)

    def encode(self, image: Image, *, mode: Mode | None = None) -> Encoded:
        """What the image gives, whatever the note: the expensive part. Mirror averaging is left out.

        Raises:
            ImageError: as `segment`. ConfigError: a model that does not part image and note.
        """
        if not hasattr(self.segmenter, "encode"):
            raise ConfigError(f"{self.name} reads no notes, so nothing can be encoded apart; use segment")
        use = self._use(mode)
        with self._computing():
            return Encoded.of(self.segmenter, self._tensor(image), use)

    def decode(self, encoded: Encoded, note: str = "") -> Result:
        """The mask of an encoded image for a note: cheap, so a note can be edited many times."""
        started = time.perf_counter()
        with self._computing():
            probs = encoded.probabilities(self.segmenter, note)
        return self._result(probs, started)

    def logits(self, image: Image, note: str = "", *, mode: Mode | None = None) -> Float[np.ndarray, "K h w"]:
        """The model's raw logits: at its working size, the whole image at once."""
        use = self._use(mode)
        with self._computing():
            return use.logits(self.segmenter, self._tensor(image), note).cpu().numpy()

    def levels(self, image: Image) -> Levels:
        """The denoiser's levels of the whole image at its working size."""
        if not hasattr(self.segmenter, "encode"):
            raise ConfigError(f"{self.name} has no denoiser, so it has no levels; give a FastTextDiff run")
        with self._computing(), torch.no_grad():
            levels = self.segmenter.encode(self.run.use.working_image(self._tensor(image)))
        return [level.float().cpu() for level in levels]

    def check_mode(self, mode: str | None) -> None:
        """Raise ConfigError unless `mode` is one of `Mode`, or None for the model's own."""
        if mode not in (None, *get_args(Mode)):
            raise ConfigError(f"no mode '{mode}'; give {' or '.join(get_args(Mode))}")

    def _use(self, mode: Mode | None) -> Any:
        self.check_mode(mode)
        return self.run.use if mode is None else self.run.use.replace(mode=mode)

    def _tensor(self, image: Image) -> Float[Tensor, "3 H W"]:
        return transforms.to_tensor(as_picture(image)).to(self.device)

    @contextmanager
    def _computing(self) -> Iterator[None]:
        """Under the precision asked for; memory that does not suffice is the image's fault, not a bug."""
        try:
            with self._autocast():
                yield
        except RuntimeError as error:  # on a CPU torch has no type of its own for it
            if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
                raise
            raise ImageError(
                f"the image does not fit in the memory of {self.device}; use mode tiles, or cut it into parts"
            ) from None

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.precision == "bf16" and self.runtime == exports.TORCH:  # a graph has its own
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return nullcontext()

    def _result(self, probs: Tensor, started: float) -> Result:
        found = probs.float().cpu().numpy()
        if not np.isfinite(found).all():
            raise ConfigError(f"{self.name} gave values that are no numbers; try precision float32, or train it again")
        mask = found.argmax(axis=0).astype(np.int64)
        share = 100 * float((mask > 0).mean())
        return Result(mask, found, share, confidence(found), time.perf_counter() - started)


class _Encoder:
    """Stands where a segmenter does, and only encodes."""

    num_classes = 1

    def __init__(self, segmenter: Any) -> None:
        self.segmenter = segmenter

    def __call__(self, images: Tensor, notes: Sequence[str], boxes: Tensor | None = None) -> Tensor:
        self.segmenter.encode(images)
        return images.new_zeros(len(images), 1, *images.shape[-2:])


def load(
    name_or_run: str | Path,
    *,
    device: str = "auto",
    precision: str = "auto",
    bank: str | Path | feature_bank.Config | None = None,
    runtime: str = "auto",
    progress: Callable[[str], None] = lambda line: None,
) -> Model:
    """A shipped model by name, a run folder, or a folder of exported graphs, ready to use.

    Args:
        name_or_run: `medtextdiff models` lists the names.
        device: "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1".
        precision: "float32", "bf16", or "auto": bf16 where the device computes in it.
        bank: a folder that keeps the denoiser's levels, so that no view of an image is encoded twice.
        runtime: "torch", "onnx" or "openvino"; "auto" is torch, or what a folder was exported to. A run asked for
            in another runtime than torch is exported first, once, into the user's cache folder (docs/export.md).
        progress: told what such an export does.

    Raises:
        ConfigError: no such model, or settings that cannot be; RunError: a file is missing or was tampered with.
    """
    folder = shelf.find(name_or_run)
    if bank is not None and (is_export(folder) or runtime not in ("auto", exports.TORCH)):
        raise ConfigError("exported graphs keep no levels in a bank; leave --bank out, or use --runtime torch")
    if is_export(folder):
        return _load_export(folder, str(name_or_run), device, precision, runtime)
    if runtime in ("auto", exports.TORCH):
        return _load_run(folder, str(name_or_run), _device(device), precision, bank)
    sha256 = _digest(check_components(folder))
    place = exports.cache_place(sha256, runtime)
    if not place.exists():
        progress(f"exporting {name_or_run} to {runtime}, once; it is kept in {place}")
        source = _load_run(folder, str(name_or_run), torch.device("cpu"), "float32")
        exports.write(
            source.segmenter, folder, name=folder.name, sha256=sha256, to=runtime, out=place, progress=progress
        )
    return _load_export(place, str(name_or_run), device, precision, runtime)


def _load_run(
    folder: Path,
    name: str,
    where: torch.device,
    precision: str,
    bank: str | Path | feature_bank.Config | None = None,
) -> Model:
    hashes = check_components(folder)
    run = _segmentation_run(folder, name)
    segmenter = run.build_model(folder)
    load_components(segmenter, folder, built=run_folder.own_parts(run.model))
    segmenter = segmenter.eval().to(where).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    computed_in = _precision(precision, where)
    denoiser = getattr(segmenter, "denoiser", None)
    if computed_in == "bf16" and denoiser is not None and not any(w.requires_grad for w in denoiser.parameters()):
        denoiser.to(torch.bfloat16)  # autocast would cast frozen weights anew for every image: 2.2 GB for the ADM
    if bank is not None:
        _attach(segmenter, bank, name)
    return Model(name, run, segmenter, where, computed_in, _digest(hashes))


def _attach(segmenter: Any, bank: str | Path | feature_bank.Config, name: str) -> None:
    if not hasattr(segmenter, "keep_levels"):
        raise ConfigError(f"{name} has no denoiser, so it has no levels to keep; leave out the bank")
    settings = bank if isinstance(bank, feature_bank.Config) else feature_bank.Config(folder=str(bank))
    segmenter.requires_grad_(False)  # in use nothing is trained, whatever was in training
    segmenter.keep_levels(settings.build())


def _load_export(folder: Path, name: str, device: str, precision: str, runtime: str) -> Model:
    own = read_description(folder).runtime
    if runtime not in ("auto", own):
        raise ConfigError(f"{folder} holds graphs for {own}, not for {runtime}; leave --runtime out, or give the run")
    if device not in ("auto", "cpu"):
        raise ConfigError(f"exported graphs run on the CPU, not on '{device}'; leave --device out, or --runtime torch")
    cpu, offered = torch.device("cpu"), exports.precisions(own)
    chosen: str = _precision(precision, cpu)
    if precision == "auto" and chosen not in offered:
        chosen = offered[0]
    segmenter, about = exports.open_folder(folder, chosen)
    return Model(name, _segmentation_run(folder, name), segmenter, cpu, chosen, about.model_sha256, own)


def _segmentation_run(folder: Path, name: str) -> segmentation_run.Run:
    run = run_folder.read_config(folder)
    if not isinstance(run, segmentation_run.Run):
        raise ConfigError(f"{name} is no segmentation run but a {run.kind()}; it cannot segment")
    return run


def as_picture(image: Image) -> Picture:
    """Whatever a person hands in, as a Picture.

    Raises:
        ImageError: a file that cannot be read; an array of another shape, type or range.
    """
    if isinstance(image, Picture):
        return image
    if isinstance(image, str | Path):
        return images.read(image)
    pixels = np.asarray(image)
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or 0 in pixels.shape:
        raise ImageError(f"an image array is [H W], [H W 1] or [H W 3]; this one has shape {np.shape(image)}")
    if pixels.dtype == np.uint8:
        return Picture(pixels.astype(np.float32) / 255)
    if not np.issubdtype(pixels.dtype, np.floating):
        raise ImageError(f"an image array is uint8 or float in [0, 1]; this one is {pixels.dtype}: scale it first")
    if not (np.isfinite(pixels).all() and pixels.min() >= 0 and pixels.max() <= 1):
        raise ImageError("a float image array lies in [0, 1] without NaN; this one does not: scale it first")
    return Picture(pixels.astype(np.float32))


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"no device '{name}'; give auto, cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"no device '{name}'; give auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device '{name}' is not there: torch sees no GPU; use --device cpu")
    return device


def _precision(name: str, device: torch.device) -> Literal["float32", "bf16"]:
    if name not in ("auto", "float32", "bf16"):
        raise ConfigError(f"no precision '{name}'; give auto, float32 or bf16")
    if name != "auto":
        return cast(Literal["float32", "bf16"], name)
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "float32"
    return "bf16" if torch.ops.mkldnn._is_mkldnn_bf16_supported() and _has_bf16_units() else "float32"


def _has_bf16_units() -> bool:
    """Whether the CPU multiplies in bf16 (AVX512-BF16 or AMX), and does not only emulate it."""
    return bool(torch.cpu._is_avx512_bf16_supported())


def _digest(hashes: dict[str, str]) -> str:
    import hashlib

    return hashlib.sha256("".join(f"{name}{value}" for name, value in sorted(hashes.items())).encode()).hexdigest()
