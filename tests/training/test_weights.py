import hashlib

import huggingface_hub
import pytest
import safetensors.torch
import timm
import torch
import torchvision

from fre_edge import weights
from fre_edge.backbones import build_backbone
from fre_edge.weights import WeightsError


def assert_is(weight, expected):
    """Equal but for the normalisation folded in: a fresh one divides by sqrt(1 + 1e-5)."""
    torch.testing.assert_close(weight.data, expected, rtol=1e-5, atol=0)


@pytest.fixture
def state():
    torch.manual_seed(7)
    return torchvision.models.resnet18(weights=None).state_dict()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_state_dict_from_a_file_is_used_and_recorded(tmp_path, state, suffix):
    path = tmp_path / f"mine{suffix}"
    torch.save(state, path) if suffix == ".pth" else safetensors.torch.save_file(state, path)
    backbone = build_backbone("resnet18", weights=str(path))
    assert_is(backbone.trunk.conv1.weight, state["conv1.weight"])
    assert backbone.weights.source == f"mine{suffix}"
    assert len(backbone.weights.sha256) == 64


def test_a_missing_file_says_so(tmp_path):
    with pytest.raises(WeightsError, match="no such weights file"):
        build_backbone("resnet18", weights=str(tmp_path / "none.pth"))


def test_weights_of_another_network_are_refused(tmp_path, state):
    path = tmp_path / "other.safetensors"
    safetensors.torch.save_file(state, path)
    with pytest.raises(WeightsError, match="122 tensors, the network has"):
        build_backbone("resnet50", weights=str(path))


def test_a_file_serves_a_timm_name_whatever_its_classifier(tmp_path):
    mine = timm.create_model("resnet10t", num_classes=7).state_dict()
    path = tmp_path / "mine.pth"
    torch.save({"model": mine, "epoch": 3}, path)
    backbone = build_backbone("timm/resnet10t", weights=str(path))
    assert_is(backbone.trunk.state_dict()["conv1.0.weight"], mine["conv1.0.weight"])


def test_a_file_of_a_transformer_serves_another_image_size(tmp_path):
    mine = timm.create_model("vit_tiny_patch16_224").state_dict()
    path = tmp_path / "mine.safetensors"
    safetensors.torch.save_file(mine, path)
    at_224 = build_backbone("timm/vit_tiny_patch16_224", ("blocks.0",), str(path)).trunk.pos_embed
    assert torch.equal(at_224, mine["pos_embed"])
    at_64 = build_backbone("timm/vit_tiny_patch16_224", ("blocks.0",), str(path), size=(64, 64))
    assert at_64.trunk.pos_embed.shape == (1, 17, 192)
    torch.testing.assert_close(at_64.trunk.pos_embed[:, 0], mine["pos_embed"][:, 0])


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A download cache as the hub keeps it; ``hub(content)`` fills it."""

    def fill(write):
        blob = tmp_path / "blob"
        write(blob)
        name = hashlib.sha256(blob.read_bytes()).hexdigest()
        link = tmp_path / "model.safetensors"
        link.symlink_to(blob.rename(tmp_path / name))
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda repository, file: str(link))
        return tmp_path / name

    return fill


def test_timms_published_weights_are_checked_and_recorded(hub):
    mine = timm.create_model("resnet10t").state_dict()
    blob = hub(lambda path: safetensors.torch.save_file(mine, path))
    info = build_backbone("timm/resnet10t").weights
    assert info.source == "Hugging Face timm/resnet10t.c3_in1k"
    assert info.sha256 == blob.name
    with blob.open("r+b") as file:
        file.seek(-4, 2)
        file.write(b"\0\0\0\1")
    with pytest.raises(WeightsError, match="sha256 .*, expected .*; delete the file"):
        build_backbone("timm/resnet10t")


def test_without_a_network_timms_error_names_the_file_to_get(monkeypatch):
    def offline(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", offline)
    message = r"get model.safetensors of the Hugging Face repository timm/resnet10t.c3_in1k"
    with pytest.raises(WeightsError, match=message):
        build_backbone("timm/resnet10t")


def test_weights_that_are_not_finite_are_refused(tmp_path, state):
    state["conv1.weight"][0, 0, 0, 0] = float("nan")
    path = tmp_path / "nan.safetensors"
    safetensors.torch.save_file(state, path)
    with pytest.raises(WeightsError, match="conv1.weight holds a non-finite value"):
        build_backbone("resnet18", weights=str(path))


def test_a_file_that_runs_code_is_not_loaded(tmp_path):
    path = tmp_path / "evil.pth"
    torch.save({"x": open}, path)
    with pytest.raises(WeightsError, match="not a state dict"):
        build_backbone("resnet18", weights=str(path))


def test_a_changed_weights_package_is_refused(monkeypatch):
    real = weights._PACKAGES["efficientnet_lite0"]
    wrong = weights._Package(real.package, real.file, "0" * 64)
    monkeypatch.setitem(weights._PACKAGES, "efficientnet_lite0", wrong)
    with pytest.raises(WeightsError, match="sha256 57934424.*expected 0000"):
        build_backbone("efficientnet_lite0")


def test_without_a_network_the_error_names_the_file_to_get(tmp_path, monkeypatch):
    def offline(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(WeightsError, match=r"get resnet18-f37072fd.pth from .* --weights FILE"):
        build_backbone("resnet18")
