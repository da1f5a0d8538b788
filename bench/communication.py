"""Measure where wall time over a 100 Mbit/s link goes, per 1,000 steps, for four H.

H is 1, 8, 64 and 512; two network namespaces stand for two machines. The trainer runs the laptop
figure's network with K = 16 clients, one process at each end. The model is compute + waiting + bare
all-reduces, all measured in the same run: both processes note, by the clock that they share, when
each averaging begins and ends; until the last one is there, the other waits. After each averaging
follows a bare all-reduce of as many bytes, whose time does not count; what it takes beyond bytes /
bandwidth is the latency. Bytes are as metrics.jsonl counts them, which are also those that gloo
sends from each end to the other (two processes' ring: half a model in the reduce-scatter, half in
the all-gather). Bandwidth is that of one long TCP stream over the same link. So compute and waiting
are measured, not predicted, and the deviation is how much longer averagings take than bare all-
reduces beside them. The plain model, compute + bytes / bandwidth, stands beside it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from bench.bare_link import BareLink
from bench.communication_model import Parts, Repetition, split_time
from bench.communication_plot import draw
from bench.digits import digits_options, prepare_digits
from bench.measure import Record, Spread, Target
from bench.namespaces import ADDRESSES, INTERFACE, Link, NoLinkError, create_link

LOCAL_STEPS = (1, 8, 64, 512)
STEPS = 1024  # of each H; a multiple of all of them
MBITS = 100
CLIENTS, BATCH_SIZE = 16, 8
PORTS = {"trainer": 29500, "bare link": 29550}
TARGET_PERCENT = 10.0


def run(repetitions: int) -> Iterator[Record]:
    try:
        with create_link(MBITS) as link, tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            prepare_digits(folder / "digits")
            done = [measure_once(link, folder) for _ in range(repetitions)]
    except NoLinkError as reason:
        print(f"skipped: {reason}", file=sys.stderr)
        return
    print(f"drawn: {draw(done, LOCAL_STEPS)}")
    yield deviation_record(done)
    yield plain_record(done)
    yield latency_record(done)


def deviation_record(done: Sequence[Repetition]) -> Record:
    variants: dict[str, Spread] = {}
    for h in LOCAL_STEPS:
        variants |= {
            f"H = {h}, measured": Spread.of([r.measured(h) for r in done]),
            f"H = {h}, compute": Spread.of([r.parts[h].compute for r in done]),
            f"H = {h}, waiting": Spread.of([r.parts[h].waiting for r in done]),
            f"H = {h}, latency": Spread.of([r.latency(h) for r in done]),
            f"H = {h}, bytes / bandwidth": Spread.of([r.transfer(h) for r in done]),
        }
    deviations = {h: [r.deviation(h) for r in done] for h in LOCAL_STEPS}
    return Record(
        benchmark="communication",
        unit="s per 1,000 steps",
        variants=variants,
        figure_is="largest deviation from compute + waiting + bare all-reduces beside it, over H, "
        "in %",
        figure=Spread.of([max(abs(r.deviation(h)) for h in LOCAL_STEPS) for r in done]),
        target=Target(bound=TARGET_PERCENT, at_most=True),
        settings={
            "link": f"veth, tbf {MBITS} Mbit/s each way",
            "trainer": "digits mlp, K = 16, B_loc = 8, 2 processes, OMP_NUM_THREADS=1",
            "steps": STEPS,
            "bytes_per_second": asdict(Spread.of([r.bare.bytes_per_second for r in done])),
            "bytes_per_1000_steps": {str(h): done[0].bytes[h] for h in LOCAL_STEPS},
            "deviation_percent": {str(h): asdict(Spread.of(deviations[h])) for h in LOCAL_STEPS},
        },
    )


def plain_record(done: Sequence[Repetition]) -> Record:
    """Report how far the measured time is from the plain model."""
    deviations = {h: [r.plain_deviation(h) for r in done] for h in LOCAL_STEPS}
    return Record(
        benchmark="communication/plain model",
        unit="%",
        variants={f"H = {h}": Spread.of(some) for h, some in deviations.items()},
        figure_is="largest deviation from compute + bytes / bandwidth over H, in %",
        figure=Spread.of([max(map(abs, each)) for each in zip(*deviations.values(), strict=True)]),
    )


def latency_record(done: Sequence[Repetition]) -> Record:
    """Report what an all-reduce of a model costs without a trainer, beside bytes / bandwidth."""
    size = done[0].model_bytes
    transfer = [1e3 * size / r.bare.bytes_per_second for r in done]
    bare = [1e3 * r.bare.all_reduce for r in done]
    return Record(
        benchmark="communication/bare all-reduce",
        unit="ms",
        variants={"bytes / bandwidth": Spread.of(transfer), "all-reduce": Spread.of(bare)},
        figure_is="ms beyond bytes / bandwidth",
        figure=Spread.of([b - t for b, t in zip(bare, transfer, strict=True)]),
        settings={"bytes": size, "link": f"veth, tbf {MBITS} Mbit/s each way"},
    )


def measure_once(link: Link, folder: Path) -> Repetition:
    """Measure the trainer and the bare link once, one right after the other."""
    parts = time_steps(link, folder)
    rows = (folder / "end0" / "metrics.jsonl").read_text().splitlines()
    sent = [json.loads(row)["bytes_sent"] for row in rows]
    of_h = dict(zip(LOCAL_STEPS, (b - a for a, b in pairwise(sent)), strict=True))
    size = of_h[1] // STEPS
    return Repetition(
        parts=parts,
        bytes={h: 1000 / STEPS * n for h, n in of_h.items()},
        model_bytes=size,
        bare=measure_bare_link(link, size),
    )


def time_steps(link: Link, folder: Path) -> dict[int, Parts]:
    """Time 1,000 steps of each H; between two phases' last averagings an evaluation is included.

    A phase of ``STEPS`` steps with one averaging warms up.
    """
    phases = [
        {"epochs": 1, "local_steps": h, "eval_freq": STEPS // h} for h in (STEPS, *LOCAL_STEPS)
    ]
    options: dict[str, Any] = {
        "data-pth": folder / "digits",
        "batch-size": BATCH_SIZE,
        "total-batch-size": CLIENTS * BATCH_SIZE,
        "replacement": 1,
        "steps-per-epoch": STEPS,
        "start-lr": 0.1 / CLIENTS,
        "schedule": json.dumps(phases),
    }
    with ExitStack() as running:
        processes = [
            running.enter_context(
                link.start(
                    end,
                    [
                        *launcher(end),
                        *("-m", "bench.traced_trainer", folder / f"trace{end}.npz", "train"),
                        *digits_options(**options, **{"log-pth": folder / f"end{end}"}),
                    ],
                    {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": INTERFACE},
                )
            )
            for end in (0, 1)
        ]
        collect_outputs(processes)
    traces = [np.load(folder / f"trace{end}.npz") for end in (0, 1)]
    began, ended, through = (
        np.stack([t[n] for t in traces]) for n in ("began", "ended", "through")
    )
    phases_parts = split_time(began, ended, through, [STEPS // h for h in LOCAL_STEPS])
    return {
        h: Parts(**{name: 1000 / STEPS * seconds for name, seconds in asdict(parts).items()})
        for h, parts in zip(LOCAL_STEPS, phases_parts, strict=True)
    }


def launcher(rank: int) -> list[object]:
    """Build a torchrun command for one process of two."""
    where: list[object] = ["--nnodes", 2, "--node-rank", rank, "--master-addr", ADDRESSES[0]]
    where += ["--master-port", PORTS["trainer"]]
    return [sys.executable, "-m", "torch.distributed.run", *where, "--nproc-per-node", 1]


def measure_bare_link(link: Link, size: int) -> BareLink:
    """Measure the link without a trainer, for all-reduces of ``size`` bytes."""
    with ExitStack() as running:
        processes = [
            running.enter_context(
                link.start(
                    end,
                    [sys.executable, "-m", "bench.bare_link", ADDRESSES[0], size],
                    {
                        "RANK": str(end),
                        "WORLD_SIZE": "2",
                        "MASTER_ADDR": ADDRESSES[0],
                        "MASTER_PORT": str(PORTS["bare link"]),
                        "OMP_NUM_THREADS": "1",
                        "GLOO_SOCKET_IFNAME": INTERFACE,
                    },
                )
            )
            for end in (0, 1)
        ]
        output, _ = collect_outputs(processes)
    return BareLink(**json.loads(output.splitlines()[-1]))


def collect_outputs(processes: Sequence[subprocess.Popen[str]]) -> list[str]:
    """Wait for all processes and return their output. Raises RuntimeError where one failed."""
    outputs = [process.communicate()[0] for process in processes]
    for process, output in zip(processes, outputs, strict=True):
        if process.returncode:
            raise RuntimeError(f"{process.args!r} failed:\n{output}")
    return outputs
