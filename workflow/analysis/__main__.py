"""Tables and figures: ``python -m workflow.analysis {table,fig1a}``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from trainer.errors import UserError
from workflow.analysis.fig1 import fig1
from workflow.analysis.tables import build_table, write_table
from workflow.experiments import Plot, expand, load_experiments

FIGURES = {"fig1a": fig1}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m workflow.analysis", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    table = commands.add_parser("table", help="metrics of a figure's runs to one tidy table")
    table.add_argument("--experiments", type=Path, required=True, help="experiments/<scale>.yaml")
    table.add_argument("--experiment", required=True, help="the figure's name in it")
    table.add_argument("--results", type=Path, required=True, help="results/<scale>")
    table.add_argument("--out", type=Path, required=True, help="file name without its ending")
    for name in FIGURES:
        figure = commands.add_parser(name, help=f"draw {name} from its table")
        figure.add_argument("--table", type=Path, required=True, help="the .parquet")
        figure.add_argument("--out", type=Path, required=True, help="file name without its ending")
        figure.add_argument("--title", default="")
        figure.add_argument("--plot", type=Plot.model_validate_json, default=Plot(), help="JSON")
    given = parser.parse_args(arguments)
    try:
        if given.command == "table":
            runs = expand(load_experiments(given.experiments).experiments[given.experiment])
            write_table(build_table(given.experiment, runs, given.results), given.out)
        else:
            draw = FIGURES[given.command]
            draw(pd.read_parquet(given.table), given.title, given.plot, given.out)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
