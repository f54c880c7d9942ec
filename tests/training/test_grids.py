import pytest
import torch

from fre_edge.grids import to_grid
from fre_runtime.errors import UsageError


def cells(count, channels):
    """Tokens whose value tells their place, (1, count, channels)."""
    return torch.arange(count * channels, dtype=torch.float32).reshape(1, count, channels)


def test_channels_first_stay_as_they_are():
    features = torch.rand(2, 5, 4, 6)
    assert to_grid(features, (64, 96)) is features


def test_channels_last_are_turned():
    features = torch.rand(2, 4, 6, 5)
    torch.testing.assert_close(to_grid(features, (64, 96)), features.permute(0, 3, 1, 2))


@pytest.mark.parametrize("prefix", [0, 1, 2, 5])
@pytest.mark.parametrize(("image", "grid"), [((64, 96), (4, 6)), ((64, 64), (4, 4))])
def test_tokens_of_patches_become_a_grid_row_by_row(prefix, image, grid):
    patches = cells(grid[0] * grid[1], 3)
    tokens = torch.cat([torch.full((1, prefix, 3), -1.0), patches], 1)
    got = to_grid(tokens, image, prefix)
    assert got.shape == (1, 3, *grid)
    for row in range(grid[0]):
        for column in range(grid[1]):
            torch.testing.assert_close(got[0, :, row, column], patches[0, row * grid[1] + column])


def test_layers_before_the_class_token_have_none_to_drop():
    torch.testing.assert_close(
        to_grid(cells(16, 3), (64, 64), prefix=1), to_grid(cells(16, 3), (64, 64))
    )


@pytest.mark.parametrize(
    "shape", [(7,), (19, 8), (0, 8), (3, 17, 8), (3, 9, 17), (2, 2, 2, 2), ()], ids=str
)
def test_what_is_no_grid_is_refused(shape):
    with pytest.raises(UsageError, match="neither channels by height by width nor tokens"):
        to_grid(torch.zeros(1, *shape), (64, 64), prefix=1)
