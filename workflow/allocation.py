"""Divide cores, GPUs and nodes among the jobs of a campaign, on this machine or on a cluster."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from trainer.errors import UserError
from workflow.campaign import Campaign
from workflow.experiments import RunSpec
from workflow.machine import DECODERS, divide_threads, threads_per_process, visible_gpus


@dataclass(frozen=True)
class Allocation:
    """Allocate resources to jobs.

    ``cores``: shared by all jobs at once; None on a cluster, whose scheduler shares its own.
    ``gpus``: shared likewise; None where GPUs do not bound how many jobs run at once.
    """

    campaign: Campaign
    cores: int | None
    gpus: int | None = None

    @property
    def on_cluster(self) -> bool:
        return self.cores is None

    @property
    def on_cpu(self) -> bool:
        return self.campaign.execution.device == "cpu"

    def check(self, *, can_use_nodes: bool) -> None:
        """Check the jobs before any begins.

        Raises UserError if processes do not fit the nodes, the GPUs or the clients, or if a
        start point is another file than the experiments'.
        """
        processes, nodes = self.campaign.execution.processes, self.campaign.execution.nodes
        if processes % nodes:
            raise UserError(
                f"config.yaml: {processes} processes cannot be spread evenly over {nodes} nodes; "
                "change processes or nodes"
            )
        if nodes > 1 and not can_use_nodes and not self.on_cluster:
            raise UserError(
                f"config.yaml: {nodes} nodes need a cluster; set nodes to 1, or give "
                "--workflow-profile workflow/profiles/slurm"
            )
        if not self.on_cpu and self.gpus is not None and processes > self.gpus:
            raise UserError(
                f"config.yaml: {processes} processes need a GPU each and {self.gpus} can be used; "
                "lower processes or set device to cpu"
            )
        self.campaign.check_clients()
        for start in self.campaign.published.values():
            start.check()

    @property
    def all_cores(self) -> int:
        """Return the threads of a job that takes a whole machine.

        A cluster's profile says how many they are there (``set-threads``).
        """
        return self.cores or 1

    @property
    def retries(self) -> int | None:
        """Return how often a job is retried; None leaves it to a cluster's profile."""
        if self.on_cluster and self.campaign.config.retries is None:
            return None
        return self.campaign.execution.retries

    @property
    def group(self) -> str | None:
        """Name the group of runs that share a job of a cluster.

        How many share one is for the cluster's profile to say (``group-components``).
        """
        grouped = self.on_cluster and self.on_cpu and self.campaign.execution.grouped
        return "runs" if grouped else None

    def threads(self, runs: Mapping[str, RunSpec], name: str) -> int:
        """Return the threads, on each of its nodes, of the job of one of ``runs`` by its id.

        All of ``runs`` may be executed at once.
        """
        set_here = self.campaign.execution.threads
        if self.cores is None:
            threads = set_here or 1 + DECODERS * self.decodes_for_gpu(runs[name])
            return self.campaign.processes_per_node(runs[name]) * threads
        return self.campaign.execution.processes * self._threads_per_process(self.cores, len(runs))

    def divide_threads(self, run: RunSpec, threads: int) -> tuple[int, int]:
        """Return the computing and the decoding threads of each process of a job."""
        # `--cores` may exceed the machine's, and the trainer refuses more decoders than cores.
        limit = None if self.on_cluster else len(os.sched_getaffinity(0))
        share = max(1, threads // self.campaign.processes_per_node(run))
        return divide_threads(share, decoding=self.decodes_for_gpu(run), cores=limit)

    def decodes_for_gpu(self, run: RunSpec) -> bool:
        """Tell whether a run waits for image files to be decoded, rather than for computing."""
        return run.settings.streamed and not self.on_cpu and bool(self.on_cluster or self.gpus)

    def gpus_of(self, run: RunSpec) -> int | None:
        """Return the GPUs of a run on one node; None on several, see ``slurm_extra``."""
        if self.campaign.nodes(run) > 1:
            return None
        return 0 if self.on_cpu else self.campaign.processes(run)

    def gpu_model(self, run: RunSpec) -> str | None:
        return self.campaign.config.gpu_model if self.gpus_of(run) else None

    def several_nodes(self, run: RunSpec) -> int | None:
        """Return the nodes of a run on several; None on one."""
        nodes = self.campaign.nodes(run)
        return nodes if nodes > 1 else None

    def slurm_extra(self, run: RunSpec) -> str | None:
        """Fix processes and GPUs of each of several nodes, which Slurm may else divide unevenly."""
        if self.campaign.nodes(run) == 1:
            return None
        model = self.campaign.config.gpu_model
        kind = "" if model is None else f"{model}:"
        count = self.campaign.processes_per_node(run)
        gpus = "" if self.on_cpu else f" --gpus-per-node={kind}{count}"
        return f"--ntasks-per-node=1{gpus}"

    def at_once(self, runs: int) -> int:
        """Return how many of ``runs`` runs Snakemake starts together on this machine."""
        assert self.cores is not None
        processes = self.campaign.execution.processes
        by_cores = self.cores // (processes * self._threads_per_process(self.cores, runs))
        gpus = self._shared_gpus
        return max(1, min(by_cores, runs, by_cores if gpus is None else gpus // processes))

    def _threads_per_process(self, cores: int, runs: int) -> int:
        execution = self.campaign.execution
        return threads_per_process(
            cores, execution.processes, runs, self._shared_gpus, execution.threads
        )

    @property
    def _shared_gpus(self) -> int | None:
        return None if self.on_cpu else self.gpus


def usable_gpus(campaign: Campaign) -> int | None:
    """Count this machine's GPUs for the campaign; None on the CPU, and where there are no GPUs."""
    return None if campaign.execution.device == "cpu" else visible_gpus() or None


def allocate(
    campaign: Campaign, *, cores: int | None, gpus: int | None, can_use_nodes: bool
) -> Allocation:
    """Share ``cores`` and ``gpus``, by default all GPUs of this machine; no ``cores``: a cluster's.

    Raises UserError if processes do not fit.
    """
    if gpus is None and cores is not None:
        gpus = usable_gpus(campaign)
    allocation = Allocation(campaign, cores, gpus)
    allocation.check(can_use_nodes=can_use_nodes)
    return allocation


def allocate_here(campaign: Campaign) -> Allocation:
    """Share all cores and GPUs of this machine."""
    return Allocation(campaign, len(os.sched_getaffinity(0)), usable_gpus(campaign))
