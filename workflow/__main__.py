"""Show status, plan, installation, costs: ``python -m workflow {status,plan,doctor,…}``.

No command trains anything.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

from trainer.command_line import exit_status, make_parsers
from workflow.campaign import load_campaign
from workflow.commands import doctor, plan, status
from workflow.paths import ROOT


def show_status(overrides: Sequence[str]) -> int:
    campaign = load_campaign(overrides)
    for line in status.show(campaign, status.states(campaign)):
        print(line)
    return 0


def show_plan(overrides: Sequence[str]) -> int:
    for line in plan.show(plan.make_plan(load_campaign(overrides))):
        print(line)
    return 0


def show_doctor(overrides: Sequence[str]) -> int:
    levels = []
    for check in doctor.checks(overrides):
        levels.append(check.level)
        print(check, flush=True)
    print(doctor.verdict(levels))
    return 1 if "problem" in levels else 0


def show_costs(overrides: Sequence[str]) -> int:
    from workflow.commands import costs  # imports torch

    for line in costs.show(load_campaign(overrides)):
        print(line)
    return 0


def show_results(overrides: Sequence[str]) -> int:
    print(load_campaign(overrides).config.results)
    return 0


COMMANDS = {
    "status": (show_status, "show which runs are done, running, failed, stale or missing"),
    "plan": (
        show_plan,
        "show what the next call of snakemake would train, and what it repeats",
    ),
    "doctor": (show_doctor, "check whether this machine has what the scale needs"),
    "costs": (show_costs, "estimate operations, hours and bytes sent per figure"),
    "results": (
        show_results,
        "print the folder that the next call of snakemake writes to",
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    helps = {name: help for name, (_, help) in COMMANDS.items()}
    parser, commands = make_parsers("python -m workflow", __doc__, helps)
    for sub in commands.values():
        sub.add_argument("--scale", help="overrides config.yaml's")
        sub.add_argument(
            "--config",
            nargs="+",
            action="extend",
            default=[],
            metavar="KEY=VALUE",
            help="override settings of config.yaml, as for snakemake",
        )

    def run() -> int:
        given = parser.parse_args(arguments)
        os.chdir(ROOT)  # results/, resources/ and the paths in config.yaml are relative to it
        scale = [f"scale={given.scale}"] if given.scale else []
        return COMMANDS[given.command][0]([*given.config, *scale])

    return exit_status(run)


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # so that `| head` ends it without an error
    sys.exit(main())
