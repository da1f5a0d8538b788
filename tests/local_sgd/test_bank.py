"""Check what a bank of clients holds, exports, measures and frees."""

import weakref

import torch
from torch import nn

from tests.local_sgd.test_clients import B_LOC, DIGITS, SERIAL, WORLD, K, always, batch, batches
from trainer.local_sgd.averaging import Averaging
from trainer.local_sgd.clients import ClientBank
from trainer.local_sgd.optimizer import SGD
from trainer.models.registry import build


def test_clients_differ_between_averagings_and_agree_after() -> None:
    bank = ClientBank(build("mlp", DIGITS, seed=2).double(), K, SGD(), always(SERIAL))
    images, labels = batches()[0]
    bank.step(batch(images, labels), 0.1)
    first = next(iter(bank.parameters.tensors.values()))
    assert not torch.equal(first[0], first[1])
    Averaging(bank, WORLD)()
    assert all(torch.equal(p[0], p[k]) for p in bank.parameters.tensors.values() for k in range(K))


def test_a_bank_holds_what_it_was_assigned_and_exports_it() -> None:
    source = build("cnn_bn", DIGITS, seed=8)
    flat = nn.utils.parameters_to_vector(source.parameters()).detach()
    bank = ClientBank(build("cnn_bn", DIGITS, seed=9), K, SGD(), always(SERIAL))
    bank.parameters.assign(flat)
    target = build("cnn_bn", DIGITS, seed=10)
    bank.export(target)
    assert torch.equal(nn.utils.parameters_to_vector(target.parameters()), flat)
    assert bank.parameters.size == flat.numel()


def test_measuring_activations_keeps_none_of_them() -> None:
    seen = []
    tanh = nn.Tanh()  # saves its own result, which a hook that returns it would tie into a cycle
    tanh.register_forward_hook(lambda layer, inputs, output: seen.append(weakref.ref(output)))
    # Dropped at once: what stands in its place must be counted all the same.
    middle = nn.Sequential(nn.Linear(10, 10), nn.SiLU(), nn.Linear(10, 10), nn.SiLU())
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), tanh, middle).double()
    images, labels = batches()[0]
    needed = ClientBank(model, K, SGD(), always(SERIAL)).activation_bytes(batch(images, labels))
    # Of one client: tanh's result, what both SiLUs and the second layer are given, log-softmax's
    # result, the loss's total weight
    assert needed == (5 * B_LOC * 10 + 1) * 8
    assert [reference() for reference in seen] == [None]


def test_a_dropped_bank_is_freed_at_once() -> None:
    bank = ClientBank(build("cnn_bn", DIGITS, seed=2), K, SGD(momentum=0.9), always(SERIAL))
    memory = weakref.ref(bank.parameters.memory)
    del bank
    assert memory() is None
