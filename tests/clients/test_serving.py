"""serving.md, followed by its clients: a real Triton, fre-serve, Model API over the network."""

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

from fre_runtime import Detector
from fre_runtime.commands import deploy
from fre_runtime.commands.common import run_command
from fre_runtime.repository import lay_out
from fre_runtime.serve.kserve import model_metadata

TRITON = ("nvidia-pytriton==0.7.0", "onnxruntime==1.31.1", "tritonclient[http,grpc]==2.73.0")
"""The wheel holds the real server, with its backend for Python only."""
PARSE = """
import json, sys
from google.protobuf import json_format, text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig
config = text_format.Parse(sys.stdin.read(), ModelConfig())
json.dump(json_format.MessageToDict(config, preserving_proto_field_name=True), sys.stdout)
"""
ASK = """
import sys, time
import numpy as np
import tritonclient.http as http
client = http.InferenceServerClient(sys.argv[1])
image = http.InferInput("image", [1, 256, 256, 3], "UINT8")
image.set_data_from_numpy(np.full((1, 256, 256, 3), 90, np.uint8))
versions, end = [], time.monotonic() + 40
print("asking", flush=True)
while time.monotonic() < end and "2" not in versions:
    version = client.infer("model", [image]).get_response()["model_version"]
    if version not in versions:
        versions.append(version)
    time.sleep(0.01)
print(" ".join(versions))
"""


def pip_line(page, package):
    """What the page's ``pip install`` line with ``package`` installs."""
    (line,) = (b for b in page.blocks("bash") if b.startswith("pip install") and package in b)
    return shlex.split(line)[2:]


def blocks(page, word, **replaced):
    """The page's Python from the block with ``word`` on to the next, which scores a photo."""
    found = page.blocks("python")
    first = next(i for i, block in enumerate(found) if word in block)
    texts = found[first : first + 2]
    for old, new in replaced.values():
        assert any(old in text for text in texts)
        texts = [text.replace(old, new) for text in texts]
    return texts


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def get(address, path):
    with urllib.request.urlopen(f"http://{address}{path}", timeout=5) as answer:
        return json.load(answer)


@contextmanager
def running(command, address, ready, log, **options):
    """A server, from when it is ready."""
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, **options)
    try:
        end = time.monotonic() + 120
        while True:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            try:
                urllib.request.urlopen(f"http://{address}{ready}", timeout=5).close()
                break
            except OSError:
                time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def serving_page(page):
    return page("serving.md")


@pytest.fixture(scope="module")
def servers(serving_page, golden_model, golden_float_model, tmp_path_factory):
    """What the page's first command writes, and the float flavour beside it."""
    folder = tmp_path_factory.mktemp("servers")
    (folder / "model").symlink_to(golden_model.path)
    program, *arguments = shlex.split(serving_page.blocks("bash")[0])
    assert program == "fre-deploy"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run_command(deploy, [*arguments, "--name", "model"]) == 0
    lay_out(golden_float_model, folder / "servers", name="float")
    return folder / "servers"


@pytest.fixture(scope="module")
def triton_python(venv):
    return venv("triton", *TRITON)


@pytest.fixture(scope="module")
def triton(triton_python, servers, client_environ, tmp_path_factory):
    """The address of a Triton that watches the directory."""
    folder = tmp_path_factory.mktemp("triton")
    (site,) = triton_python.parent.parent.glob("lib/python*/site-packages")
    home = site / "pytriton/tritonserver"
    version = "{}.{}".format(*sys.version_info)
    backends = folder / "backends"
    shutil.copytree(home / "backends/python", backends / "python")
    stub = home / "python_backend_stubs" / version / "triton_python_backend_stub"
    for program in (stub, home / "bin/tritonserver"):
        program.chmod(0o755)
    (backends / "python" / stub.name).symlink_to(stub)
    (backends / "onnxruntime").mkdir()
    shutil.copy(Path(__file__).with_name("triton_backend.py"), backends / "onnxruntime/model.py")
    port = free_port()
    address = f"127.0.0.1:{port}"
    options = [
        "--http-address=127.0.0.1", f"--http-port={port}", "--allow-grpc=false",
        "--allow-metrics=false", "--model-control-mode=poll", "--repository-poll-secs=1",
        f"--model-repository={servers / 'triton'}", f"--backend-directory={backends}",
    ]  # fmt: skip
    environ = client_environ | {
        "LD_LIBRARY_PATH": str(site / "nvidia_pytriton.libs"),
        "PATH": f"{triton_python.parent}{os.pathsep}{client_environ['PATH']}",
        "PYTHONPATH": str(site),
    }
    command = [home / "bin/tritonserver", *options]
    log = folder / "log"
    with running(command, address, "/v2/health/ready", log, env=environ):
        yield address


@contextmanager
def fre_serve(model, log):
    """The address of a fre-serve."""
    address = f"127.0.0.1:{free_port()}"
    start = "from fre_runtime.commands.launch import serve; serve()"
    command = [sys.executable, "-c", start, model.path, "--port", address.rpartition(":")[2]]
    with running(command, address, "/v2/health/ready", log):
        yield address


@pytest.fixture(scope="module")
def served(golden_model, tmp_path_factory):
    with fre_serve(golden_model, tmp_path_factory.mktemp("served") / "log") as address:
        yield address


@pytest.fixture(scope="module")
def served_float(golden_float_model, tmp_path_factory):
    with fre_serve(golden_float_model, tmp_path_factory.mktemp("served") / "log") as address:
        yield address


@pytest.mark.parametrize(
    ("name", "flavour"), [("model", "golden_model"), ("float", "golden_float_model")]
)
def test_triton_s_own_schema_reads_the_graph_s_tensors(
    request, triton_python, servers, client_environ, name, flavour
):
    model = request.getfixturevalue(flavour)
    done = subprocess.run(
        [triton_python, "-c", PARSE],
        input=(servers / "triton" / name / "config.pbtxt").read_text(),
        capture_output=True, text=True, check=True, env=client_environ,
    )  # fmt: skip
    config = json.loads(done.stdout)
    told = model_metadata(model.card, "onnxruntime", {})
    for ours, kind in (("inputs", "input"), ("outputs", "output")):
        found = [
            {
                "name": t["name"],
                "datatype": t["data_type"][5:],
                "shape": [int(d) for d in t["dims"]],
            }
            for t in config[kind]
        ]
        assert found == told[ours]
    assert config["backend"] == "onnxruntime"
    assert config["instance_group"] == [{"count": 1, "kind": "KIND_CPU"}]


def test_triton_tells_clients_what_fre_serve_tells_them(triton, served, golden_model):
    told = get(triton, "/v2/models/model")
    ours = get(served, f"/v2/models/{golden_model.card.name}")
    assert told["platform"] == "onnxruntime_onnx"
    assert (told["inputs"], told["outputs"]) == (ours["inputs"], ours["outputs"])


PROBES = {
    "size": "client.infer('NAME', [tensor((1, 200, 256, 3), 'UINT8')])",
    "axes": "client.infer('NAME', [tensor((1, 3, 256, 256), 'UINT8')])",
    "type": "client.infer('NAME', [tensor((1, 256, 256, 3), 'FP32')])",
    "bytes": "client.infer('NAME', [short()])",
    "tensor": "client.infer('NAME', [tensor((1, 256, 256, 3), 'UINT8', 'input')])",
    "model": "client.infer('other', [image])",
    "bgr": "client.infer('NAME', [tensor(None, 'UINT8')]).as_numpy('pred_score').tolist()",
    "many": "client.infer('NAME', [tensor((33, 256, 256, 3), 'UINT8')]).get_output('pred_score')",
}
HELP = """
import numpy as np

def tensor(shape, kind, name="image"):
    dtype = {"UINT8": np.uint8, "FP32": np.float32}[kind]
    array = np.zeros(shape, dtype) if shape else photo[None, ..., ::-1].copy()
    given = http.InferInput(name, list(array.shape), kind)
    given.set_data_from_numpy(array)
    return given

def short():
    given = tensor((1, 256, 256, 3), "UINT8")
    given._raw_data = given._raw_data[:-1]
    given._parameters["binary_data_size"] -= 1
    return given
"""


def probes(name):
    return {key: text.replace("NAME", name) for key, text in PROBES.items()}


@pytest.fixture(scope="module")
def client_python(venv, serving_page):
    return venv("kserve", *pip_line(serving_page, "tritonclient"))


def ask(follow, python, page, address, name, model, photos):
    first, each = blocks(
        page,
        "InferenceServerClient",
        port=("127.0.0.1:8000", address),
        name=('"model"', f'"{name}"'),
    )
    record = "[score, label]"
    return follow(python, [first + HELP, each], model, photos, record, probes(name))


@pytest.mark.parametrize("server", ["triton", "fre-serve"])
def test_the_page_s_client_gets_our_scores_and_clear_words(
    request, follow, client_python, serving_page, golden_model, photos, server
):
    address = request.getfixturevalue({"triton": "triton", "fre-serve": "served"}[server])
    name = "model" if server == "triton" else golden_model.card.name
    paths = [*photos["camera"], *photos["exact"]]  # the last one has colour
    got, tried = ask(follow, client_python, serving_page, address, name, golden_model, paths)
    detector = Detector(golden_model, "onnxruntime")
    for path, (score, label) in zip(paths, got, strict=True):
        ours = detector(path)
        exact = path in photos["exact"]
        assert score == pytest.approx(ours.score, abs=1e-4 if exact else 0.02)
        assert not exact or label == ours.is_anomalous
    for wrong in ("size", "axes", "type", "bytes", "tensor", "model"):
        assert tried[wrong].startswith("InferenceServerException"), (wrong, tried[wrong])
    for wrong in ("size", "axes", "type"):
        assert ("256" if wrong != "type" else "UINT8") in tried[wrong]
    assert tried["bgr"][0] != pytest.approx(got[-1][0], abs=1e-3)
    if server == "triton":
        assert tried["many"]["shape"] == [33]
    else:
        assert "n in 1..32" in tried["many"]


def test_triton_switches_to_the_next_version_without_losing_an_answer(
    triton, triton_python, servers, golden_model, client_environ
):
    asking = subprocess.Popen(
        [triton_python, "-c", ASK, triton], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env=client_environ,
    )  # fmt: skip
    assert asking.stdout.readline() == "asking\n"
    assert lay_out(golden_model, servers, name="model").version == 2
    printed, errors = asking.communicate(timeout=60)
    assert asking.returncode == 0, errors
    assert printed.split() == ["1", "2"]
    assert get(triton, "/v2/models/model")["versions"] == ["2"]


@pytest.fixture(scope="module")
def model_api(venv, serving_page):
    return venv("model-api-ovms", *pip_line(serving_page, "openvino-model-api"))


def test_model_api_over_the_network_gives_our_scores(
    follow, model_api, serving_page, served, golden_model, photos
):
    name = golden_model.card.name
    first, each = blocks(
        serving_page,
        "OVMSAdapter",
        at=("127.0.0.1:8080", served),
        name=("models/model", f"models/{name}"),
    )
    tried_too = {
        "unchanged adapter": f"Model.create_model('{served}/v2/models/{name}')(image)",
        "size": "model(image[:200])",
        "bgr": "model(image[..., ::-1].copy()).pred_score",
    }
    record = "[result.pred_score, result.pred_label, result.anomaly_map.shape]"
    paths = photos["exact"]
    got, tried = follow(model_api, [first, each], golden_model, paths, record, tried_too)
    detector = Detector(golden_model, "openvino")
    for path, (score, label, shape) in zip(paths, got, strict=True):
        ours = detector(path)
        assert score == pytest.approx(ours.score, abs=1e-5)
        assert label == str(ours.is_anomalous)
        assert shape == [256, 256]
    assert "read-only" in tried["unchanged adapter"]
    assert "must have the shape [n, 256, 256, 3]" in tried["size"]
    assert tried["bgr"] != pytest.approx(got[-1][0], abs=1e-3)


def test_model_api_s_pictures_do_not_fit_the_float_flavour(
    follow, model_api, serving_page, served_float, golden_float_model, photos
):
    first, each = blocks(
        serving_page,
        "OVMSAdapter",
        at=("127.0.0.1:8080", served_float),
        name=("models/model", f"models/{golden_float_model.card.name}"),
        quiet=("result = model(image)", "result = model"),
        nothing=(
            'print("anomalous" if result.pred_label == "True" else "good", result.pred_score)',
            "",
        ),
    )
    paths, wrong = photos["exact"][:1], {"float": "model(image)"}
    _, tried = follow(model_api, [first, each], golden_float_model, paths, "0", wrong)
    assert re.search(
        r"must have the shape \[n, 3, 256, 256\].*got \[1, 256, 256, 3\]", tried["float"]
    )


def test_fre_serve_refuses_floats_of_another_scale(served_float, golden_float_model):
    name = golden_float_model.card.name
    tensor = {"name": "input", "shape": [1, 3, 256, 256], "datatype": "FP32"}
    tensor["data"] = [200.0] * (3 * 256 * 256)
    request = urllib.request.Request(
        f"http://{served_float}/v2/models/{name}/infer", json.dumps({"inputs": [tensor]}).encode()
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=30)
    assert refused.value.code == 400
    assert "must lie in 0..1" in json.load(refused.value)["error"]
