"""Spare norm layers and biases from weight decay, and nothing else."""

from torch import nn

from trainer.data.specs import DATASETS
from trainer.local_sgd.optimizer import undecayed_names
from trainer.models.registry import build


def test_group_weight_spares_norm_layers_and_biases_only() -> None:
    model = build("resnet20", DATASETS["cifar10"], seed=0)
    spared = set(undecayed_names(model))
    assert {"bn1.weight", "bn1.bias", "linear.bias", "layer2.0.bn2.weight"} <= spared
    assert not {name for name in spared if "conv" in name or name == "linear.weight"}


def test_group_weight_spares_the_biases_of_attention() -> None:
    spared = undecayed_names(nn.TransformerEncoderLayer(8, 2))
    assert {"self_attn.in_proj_bias", "self_attn.out_proj.bias", "norm1.weight"} <= set(spared)
    assert "self_attn.in_proj_weight" not in spared
