# Choose the conda env for training by the setting `device` alone: jobs and their submitter must name the same
# one, and conda picks a build of PyTorch by the machine that makes an env, not by those that use it. So `auto`
# has none.
from snakemake.settings.types import DeploymentMethod

DEVICE = CAMPAIGN.execution.device
if DEVICE == "auto" and DeploymentMethod.CONDA in workflow.deployment_settings.deployment_method:
    refuse("config.yaml: device auto names no conda env; set device to cpu or cuda")

TRAIN_ENV = "../../envs/train-cuda.yaml" if DEVICE == "cuda" else "../../envs/train.yaml"
