"""Check that commands for the authors' code mean the same here, or are refused."""

from __future__ import annotations

import re
import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.commands import ROOT
from tests.settings.test_config import parse
from trainer.errors import UserError
from trainer.run.build import make_schedule
from trainer.settings.cli import option
from trainer.settings.run import RunSettings

POST_LOCAL = """
    --seed 1073741823 --data-pth data --log-pth ./checkpoint/test2 --model resnet56
    --resume 250 --resume-pth ./checkpoint/postlocal/phase1_common.pt
    --batch-size 128 --total-batch-size 4096 --steps-per-epoch 12 --debug 1 --wandb-save 0
    --epochs 250 --start-lr 0.01 --max-lr -1 --wd 0.0005 --momentum 0 --nesterov 0
    --warm-up 0 --warmup-epochs 50 --bn 1 --bn-batches 100 --group-weight 1 --n-groups -1
    --decay1 25000 --decay2 25000 --gamma 0.1 --step1 600 --step2 600 --step3 600
    --eval-freq1 1 --eval-freq2 1 --eval-freq3 1
    --save-freq1 6000 --save-freq2 6000 --save-freq3 6000 --eval-on-start 1
    --replacement 0 --aug 1 --label-noise 0 --noise-p 0
"""
LABEL_NOISE = """
    --seed 7 --data-pth data --log-pth ./checkpoint/test2/ --resume 500
    --batch-size 128 --total-batch-size 4096 --steps-per-epoch 12 --debug 1 --wandb-save 0
    --start-lr 0.1 --max-lr 0.1 --momentum 0 --nesterov 0 --warm-up 1 --warmup-epochs 1 --bn 0
    --decay1 5000000 --decay2 5000000 --gamma 0.1 --step1 384 --step2 384 --step3 384
    --eval-freq1 1 --eval-freq2 1 --eval-freq3 1
    --save-freq1 1000 --save-freq2 1000 --save-freq3 1000 --eval-on-start 1
    --replacement 1 --aug 0 --label-noise 1 --noise-p 0.1
"""
LABEL_NOISE_RESNET = f"""{LABEL_NOISE}
    --resume-pth ./checkpoint/label_noise/resnet_ckpt/resnet_common_start.pt
    --model resnet56_gn --epochs 500000 --wd 0.0005 --bn-batches 0 --group-weight 1 --n-groups 8
"""
LABEL_NOISE_VGG = f"""{LABEL_NOISE}
    --resume-pth ./checkpoint/label_noise/vgg_ckpt/vgg_common_start.pt
    --model vgg16 --epochs 50000 --wd 0 --bn-batches 100 --group-weight 0 --n-groups -1
"""
IMAGENET = """
    --seed 7 --nw 6 --batch-size 32 --total-batch-size 8192 --steps-per-epoch 156
    --lr 0.005 --epochs 50 --warm-up 0 --gamma 0.1 --model resnet50
    --save-freq1 50 --step1 26 --eval-freq1 6
    --momentum 0 --wd 0.0001 --decay1 1000 --decay2 1000 --decay3 1000 --log-pth ./checkpoint/x/
    --resume 100 --resume-pth ./checkpoint/phase_epoch=100.pt
"""


@pytest.mark.parametrize(
    ("script", "dataset", "clients", "lr", "local_steps", "epochs", "group_weight"),
    # reference: run-post-local.sh, run-{resnet,vgg}-label-noise.sh of train_cifar/, and
    # train_imagenet/run.sh of https://github.com/hmgxr128/Local-SGD
    [
        (POST_LOCAL, "cifar10", 32, 0.32, 600, 250, True),
        (LABEL_NOISE_RESNET, "cifar10", 32, 0.1, 384, 500_000, True),
        (LABEL_NOISE_VGG, "cifar10", 32, 0.1, 384, 50_000, False),
        # its --group-weight is that trainer's default
        (IMAGENET, "imagenet", 256, 0.16, 26, 50, True),
        (POST_LOCAL.replace("--group-weight 1", ""), "cifar10", 32, 0.32, 600, 250, False),
    ],
)
def test_the_authors_scripts_mean_the_papers_settings(
    script: str,
    dataset: str,
    clients: int,
    lr: float,
    local_steps: int,
    epochs: int,
    group_weight: bool,
) -> None:
    settings = parse(*shlex.split(script))
    assert (settings.dataset, settings.num_clients) == (dataset, clients)
    assert settings.peak_lr == pytest.approx(lr)
    [phase] = settings.phases
    assert (phase.local_steps, phase.epochs) == (local_steps, epochs)
    assert settings.group_weight is group_weight


@given(
    st.integers(0, 120), st.integers(1, 60), st.lists(st.integers(1, 150), max_size=3, unique=True)
)
def test_imagenets_decays_are_the_authors_epochs_or_refused(
    resume: int, epochs: int, decays: list[int]
) -> None:
    """Match the loop of their train_imagenet/trainer_process.py; CIFAR-10's stay relative."""
    flags = {f"decay{i}": epoch for i, epoch in enumerate(sorted(decays), start=1)}
    values = {"epochs": epochs, "resume": resume, "gamma": 0.5, "start_lr": 1.0, **flags}
    rate, rates = 1.0, []
    for epoch in range(resume + 1, resume + epochs + 1):
        rates.append(rate)
        if epoch in decays:
            rate *= 0.5
    try:
        settings = RunSettings.model_validate({"model": "resnet50", **values})
    except ValueError as error:
        late = [d for d in decays if d >= resume + epochs and d < 10 * epochs]
        assert any(d <= resume for d in decays) or late, error
        return
    schedule = make_schedule(settings, 3)
    assert [schedule.lr(3 * epoch) for epoch in range(epochs)] == rates
    if all(d < epochs for d in decays):
        relative = RunSettings.model_validate({"model": "resnet56", **values})
        assert [sum(p.epochs for p in relative.phases[:i]) for i in range(1, len(decays) + 1)] == (
            sorted(decays)
        )


def test_minus_one_steps_per_epoch_are_all_there_are_as_in_the_authors_code() -> None:
    assert parse("--steps-per-epoch", -1) == parse()


@pytest.mark.parametrize(
    ("epoch", "reason"),
    [
        (30, "decay1 30 is not after epoch 100, where this run starts: decays of dataset imagenet"),
        (150, "decay1 150 is past the end (50 epochs from epoch 100) and would never happen"),
    ],
)
def test_a_decay_of_imagenet_that_would_never_come_is_refused(epoch: int, reason: str) -> None:
    with pytest.raises(UserError) as caught:
        parse(*shlex.split(IMAGENET.replace("--decay1 1000", f"--decay1 {epoch}")))
    assert str(caught.value).startswith(reason)


def test_the_differences_are_of_options_that_there_are() -> None:
    text = (ROOT / "docs" / "differences.md").read_text()
    named = set(re.findall(r"--[a-z][a-z0-9-]*[a-z0-9]", text))
    offered = {option(name) for name in RunSettings.model_fields}
    by_phase = {"--eval-freq", "--save-freq", "--decay"}
    assert named - by_phase <= offered | {"--dist-url", "--help"}
    assert {"--group-weight", "--decay1", "--steps-per-epoch", "--bn"} <= named
