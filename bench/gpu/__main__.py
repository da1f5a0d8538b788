"""Check and measure on a GPU: ``make gpu``, ``python -m bench.gpu --help``."""

import importlib.util
import sys

# What the trainer imports; docs/gpu.md lists what may be missing besides.
REQUIRED = ("torch", "numpy", "pydantic", "yaml", "tqdm", "psutil", "filelock")


def main() -> int:
    missing = [name for name in REQUIRED if importlib.util.find_spec(name) is None]
    if missing:
        names = ", ".join(missing)
        print(f"error: {sys.executable} lacks {names}; install it, or set PYTHON", file=sys.stderr)
        return 2
    from bench.gpu import call
    from trainer.command_line import exit_status

    return exit_status(call.main)


if __name__ == "__main__":
    sys.exit(main())
