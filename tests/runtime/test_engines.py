"""The engines themselves, below the detector."""

import shutil

import numpy as np
import pytest

from fre_runtime.engines import ENGINES
from fre_runtime.engines.base import Settings
from fre_runtime.engines.loading import load_engine, open_engine
from fre_runtime.errors import EngineError
from fre_runtime.image import read_image
from fre_runtime.model_dir import GOLDEN_IMAGE, open_model_dir


@pytest.mark.parametrize("name", ENGINES)
def test_an_engine_refuses_what_the_graph_does_not_take(uint8_model, name):
    engine = open_engine(open_model_dir(uint8_model.path), name, "fp32", 1, throughput=False)
    height, width, channels = uint8_model.card.graph.input_shape
    for batch in (
        np.zeros((1, height, width, channels), np.float32),
        np.zeros((1, height, width, 1), np.uint8),  # would spread over the channels
        np.zeros((1, 1, 1, channels), np.uint8),
        np.zeros((height, width, channels), np.uint8),
    ):
        with pytest.raises(EngineError, match=str(batch.dtype)):
            engine.run(batch)


@pytest.mark.parametrize("name", ENGINES)
def test_an_engine_reads_any_layout_and_leaves_the_batch_alone(uint8_model, name):
    engine = open_engine(open_model_dir(uint8_model.path), name, "fp32", 1, throughput=False)
    batch = read_image(uint8_model.path / GOLDEN_IMAGE)[None]
    expected = engine.run(batch)
    strided = np.asfortranarray(batch)
    strided.setflags(write=False)
    got = engine.run(strided)
    np.testing.assert_array_equal(got.anomaly_map, expected.anomaly_map)
    np.testing.assert_array_equal(strided, batch)


@pytest.mark.parametrize("weights", [None, b"", b"short"])
def test_openvino_refuses_a_graph_without_its_weights(uint8_model, tmp_path, weights):
    shutil.copy(uint8_model.path / "openvino/model.xml", tmp_path)
    if weights is not None:
        (tmp_path / "model.bin").write_bytes(weights)
    with pytest.raises(EngineError, match=r"model\.xml: OpenVINO refuses it"):
        load_engine("openvino", tmp_path / "model.xml", uint8_model.card.graph, Settings(1))
