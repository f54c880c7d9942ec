"""Going on: after a kill, with new photos, from several models."""

import dataclasses
import json
import logging
import os
import shutil

import numpy as np
import pytest

from fre_edge import FitOptions, checkpoint, extraction, fit, fitting, gathering, update
from fre_edge.checkpoint import clear
from fre_edge.saved import Saved, save_fit
from fre_edge.tensors import read_tensors, write_tensors
from fre_export import ExportOptions, export
from fre_runtime.errors import ArtifactError, DataError, MemoryLimitError, OutputError, UsageError
from fre_runtime.image import resize
from fre_runtime.model_dir import write_manifest

OPTIONS = FitOptions(
    backbone="resnet18", layers=("layer1",), weights="random", size=(32, 32), pool=2, fpr=0.2
)


def assert_same(a, b, *, exactly=True):
    rtol = 0 if exactly else 1e-6
    np.testing.assert_allclose(a.held_out_scores, b.held_out_scores, rtol=rtol)
    np.testing.assert_array_equal(a.groups, b.groups)
    assert a.calibration.image.value == pytest.approx(b.calibration.image.value, rel=1e-6)
    for (one,), (other,) in zip(a.subspaces, b.subspaces, strict=True):
        np.testing.assert_allclose(one.mean, other.mean, rtol=rtol)
        np.testing.assert_allclose(one.components, other.components, atol=0 if exactly else 1e-5)


@pytest.fixture(scope="module")
def more(tmp_path_factory, make_folder):
    """Photos that the tiny model has not seen."""
    return make_folder(tmp_path_factory.mktemp("more") / "good", 14, 500)


@pytest.fixture(scope="module")
def photos(category):
    return sorted((category / "train" / "good").iterdir())


@pytest.fixture
def streams(monkeypatch):
    """States so large that only sketches of them are kept, and blocks small enough for 24."""
    monkeypatch.setattr("fre_edge.state.COMPLETE_BYTES", 0)
    monkeypatch.setattr(gathering, "BLOCK", 8)


def test_an_update_is_the_fit_of_old_and_new_photos_together(uint8_model, tiny_fit, more, photos):
    updated = update([uint8_model.path], more)
    new = sorted(more.iterdir())
    assert updated.photos == new
    assert updated.state.count == 24 + 14
    assert [saved.name for saved in updated.earlier] == ["uint8"]
    together = fit([*photos, *new], tiny_fit.options)
    assert_same(updated, together, exactly=False)


def test_a_table_gives_the_scenes_of_new_photos(uint8_model, tiny_fit, more, tmp_path):
    names = [path.name for path in sorted(more.iterdir())]
    lines = [f"{name},{i // 2}\n" for i, name in enumerate(names)]
    (tmp_path / "groups.csv").write_text("file,group\n" + "".join(lines))
    options = dataclasses.replace(tiny_fit.options, groups=str(tmp_path / "groups.csv"))
    updated = update([uint8_model.path], more, options)
    assert updated.scenes == 24 + 7
    np.testing.assert_array_equal(updated.groups, [*range(24), *np.arange(14) // 2 + 24])
    scores = updated.held_out_scores
    assert scores.max() < 3 * np.median(scores)  # the earlier ones were held out as well
    merged = export(updated, tmp_path / "updated")
    (tmp_path / "groups.csv").unlink()  # nobody asks for it where there are no photos
    assert update([merged.path, uint8_model.path]).scenes == 2 * 24 + 7
    alone = dataclasses.replace(options, groups="none")
    assert update([merged.path, uint8_model.path], None, alone).scenes == 2 * 24 + 14


def test_a_merged_state_is_merged_again(uint8_model, tiny_fit, more, photos, tmp_path):
    new = sorted(more.iterdir())
    first = export(new[:7], tmp_path / "first", tiny_fit.options)
    second = export(new[7:], tmp_path / "second", models=[uint8_model.path])
    assert second.card.training.updated == ["uint8"]
    assert (second.card.training.images, second.card.training.method) == (31, "pca")
    merged = export(None, tmp_path / "merged", models=[second.path, first.path])
    assert merged.card.training.images == 38
    assert merged.variant("fp32").parity.images == 32
    assert "golden photos of the merged" in merged.variant("fp32").parity.source
    state, _ = read_tensors(merged.path / "fit.safetensors")
    together = fit([*photos, *new[7:], *new[:7]], tiny_fit.options)
    np.testing.assert_allclose(state["held_out_scores"], together.held_out_scores, rtol=1e-5)


def test_only_float32_can_be_updated(uint8_model, more, tmp_path):
    bf16 = ExportOptions(precision="bf16")
    with pytest.raises(UsageError, match="'bf16': only fp32 can be updated"):
        export(more, tmp_path / "m", None, bf16, [uint8_model.path])
    updated = update([uint8_model.path], more)
    with pytest.raises(UsageError, match="'bf16': only fp32 can be updated"):
        export(updated, tmp_path / "m", None, bf16)
    with pytest.raises(UsageError, match="models cannot be given with a Fit"):
        export(updated, tmp_path / "m", models=[uint8_model.path])


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"size": (64, 96)}, r"size \(\[64, 64\] and \[64, 96\]\)"),
        ({"layers": ("layer1", "layer3")}, "layers"),
        ({"backbone": "resnet34"}, "backbone .resnet18 and resnet34"),
        ({"pool": 4}, "pool .2 and 4"),
        ({"seed": 1}, "weights_sha256 .random, seed 0 and random, seed 1"),
    ],
)
def test_what_cannot_be_compared_is_refused_by_name(uint8_model, tiny_fit, more, change, field):
    options = dataclasses.replace(tiny_fit.options, **change)
    with pytest.raises(DataError, match=f"uint8 and this fit differ in {field}"):
        update([uint8_model.path], more, options)


def test_models_that_differ_are_not_merged(uint8_model, max_model):
    with pytest.raises(DataError, match="uint8 and max differ in layers"):
        update([uint8_model.path, max_model.path])


def test_there_must_be_something_to_update(uint8_model):
    with pytest.raises(UsageError, match="nothing to add to it; give IMAGES, or a second model"):
        update([uint8_model.path])
    with pytest.raises(UsageError, match="no model to update"):
        update([])


def test_a_model_from_before_there_were_limits_gets_none(writable_model):
    tensors, notes = read_tensors(writable_model / "fit.safetensors")
    saved = json.loads(notes["options"])
    assert saved.pop("max_components") == {}
    write_tensors(
        writable_model / "fit.safetensors", tensors, notes | {"options": json.dumps(saved)}
    )
    write_manifest(writable_model)
    assert Saved.read(writable_model).options.max_components == {}


def test_a_model_without_a_state_says_so(writable_model, more):
    file = writable_model / "fit.safetensors"
    file.write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    write_manifest(writable_model)
    with pytest.raises(ArtifactError, match="holds no state that can be updated"):
        update([writable_model], more)


def test_many_photos_are_streamed_and_calibrated_as_few_are(photos, streams):
    exact = fit(photos, dataclasses.replace(OPTIONS, components=6, groups="none", method="pca"))
    stream = dataclasses.replace(OPTIONS, components=6, groups="none", method="incremental")
    found = fit(photos, stream)
    assert found.plan.streams
    assert found.state.count == len(found.held_out_scores) == 24
    # Other folds, the same kind of scores: none was seen by its subspace.
    np.testing.assert_allclose(
        found.subspaces[0][0].components, exact.subspaces[0][0].components, atol=1e-4
    )
    assert np.median(found.held_out_scores) == pytest.approx(
        np.median(exact.held_out_scores), rel=0.3
    )
    module = found.module()
    in_sample = [float(module.raw(fitting_input(path))[0]) for path in photos[:6]]
    assert np.mean(in_sample) < 0.8 * found.held_out_scores[:6].mean()


def fitting_input(path):
    import torch

    from fre_runtime.image import read_image

    return torch.from_numpy(resize(read_image(path), 32, 32))[None]


def test_sketched_models_are_updated_and_stay_calibrated(photos, streams, tmp_path, monkeypatch):
    options = dataclasses.replace(OPTIONS, components=6, groups="none")
    first = fit(photos[:16], options)
    assert first.state.complete
    path = tmp_path / "fit.safetensors"
    save_fit(first, path)
    tensors, notes = read_tensors(path)
    assert "layer1.sketch.4.rows" in tensors
    saved = Saved.parse("first", tensors, notes, np.zeros((32, 32, 3), np.uint8))
    assert not saved.state.complete
    updated = fitting._fit(photos[16:], saved.options, [saved])
    assert updated.state.count == 24
    assert updated.plan.method == "incremental"
    together = fit(photos, dataclasses.replace(options, method="pca"))
    np.testing.assert_allclose(
        updated.subspaces[0][0].components, together.subspaces[0][0].components, atol=1e-4
    )
    with pytest.raises(UsageError, match="tied-ae needs the features of all photos"):
        fitting._fit(photos[16:], dataclasses.replace(options, method="tied-ae"), [saved])


class Killed(BaseException):
    pass


@pytest.fixture
def kill(monkeypatch):
    """``kill(n)``: the process ends as the n-th photo passes the trunk; 0: not at all."""
    real = extraction.TorchTrunk.__call__
    monkeypatch.setattr(checkpoint, "EVERY", 0.0)

    def after(count):
        calls = []

        def call(self, image):
            calls.append(image)
            if len(calls) == count:
                raise Killed
            return real(self, image)

        monkeypatch.setattr(extraction.TorchTrunk, "__call__", call)
        return calls

    return after


@pytest.mark.parametrize("method", ["pca", "incremental", "randomized", "tied-ae"])
def test_goes_on_after_a_kill_to_the_same_result(photos, tmp_path, kill, streams, method):
    scratch = str(tmp_path / "scratch")
    options = dataclasses.replace(OPTIONS, method=method, components=4, groups="none")
    expected = fit(photos, options)
    resumed = dataclasses.replace(options, scratch=scratch)
    kill(14)
    with pytest.raises(Killed):
        fit(photos, resumed)
    calls = kill(0)
    found = fit(photos, resumed)
    assert 0 < len(calls) < 24
    assert_same(found, expected)
    assert found.photos == expected.photos
    clear(tmp_path / "scratch")
    assert not (tmp_path / "scratch").exists()


@pytest.mark.parametrize("lost", ["missing", "cut"])
def test_features_that_were_lost_are_not_taken_for_zeros(lost, photos, tmp_path, kill):
    options = dataclasses.replace(OPTIONS, method="pca", scratch=str(tmp_path / "scratch"))
    kill(14)
    with pytest.raises(Killed):
        fit(photos, options)
    kill(0)
    path = tmp_path / "scratch" / "layer_0.f32"
    if lost == "missing":
        path.unlink()
    else:
        os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(DataError, match=r"layer_0.f32: is missing or was cut .* empty folder"):
        fit(photos, options)


def test_a_photo_that_changed_meanwhile_begins_no_mixture(tmp_path, kill, make_folder):
    folder = make_folder(tmp_path / "good", 10)
    options = dataclasses.replace(OPTIONS, scratch=str(tmp_path / "scratch"))
    kill(6)
    with pytest.raises(Killed):
        fit(folder, options)
    kill(0)
    shutil.copy(folder / "photo_001.png", folder / "photo_000.png")
    with pytest.raises(DataError, match="the fit that was stopped there had another photos"):
        fit(folder, options)


def test_no_photos_are_refused(photos, tmp_path):
    with pytest.raises(DataError, match="the list of photos is empty"):
        fit([], OPTIONS)


def test_features_of_another_precision_are_foreseen(photos, monkeypatch):
    fitted = fit(photos, dataclasses.replace(OPTIONS, method="pca"))
    monkeypatch.setattr("fre_edge.memory.free_memory", lambda: 10**4)
    with pytest.raises(MemoryLimitError, match=r"features of 24 photos as another .* --scratch"):
        fitted.gather(extraction.TorchTrunk(fitted.extractor()))


def test_features_on_disk_can_be_gathered_again_once_they_were_cleared(photos, tmp_path):
    scratch = tmp_path / "scratch"
    fitted = fit(photos, dataclasses.replace(OPTIONS, method="pca", scratch=str(scratch)))
    expected = fitted.state.kept[0].copy()
    clear(scratch)
    seen = fitted.gather(extraction.TorchTrunk(fitted.extractor()))
    np.testing.assert_array_equal(seen.kept[0], expected)
    again = fitted.recalibrate(seen)
    np.testing.assert_allclose(again.held_out_scores, fitted.held_out_scores, rtol=1e-5)


def test_copies_and_broken_files_are_remembered_after_a_kill(photos, tmp_path, kill, make_folder):
    folder = make_folder(tmp_path / "good", 10)
    (folder / "a_broken.png").write_bytes(b"no photo")
    (folder / "z_copy.png").write_bytes((folder / "photo_000.png").read_bytes())
    options = dataclasses.replace(OPTIONS, scratch=str(tmp_path / "scratch"))
    kill(6)
    with pytest.raises(Killed):
        fit(folder, options)
    kill(0)
    found = fit(folder, options)
    assert [path.name for path in found.skipped] == ["a_broken.png", "z_copy.png"]
    assert len(found.photos) == 10


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"size": (64, 64)}, "size"),
        ({"method": "incremental"}, "method"),
        ({"pool": 1}, "pool"),
        ({"pool_overlap": ("layer1",)}, "pool_overlap"),
        ({"max_pixels": 10**6}, "max_pixels"),
    ],
)
def test_another_fit_does_not_go_on_there(photos, tmp_path, change, field):
    options = dataclasses.replace(OPTIONS, scratch=str(tmp_path))
    fit(photos[:6], options)
    with pytest.raises(DataError, match=f"stopped there had another {field}"):
        fit(photos[:6], dataclasses.replace(options, **change))
    with pytest.raises(DataError, match="stopped there had another photos"):
        fit(photos[:7], options)
    (tmp_path / checkpoint.FILE).write_bytes(b"broken")
    with pytest.raises(ArtifactError, match="progress.safetensors: cannot be read.* remove it"):
        fit(photos[:6], options)


def test_a_full_disk_costs_the_checkpoint_alone(photos, tmp_path, kill, monkeypatch, caplog):
    def full(*_):
        raise OSError(28, "No space left on device")

    kill(0)
    monkeypatch.setattr("fre_edge.tensors.save_file", full)
    with caplog.at_level(logging.WARNING):
        fit(photos, dataclasses.replace(OPTIONS, method="incremental", scratch=str(tmp_path)))
    assert "progress could not be saved" in caplog.text
    assert "No space left" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_a_scratch_folder_that_cannot_be_written(photos, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        fit(photos, dataclasses.replace(OPTIONS, scratch=str(tmp_path / "file" / "x")))


def test_an_export_empties_its_scratch_folder(photos, tmp_path):
    scratch = tmp_path / "scratch"
    export(photos[:6], tmp_path / "m", dataclasses.replace(OPTIONS, scratch=str(scratch)))
    assert not scratch.exists()


def test_too_little_memory_is_foreseen(photos, monkeypatch):
    monkeypatch.setattr("fre_edge.memory.free_memory", lambda: 10**4)
    for method in ("pca", "randomized", "tied-ae", "incremental"):
        with pytest.raises(MemoryLimitError, match=f"--method {method} on 24 photos needs .* MB"):
            fit(photos, dataclasses.replace(OPTIONS, method=method))
