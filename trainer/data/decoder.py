"""Make FFCV's Loader follow a decode plan. Imports ffcv, which takes seconds."""

from collections.abc import Callable
from typing import Any

import ffcv.loader.epoch_iterator
import numpy as np
from ffcv.fields.rgb_image import ResizedCropRGBImageDecoder
from ffcv.libffcv import imdecode, resize_crop
from ffcv.loader.epoch_iterator import EpochIterator
from ffcv.memory_managers import OSCacheManager
from ffcv.pipeline.allocation_query import AllocationQuery
from ffcv.pipeline.compiler import Compiler
from ffcv.pipeline.state import State
from ffcv.traversal_order.base import TraversalOrder
from numpy.typing import NDArray

from trainer.data.beton.format import JPEG

# Compiled once for all loaders
decode_jpeg = Compiler.compile(imdecode)
crop_and_resize = Compiler.compile(resize_crop)


def _reader(manager: OSCacheManager) -> Any:
    """Compile the function that reads an address of the mapped file, its types inferred at calls.

    FFCV's own declares them, and to do so makes numba's type of all byte arrays read-only, in
    place: that breaks every function compiled for such arrays before, another loader's too
    (``ffcv/memory_managers/os_cache.py`` of 1.0.2).
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
    """Report a JPEG that cannot be decoded; the argument is its index in the file."""


def _keep_failure(run: Callable[[EpochIterator], None]) -> Callable[[EpochIterator], None]:
    """Make FFCV's thread keep the error that ended it, for whoever waits for its images."""

    def run_and_keep_failure(iterator: EpochIterator) -> None:
        iterator.failure = None
        try:
            run(iterator)
        except Exception as error:
            iterator.failure = error

    return run_and_keep_failure


EpochIterator.run = _keep_failure(EpochIterator.run)


class PlannedOrder(TraversalOrder):  # type: ignore[misc]
    """Traverse the images of ``plan`` (``crops.decode_plan``), whatever the epoch."""

    plan: NDArray[np.void]

    def sample_order(self, epoch: int) -> NDArray[np.void]:
        return self.plan


class CropDecoder(ResizedCropRGBImageDecoder):  # type: ignore[misc]
    """Decode, crop, resize and flip the images of a plan, to (output_size, 3) uint8.

    FFCV's decoder, except that the crops come from the plan. It resizes by averaging areas
    (OpenCV's INTER_AREA), as FFCV's own does. A JPEG that cannot be decoded is an error, where FFCV
    would return the pixels that an earlier image left in the memory. So is a decoder's warning: the
    writer encoded every JPEG itself, so an odd one is damaged.

    FFCV's decoder has memory for every whole image of its batches; each worker here has it for one.
    It stays in the processor's caches, and the system need not clear hundreds of MB.
    """

    def declare_state_and_memory(self, previous_state: State) -> tuple[State, AllocationQuery]:
        state, (images, image) = super().declare_state_and_memory(previous_state)
        self._image_bytes = int(image.shape[0])
        return state, images

    @property
    def get_crop_generator(self) -> None:
        """Return no generator: the plan holds the crops."""

    def generate_code(self) -> Callable[..., Any]:
        read = self.memory_read
        range_ = Compiler.get_iterator()
        workers, image_bytes, side = Compiler.num_threads, self._image_bytes, self.output_size[0]

        def decode(lines, out, metadata, storage_state):  # type: ignore[no-untyped-def]
            status = np.zeros(len(lines), np.int64)
            for worker in range_(workers):
                decoded = np.empty(image_bytes, np.uint8)
                upright = np.empty((side, side, 3), np.uint8)
                for i in range(worker, len(lines), workers):
                    line = lines[i]
                    image = metadata[line["sample"]]
                    stored = read(image["data_ptr"], storage_state)
                    height, width = np.uint32(image["height"]), np.uint32(image["width"])
                    if image["mode"] == JPEG:
                        status[i] = decode_jpeg(
                            stored, decoded, height, width, height, width, 0, 0, 1, 1, False, False
                        )
                        pixels = decoded[: 3 * height * width].reshape(height, width, 3)
                    else:
                        pixels = stored.reshape(height, width, 3)
                    bottom, right = line["top"] + line["height"], line["left"] + line["width"]
                    cropped = upright if line["mirrored"] else out[i]
                    crop_and_resize(pixels, line["top"], bottom, line["left"], right, cropped)
                    if line["mirrored"]:
                        out[i] = upright[:, ::-1]
            for i in range(len(lines)):  # not above: a parallel loop cannot be left
                if status[i] != 0:
                    raise DamagedImageError(lines[i]["sample"])
            return out[: len(lines)]

        decode.is_parallel = True  # type: ignore[attr-defined]
        return decode
