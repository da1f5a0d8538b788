"""Make the C library keep freed memory for the next step."""

import ctypes

# Parameters of mallopt, https://man7.org/linux/man-pages/man3/mallopt.3.html
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST_MMAP_THRESHOLD = 32 * 2**20  # glibc accepts no more on 64 bits


def keep_freed_memory() -> None:
    """Reuse memory of up to 32 MiB a tensor instead of returning it to the system.

    By default glibc returns what a step frees, and the system clears its pages for the next: a
    sixth of ResNet-8's step on a CPU. Other C libraries lack `mallopt`, and are left as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD)
        mallopt(M_TRIM_THRESHOLD, -1)
