"""KServe v2 over REST: the protocol's words, and a client that is not ours."""

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from fre_runtime import Detector
from fre_runtime.engines.base import Outputs
from fre_runtime.image import encode_image
from fre_runtime.preprocess import prepare
from fre_runtime.serve.kserve import (
    JSON_LENGTH,
    InferRequest,
    ProtocolError,
    format_answer,
    json_limit,
    model_metadata,
    parse_request,
)
from fre_runtime.serve.server import bind, serving


@pytest.fixture
def batch(uint8_model, make_photo):
    return np.concatenate([prepare(make_photo(seed), uint8_model.card.graph) for seed in (1, 2)])


@pytest.fixture
def path(uint8_model):
    return f"/v2/models/{uint8_model.card.name}"


def tensor(batch, **changes):
    plain = {
        "name": "image",
        "datatype": "UINT8",
        "shape": list(batch.shape),
        "data": batch.ravel().tolist(),
    }
    return {key: value for key, value in (plain | changes).items() if value is not None}


def test_the_server_tells_what_it_is(client, path, uint8_model):
    assert client.get("/v2").json()["extensions"] == ["binary_tensor_data"]
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    name = uint8_model.card.name
    assert client.get(f"{path}/ready").json() == {"name": name, "ready": True}
    told = client.get(path).json()
    assert told == client.get(f"{path}/versions/1").json()
    assert (told["name"], told["versions"], told["platform"]) == (name, ["1"], "openvino_ir")
    said = told["rt_info"]["model_info"]
    assert said["model_type"] == "AnomalyDetection"
    calibration = uint8_model.card.variants["fp32"].calibration
    assert float(said["fre_image_threshold"]) == calibration.image.value
    assert told["inputs"] == [{"name": "image", "datatype": "UINT8", "shape": [-1, 64, 64, 3]}]
    outputs = [(o["name"], o["datatype"], len(o["shape"])) for o in told["outputs"]]
    assert outputs == [
        ("pred_score", "FP32", 1),
        ("pred_label", "BOOL", 1),
        ("anomaly_map", "FP32", 4),
        ("pred_mask", "BOOL", 4),
    ]


@pytest.mark.parametrize("suffix", ["", "/ready"])
@pytest.mark.parametrize("model", ["other", "{name}/versions/2", "%00", "{name}%2f"])
def test_other_models_are_not_here(client, uint8_model, model, suffix):
    name = uint8_model.card.name
    response = client.get(f"/v2/models/{model.format(name=name)}{suffix}")
    assert response.status_code == 404
    assert "error" in response.json()


@pytest.mark.parametrize("nested", [True, False])
def test_json_in_json_out(client, path, detector, batch, nested):
    data = batch.tolist() if nested else batch.ravel().tolist()
    request = {"id": "part 7", "inputs": [tensor(batch, data=data)]}
    answer = client.post(f"{path}/infer", json=request).json()
    expected = detector.infer(batch)
    assert (answer["id"], answer["model_version"]) == ("part 7", "1")
    assert [output["name"] for output in answer["outputs"]] == list(Outputs._fields)
    for output, array in zip(answer["outputs"], expected, strict=True):
        assert output["shape"] == list(array.shape)
        np.testing.assert_array_equal(np.array(output["data"]).reshape(array.shape), array)


def test_only_what_was_asked_for_comes_back(client, path, batch):
    request = {"inputs": [tensor(batch)], "outputs": [{"name": "pred_label"}]}
    answer = client.post(f"{path}/infer", json=request).json()
    assert [(o["name"], o["datatype"]) for o in answer["outputs"]] == [("pred_label", "BOOL")]
    assert "id" not in answer


NESTED = b"[" * 100_000


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not JSON"),
        (b"\xff\xd8\xff", "not JSON"),
        (b"[]", "must be a JSON object"),
        (NESTED, "not JSON"),
        (b'{"inputs": [{"data": [NaN]}]}', "NaN"),
        (b'{"inputs": []}', "one tensor"),
        (b'{"inputs": [1]}', "one tensor"),
        (b'{"inputs": {"name": "image"}}', "one tensor"),
    ],
)
def test_what_is_no_request_is_refused(client, path, body, reason):
    response = client.post(f"{path}/infer", content=body)
    assert response.status_code == 400
    assert reason in response.json()["error"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"name": "input"}, "'image'"),
        ({"name": "x" * 5000}, "..."),
        ({"datatype": "FP32"}, "UINT8"),
        ({"shape": [2, 3, 64, 64]}, r"\[n, 64, 64, 3\]"),
        ({"shape": [2, 65, 64, 3]}, r"\[n, 64, 64, 3\]"),
        ({"shape": [64, 64, 3]}, r"\[n, 64, 64, 3\]"),
        ({"shape": [0, 64, 64, 3]}, "1..32"),
        ({"shape": [33, 64, 64, 3]}, "1..32"),
        ({"shape": [-1, 64, 64, 3]}, "1..32"),
        ({"shape": [2.0, 64, 64, 3]}, "1..32"),
        ({"shape": None}, "1..32"),
        ({"data": [1, 2, 3]}, "24576 numbers"),
        ({"data": None}, "24576 numbers"),
        ({"data": "abc"}, "24576 numbers"),
        ({"data": [[1, 2], [3]]}, "regular array"),
        ({"data": [[1, 2], 3]}, "24576 numbers of UINT8, got list"),
        ({"data": [[[[[[1]]]]]]}, "24576 numbers of UINT8, got list"),
        ({"data": ["x" * 10**5, *[""] * 10**4]}, "24576 numbers of UINT8, got str"),
        ({"data": [True] * 24576}, "24576 numbers of UINT8, got bool"),
        ({"data": [0.5] * 24576}, "24576 numbers of UINT8"),
        ({"data": [256] * 24576}, r"0\.\.255"),
        ({"data": [-1] * 24576}, r"0\.\.255"),
        ({"data": [10**30, *[0] * 24575]}, "24576 numbers"),
        ({"data": [True] * 24576}, "24576 numbers"),
        ({"parameters": {"shared_memory_region": "r"}}, "shared memory"),
        ({"parameters": [1]}, "must be an object"),
        ({"parameters": {"binary_data_size": 24576}}, "0 bytes follow"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(uint8_model, batch, changes, reason):
    body = json.dumps({"inputs": [tensor(batch, **changes)]}).encode()
    with pytest.raises(ProtocolError, match=reason):
        parse_request(body, None, uint8_model.card.graph)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"outputs": [{"name": "score"}]}, 'no output "score"'),
        ({"outputs": [{}]}, "no output null"),
        ({"outputs": "pred_score"}, "list of objects"),
        ({"outputs": 0}, "list of objects"),
        ({"outputs": [{"name": "pred_score", "parameters": {"classification": 2}}]}, "extension"),
        ({"outputs": [{"name": "pred_score", "parameters": {"binary_data": 1}}]}, "true or false"),
        ({"parameters": {"binary_data_output": "yes"}}, "true or false"),
        ({"id": 7}, "id must be a string"),
    ],
)
def test_wishes_that_cannot_be_met_are_refused(uint8_model, batch, fields, reason):
    body = json.dumps({"inputs": [tensor(batch)], **fields}).encode()
    with pytest.raises(ProtocolError, match=reason):
        parse_request(body, None, uint8_model.card.graph)


@pytest.mark.parametrize(
    ("length", "extra", "reason"),
    [
        ("x", 0, JSON_LENGTH),
        ("-1", 0, JSON_LENGTH),
        ("99999999", 0, JSON_LENGTH),
        ("9" * 5000, 0, JSON_LENGTH),  # more digits than Python reads as a number
        ("²", 0, JSON_LENGTH),
        (None, -1, "24575 bytes follow"),
        (None, 1, "24577 bytes follow"),
    ],
)
def test_binary_parts_of_the_wrong_length_are_refused(uint8_model, batch, length, extra, reason):
    head = json.dumps(
        {"inputs": [tensor(batch, data=None, parameters={"binary_data_size": batch.nbytes})]}
    ).encode()
    body = (head + batch.tobytes() + b"x")[: len(head) + batch.nbytes + extra]
    with pytest.raises(ProtocolError, match=reason):
        parse_request(body, length or str(len(head)), uint8_model.card.graph)


def test_the_json_of_a_request_is_bounded_before_it_is_read(uint8_model, batch):
    graph = uint8_model.card.graph
    limit = json_limit(graph)
    fits = json.dumps({"inputs": [tensor(batch)]}).encode().ljust(limit)
    assert parse_request(fits, None, graph).batch.shape == batch.shape
    with pytest.raises(ProtocolError, match=f"{limit + 1} bytes, over this model's limit"):
        parse_request(fits + b" ", None, graph)
    head = json.dumps(
        {"inputs": [tensor(batch, data=None, parameters={"binary_data_size": batch.nbytes})]}
    ).encode()
    many = parse_request(head + batch.tobytes(), str(len(head)), graph)  # binary parts are not JSON
    np.testing.assert_array_equal(many.batch, batch)


@pytest.mark.parametrize("unit", ["[]", "{}", "[[]]", "0"])
def test_reading_json_takes_bounded_memory(uint8_model, unit):
    graph = uint8_model.card.graph
    plain = {"name": "image", "datatype": "UINT8", "shape": [1, 64, 64, 3], "data": []}
    head, tail = json.dumps({"inputs": [plain]}).split("[]")
    count = (json_limit(graph) - len(head) - len(tail)) // (len(unit) + 1)
    body = f"{head}[{','.join([unit] * count)}]{tail}".encode()
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError, match="must hold 12288 numbers"):
            parse_request(body, None, graph)
        assert tracemalloc.get_traced_memory()[1] < 50 * json_limit(graph)
    finally:
        tracemalloc.stop()


def test_bytes_that_belong_to_nothing_are_refused(uint8_model, batch):
    head = json.dumps({"inputs": [tensor(batch)]}).encode()
    with pytest.raises(ProtocolError, match="3 bytes follow the JSON"):
        parse_request(head + b"abc", str(len(head)), uint8_model.card.graph)


@pytest.mark.parametrize("value", [255.0, -0.5, 1e300])
def test_float_pixels_outside_0_to_1_are_refused(float_model, value):
    graph = float_model.card.graph
    shape = [1, 3, 64, 64]
    data = [0.5] * (3 * 64 * 64 - 1) + [value]
    inputs = [{"name": "input", "datatype": "FP32", "shape": shape, "data": data}]
    with pytest.raises(ProtocolError, match=r"0\.\.1"):
        parse_request(json.dumps({"inputs": inputs}).encode(), None, graph)


def test_float_models_take_floats(float_model, client_for, make_photo):
    detector = Detector(float_model)
    batch = prepare(make_photo(1), float_model.card.graph)
    told = model_metadata(float_model.card, "onnxruntime", {})
    assert told["inputs"] == [{"name": "input", "datatype": "FP32", "shape": [-1, 3, 64, 64]}]
    inputs = [tensor(batch, name="input", datatype="FP32")]
    client = client_for(detector=detector)
    answer = client.post(f"/v2/models/{float_model.card.name}/infer", json={"inputs": inputs})
    score = answer.json()["outputs"][0]["data"]
    np.testing.assert_allclose(score, detector.infer(batch).pred_score, rtol=1e-6)


def test_a_score_that_is_no_number_is_never_sent_as_one(uint8_model):
    bad, mask = np.array([np.nan], np.float32), np.ones((1, 1, 2, 2), bool)
    outputs = Outputs(bad, np.array([True]), np.zeros((1, 1, 2, 2), np.float32), mask)
    plain = InferRequest(np.empty(0), {"pred_score": False}, None)
    with pytest.raises(ProtocolError, match="invalid"):
        format_answer(uint8_model.card, plain, outputs)
    binary = InferRequest(np.empty(0), {"pred_score": True}, None)
    content, headers = format_answer(uint8_model.card, binary, outputs)
    assert np.isnan(np.frombuffer(content[int(headers[JSON_LENGTH]) :], np.float32))[0]


@pytest.fixture
def served(client_for):
    """The address of a real server."""
    with bind("127.0.0.1", 0) as bound, serving(client_for().app, bound):
        yield f"127.0.0.1:{bound.getsockname()[1]}"


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_tritonclient_gets_what_the_detector_gives(
    served, uint8_model, detector, batch, binary_in, binary_out
):
    http = pytest.importorskip("tritonclient.http")
    name = uint8_model.card.name
    with http.InferenceServerClient(served) as triton:
        assert triton.is_server_live()
        assert triton.is_server_ready()
        assert triton.is_model_ready(name)
        assert not triton.is_model_ready("other")
        assert triton.get_server_metadata()["name"] == "fre-serve"
        told = triton.get_model_metadata(name)
        (wanted,) = told["inputs"]
        image = http.InferInput(wanted["name"], list(batch.shape), wanted["datatype"])
        image.set_data_from_numpy(batch, binary_data=binary_in)
        asked = [http.InferRequestedOutput(o["name"], binary_out) for o in told["outputs"]]
        for outputs in (asked, None):
            answer = triton.infer(name, [image], outputs=outputs, request_id="7")
            assert answer.get_response()["id"] == "7"
            for key, array in detector.infer(batch)._asdict().items():
                got = answer.as_numpy(key)
                assert got.dtype == array.dtype
                np.testing.assert_array_equal(got, array)


def test_the_guide_s_client_runs_as_it_stands(
    served, uint8_model, detector, make_photo, tmp_path, monkeypatch, capsys
):
    pytest.importorskip("tritonclient.http")
    guide = (Path(__file__).parents[2] / "docs/how-to/serve.md").read_text(encoding="utf-8")
    code = guide.partition("```python\n")[2].partition("```")[0]
    (tmp_path / "model").symlink_to(uint8_model.path)
    (tmp_path / "photo.jpg").write_bytes(encode_image(make_photo(3), ".jpg"))
    monkeypatch.chdir(tmp_path)
    exec(code.replace("127.0.0.1:8080", served), {})
    score = detector("photo.jpg").score
    assert float(capsys.readouterr().out.strip("[] \n")) == pytest.approx(score, rel=1e-5)


def test_tritonclient_understands_our_refusals(served, uint8_model):
    http = pytest.importorskip("tritonclient.http")
    wrong = http.InferInput("image", [1, 8, 8, 3], "UINT8")
    wrong.set_data_from_numpy(np.zeros((1, 8, 8, 3), np.uint8))
    with http.InferenceServerClient(served) as triton:
        with pytest.raises(http.InferenceServerException, match=r"\[n, 64, 64, 3\]"):
            triton.infer(uint8_model.card.name, [wrong])
        with pytest.raises(http.InferenceServerException, match="the only model here"):
            triton.get_model_metadata("other")


def test_the_detector_refuses_tensors_of_other_models(detector):
    with pytest.raises(ValueError, match=r"uint8 of shape \(n, 64, 64, 3\), got float32"):
        detector.infer(np.zeros((1, 3, 64, 64), np.float32))
    with pytest.raises(ValueError, match=r"got uint8 of shape \(0, 64, 64, 3\)"):
        detector.infer(np.zeros((0, 64, 64, 3), np.uint8))
