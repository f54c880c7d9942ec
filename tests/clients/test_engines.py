"""The engines themselves, without anything of ours, and the contract that all clients stand on."""

import re
import subprocess

import numpy as np
import pytest

from fre_runtime import Detector, read_image
from fre_runtime.image import encode_image, resize

BYTES, FLOATS = "image[None]", "image[None].transpose(0, 3, 1, 2) / np.float32(255)"


@pytest.fixture(scope="module")
def python(venv, page):
    """``python(name)`` gives the environment that a page installs."""
    return lambda name: venv("engines", *page(name).requirements)


def as_floats(block: str, dictionary: bool) -> str:
    """A page's block for the default flavour, as the page changes it for the other one."""
    given = f'{{"image": {BYTES}}}' if dictionary else BYTES
    wanted = f'{{"input": {FLOATS}}}' if dictionary else FLOATS
    assert given in block
    return block.replace(given, wanted)


@pytest.mark.parametrize("client", ["onnxruntime.md", "openvino.md"])
@pytest.mark.parametrize("flavour", ["golden_model", "golden_float_model"])
def test_the_page_gives_our_scores(client, flavour, python, page, follow, photos, request):
    model = request.getfixturevalue(flavour)
    first, second = page(client).blocks("python")
    if flavour == "golden_float_model":
        assert FLOATS in page(client).text
        first = f"{first}\nimport numpy as np"
        second = as_floats(second, client == "onnxruntime.md")
    record = "[float(score[0]), bool(label[0]), anomaly_map]"
    if client == "openvino.md":
        record = (
            "[float(outputs['pred_score'][0]), bool(outputs['pred_label'][0]), "
            "outputs['anomaly_map']]"
        )
    paths = [*photos["exact"], *photos["camera"], *photos["large"]]
    answers, _ = follow(python(client), [first, second], model, paths, record)
    detector = Detector(model, "openvino")
    for (score, label, anomaly_map), path in zip(answers, paths, strict=True):
        ours = detector(path)
        near = 0.02 if path in photos["large"] else 1e-4
        assert score == pytest.approx(ours.score, abs=near)
        assert label == ours.is_anomalous
        np.testing.assert_allclose(anomaly_map[0][0], ours.native_map, atol=max(near, 1e-3))
    assert {label for _, label, _ in answers} == {True, False}


@pytest.mark.parametrize("flavour", ["golden_model", "golden_float_model"])
def test_wrong_input_gives_what_the_contract_says(flavour, python, page, follow, photos, request):
    """ONNX Runtime, and OpenVINO below."""
    model = request.getfixturevalue(flavour)
    first, second = page("onnxruntime.md").blocks("python")
    shown = BYTES if flavour == "golden_model" else FLOATS
    given = {
        "right": shown,
        "swapped": shown.replace("image", "image[..., ::-1]"),
        "float64": f"({shown}).astype('float64')",
        "another type": f"({shown}).astype('{'float32' if shown == BYTES else 'uint8'}')",
        "size": shown.replace("image", "image[:200]"),
        "one channel": shown.replace("image", "image[..., :1]"),
        "no batch": f"({shown})[0]",
        "two": f"np.concatenate([{shown}, {shown}])",
        "layout": f"np.moveaxis({shown}, 1, 3)",
        "none": f"({shown})[:0]",
    }
    if shown == FLOATS:
        given |= {
            "0..255": f"({shown}) * np.float32(255)",
            "-1..1": f"({shown}) * np.float32(2) - 1",
            "nan": f"({shown}) * np.float32('nan')",
        }
    name = "image" if shown == BYTES else "input"
    run = f"session.run(None, {{'{name}': np.ascontiguousarray(GIVEN)}})[0]"
    setup = f"{first}\nimport numpy as np"
    if shown == FLOATS:
        second = as_floats(second, True)
    path = photos["exact"][-1]
    probes = {case: run.replace("GIVEN", source) for case, source in given.items()}
    _, ort = follow(python("onnxruntime.md"), [setup, second], model, [path], "None", probes)
    errors = ["float64", "another type", "size", "one channel", "no batch", "layout"]
    assert all(ort[case].startswith("InvalidArgument") for case in errors), ort
    assert ort["none"] == []
    check_the_rest(ort, ort["two"])

    first, second = page("openvino.md").blocks("python")
    if shown == FLOATS:
        second = as_floats(second, False)
    run = "model(np.ascontiguousarray(GIVEN))['pred_score']"
    probes = {case: run.replace("GIVEN", source) for case, source in given.items()}
    if shown == BYTES:
        probes["0..1"] = run.replace("GIVEN", "(image[None] / 255).astype('float32')")
        probes["black"] = run.replace("GIVEN", "image[None] // 255")
        probes["label"] = "bool(model((image[None] / 255).astype('float32'))['pred_label'][0])"
    # As contract.md makes a larger batch of the IR.
    probes["two, reshaped"] = (
        f"(ir.reshape({{'{name}': [-1, *ir.input().shape[1:]]}}),"
        f"openvino.compile_model(ir, 'CPU', settings)({given['two']}))[1]['pred_score']"
    )
    ir = "ir = openvino.Core().read_model('model/openvino/model.xml')"
    setup = f"{first}\nimport numpy as np\n{ir}"
    _, ov = follow(python("openvino.md"), [setup, second], model, [path], "None", probes)
    errors = ["size", "one channel", "no batch", "layout", "two", "none"]
    assert all(ov[case].startswith("RuntimeError") for case in errors), ov
    assert ov["float64"] == ov["right"]
    if shown == BYTES:
        assert ov["another type"] == ov["right"]
        assert ov["0..1"] == ov["black"]
        assert ov["label"]
    check_the_rest(ov, ov["two, reshaped"])


def check_the_rest(scores: dict, two: list) -> None:
    assert two == pytest.approx(scores["right"] * 2, abs=1e-5)
    assert scores["swapped"] != pytest.approx(scores["right"], abs=1e-3)
    strange = [scores[case] for case in ("0..255", "-1..1", "nan") if case in scores]
    assert np.isnan(strange).all()


@pytest.mark.parametrize("flavour", ["golden_model", "golden_float_model"])
def test_benchmark_app_just_runs(flavour, python, page, client_environ, tmp_path, request):
    model = request.getfixturevalue(flavour)
    (tmp_path / "model").symlink_to(model.path)
    app = python("openvino.md").parent / "benchmark_app"
    commands = page("openvino.md").blocks("bash")[-1].strip().splitlines()
    assert [line.split()[:3] for line in commands] == [
        ["benchmark_app", "-m", "model/openvino/model.xml"],
        ["benchmark_app", "-m", "model/model.onnx"],
    ]
    for line in commands:
        done = subprocess.run(
            [app, *line.split()[1:]],
            cwd=tmp_path,
            env=client_environ,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        (speed,) = re.findall(r"Throughput: +([\d.]+) FPS", done.stdout)
        assert float(speed) > 0


@pytest.mark.parametrize("flavour", ["golden_model", "golden_float_model"])
def test_the_contracts_golden_check_passes(flavour, python, page, follow, photos, request):
    model = request.getfixturevalue(flavour)
    record = "[float(raw(outputs['pred_score'])[0]), tau, s]"
    blocks = page("contract.md").blocks("python")
    ((raw, tau, s),), _ = follow(python("contract.md"), blocks, model, photos["exact"][:1], record)
    ours = Detector(model, "onnxruntime")(model.path / "golden/image.png")
    assert raw == pytest.approx(ours.raw_score, rel=1e-5)
    threshold = model.variant("fp32").calibration.image
    assert (tau, s) == (threshold.value, threshold.spread)


@pytest.mark.parametrize("mistake", ["BGR2BGRA", "/ np.float32(200)"])
def test_the_contracts_golden_check_notices_mistakes(
    mistake, python, page, follow, photos, golden_float_model
):
    """A fourth channel, and another scale."""
    blocks = page("contract.md").blocks("python")
    original = "BGR2RGB" if mistake.startswith("BGR") else "/ np.float32(255)"
    changed = [block.replace(original, mistake) for block in blocks]
    assert changed != blocks
    with pytest.raises(AssertionError):
        follow(python("contract.md"), changed, golden_float_model, photos["exact"][:1], "None")


def test_the_contracts_resize_is_ours(python, page, follow, golden_model, tmp_path):
    rng = np.random.default_rng(0)
    sizes = [(256, 256), (300, 300), (1024, 1024), (1200, 1000), (1080, 1920), (600, 2000)]
    sizes += [(200, 160), (100, 900), (513, 770), (512, 300), (2048, 516)]
    paths = [tmp_path / f"{i}.png" for i in range(len(sizes))]
    for path, size in zip(paths, sizes, strict=True):
        path.write_bytes(encode_image(rng.integers(0, 256, (*size, 3), np.uint8), ".png"))
    blocks = [
        page("contract.md").blocks("python")[0],
        "image = resize(cv2.imread('photo.png'), 256, 256)",
    ]
    answers, _ = follow(python("contract.md"), blocks, golden_model, paths, "image")
    for answer, path in zip(answers, paths, strict=True):
        np.testing.assert_array_equal(
            np.array(answer)[..., ::-1], resize(read_image(path), 256, 256)
        )
