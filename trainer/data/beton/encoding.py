"""Name how .beton files hold image files. No heavy imports."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ImageEncoding:
    """Say how FFCV stores image files; defaults are the paper's (named 500_0.50_90).

    ``max_resolution``: longer side in pixels, larger images are reduced to it.
    ``compress_probability``: share stored as JPEG of ``jpeg_quality``, the others uncompressed.
    """

    max_resolution: int = 500
    compress_probability: float = 0.5
    jpeg_quality: int = 90
