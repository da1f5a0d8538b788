"""Data sets: from raw data to .beton files to the batches of clients."""

import os

# FFCV starts numba's threads as soon as it is imported. Of the layers that numba knows, TBB waits
# for ever when a process with a single core ends; OpenMP does not. Read when numba is imported.
os.environ.setdefault("NUMBA_THREADING_LAYER", "omp")
