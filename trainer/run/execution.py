"""Decide how a process executes its clients, from model, batch, H and device alone.

The modes add numbers up in different orders, so that their results differ in the last bits. A rule
decides alike on every machine, which a race would not. ``python -m bench clients`` compares its
choice with the other modes; the thresholds below were measured on two cores of a server CPU.
"""

import torch

from trainer.data.training import Batch
from trainer.distributed.world import World
from trainer.errors import UserError
from trainer.local_sgd.clients import ClientBank, Execution, ExecutionPlan
from trainer.local_sgd.schedule import Schedule
from trainer.models.registry import model_spec
from trainer.run.build import make_outer
from trainer.run.memory import MemoryEstimate, fits, out_of_memory_message
from trainer.settings.run import RunSettings

# Limits the activations of a pass on a CPU. Passes beyond its caches gain nothing: one client of a
# ResNet exceeds this, all clients of a small network do not.
CPU_PASS_BYTES = 256 * 2**20
# On a CPU `vmap` of convolutions costs more than it saves if one client's activations exceed this:
# at 0.42 MB one pass was 1.24 times as fast as one client after the other, at 1.7 MB 0.67 times.
CPU_CONVOLUTION_BYTES = 2**20
GPU_PASS_SHARE = 0.25  # of the device's memory

ONE_BY_ONE = ExecutionPlan("serial")
SERIAL = Execution(one_step=ONE_BY_ONE, several_steps=ONE_BY_ONE)


def choose_execution(
    settings: RunSettings, schedule: Schedule, one: ClientBank, batch: Batch, world: World
) -> Execution:
    """Choose the plans for steps like ``batch``; ``one`` is a bank of a single client.

    Raises UserError, on all processes, if memory is too small for the clients' replicas.
    """
    # Clients that keep their own momentum are not equal after averaging. But where every H is 1,
    # the mean of their parameters depends on the mean of their momentum alone. AdamW's does not: it
    # divides by the root of each client's own second moment.
    own_momentum = settings.momentum > 0 and settings.momentum_averaging == "keep"
    stochastic = model_spec(settings.model).stochastic
    always = schedule.averages_every_step
    linear = settings.optimizer == "sgd"
    fusible = not stochastic and linear and (always or not own_momentum)
    outer, averages = make_outer(settings), schedule.averages_weights
    need = MemoryEstimate.of_client(one, batch, outer, averages_weights=averages)
    fit = max(1, min(_pass_bytes(world.device) // need.activations, len(batch.images)))
    one_by_one = stochastic or settings.mixed_precision or fit == 1
    small = one.stackable or need.activations <= CPU_CONVOLUTION_BYTES
    together = not one_by_one and (small or world.device.type == "cuda")
    several = ExecutionPlan("vectorized", fit) if together else ONE_BY_ONE
    single = ExecutionPlan("fused", fit) if fusible else several
    if settings.clients == "serial":
        several = single = ONE_BY_ONE
    elif settings.clients != "auto":
        several = single = ExecutionPlan(settings.clients, fit)
    execution = Execution(one_step=single, several_steps=single if always else several)
    plan, device = execution.several_steps, world.device  # if that is fused, every step is
    replicas = 1 if plan.mode == "fused" else len(batch.images)
    if not world.all_min(fits(need, replicas, plan, device)):
        raise UserError(out_of_memory_message(settings, need, replicas, plan, device, world.size))
    return execution


def _pass_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory * GPU_PASS_SHARE)
    return CPU_PASS_BYTES
