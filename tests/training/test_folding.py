import pytest
import torch
from timm.layers import StdConv2d
from timm.models import create_feature_extractor, create_model
from torch import nn

from fre_edge.folding import fold_batch_norms


def norms(module):
    return sum(isinstance(part, nn.BatchNorm2d) for part in module.modules())


def unlike_a_fresh_one(model):
    """Statistics and gains as training leaves them; fresh ones would hide a wrong fold."""
    generator = torch.Generator().manual_seed(0)
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            for tensor, low in ((part.running_mean, -0.5), (part.bias, -0.5)):
                tensor.data.uniform_(low, 0.5, generator=generator)
            for tensor in (part.running_var, part.weight):
                tensor.data.uniform_(0.5, 1.5, generator=generator)


@pytest.mark.parametrize(
    ("name", "tap", "left"),
    [
        ("resnet18", "layer2", 0),
        ("tf_efficientnet_lite0", "blocks.2", 0),
        ("densenet121", "features.denseblock1", 6),  # these come before their convolutions
    ],
)
@torch.inference_mode()
def test_folding_changes_features_by_rounding_only(name, tap, left):
    model = create_model(name, pretrained=False)
    unlike_a_fresh_one(model)
    trunk = create_feature_extractor(model, [tap]).eval()
    image = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    before, had = trunk(image)[tap], norms(trunk)
    folded = fold_batch_norms(trunk)
    assert norms(folded) == left < had
    assert not any(part.training for part in folded.modules())
    after = folded(image)[tap]
    assert (after - before).abs().max() <= 1e-5 * before.abs().max()


class Shared(nn.Module):
    """A convolution that two normalisations look at, one of which is used twice."""

    def __init__(self):
        super().__init__()
        self.conv, self.one, self.two = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4)

    def forward(self, x):
        x = self.conv(x)
        return self.one(x) + self.two(x)


@torch.inference_mode()
def test_what_others_use_is_left_alone():
    trunk = torch.fx.symbolic_trace(Shared().eval())
    image = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    before = trunk(image)
    assert norms(fold_batch_norms(trunk)) == 2
    assert torch.equal(trunk(image), before)


class Whole(torch.fx.Tracer):
    """Leaves each layer in one piece, as timm's extractor does with its own convolutions."""

    def is_leaf_module(self, module, name):
        return True


@torch.inference_mode()
def test_a_convolution_that_standardises_its_weights_is_left_alone():
    model = nn.Sequential(StdConv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()
    trunk = torch.fx.GraphModule(model, Whole().trace(model)).eval()
    unlike_a_fresh_one(trunk)
    image = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    before = trunk(image)
    assert torch.equal(fold_batch_norms(trunk)(image), before)
