"""Make tables, figures, claims: ``python -m workflow.analysis {table,theory,figure,claims,…}``.

Each command imports what it needs: many short jobs of a workflow call it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import ValidationError

from trainer.command_line import exit_status, make_parsers
from trainer.errors import UserError
from trainer.files.atomic import first_problem
from trainer.settings.cli import path_argument
from workflow.analysis.tables.build import build_table, write_csv
from workflow.analysis.tables.read import read_tables
from workflow.claims import THEORY
from workflow.config import Plot
from workflow.experiments import Experiment, Experiments, expand, load_experiments, matching
from workflow.figures import Figure
from workflow.paper import paper


def table(given: argparse.Namespace) -> None:
    """Write the metrics of an experiment's runs as one tidy table."""
    loaded = load_experiments(given.experiments).experiments
    experiments: dict[str, Experiment] = dict(loaded.items())
    if given.experiment not in experiments:
        raise UserError(
            f"{given.experiments}: no experiment {given.experiment}; choose one of "
            f"{', '.join(experiments)}"
        )
    experiment = experiments[given.experiment]
    built = build_table(
        given.experiment,
        expand(experiment),
        given.results,
        only_finished=given.only_finished,
        cooldown=experiment.cooldown is not None,
    )
    write_csv(built, given.out)


def theory(given: argparse.Namespace) -> None:
    """Simulate SGD and Local SGD on models whose drift is known."""
    from workflow.analysis.theory.figure import simulate_all

    write_csv(simulate_all(given.processes), given.out)


def figure(given: argparse.Namespace) -> None:
    """Draw a figure from its tables."""
    from workflow.analysis.figures.drawing import draw

    if given.figure == THEORY:
        from workflow.analysis.theory.figure import theory_figure

        theory_figure(_tables(given, [THEORY])[THEORY], given.plot, given.out)
        return
    loaded = load_experiments(given.experiments)
    experiments = loaded.experiments
    titles: dict[str, str] = {name: e.title for name, e in experiments.items()}

    def runs_of(experiment: str, wanted: dict[str, Any]) -> set[str]:
        return {run.id for run in matching(experiments[experiment], wanted)}

    chosen, tables = _figure(given.figure, loaded), _tables(given, titles)
    draw(given.figure, chosen, tables, titles, given.plot, given.out, runs_of)


def _figure(name: str, experiments: Experiments) -> Figure:
    """Return a figure of the paper or of the file. Raises UserError for an unknown one."""
    known = paper().figures | experiments.figures
    if name not in known:
        raise UserError(f"no figure {name}; choose one of {', '.join([*known, THEORY])}")
    return known[name]


def page(given: argparse.Namespace) -> None:
    """Write a figure and its caption as a page of the report."""
    from workflow.analysis.pages.html import write_figure_page

    if given.figure == THEORY:
        caption = paper().theory_caption
    else:
        caption = _figure(given.figure, load_experiments(given.experiments)).whole_caption
    write_figure_page(given.image, caption, given.out)


def claims(given: argparse.Namespace) -> None:
    """Judge every claim of the paper and of the experiments file."""
    from workflow.analysis.claims.design import DesignCommits
    from workflow.analysis.claims.judge import judge, write_claims
    from workflow.analysis.claims.measure import ExperimentDesign

    experiments = load_experiments(given.experiments)
    designs = {
        name: ExperimentDesign.of(experiment)
        for name, experiment in experiments.experiments.items()
    }
    tables = _tables(given, [*designs, THEORY])
    commits = DesignCommits(given.experiments)
    judged = judge(tables, designs, tables.get(THEORY), commits.of, own=experiments)
    write_claims(judged, given.out)


def overview(given: argparse.Namespace) -> None:
    """Write the report's first page from the verdicts."""
    from workflow.analysis.made import read_csv
    from workflow.analysis.pages.overview import write_overview

    loaded = load_experiments(given.experiments)
    known = paper().figures | loaded.figures
    shown = {
        name: figure
        for figure, each in reversed(known.items())
        for name in each.experiments
        if name in loaded.experiments
    }
    image, figures = given.image, {**shown, THEORY: THEORY}
    caption = paper().theory_caption if image.stem == THEORY else known[image.stem].whole_caption
    claims = read_csv(given.claims, "judge the claims again")
    write_overview(claims, figures, image, caption, given.out, links_runs=given.runs)


def runs(given: argparse.Namespace) -> None:
    """Write settings, times, machine and versions of every run as a table and a page."""
    from workflow.analysis.tables.runs import build_runs, write_runs_page

    built = build_runs(load_experiments(given.experiments), given.results)
    write_csv(built, given.out.with_name(given.out.name + ".csv"))
    write_runs_page(built, given.out.with_name(given.out.name + ".html"))


def compare_tables(given: argparse.Namespace) -> None:
    """Compare a scale's tables with those of another machine."""
    from workflow.analysis.tables.compare import compare

    print(compare(read_tables(given.tables), given.reference, given.out))


def readme(given: argparse.Namespace) -> None:
    """Write the reference verdicts into README.md and docs/claims.md."""
    from workflow.analysis.pages.readme import update_pages

    update_pages(given.reference, Path("README.md"), Path("docs/claims.md"))


def _tables(given: argparse.Namespace, known: Collection[str]) -> dict[str, pd.DataFrame]:
    """Read the given tables by experiment. Raises UserError for one that is not ``known``."""
    for path in given.tables:
        if path.stem not in known:
            raise UserError(
                f"{path}: {given.experiments} has no experiment {path.stem}; give tables of "
                f"{', '.join(known)}"
            )
    return read_tables(given.tables)


def _plot(text: str) -> Plot:
    try:
        return Plot.model_validate_json(text)
    except ValidationError as failure:
        raise argparse.ArgumentTypeError(first_problem(failure)) from None


def _processes(text: str) -> int:
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a number of processes")


COMMANDS: dict[str, Callable[[argparse.Namespace], None]] = {
    "table": table,
    "theory": theory,
    "figure": figure,
    "page": page,
    "claims": claims,
    "overview": overview,
    "runs": runs,
    "compare": compare_tables,
    "readme": readme,
}


def main(arguments: Sequence[str] | None = None) -> int:
    helps = {name: run.__doc__ or "" for name, run in COMMANDS.items()}
    parser, of = make_parsers("python -m workflow.analysis", __doc__, helps)
    add_options(of)

    def run() -> None:
        given = parser.parse_args(arguments)
        COMMANDS[given.command](given)

    return exit_status(run)


def add_options(of: Mapping[str, argparse.ArgumentParser]) -> None:
    def add(names: Sequence[str], option: str, help: str) -> None:
        for name in names:
            of[name].add_argument(option, type=path_argument, required=True, help=help)

    add(
        ["table", "figure", "page", "claims", "overview", "runs"],
        "--experiments",
        "experiments/<scale>.yaml",
    )
    add(["overview"], "--claims", "results/<scale>/claims.csv")
    add(["table", "runs"], "--results", "results/<scale>")
    for name in ("figure", "claims", "compare"):
        of[name].add_argument(
            "--tables",
            type=path_argument,
            nargs="+",
            required=True,
            help="tables of the experiments: <name>.csv",
        )
    add(["compare"], "--reference", "folder of the tables to compare with")
    add(["readme"], "--reference", "folder of the scales' results: results/reference")
    add(["page", "overview"], "--image", "the figure, a PNG")
    add(["table", "theory", "page", "claims", "overview", "compare"], "--out", "the file to write")
    add(["figure", "runs"], "--out", "the files to write, without their endings")
    of["table"].add_argument("--experiment", required=True, help="its name in the file")
    of["table"].add_argument("--only-finished", action="store_true", help="leave out missing runs")
    of["overview"].add_argument("--runs", action="store_true", help="link to runs.html")
    of["theory"].add_argument(
        "--processes", type=_processes, default=1, help="default: %(default)s"
    )
    for name in ("figure", "page"):
        of[name].add_argument("figure", help="its name")
    of["figure"].add_argument("--plot", type=_plot, default=Plot(), help="JSON")


if __name__ == "__main__":
    sys.exit(main())
