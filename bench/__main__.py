"""Run benchmarks (``python -m bench [NAME …]``): print tables, add to results/bench.jsonl."""

from __future__ import annotations

import argparse
import inspect
from importlib import import_module

from bench.measure import RECORDS, write_records

# Modules of this package whose ``run(repetitions)`` yields records.
BENCHMARKS = (
    "startup",
    "workflow",
    "overhead",
    "communication",
    "input",
    "stream",
    "clients",
    "resnet56",
    "evaluation",
    "averaging",
    "memory",
    "scaling",
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"{', '.join(BENCHMARKS)}; default: all"
    )
    parser.add_argument("--repetitions", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--runs", type=int, default=200, help="of overhead; default: %(default)s")
    arguments = parser.parse_args()
    for name in arguments.names or BENCHMARKS:
        if name not in BENCHMARKS:
            parser.error(f"no benchmark {name!r}; choose from {', '.join(BENCHMARKS)}")
        module = import_module(f"bench.{name}")
        print(f"\n{name}: {inspect.cleandoc(module.__doc__ or '').splitlines()[0]}", flush=True)
        count = arguments.runs if name == "overhead" else arguments.repetitions
        for record in module.run(count):
            write_records([record])
    print(f"\nadded to {RECORDS}")


if __name__ == "__main__":
    main()
