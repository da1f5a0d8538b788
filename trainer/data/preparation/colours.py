"""Convert image files of any mode to 8-bit RGB, as torchvision's ImageFolder does.

Like ``Image.convert("RGB")``, this drops alpha (colours under it stay), takes the first of several
frames, and ignores EXIF orientation and colour profiles. Where that would clip pixels, they are
scaled, or the file is refused.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.errors import UserError

COLOURS = {
    "1": "black and white",
    "L": "grey",
    "LA": "grey",
    "P": "palette",
    "PA": "palette",
    "CMYK": "CMYK",
    "YCbCr": "YCbCr",
    "LAB": "LAB",
    "HSV": "HSV",
    "RGB": None,
    "RGBA": None,
    "RGBX": None,
}
DEEP = "16-bit (upper 8 bits kept)"
TRANSPARENT = "transparent (alpha dropped)"
ROTATED = "rotated by EXIF (left as stored)"
FRAMES = "of several frames (first kept)"
# Reported for images that are not plain 8-bit RGB
CONVERSIONS = (*dict.fromkeys(filter(None, COLOURS.values())), DEEP, TRANSPARENT, ROTATED, FRAMES)

ORIENTATION = 0x0112  # the EXIF tag; 1: as stored
BITS, PHOTOMETRIC, SAMPLE_FORMAT = 258, 262, 339  # TIFF tags
UNSIGNED, BLACK_IS_ZERO = 1, 1  # values of the last two


def read_image(path: Path) -> tuple[NDArray[np.uint8], list[str]]:
    """Return (H, W, 3) RGB, and which of ``CONVERSIONS`` applied.

    Raises UserError for a file that is missing, truncated or not an image, and for pixels without a
    known range of values (32-bit integers and floats).
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            deep = _has_16_bits(image)
            transparent = image.has_transparency_data
            if image.mode.startswith(("I", "F")):
                pixels = _keep_upper_bits(image, path)
            else:
                # Otherwise Pillow warns that it drops a palette's transparency.
                image.info.pop("transparency", None)
                pixels = np.asarray(image.convert("RGB"))
            notes: dict[str | None, bool] = {
                COLOURS.get(image.mode, "grey"): True,
                DEEP: deep,
                TRANSPARENT: transparent,
                **_read_metadata_notes(image),
            }
    except FileNotFoundError:
        if path.is_symlink():
            raise UserError(f"{path}: a broken link; replace or remove it") from None
        raise UserError(f"{path}: no longer exists; run `prepare` again") from None
    # Pillow raises the first three for broken files, the last for implausibly large images.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(
            f"{path}: not a readable image ({error}); replace or remove it, and `prepare` again"
        ) from None
    return pixels, [note for note, holds in notes.items() if note and holds]


def describe_conversions(counts: dict[str, int]) -> str:
    """Describe counts of conversions in words; empty for none."""
    parts = [f"{count} {what}" for what, count in counts.items() if count]
    return f"converted to 8-bit RGB: {', '.join(parts)}" if parts else ""


def _has_16_bits(image: Any) -> bool:
    """Check for 16 bits per channel in a file that is not yet loaded."""
    if image.mode.startswith(("I", "F")):
        return True
    return any(
        ";16" in str(arguments) or (decoder == "ppm" and arguments[1] > 255)
        for decoder, _, _, arguments in image.tile
    )


def _keep_upper_bits(image: Any, path: Path) -> NDArray[np.uint8]:
    """Convert 16-bit grey as Pillow converts 16-bit colours; ``convert`` would clip it to 255."""
    tags = getattr(image, "tag_v2", {})
    is_16_bit = {
        "PNG": True,
        "PPM": image.mode == "I",  # Pillow scales it to 16 bits
        "TIFF": tags.get(BITS) == (16,)
        and tags.get(SAMPLE_FORMAT, (UNSIGNED,)) == (UNSIGNED,)
        and tags.get(PHOTOMETRIC) == BLACK_IS_ZERO,
    }
    if not is_16_bit.get(image.format, False):
        raise UserError(
            f"{path}: pixels of {image.format} mode {image.mode} have no known range; convert the "
            "file to 8 bits or remove it, and `prepare` again"
        )
    grey = (np.asarray(image) >> 8).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def _read_metadata_notes(image: Any) -> dict[str | None, bool]:
    try:
        return {
            ROTATED: image.getexif().get(ORIENTATION, 1) not in (0, 1),
            FRAMES: getattr(image, "is_animated", False),
        }
    except Exception:  # whatever damaged EXIF or later frames provoke; the pixels were read
        return {}
