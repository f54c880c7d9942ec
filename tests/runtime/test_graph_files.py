import shutil

import numpy as np
import onnx
import openvino
import pytest

from fre_runtime.engines import Settings
from fre_runtime.engines.loading import load_engine
from fre_runtime.errors import ArtifactError
from fre_runtime.graph_files import rewrite
from fre_runtime.preprocess import prepare

CONSTANTS = {"head.image_tau": 3.5, "head.pixel_tau": 0.25}
METADATA = {"fre_image_threshold": "3.5", "fre_view": 'é "<&>" ' + "long " * 50}


@pytest.fixture(params=["uint8_model", "float_model", "max_model"])
def models(request, tmp_path):
    """A model and a copy with other thresholds; in one of them both thresholds were equal."""
    model = request.getfixturevalue(request.param)
    copy = shutil.copytree(model.path, tmp_path / "copy")
    for file in ("model.onnx", "openvino/model.xml"):
        rewrite(copy / file, CONSTANTS, METADATA)
    return model, copy


def test_onnx_changes_in_nothing_else(models):
    model, copy = models
    before, after = (onnx.load(path / "model.onnx") for path in (model.path, copy))
    onnx.checker.check_model(after, full_check=True)
    changed = [
        (old.name, float(onnx.numpy_helper.to_array(new)))
        for old, new in zip(before.graph.initializer, after.graph.initializer, strict=True)
        if old != new
    ]
    assert dict(changed) == CONSTANTS
    stated = {entry.key: entry.value for entry in before.metadata_props} | METADATA
    assert {entry.key: entry.value for entry in after.metadata_props} == stated
    for one in (before, after):
        del one.graph.initializer[:]
        del one.metadata_props[:]
    assert before == after


def test_openvino_changes_in_nothing_else(models):
    model, copy = models
    nodes = []
    for path in (model.path, copy):
        read = openvino.Core().read_model(path / "openvino/model.xml")
        nodes.append({n.get_friendly_name(): n for n in read.get_ops()})
    assert nodes[0].keys() == nodes[1].keys()
    changed = {
        name: float(node.data)
        for name, node in nodes[1].items()
        if node.get_type_name() == "Constant" and not np.array_equal(node.data, nodes[0][name].data)
    }
    assert changed == CONSTANTS


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_both_engines_see_the_new_thresholds(models, engine, make_photo):
    model, copy = models
    variant, graph = model.variant("fp32"), model.card.graph
    batch = prepare(make_photo(7), graph)
    old, new = (
        load_engine(engine, path / variant.files[engine], graph, Settings(1))
        for path in (model.path, copy)
    )
    raw = variant.calibration.image.raw(old.run(batch).pred_score)
    np.testing.assert_allclose(new.run(batch).pred_score, raw / (raw + 3.5), rtol=1e-5)
    assert new.metadata["fre_view"] == METADATA["fre_view"]
    if graph.map_size == "native":
        raw_map = variant.calibration.pixel.raw(old.run(batch).anomaly_map)
        expected = raw_map / (raw_map + 0.25)
        np.testing.assert_allclose(new.run(batch).anomaly_map, expected, rtol=1e-4)


@pytest.mark.parametrize("file", ["model.onnx", "openvino/model.xml"])
def test_a_file_without_the_constant_is_refused_and_stays(writable_model, file):
    before = (writable_model / file).read_bytes()
    with pytest.raises(ArtifactError, match="no constant head.other.* export the model again"):
        rewrite(writable_model / file, {"head.other": 1.0}, {})
    with pytest.raises(ArtifactError, match="no metadata nothing"):
        rewrite(writable_model / file, {}, {"nothing": "1"})
    assert (writable_model / file).read_bytes() == before


@pytest.mark.parametrize("keep", [0.5, 0.999])
@pytest.mark.parametrize("file", ["model.onnx", "openvino/model.xml"])
def test_a_cut_file_is_refused(writable_model, file, keep):
    path = writable_model / file
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    with pytest.raises(ArtifactError, match="cannot be changed"):
        rewrite(path, CONSTANTS, METADATA)
