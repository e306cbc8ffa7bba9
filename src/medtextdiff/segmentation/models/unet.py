"""A plain U-Net (MONAI's, with residual units): the first sibling, which does not read the note."""

from collections.abc import Sequence

from jaxtyping import Float
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from medtextdiff import config
from medtextdiff.segmentation import padding


class Config(config.Config):
    """The defaults have 4,904,321 parameters with two classes: the "plain 4.9 M U-Net" of the comparisons."""

    channels: tuple[PositiveInt, ...] = (32, 64, 128, 256, 376)
    num_res_units: PositiveInt = 2
    dropout: float = Field(default=0.0, ge=0, lt=1)
    num_classes: int = Field(default=2, ge=2)

    def build(self) -> "UNet":
        """The segmenter, untrained.

        Raises:
            ConfigError: fewer than two resolutions.
        """
        if len(self.channels) < 2:
            raise config.ConfigError(f"unet: channels name at least two resolutions, e.g. 32,64,128; {self.channels}")
        return UNet(self)


class UNet(nn.Module):
    """See `Config`. Any image size: the image is padded by reflection, the logits are cut back."""

    def __init__(self, settings: Config) -> None:
        super().__init__()
        from monai.networks.nets import UNet as MonaiUNet

        num_halvings = len(settings.channels) - 1
        self.num_classes = settings.num_classes
        self.multiple = 2 ** (num_halvings + 1)  # instance norm needs two pixels at the coarsest resolution
        self.net = MonaiUNet(
            spatial_dims=2,
            in_channels=3,
            out_channels=settings.num_classes,
            channels=settings.channels,
            strides=(2,) * num_halvings,
            num_res_units=settings.num_res_units,
            norm="instance",
            dropout=settings.dropout,
        )

    def forward(
        self,
        images: Float[Tensor, "B 3 H W"],
        notes: Sequence[str],
        boxes: Float[Tensor, "B 4"] | None = None,
    ) -> Float[Tensor, "B K H W"]:
        """Logits at the images' size; `notes` and `boxes` are not read."""
        height, width = images.shape[-2:]
        return self.net(padding.to_multiple(images, self.multiple))[..., :height, :width]
