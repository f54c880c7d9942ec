import dataclasses

import numpy as np
import pytest

from fre_edge.options import FitOptions
from fre_edge.strategies import choose as module
from fre_edge.strategies.autoencoder import Autoencoder
from fre_edge.strategies.base import Rank, Rows
from fre_edge.strategies.choose import choose, make_strategy, memory_needed
from fre_edge.strategies.randomized import PLANNED, Randomized
from fre_runtime.errors import MemoryLimitError, OutputError, UsageError
from fre_runtime.geometry import View

GB = 10**9


@pytest.fixture
def memory(monkeypatch):
    """``memory(size)``: so many bytes are free."""

    def set_free(size):
        for name in ("fre_edge.memory", "fre_edge.strategies.choose"):
            monkeypatch.setattr(f"{name}.free_memory", lambda: size)

    return set_free


@pytest.mark.parametrize(
    ("photos", "dimension", "free", "method"),
    [
        (300, 8192, 8 * GB, "pca"),
        (300, 8192, None, "pca"),
        (5000, 65536, 8 * GB, "pca"),
        (5000, 65536, 3 * GB, "incremental"),
        (10**6, 8192, 64 * GB, "incremental"),
    ],
)
def test_auto_goes_by_size_and_memory(memory, photos, dimension, free, method):
    memory(free)
    plan = choose(FitOptions(), photos, [dimension])
    assert plan.method == method
    assert f"{photos} photos" in plan.reason


def test_ten_thousand_large_ones_on_disk_take_less_than_4_gib(tmp_path):
    options = FitOptions(method="pca", scratch=str(tmp_path), components=200)
    assert memory_needed("pca", options, 10_000, [65_536]) < 4 * 2**30


def test_regions_have_a_gram_matrix_each():
    whole, many = (
        memory_needed("pca", FitOptions(subspace=s), 4000, [65_536]) for s in ("whole", "regions:4")
    )
    assert many - whole > 15 * 8 * 4000**2


def test_a_stream_takes_the_same_for_any_number_of_photos():
    few, many = (memory_needed("incremental", FitOptions(), n, [8192]) for n in (10**3, 10**7))
    assert few == many


@pytest.mark.parametrize("method", ["pca", "randomized"])
def test_tiles_that_memory_cannot_compare_are_refused(memory, method):
    memory(4 * GB)
    options = FitOptions(method=method, components=50, view=View(tile=[64, 64]))
    with pytest.raises(MemoryLimitError, match="on 20000 tiles needs .* take larger tiles, less"):
        choose(options, 20_000, [512])
    assert choose(options, 2000, [512]).method == method


@pytest.mark.parametrize("method", ["pca", "randomized", "ae"])
def test_says_what_to_do_where_memory_is_short(memory, tmp_path, monkeypatch, method):
    memory(2 * GB)
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10**15}))
    options = FitOptions(method=method, components=50)
    with pytest.raises(MemoryLimitError, match=r"needs \d.* GB .*2.00 GB are free.*--scratch DIR"):
        choose(options, 10_000, [65_536])
    with pytest.raises(MemoryLimitError, match="take --method incremental"):
        choose(dataclasses.replace(options, scratch=str(tmp_path)), 20_000, [10**7])


def test_a_disk_that_is_too_small_is_foreseen(memory, tmp_path, monkeypatch):
    memory(64 * GB)
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": GB}))
    with pytest.raises(OutputError, match=r"keeping the features needs 2.62 GB, 1.00 GB are free"):
        choose(FitOptions(method="pca", scratch=str(tmp_path)), 10_000, [65_536])


def test_methods_are_made_by_name():
    options = FitOptions(method="ae", warm_start=True, seed=3)
    assert make_strategy("ae", options) == Autoencoder(tied=False, warm=True, seed=3)
    with pytest.raises(UsageError, match="method 'svd' does not exist; choose auto, pca"):
        FitOptions(method="svd").check()
    with pytest.raises(UsageError, match="warm_start is for tied-ae and ae"):
        FitOptions(warm_start=True).check()
    assert module.MOST_EXACT < 10**5


@pytest.mark.parametrize(("rank", "directions"), [(Rank(0.999), 599), (Rank(0.999, most=540), 556)])
def test_directions_beyond_the_plan_are_asked_for_when_they_come(monkeypatch, rank, directions):
    rows = Rows(np.random.default_rng(0).normal(size=(600, 700)).astype(np.float32))
    whole = Randomized().fit(rows, rank)
    assert len(whole.components) > PLANNED
    monkeypatch.setattr("fre_edge.memory.free_memory", lambda: 5_000_000)
    with pytest.raises(MemoryLimitError, match=f"looking for {directions} of 599 directions"):
        Randomized().fit(rows, rank)
    assert len(Randomized().fit(rows, Rank(0.05, most=540)).components) < 100  # few suffice
