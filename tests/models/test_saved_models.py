"""Save models and load them, however they were wrapped; refuse files that hold no such model."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from trainer.data.specs import DATASETS
from trainer.errors import UserError
from trainer.files.state_dict import load_model, save_model
from trainer.models.registry import build

DIGITS = DATASETS["digits"]
State = dict[str, Tensor]


def test_a_saved_model_loads_bit_for_bit(tmp_path) -> None:
    model, other = build("cnn_bn", DIGITS, seed=0), build("cnn_bn", DIGITS, seed=1)
    save_model(tmp_path / "model.pt", model)
    load_model(tmp_path / "model.pt", other)
    pairs = zip(model.state_dict().values(), other.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert [p.name for p in tmp_path.iterdir()] == ["model.pt"]


def test_equal_models_have_equal_files(tmp_path) -> None:
    """Save under two temporary names: a run's process is part of them."""
    model = build("cnn", DIGITS, seed=0)
    for name in ("a.pt", "another.pt"):
        save_model(tmp_path / name, model)
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "another.pt").read_bytes()


def test_a_checkpoint_of_another_architecture_is_named(tmp_path) -> None:
    save_model(tmp_path / "cnn.pt", build("cnn", DIGITS, seed=0))
    with pytest.raises(UserError, match=r"another architecture .*choose the model"):
        load_model(tmp_path / "cnn.pt", build("mlp", DIGITS, seed=0))


def parallel(state: State) -> State:
    return {f"module.{name}": value for name, value in state.items()}


def compiled(state: State) -> State:
    return {f"_orig_mod.{name}": value for name, value in state.items()}


def without_counts(state: State) -> State:
    return {name: value for name, value in state.items() if "num_batches_tracked" not in name}


def partly_compiled(state: State) -> State:
    return {name.replace(".", "._orig_mod.", 1): value for name, value in state.items()}


@pytest.mark.parametrize(
    "saved",
    [
        parallel,
        compiled,
        lambda state: parallel(compiled(state)),
        lambda state: compiled(parallel(parallel(state))),
        partly_compiled,
        without_counts,
        lambda state: {"state_dict": state, "epoch": 3, "arch": "cnn", "best": 0.5},
        lambda state: {"model": parallel(state), "optimizer": {"state": {}, "param_groups": []}},
        lambda state: {"epoch": 1, "model_state_dict": without_counts(compiled(state))},
    ],
)
def test_a_model_loads_however_it_was_wrapped(tmp_path, saved: Callable[[State], object]) -> None:
    model, other = build("cnn_bn", DIGITS, seed=0), build("cnn_bn", DIGITS, seed=1)
    torch.save(saved(model.state_dict()), tmp_path / "other.pt")
    load_model(tmp_path / "other.pt", other)
    pairs = zip(model.state_dict().values(), other.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_keys_that_pytorch_itself_gives_load(tmp_path) -> None:
    model, other = build("cnn_bn", DIGITS, seed=0), build("cnn_bn", DIGITS, seed=1)
    state = torch.compile(nn.DataParallel(model)).state_dict()
    assert all(name.startswith("_orig_mod.module.") for name in state)
    torch.save(state, tmp_path / "other.pt")
    load_model(tmp_path / "other.pt", other)
    assert torch.equal(
        nn.utils.parameters_to_vector(model.parameters()),
        nn.utils.parameters_to_vector(other.parameters()),
    )


def test_a_model_with_a_part_named_module_keeps_its_keys(tmp_path) -> None:
    model, other = nn.DataParallel(nn.Linear(3, 2)), nn.DataParallel(nn.Linear(3, 2))
    save_model(tmp_path / "model.pt", model)
    load_model(tmp_path / "model.pt", other)
    assert torch.equal(model.module.weight, other.module.weight)


def test_all_keys_that_differ_are_told_in_one_line(tmp_path) -> None:
    model = nn.Sequential(*(nn.Linear(3, 3) for _ in range(6)))
    state = model.state_dict()
    wrong = {name: value for name, value in state.items() if not name.startswith(("0", "1", "2"))}
    wrong |= {"3.weight": torch.zeros(4, 3), "head.weight": torch.zeros(1)}
    torch.save(wrong, tmp_path / "other.pt")
    with pytest.raises(UserError) as raised:
        load_model(tmp_path / "other.pt", model)
    assert str(raised.value) == (
        f"resume_pth {tmp_path}/other.pt: made by another architecture (missing in the file: "
        "0.weight, 0.bias, 1.weight and 3 more; not in the model: head.weight; of another shape: "
        "3.weight is (4, 3) in the file, (3, 3) in the model); choose the model that it was saved "
        "from"
    )


@pytest.mark.parametrize("keep", [0, 100, -10])
def test_a_damaged_checkpoint_is_refused(tmp_path, keep: int) -> None:
    path = tmp_path / "model.pt"
    save_model(path, build("cnn", DIGITS, seed=0))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match="damaged"):
        load_model(path, build("cnn", DIGITS, seed=0))


@pytest.mark.parametrize("content", [{"epoch": 3, "state_dict": {}}, [1, 2], {}])
def test_a_file_that_is_no_plain_state_dict_is_refused(tmp_path, content: object) -> None:
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(UserError, match=r"plain state_dict|another architecture"):
        load_model(tmp_path / "other.pt", build("cnn", DIGITS, seed=0))


@pytest.mark.parametrize("content", [b"hello world", b"<html></html>", b"\x80\x04K\x01."])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path, content: bytes) -> None:
    (tmp_path / "page.pt").write_bytes(content)
    with pytest.raises(UserError, match=r"page\.pt"):
        load_model(tmp_path / "page.pt", build("cnn", DIGITS, seed=0))


def test_pickled_code_is_never_run(tmp_path) -> None:
    class Malicious:
        def __reduce__(self):
            return (tmp_path.joinpath("ran").touch, ())

    torch.save({"weight": Malicious()}, tmp_path / "evil.pt")
    with pytest.raises(UserError, match="not a plain state_dict"):
        load_model(tmp_path / "evil.pt", build("cnn", DIGITS, seed=0))
    assert not (tmp_path / "ran").exists()


def test_a_wrong_digest_or_missing_file_is_refused(tmp_path) -> None:
    model = build("cnn", DIGITS, seed=0)
    save_model(tmp_path / "model.pt", model)
    with pytest.raises(UserError, match="resume_sha256"):
        load_model(tmp_path / "model.pt", model, "0" * 64)
    with pytest.raises(UserError, match="no such file"):
        load_model(tmp_path / "other.pt", model)
