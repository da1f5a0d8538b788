"""Measure wall time per 1,000 steps over a 100 Mbit/s link against a simple model, for four H.

H is 1, 8, 64 and 512; two network namespaces stand for two machines. The trainer runs the laptop
figure's network with K = 16 clients, one process at each end. The model is compute + bytes /
bandwidth, its parts measured apart: compute by the same two processes at the same time, each alone
with its own 8 clients (averaging in memory, no network); bytes as metrics.jsonl counts them, which
are also those that gloo sends from each end to the other (two processes' ring: half a model in the
reduce-scatter, half in the all-gather); bandwidth by one long TCP stream over the same link. The
model leaves out latency and the processes' waiting for each other. Therefore two more records
follow: how much longer a bare all-reduce takes than bytes / bandwidth; and how far the measured
time is from bytes / bandwidth + the time of the same run over an unlimited link, which includes the
waiting.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

from bench.bare_link import BareLink
from bench.communication_model import Repetition
from bench.communication_plot import draw
from bench.digits import digits_options, prepare_digits
from bench.measure import Record, Spread, Target
from bench.namespaces import ADDRESSES, INTERFACE, Link, NoLinkError, create_link

LOCAL_STEPS = (1, 8, 64, 512)
STEPS = 1024  # of each H; a multiple of all of them
MBITS = 100
CLIENTS, BATCH_SIZE = 16, 8
PORTS = {"trainer": 29500, "bare link": 29550}
EVALUATED = re.compile(r"Evaluation\(step=(\d+)")
TARGET_PERCENT = 15.0


def run(repetitions: int) -> Iterator[Record]:
    try:
        with (
            create_link(MBITS) as limited,
            create_link(None) as unlimited,
            tempfile.TemporaryDirectory() as temporary,
        ):
            folder = Path(temporary)
            prepare_digits(folder / "digits")
            done = [measure_once(limited, unlimited, folder) for _ in range(repetitions)]
    except NoLinkError as reason:
        print(f"skipped: {reason}", file=sys.stderr)
        return
    print(f"drawn: {draw(done, LOCAL_STEPS)}")
    yield deviation_record(done)
    yield waiting_record(done)
    yield latency_record(done)


def deviation_record(done: Sequence[Repetition]) -> Record:
    variants = {}
    for h in LOCAL_STEPS:
        variants[f"H = {h}, measured"] = Spread.of([r.measured[h] for r in done])
        variants[f"H = {h}, compute"] = Spread.of([r.compute[h] for r in done])
        variants[f"H = {h}, bytes / bandwidth"] = Spread.of([r.transfer(h) for r in done])
    deviations = {h: [r.deviation(h) for r in done] for h in LOCAL_STEPS}
    return Record(
        benchmark="communication",
        unit="s per 1,000 steps",
        variants=variants,
        figure_is="largest deviation from compute + bytes / bandwidth over H, in %",
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


def waiting_record(done: Sequence[Repetition]) -> Record:
    """Report how much of the deviation remains against the link without limit."""
    variants = {}
    for h in LOCAL_STEPS:
        variants[f"H = {h}, measured"] = Spread.of([r.measured[h] for r in done])
        variants[f"H = {h}, without limit"] = Spread.of([r.unlimited[h] for r in done])
    deviations = [
        [r.measured[h] / (r.unlimited[h] + r.transfer(h)) for r in done] for h in LOCAL_STEPS
    ]
    return Record(
        benchmark="communication/against a link without limit",
        unit="s per 1,000 steps",
        variants=variants,
        figure_is="largest deviation from time without limit + bytes / bandwidth over H, in %",
        figure=Spread.of(
            [100 * max(abs(d - 1) for d in each) for each in zip(*deviations, strict=True)]
        ),
        settings={"link": "veth", "steps": STEPS},
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


def measure_once(limited: Link, unlimited: Link, folder: Path) -> Repetition:
    """Measure each part once, one right after the other."""
    measured = time_steps(limited, folder, together=True)
    rows = (folder / "end0" / "metrics.jsonl").read_text().splitlines()
    sent = [json.loads(row)["bytes_sent"] for row in rows]
    of_h = dict(zip(LOCAL_STEPS, (b - a for a, b in pairwise(sent)), strict=True))
    size = of_h[1] // STEPS
    return Repetition(
        measured=measured,
        compute=time_steps(limited, folder, together=False),
        unlimited=time_steps(unlimited, folder, together=True),
        bytes={h: 1000 / STEPS * n for h, n in of_h.items()},
        model_bytes=size,
        bare=measure_bare_link(limited, size),
    )


def time_steps(link: Link, folder: Path, *, together: bool) -> dict[int, float]:
    """Time 1,000 steps of each H, in one run at both ends or in a separate run at each, in seconds.

    A phase of ``STEPS`` steps with one averaging warms up. Phases are timed by the arrival of their
    last evaluations on the main process's stderr.
    """
    clients = CLIENTS if together else CLIENTS // 2
    phases = [
        {"epochs": 1, "local_steps": h, "eval_freq": STEPS // h} for h in (STEPS, *LOCAL_STEPS)
    ]
    options: dict[str, Any] = {
        "data-pth": folder / "digits",
        "batch-size": BATCH_SIZE,
        "total-batch-size": clients * BATCH_SIZE,
        "replacement": 1,
        "steps-per-epoch": STEPS,
        "start-lr": 0.1 / clients,
        "schedule": json.dumps(phases),
        "debug": 1,
    }
    with ExitStack() as running:
        processes = [
            running.enter_context(
                link.start(
                    end,
                    [
                        *launcher(end if together else None),
                        *("-m", "trainer", "train"),
                        *digits_options(**options, **{"log-pth": folder / f"end{end}"}),
                    ],
                    {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": INTERFACE},
                )
            )
            for end in (0, 1)
        ]
        arrivals = read_evaluation_times(processes[0])
        collect_outputs(processes)
    seconds = [b - a for a, b in pairwise(arrivals)]
    return {h: 1000 / STEPS * s for h, s in zip(LOCAL_STEPS, seconds, strict=True)}


def launcher(rank: int | None) -> list[object]:
    """Build a torchrun command for one process of two, or (None) for a run of one process."""
    where: list[object] = ["--standalone"]
    if rank is not None:
        where = ["--nnodes", 2, "--node-rank", rank, "--master-addr", ADDRESSES[0]]
        where += ["--master-port", PORTS["trainer"]]
    return [sys.executable, "-m", "torch.distributed.run", *where, "--nproc-per-node", 1]


def read_evaluation_times(process: subprocess.Popen[str]) -> list[float]:
    """Read the times at which the evaluations were printed."""
    assert process.stdout is not None
    arrivals, lines = [], []
    for line in process.stdout:
        lines.append(line)
        if EVALUATED.search(line):
            arrivals.append(time.perf_counter())
    if len(arrivals) != 1 + len(LOCAL_STEPS):
        raise RuntimeError("the run at end 0 failed:\n" + "".join(lines))
    return arrivals


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
