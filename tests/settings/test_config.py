"""Check that settings, command line and YAML agree, and that each mistake is one line."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.commands import trainer
from tests.conftest import one_line
from trainer.errors import UserError
from trainer.settings.cli import add_settings, option, options, parse_settings
from trainer.settings.run import RunSettings
from trainer.settings.schedule import PhaseSettings
from workflow.experiments import RunSpec

valid = st.builds(
    RunSettings,
    data_pth=st.sampled_from([Path("-a"), Path("a b"), Path("$(rm x)"), Path("é;'\"")]),
    model=st.sampled_from(["mlp", "cnn", "cnn_bn"]),
    batch_size=st.just(4),
    total_batch_size=st.integers(1, 64).map(lambda k: 4 * k),
    train_subset=st.none() | st.integers(256, 10**6),
    start_lr=st.floats(1e-8, 10),
    max_lr=st.floats(-9, -1e-9),
    wd=st.floats(0, 1),
    momentum=st.floats(0.1, 0.99),
    nesterov=st.booleans(),
    seed=st.integers(0, 2**63 - 1),
    schedule=st.none()
    | st.lists(st.builds(PhaseSettings, epochs=st.integers(1, 9)), min_size=1).map(tuple),
    resume_sha256=st.none() | st.just("0f" * 32),
)


def parse(*words: object) -> RunSettings:
    parser = argparse.ArgumentParser()
    add_settings(parser, RunSettings)
    return parse_settings(parser.parse_args([str(word) for word in words]), RunSettings)


@given(valid)
def test_settings_survive_the_command_line(settings: RunSettings) -> None:
    line = options(settings, list(RunSettings.model_fields))
    assert parse(*shlex.split(line)) == settings


@given(valid)
def test_settings_survive_yaml(settings: RunSettings) -> None:
    text = yaml.safe_dump(settings.model_dump(mode="json"))
    assert RunSettings(**yaml.safe_load(text)) == settings


def test_the_command_line_wins_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("epochs: 7\nseed: 3\n")
    settings = parse("--config", file, "--seed", 4)
    assert (settings.epochs, settings.seed) == (7, 4)


@pytest.mark.parametrize("model", ["resnet50", "resnet56", "mlp"])
@pytest.mark.parametrize("group_weight", [True, False])
def test_a_runs_command_line_means_the_run(model: str, group_weight: bool) -> None:
    """Parse a run's options back, also where a default depends on the data set."""
    settings = RunSettings(model=model, group_weight=group_weight)
    words = shlex.split(RunSpec(settings).options())
    assert parse("--model", model, *words).result_settings() == settings.result_settings()


def test_the_word_none_is_no_value() -> None:
    assert parse("--resume-pth", "None").resume_pth is None
    assert parse("--wandb", "None").wandb == "online"  # wandb's own meaning of none


def test_data_set_and_its_folder_follow_from_the_model() -> None:
    assert (parse().dataset, parse().data_pth) == ("digits", Path("resources/digits"))
    vgg = parse("--model", "vgg16")
    assert (vgg.dataset, vgg.data_pth) == ("cifar10", Path("resources/cifar10"))
    small = parse("--model", "cnn", "--dataset", "cifar10")
    assert (small.dataset, small.data_pth) == ("cifar10", Path("resources/cifar10"))


def test_help_shows_every_setting_with_type_default_and_bounds() -> None:
    text = " ".join(trainer("train", "--help").stdout.split())
    for name in RunSettings.model_fields:
        assert option(name) in text
    assert "--noise-p float label noise" in text
    assert "[default 0.1, ≥ 0, < 1]" in text


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--stepp1", 3], ["unknown option --stepp1", "did you mean --step1?"]),
        (["--epochs"], ["--epochs", "expected one argument", "train --help"]),
        (["--dataset", "mnist"], ["--dataset", "unknown dataset 'mnist'", "digits, cifar10"]),
        (["--model", "resnet57"], ["--model", "unknown model 'resnet57'", "resnet56"]),
        (["--batch-size", 12, "--total-batch-size", 64], ["total_batch_size 64", "batch_size 12"]),
        (["--step1", 0], ["--step1", "greater than or equal to 1", "'0'"]),
        (["--noise-p", 1], ["--noise-p", "less than 1"]),
        (["--seed", -1], ["--seed"]),
        (["--start-lr", "nan"], ["--start-lr", "finite"]),
        (["--aug", "maybe"], ["--aug", "'maybe'"]),
        (["--epochs", "1.5"], ["--epochs", "'1.5'"]),
        (["--warm-up", 1, "--start-lr", 0.2, "--max-lr", 0.1], ["max_lr 0.1", "start_lr 0.2"]),
        (["--bn", 1], ["bn 1", "mlp", "no BatchNorm"]),
        (["--model", "cnn_bn", "--bn", 0], ["bn 0", "cnn_bn"]),
        (["--nesterov", 1], ["nesterov", "momentum"]),
        (
            ["--dataset", "cifar10", "--model", "resnet20_gn", "--n-groups", 3],
            ["n_groups 3", "16 channels", "1, 2, 4, 8, 16"],
        ),
        (["--decay2", 5], ["decay2 5", "decay1"]),
        (["--steps-per-epoch", -2], ["--steps-per-epoch", "greater than or equal to 1"]),
        (["--decay1", 5, "--decay2", 6, "--gamma", 1e-200], ["gamma 1e-200 at 2 decays"]),
        (["--decay1", 5, "--decay2", 6, "--gamma", 1e200], ["gamma 1e+200 at 2 decays"]),
        (["--start-lr", 1e308, "--batch-size", 1], ["start_lr", "learning rate infinite"]),
        (["--decay1", 5, "--decay2", 5], ["decay2 5", "after decay1 (5)"]),
        (["--decay1", 5, "--decay2", 5, "--warm-up", 1], ["decay2 5", "after decay1 (5)"]),
        (["--epochs", 9, "--decay1", 9], ["decay1 9 is past the end (9 epochs)"]),
        (["--lr", 0.1, "--start-lr", 0.2], ["lr and start_lr", "one or the other"]),
        (["--lr", 0.1, "--warm-up", 1], ["total_batch_size 128 is below 256"]),
        (["--h-rule", "qsr"], ["h_rule qsr", "set alpha"]),
        (["--h-rule", "qsr", "--alpha", 1, "--step1", 4], ["step1 and h_rule qsr"]),
        (["--h-rule", "qsr", "--alpha", 1, "--h-base", 0], ["--h-base", "greater than"]),
        (["--h-rule", "qsr", "--alpha", 1, "--schedule", "[{epochs: 3, local_steps: 4}]"],
         ["local_steps and h_rule qsr both set H", "remove local_steps"]),
        (["--step2", 600], ["step2 applies after decay1", "set decay1 or remove step2"]),
        (["--decay1", 5, "--eval-freq3", 2], ["eval_freq3 applies after decay2", "remove"]),
        (["--alpha", 1], ["alpha applies only to h_rule inverse or qsr or cubic; remove alpha"]),
        (["--h-rule", "a:b", "--h-base", 2], ["h_base applies only to", "remove h_base"]),
        (["--h-rule", "qsrs"], ["--h-rule: unknown rule 'qsrs'", "qsr, cubic", "module:function"]),
        (["--h-rule", "absent:f"], ["h_rule absent:f", "module absent cannot be imported"]),
        (["--h-rule", "post-local", "--switch", 5], ["post-local needs switch and", "h_base > 1"]),
        (["--h-rule", "post-local", "--h-base", 2], ["post-local needs switch", "set both"]),
        (["--h-rule", "post-local", "--h-base", 2, "--switch", 9, "--epochs", 9],
         ["switch 9 is past the end (9 epochs)"]),
        (["--switch", 9], ["switch applies only to h_rule post-local; remove switch"]),
        (["--lr-schedule", "cosine", "--decay1", 5], ["cosine has no decays", "decay1"]),
        (["--schedule", "[{epochs: 3}]", "--step1", 4], ["schedule and step1", "one or the other"]),
        (["--schedule", "[{epochs: 3, local_steps: 0}]"], ["schedule.0.local_steps", "got 0"]),
        (["--schedule", "[{epoch: 3}]"], ["schedule.0.epoch", "did you mean epochs?"]),
        (["--schedule", "[{"], ["--schedule", "YAML"]),
        (["--schedule", "[]"], ["--schedule"]),
        (["--momentum-averaging", "reset"], ["momentum_averaging reset", "momentum > 0"]),
        (["--optimizer", "adam"], ["--optimizer", "'sgd' or 'adamw'"]),
        (["--optimizer", "adamw", "--momentum", 0.9], ["only to optimizer sgd", "set beta1"]),
        (["--optimizer", "adamw", "--nesterov", 1], ["nesterov needs momentum"]),
        (["--beta2", 0.9], ["beta2 applies only to optimizer adamw", "remove beta2"]),
        (["--optimizer", "adamw", "--eps", 0], ["--eps", "greater than 0"]),
        (["--optimizer", "adamw", "--clients", "fused"], ["clients fused", "AdamW", "auto"]),
        (["--outer-nesterov", 1], ["outer_nesterov needs outer_momentum > 0", "nesterov 0"]),
        (["--outer-slowmo", 1, "--outer-lr", 2], ["outer_slowmo needs outer_momentum > 0"]),
        (["--weight-averaging1", "mean"], ["--weight-averaging1", "'swa' or 'ema'"]),
        (["--ema-decay", 0.9], ["ema_decay applies only to weight_averaging ema", "remove"]),
        (["--weight-averaging1", "ema", "--ema-decay", 1], ["--ema-decay", "less than 1"]),
        (["--outer-lr", 0], ["--outer-lr", "greater than 0"]),
        (["--model", "resnet20", "--dataset", "digits"], ["resnet20", "32 pixels"]),
        (["--model", "resnet18"], ["grey images", "check dataset"]),
        (["--dataset", "imagefolder", "--model", "resnet18"], ["imagefolder needs num_classes"]),
        (["--dataset", "photos", "--model", "resnet18", "--num-classes", 4], ["photos has 10"]),
        (["--dataset", "photos", "--model", "mlp", "--loader", "memory"],
         ["loader memory", "image files", "loader auto"]),
        (["--loader", "ffcv"], ["loader ffcv", "digits lacks", "loader auto"]),
        (["--image-size", 32], ["image_size applies only to image files", "8 pixels", "remove"]),
        (["--model", "vit_b_32", "--dataset", "cifar10"], ["vit_b_32", "32 pixels", "224"]),
        (["--model", "resnet18", "--dataset", "digits"], ["resnet18", "1 channel(s)", "another"]),
        (["--model", "mobilenet_v2", "--dataset", "cifar10", "--clients", "vectorized"],
         ["clients vectorized", "dropout", "clients serial"]),
        (["--dataset", "photos", "--image-size", 3, "--model", "cnn"], ["4 pixels or more", "cnn"]),
        (["--dataset", "cifar10", "--model", "resnet18", "--batch-size", 1],
         ["batch_size 1", "BatchNorm", "resnet18", "32 pixels", "batch_size 2 or more"]),
        (["--precision", "bf16", "--clients", "vectorized"], ["precision bf16", "serial"]),
        (["--model", "cnn_bn", "--bn-batches", 0], ["bn_batches 0", "cnn_bn", "1 or more"]),
        (["--train-pth", "nowhere.beton"], ["nowhere.beton", "no such file"]),
        (["--nw", -1], ["--nw", "greater than or equal to 0"]),
        (["--save-freq1", 0], ["--save-freq1"]),
        (["--schedule", "[{epochs: 3}]", "--save-freq2", 4], ["schedule and save_freq2"]),
        (["--resume-pth", "nowhere.pt"], ["resume_pth nowhere.pt", "no such file"]),
        (["--resume-pth", "https://x.org/a.pt"], ["https://x.org/a.pt", "needs resume_sha256"]),
        (["--resume-pth", "http://x.org/a.pt", "--resume-sha256", "0" * 64],
         ["http://x.org/a.pt", "https://"]),
        (["--resume", 250], ["resume describes a start point", "set resume_pth"]),
        (["--resume-sha256", "0" * 64], ["resume_sha256 describes a start point"]),
        (["--out", "README.md"], ["README.md", "cannot be written"]),
        (["--sharpness-probes", 8], ["sharpness_probes applies only to sharpness 1", "remove"]),
        (["--sharpness", 1, "--sharpness-samples", 798], ["sharpness_samples 798", "797"]),
        (["--log-pth", "README.md"], ["README.md", "cannot be written"]),
        (["--max-lr", 0.5], ["max_lr 0.5", "warm_up 1"]),
        (["--warm-up", 1, "--epochs", 3], ["warmup_epochs 5", "3 epochs"]),
        (["--data-pth", "nowhere"], ["nowhere/train.beton", "no such file"]),
        (["--config", "nowhere.yaml"], ["nowhere.yaml", "check the path"]),
        (["--device", "cuda"], ["device cuda"]),
        (["--train-subset", 10**6], ["train_subset 1000000", "797"]),
        (["--steps-per-epoch", 7, "--total-batch-size", 128], ["steps_per_epoch 7", "797"]),
        (["--train-subset", 100, "--steps-per-epoch", 1, "--total-batch-size", 128],
         ["total_batch_size 128 × steps_per_epoch 1", "100"]),
        (["--train-subset", 100], ["total_batch_size 128 exceeds the 100"]),
        (["--dataset", "cifar10", "--model", "cnn"], ["train.beton", "(8, 8, 1)", "check dataset"]),
    ],
)  # fmt: skip
def test_a_mistake_is_named_in_one_line(
    digits: Path, tmp_path: Path, words: list[object], expected: list[str]
) -> None:
    import torch

    if words[-1] == "cuda" and torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    done = trainer("train", "--data-pth", digits, "--log-pth", tmp_path / "run", *words)
    message = one_line(done)
    for part in expected:
        assert part in message
    assert not list(tmp_path.rglob("metrics*"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("stepp1: 3", "unknown setting stepp1; did you mean --step1?"),
        ("epochs: [1]", "--epochs"),
        ("- 1", "must hold `setting: value` lines"),
        ("a: [", "is not valid YAML"),
        ("\x00", "is not valid YAML"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, text: str, expected: str) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=r".*") as caught:
        parse("--config", file)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_peak_learning_rate_follows_the_linear_scaling_rule() -> None:
    base = {"batch_size": 8, "total_batch_size": 128, "start_lr": 0.01}
    assert RunSettings(**base).peak_lr == pytest.approx(0.16)
    assert RunSettings(**base, warm_up=True).peak_lr == pytest.approx(0.16)
    assert RunSettings(**base, warm_up=True, max_lr=0.5).peak_lr == 0.5
