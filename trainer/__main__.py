"""Run ``python -m trainer {prepare,beton,sidecar,download,train,wandb_sync}``."""

import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from trainer.command_line import exit_status, make_parsers
from trainer.data.specs import DATASETS, SPLITS
from trainer.distributed.launcher_variables import end_with_torchrun, read_launcher_variables
from trainer.errors import UserError, is_out_of_memory, report
from trainer.files.checksum import Checksum
from trainer.files.download import download as fetch
from trainer.settings.base import Settings
from trainer.settings.cli import add_settings, parse_settings, unknown_option
from trainer.settings.commands import (
    BetonSettings,
    DownloadSettings,
    PrepareSettings,
    SidecarSettings,
)
from trainer.settings.run import RunSettings, check_processes, check_start
from trainer.tracking.wandb_sync import WandbSyncSettings, wandb_sync


def prepare(settings: PrepareSettings) -> None:
    from trainer.data.preparation import prepare as data

    for split, count in data.prepare(settings.dataset, settings.out, settings.source).items():
        print(f"{settings.out}: {count} images to {split}")
        known = DATASETS[settings.dataset].count(split)
        if known not in (None, count):
            report(
                f"warning: {settings.dataset} has {known} images to {split}, {count} were found; "
                "complete the source if that is not meant"
            )


def beton(settings: BetonSettings) -> None:
    from trainer.data.beton.sidecar import ImageEncoding
    from trainer.data.beton.writer import write_betons
    from trainer.data.preparation.colours import describe_conversions

    encoding = ImageEncoding(
        max_resolution=settings.max_resolution,
        compress_probability=settings.compress_probability,
        jpeg_quality=settings.jpeg_quality,
    )
    splits = chosen_splits(settings)
    written = write_betons(settings.data_pth, encoding, splits, settings.num_workers)
    for split, sidecar in written.items():
        path = settings.data_pth / f"{split}.beton"
        if sidecar.conversions:
            print(f"{path}: {describe_conversions(sidecar.conversions)}")
        print(f"{path}: {sidecar.samples} samples, verified")


def sidecar(settings: SidecarSettings) -> None:
    from trainer.data.beton.foreign import write_sidecars

    splits = chosen_splits(settings)
    written = write_sidecars(settings.data_pth, settings.dataset, splits, settings.num_workers)
    for split, sidecar in written.items():
        print(f"{settings.data_pth / split}.beton: {sidecar.samples} samples, verified")


def chosen_splits(settings: BetonSettings | SidecarSettings) -> Sequence[str]:
    return (settings.split,) if settings.split else SPLITS


def download(settings: DownloadSettings) -> None:
    checksum = Checksum("SHA-256", settings.sha256)
    print(f"{fetch(settings.url, checksum, settings.out)}: verified")


def train(settings: RunSettings) -> None:
    # A process that torchrun forked has torchrun's handlers. Ignored signals stay ignored.
    for number, own in (
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGTERM, signal.SIG_DFL),
    ):
        if callable(signal.getsignal(number)):
            signal.signal(number, own)

    end_with_torchrun()

    check_start(settings)
    check_processes(settings, read_launcher_variables().size)

    # PyTorch would warn of a store that is gone with a stack trace of its own.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    from trainer.distributed.world import join_world
    from trainer.run import session

    with join_world(settings) as world:
        session.train(settings, world)


@dataclass(frozen=True)
class Command:
    """Hold what a sub-command takes, does and says in ``--help``."""

    settings: type[Settings]
    run: Callable[[Any], None]
    help: str


COMMANDS = {
    "prepare": Command(PrepareSettings, prepare, "raw data to arrays: download, verify, decode"),
    "beton": Command(BetonSettings, beton, "arrays to FFCV .beton files, verified"),
    "sidecar": Command(
        SidecarSettings, sidecar, "verify another program's .beton files, to train on them"
    ),
    "download": Command(
        DownloadSettings, download, "a published checkpoint: over https, its SHA-256 verified"
    ),
    "train": Command(
        RunSettings, train, "one run of Local SGD; torchrun starts it on several processes"
    ),
    "wandb_sync": Command(
        WandbSyncSettings, wandb_sync, "upload the W&B runs that finished training offline"
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    helps = {name: command.help for name, command in COMMANDS.items()}
    parser, commands = make_parsers("python -m trainer", __doc__, helps)
    for name, sub in commands.items():
        add_settings(sub, COMMANDS[name].settings)

    def run() -> None:
        parsed, unknown = parser.parse_known_args(arguments)
        command = COMMANDS[parsed.command]
        if unknown:
            raise unknown_option(unknown[0], command.settings)
        try:
            command.run(parse_settings(parsed, command.settings))
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            lower = "lower batch_size, or " if command.settings is RunSettings else ""
            raise UserError(f"memory ran out ({error}); {lower}end what else uses it") from error

    return exit_status(run)


if __name__ == "__main__":
    sys.exit(main())
