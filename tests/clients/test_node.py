"""node.md, followed with ONNX Runtime, sharp and OpenCV.js as npm gives them."""

import json
import shlex
import subprocess

import pytest

from fre_runtime import Detector
from fre_runtime.image import read_image

UNREAD = {"plain.bmp", "cmyk.jpg"}

PROBES = """
import { readFile } from "node:fs/promises";
import * as ort from "onnxruntime-node";
const session = await ort.InferenceSession.create("model/model.onnx", { logSeverityLevel: 4 });
const right = new Uint8Array(await readFile(process.argv[2]));
const swapped = right.map((_, i) => right[i - (i % 3) + 2 - (i % 3)]);
const n = Math.sqrt(right.length / 3);
const tensors = {
  right: () => new ort.Tensor("uint8", right, [1, n, n, 3]),
  swapped: () => new ort.Tensor("uint8", swapped, [1, n, n, 3]),
  size: () => new ort.Tensor("uint8", right.slice(n * 3), [1, n - 1, n, 3]),
  layout: () => new ort.Tensor("uint8", right, [1, 3, n, n]),
  channels: () => new ort.Tensor("uint8", right.slice(n * n * 2), [1, n, n, 1]),
  type: () => new ort.Tensor("float32", Float32Array.from(right), [1, n, n, 3]),
  bytes: () => new ort.Tensor("uint8", right.slice(1), [1, n, n, 3]),
};
const found = {};
for (const [name, image] of Object.entries(tensors)) {
  try {
    found[name] = (await session.run({ image: image() })).pred_score.data[0];
  } catch (error) {
    found[name] = error.message;
  }
}
console.log(JSON.stringify(found));
"""


@pytest.fixture
def score(javascript, javascript_model, page, client_environ):
    """``score(*photos)`` runs the page's line on other photos than its own."""

    def run(*photos) -> subprocess.CompletedProcess:
        command = (
            page("node.md").blocks("bash")[1].replace("photo.png", shlex.join(map(str, photos)))
        )
        return subprocess.run(
            ["bash", "-c", command],
            cwd=javascript,
            env=client_environ,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_photos_score_as_ours(score, golden_model, photos, formats, check_lines):
    paths = [golden_model.path / "golden/image.png"]
    paths += [*photos["exact"], *photos["camera"], *photos["large"]]
    paths += [path for name, path in formats.items() if name not in UNREAD]
    done = score(*paths)
    assert (done.returncode, done.stderr) == (0, "")
    check_lines(done.stdout, paths, Detector(golden_model, "onnxruntime"))


def test_a_photo_that_cannot_be_read_is_one_line(score, broken, formats, photos):
    paths = [*broken.values(), *(formats[name] for name in sorted(UNREAD))]
    done = score(*paths, photos["exact"][0])
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == 1, "the others are scored all the same"
    lines = done.stderr.splitlines()
    assert len(lines) == len(paths)
    for line, path in zip(lines, paths, strict=True):
        assert line.startswith(f"score.mjs: {path}: ")


def cut(model):
    (model / "model.onnx").write_bytes((model / "model.onnx").read_bytes()[:100_000])


def change(model, section, key, value):
    card = json.loads((model / "model.json").read_text())
    card[section][key] = value
    (model / "model.json").write_text(json.dumps(card))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (cut, "model"),
        (lambda model: (model / "model.onnx").unlink(), "no such file"),
        (lambda model: (model / "model.json").unlink(), "no such file"),
        (lambda model: (model / "model.json").write_text("{"), "JSON"),
        (lambda model: (model / "model.json").write_text("{}"), "undefined"),
        (lambda model: change(model, "graph", "io", "float"), "export it with --io uint8"),
        (lambda model: change(model, "graph", "resize", "other"), "resized by other"),
        (lambda model: change(model, "view", "tile", [64, 64]), "regions or tiles"),
        (lambda model: change(model, "view", "aspect", "keep"), "regions or tiles"),
    ],
)
def test_a_model_that_cannot_be_used_is_one_line(score, javascript_model, photos, damage, said):
    damage(javascript_model)
    done = score(photos["exact"][0])
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("score.mjs: model: ")
    assert said in line


def test_misuse_tells_the_usage(score):
    done = score()
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "usage: node score.mjs MODEL PHOTO...\n"


def test_wrong_input_gives_what_the_page_says(
    javascript, javascript_model, photos, client_environ, tmp_path
):
    image = read_image(photos["exact"][-1])
    (tmp_path / "pixels").write_bytes(image.tobytes())
    probes = javascript / "probes.mjs"
    probes.write_text(PROBES)
    done = subprocess.run(
        ["node", probes.name, tmp_path / "pixels"],
        cwd=javascript,
        env=client_environ,
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    detector = Detector(javascript_model, "onnxruntime")
    assert found["right"] == pytest.approx(detector(image).score, abs=1e-6)
    assert found["swapped"] == pytest.approx(detector(image[..., ::-1].copy()).score, abs=1e-6)
    assert found["swapped"] != pytest.approx(found["right"], abs=1e-3)
    for case in ("size", "layout", "channels"):
        assert "invalid dimensions" in found[case]
    assert "Unexpected input data type" in found["type"]
    assert isinstance(found["bytes"], str)
