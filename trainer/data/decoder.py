"""What FFCV's Loader needs to follow an order of ours. Imports ffcv, which takes seconds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ffcv.loader.epoch_iterator
import numpy as np
from ffcv.fields.rgb_image import ResizedCropRGBImageDecoder
from ffcv.libffcv import imdecode, resize_crop
from ffcv.loader.epoch_iterator import EpochIterator
from ffcv.memory_managers import OSCacheManager
from ffcv.pipeline.compiler import Compiler
from ffcv.traversal_order.base import TraversalOrder
from numpy.typing import NDArray

from trainer.data.beton.format import JPEG

# Once for all loaders
decode_jpeg = Compiler.compile(imdecode)
crop_and_resize = Compiler.compile(resize_crop)


def _reader(manager: OSCacheManager) -> Any:
    """What lies at an address of the mapped file. Its types are found when it is called.

    FFCV's own declares them, for which it makes numba's type of all arrays of bytes read-only, in
    place: every function that was compiled for such arrays before is broken then, another loader's
    too (``ffcv/memory_managers/os_cache.py`` of 1.0.2).
    """

    def read(address, state):  # type: ignore[no-untyped-def]
        content, addresses, sizes = state
        size = sizes[np.searchsorted(addresses, address)]
        return content[address : address + size]

    return Compiler.compile(read)


OSCacheManager.compile_reader = _reader
# Its iterators would open the first GPU and make streams there, though none of our pipelines leaves
# the host's memory: in runs on the CPU, and in those that have leased another GPU.
ffcv.loader.epoch_iterator.IS_CUDA = False


class DamagedImageError(Exception):
    """Its argument: which sample of the file."""


def _reporting(run: Callable[[EpochIterator], None]) -> Callable[[EpochIterator], None]:
    """FFCV's thread, which keeps why it failed for the one who waits for it."""

    def reporting(iterator: EpochIterator) -> None:
        iterator.failure = None
        try:
            run(iterator)
        except Exception as error:
            iterator.failure = error

    return reporting


EpochIterator.run = _reporting(EpochIterator.run)


class Given(TraversalOrder):  # type: ignore[misc]
    """The order that ``lines`` (``crops.ORDER``) say, whatever the epoch."""

    lines: NDArray[np.void]

    def sample_order(self, epoch: int) -> NDArray[np.void]:
        return self.lines


class PartOfImage(ResizedCropRGBImageDecoder):  # type: ignore[misc]
    """From lines of ``crops.ORDER`` to (output_size, 3) uint8: decoded, cropped, resized, flipped.

    FFCV's decoder for crops, but for where they come from. It resizes by averaging areas
    (OpenCV's INTER_AREA), as FFCV's own does. A JPEG that cannot be decoded is an error, where FFCV
    would go on with the pixels that an earlier image left in the memory. The decoder's warnings
    count: the writer encoded every JPEG itself, so none of them is odd without being damaged.
    """

    @property
    def get_crop_generator(self) -> None:
        """Crops come with the lines."""

    def generate_code(self) -> Callable[..., Any]:
        read = self.memory_read
        range_ = Compiler.get_iterator()

        def decode(lines, memory, metadata, storage_state):  # type: ignore[no-untyped-def]
            out, decoded = memory
            status = np.zeros(len(lines), np.int64)
            for i in range_(len(lines)):
                line = lines[i]
                image = metadata[line["sample"]]
                stored = read(image["data_ptr"], storage_state)
                height, width = np.uint32(image["height"]), np.uint32(image["width"])
                if image["mode"] == JPEG:
                    status[i] = decode_jpeg(
                        stored, decoded[i], height, width, height, width, 0, 0, 1, 1, False, False
                    )
                    pixels = decoded[i][: 3 * height * width].reshape(height, width, 3)
                else:
                    pixels = stored.reshape(height, width, 3)
                bottom, right = line["top"] + line["height"], line["left"] + line["width"]
                crop_and_resize(pixels, line["top"], bottom, line["left"], right, out[i])
                if line["mirrored"]:
                    out[i] = out[i][:, ::-1].copy()
            for i in range(len(lines)):  # not above: a parallel loop cannot be left
                if status[i] != 0:
                    raise DamagedImageError(lines[i]["sample"])
            return out[: len(lines)]

        decode.is_parallel = True  # type: ignore[attr-defined]
        return decode
