"""L_MIM: rebuild the pixels of hidden patches (UMD Eq. 1, MAE)."""

from __future__ import annotations

from torch import Tensor

from umd.encoders.multimodal import MultimodalEncoder
from umd.heads.image_decoder import ImageDecoder
from umd.losses.objective import Heads, Objective
from umd.losses.views import Views


def patchify(pixels: Tensor, patch_size: int) -> Tensor:
    """Cut (B, 3, S, S) into patches (B, P, 3 * p * p), pixels of a patch ordered row, column, channel."""
    batch, channels, height, width = pixels.shape
    rows, columns = height // patch_size, width // patch_size
    cut = pixels.reshape(batch, channels, rows, patch_size, columns, patch_size)
    return cut.permute(0, 2, 4, 3, 5, 1).reshape(batch, rows * columns, patch_size**2 * channels)


def unpatchify(patches: Tensor, patch_size: int) -> Tensor:
    """Inverse of `patchify`: (B, P, 3 * p * p) -> (B, 3, S, S)."""
    batch, count, size = patches.shape
    grid = round(count**0.5)
    channels = size // patch_size**2
    cut = patches.reshape(batch, grid, grid, patch_size, patch_size, channels)
    return cut.permute(0, 5, 1, 3, 2, 4).reshape(batch, channels, grid * patch_size, grid * patch_size)


def patch_statistics(patches: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over each patch's pixels, (B, P, 1) each; a flat patch has a tiny deviation."""
    variance, mean = patches.var(-1, keepdim=True), patches.mean(-1, keepdim=True)
    return mean, (variance + 1e-6).sqrt()


def masked_image_loss(predicted: Tensor, patches: Tensor, masked: Tensor, normalize: bool = True) -> Tensor:
    """Mean squared error over the hidden patches only.

    Args:
        predicted: (B, P, 3 * p * p).
        patches: (B, P, 3 * p * p), the true pixels.
        masked: (B, P) bool, True at hidden patches; at least one in the batch.
        normalize: standardise each true patch by its own mean and deviation (`norm_pix` of MAE and M3AE).

    Returns:
        A scalar.
    """
    target = patches.float()
    if normalize:
        mean, deviation = patch_statistics(target)
        target = (target - mean) / deviation
    error = (predicted.float() - target).square().mean(-1)
    return (error * masked).sum() / masked.sum()


class MaskedImage(Objective):
    """MIM on pairs: the image decoder reads the fused image tokens.

    Args:
        normalize: see `masked_image_loss`.
        width: width of the image decoder.
        layers: its blocks.
        attention_heads: its attention heads.
    """

    term = "mim"
    reads = frozenset({"masked_image"})

    def __init__(self, normalize: bool, width: int, layers: int, attention_heads: int) -> None:
        self.normalize = normalize
        self.width = width
        self.layers = layers
        self.attention_heads = attention_heads

    def heads(self, encoder: MultimodalEncoder) -> Heads:
        """The image decoder."""
        return {
            "image_decoder": lambda: ImageDecoder(
                input_width=encoder.width,
                width=self.width,
                layers=self.layers,
                heads=self.attention_heads,
                patch_size=encoder.vision.patch_size,
                grid=encoder.vision.grid,
            )
        }

    def trunk(self, views: Views) -> Tensor:
        """The image decoder's last features, (B, 1 + P, width)."""
        return views.masked_image_trunk

    def predict(self, views: Views) -> Tensor:
        """Every patch as the image decoder sees it, (B, P, 3 * p * p)."""
        predicted: Tensor = views.head("image_decoder", ImageDecoder).predict(self.trunk(views)[:, 1:])
        return predicted

    def __call__(self, views: Views) -> Tensor:
        """L_MIM."""
        patches = patchify(views.pixels, views.encoder.vision.patch_size)
        return masked_image_loss(self.predict(views), patches, views.patch_mask.masked, self.normalize)


class UnimodalMaskedImage(MaskedImage):
    """MIM on images alone (MAE): the decoder reads the vision encoder through the fusion's projection."""

    reads = frozenset({"masked_image_projection"})

    def trunk(self, views: Views) -> Tensor:
        """As for pairs, without text and fusion."""
        return views.head("image_decoder", ImageDecoder).trunk(views.masked_image_projection, views.patch_mask)
