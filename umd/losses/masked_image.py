"""L_MIM: rebuild the pixels of hidden patches (UMD Eq. 1, MAE)."""

from __future__ import annotations

from torch import Tensor


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
