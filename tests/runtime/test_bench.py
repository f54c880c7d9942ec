import dataclasses
import json
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from fre_runtime import QualityError
from fre_runtime.commands import bench
from fre_runtime.commands.common import run_command
from fre_runtime.engines import EngineInfo
from fre_runtime.geometry import View
from fre_runtime.harness import gate
from fre_runtime.harness.benchmark_app import benchmark_app
from fre_runtime.harness.noise import LIMITS
from fre_runtime.harness.plot import plot_threads
from fre_runtime.harness.sides import STAGES, Side
from fre_runtime.latency import Measurement
from fre_runtime.model_dir import write_manifest

SHORT = ["--duration", "0.02", "--max-seconds", "0.02"]
ROW = {
    "engine",
    "variant",
    "scope",
    "scenario",
    "threads",
    "fps",
    "latency_ms",
    "frames",
    "rss_mib",
}


@pytest.fixture
def call(capsys):
    """``call(...)`` runs fre-bench, briefly, and gives its exit code."""
    return lambda *argv: run_command(bench, [str(arg) for arg in (*argv, *SHORT)])


@pytest.fixture
def report(call, tmp_path):
    """``report(...)`` runs fre-bench, briefly, and gives its JSON."""

    def measure(*argv):
        out = tmp_path / "bench.json"
        assert call(*argv, "--json", out) == 0
        return json.loads(out.read_text())

    return measure


@pytest.mark.parametrize("scenario", ["latency", "throughput"])
def test_rows(uint8_model, scenario, report, capsys):
    found = report(uint8_model.path, "--scenario", scenario, "--threads", 1)
    assert {"cpu", "isa", "versions", "cpu_quota", "date"} <= found["environment"].keys()
    assert len(found["results"]) == 2 * 3
    for row in found["results"]:
        assert row.keys() >= ROW
        assert row["precision"] == "f32"
        assert row["frames"] >= 30
        assert row["fps"] > 0
        latency = row["latency_ms"]
        assert latency["median"] <= latency["p90"] <= latency["p95"] <= latency["p99"]
        assert latency["p99"] <= latency["max"]
        low, high = row["latency_interval_ms"]["median"]
        assert low <= latency["median"] <= high
        assert row["samples"]["wanted"] == 1493
        assert row["samples"]["reached"] == (row["frames"] >= 1493)
        if row["scope"] == "graph":
            assert row["stages_ms"] is None
        else:
            assert list(row["stages_ms"]) == list(STAGES)
            assert 0 < row["stages_ms"]["infer"] <= latency["max"]
    assert found["noise"]["limits"] == LIMITS
    machine, header, *lines = capsys.readouterr().out.splitlines()
    assert machine.startswith(f"{scenario} on ")
    assert "median" in header
    assert sum(line.startswith(("openvino", "onnxruntime")) for line in lines) == 6


def test_the_noise_of_each_row_and_of_all(uint8_model, report, capsys, monkeypatch):
    monkeypatch.setitem(LIMITS, "spread", -1.0)
    found = report(uint8_model.path, "--engine", "onnxruntime", "--scope", "graph")
    (row,) = found["results"]
    assert {*LIMITS, "exceeded"} == row["noise"].keys()
    assert "spread" in row["noise"]["exceeded"]
    assert "spread" in found["noise"]["exceeded"]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: noisy machine")


def test_names_of_benchmark_app(uint8_model, report):
    found = report(uint8_model.path, "--engine", "openvino", "--scope", "graph")
    (row,) = found["results"]
    theirs = row["benchmark_app"]["execution_results"]
    assert list(theirs) == [
        "total execution time (ms)", "total number of iterations", "latency (ms)", "avg latency",
        "min latency", "max latency", "throughput",
    ]  # fmt: skip
    assert theirs["throughput"] == f"{row['fps']:.2f}"
    assert theirs["latency (ms)"] == f"{row['latency_ms']['median']:.2f}"
    setup = row["benchmark_app"]["configuration_setup"]
    assert (setup["target device"], setup["API"], setup["inference_only"]) == ("CPU", "sync", True)


def test_benchmark_app_still_uses_these_names():
    """The installed benchmark_app is the reference, where it has been installed with OpenVINO."""
    main = pytest.importorskip("openvino.tools.benchmark.main")
    report = pytest.importorskip("openvino.tools.benchmark.utils.statistics_report")
    source = "".join(Path(module.__file__).read_text() for module in (main, report))
    source = source.replace('"', "'")
    info = EngineInfo("openvino", "", "f32", threads=1, parallel=1)
    parts = benchmark_app("m", info, Measurement(np.ones(3), 1.0), 1.0, graph_only=True)
    names = [name for part in parts.values() for name in part]
    assert [name for name in [*parts, *names] if repr(name) not in source] == []


@pytest.mark.parametrize(
    ("argv", "threads"), [(["--threads", "1,2,1"], [1, 2]), (["--sweep"], [1, 2])]
)
def test_sweeps_threads(uint8_model, argv, threads, report, monkeypatch):
    monkeypatch.setattr("fre_runtime.engines.loading.os.cpu_count", lambda: 2)
    monkeypatch.setattr(bench, "default_threads", lambda: 2)
    found = report(uint8_model.path, "--scope", "graph", *argv)
    rows = [(row["engine"], row["threads"]) for row in found["results"]]
    assert rows == [(engine, n) for engine in ("openvino", "onnxruntime") for n in threads]


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_plots_a_sweep(uint8_model, suffix, report, tmp_path, monkeypatch):
    monkeypatch.setattr("fre_runtime.engines.loading.os.cpu_count", lambda: 2)
    plot = tmp_path / "plots" / f"sweep.{suffix}"
    report(uint8_model.path, "--engine", "onnxruntime", "--threads", "1,2", "--plot", plot)
    if suffix == "png":
        picture = cv2.imread(str(plot))
        assert min(picture.shape[:2]) > 300
        assert picture.std() > 5
    else:
        assert "<svg" in plot.read_text()
        assert plot.read_text().count("<path") > 10


def test_a_plot_without_matplotlib_says_how_to_get_it(uint8_model, call, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert call(uint8_model.path, "--plot", "x.png") == 1
    assert "pip install 'fre-edge[plot]'" in capsys.readouterr().err


def test_a_plot_that_cannot_be_written(uint8_model, report, tmp_path):
    rows = report(uint8_model.path, "--engine", "onnxruntime", "--scope", "graph")["results"]
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="cannot be written"):
        plot_threads(rows, tmp_path / "file" / "x.png")


def test_compares_two_models(uint8_model, max_model, report):
    argv = ["--engine", "onnxruntime", "--scope", "graph"]
    ours, theirs = report(uint8_model.path, "--vs", max_model.path, *argv)["results"]
    assert ours["ratio"]["low"] <= ours["ratio"]["median"] <= ours["ratio"]["high"]
    assert (ours["model"], theirs["model"]) == (str(uint8_model.path), str(max_model.path))


def test_compares_two_engines(uint8_model, report):
    argv = [uint8_model.path, "--vs-engine", "onnxruntime", "--scope", "frame"]
    ours, theirs = report(*argv)["results"]
    assert (ours["engine"], theirs["engine"]) == ("openvino", "onnxruntime")
    assert ours["frames"] == theirs["frames"]
    assert ours["ratio"]["median"] > 0


def test_the_gate_passes_and_records_the_figures(uint8_model, category, report, capsys):
    argv = ["--scope", "graph", "--gate", category, "--min-auroc", "0.5"]
    found = report(uint8_model.path, *argv)
    assert [q["engine"] for q in found["quality"]] == ["openvino", "onnxruntime"]
    for figures in found["quality"]:
        assert figures["image_auroc"] >= figures["min_auroc"] == 0.5
        assert (figures["n_good"], figures["n_defective"]) == (8, 8)
    assert "openvino fp32" in capsys.readouterr().out


def test_the_gate_refuses_and_writes_nothing(uint8_model, category, call, tmp_path, capsys):
    data = shutil.copytree(category, tmp_path / "data")
    for kind, source in (("good", "scratch"), ("scratch", "good")):  # the world upside down
        shutil.rmtree(data / "test" / kind)
        shutil.copytree(category / "test" / source, data / "test" / kind)
    shutil.rmtree(data / "ground_truth")
    files = [tmp_path / "bench.json", tmp_path / "sweep.png"]
    argv = ["--gate", data, "--json", files[0], "--plot", files[1]]
    assert call(uint8_model.path, *argv) == 1
    printed = capsys.readouterr()
    (line,) = printed.err.splitlines()
    assert line.startswith("error: ")
    assert "0.9 is the least" in line
    assert printed.out == ""
    assert not any(file.exists() for file in files)


def test_the_gate_needs_both_classes(uint8_model, tmp_path, make_folder, call, capsys):
    make_folder(tmp_path / "test/good", 2)
    assert call(uint8_model.path, "--gate", tmp_path) == 1
    assert "needs good and defective photos" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("auroc", "rejects", "message"),
    [
        (0.9481, 0.05, None),
        (0.9479, 0.05, "0.9500 in fp32; it may lose 0.002"),
        (0.99, 0.06, None),
        (0.99, 0.07, "rejects 7.00% of the good photos"),
        (0.99, 0.03, "rejects 3.00% of the good photos"),
        (0.85, 0.05, "0.9 is the least"),
    ],
)
def test_the_gate_holds_a_variant_against_fp32(
    uint8_model, auroc, rejects, message, monkeypatch, tmp_path
):
    card = uint8_model.card
    variants = card.variants | {"int8": card.variants["fp32"]}
    model = dataclasses.replace(uint8_model, card=dataclasses.replace(card, variants=variants))
    side = Side(uint8_model.path, model, "openvino", "int8", None, False)
    of = {"fp32": (0.95, 0.05), "int8": (auroc, rejects)}

    def evaluate(side, dataset, quiet):
        figures = dict.fromkeys(gate.FIGURES, 0) | {"engine": side.engine}
        figures["image_auroc"], figures["false_reject_rate"] = of[side.variant]
        return type("Evaluation", (), figures)()

    monkeypatch.setattr(gate, "_evaluate", evaluate)
    if message is None:
        figures = gate.check_quality(side, tmp_path)
        assert figures["reference"] == {"image_auroc": 0.95, "false_reject_rate": 0.05}
    else:
        with pytest.raises(QualityError, match=message):
            gate.check_quality(side, tmp_path)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--sweep", "--threads", "1"], "leave --threads out"),
        (["--threads", "1,100000"], "threads must lie in 1.."),
        (["--min-auroc", "0.8"], "needs --gate DATASET"),
        (["--vs-variant", "int8"], "has no variant 'int8'"),
        (["--vs-engine", "openvino", "--scenario", "throughput"], "leave --scenario"),
    ],
)
def test_options_that_contradict_each_other(uint8_model, argv, message, call, capsys):
    assert call(uint8_model.path, *argv) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("argv", [["--plot", "x.pdf"], ["--margin", "0"], ["--threads", "1,0"]])
def test_misuse(uint8_model, argv, call):
    with pytest.raises(SystemExit) as stop:
        call(uint8_model.path, *argv)
    assert stop.value.code == 2


def test_a_region_that_the_frame_does_not_hold(writable_model, call, capsys):
    card = json.loads((writable_model / "model.json").read_text())
    card["view"]["regions"] = [[[0, 0], [1500, 0], [1500, 90], [0, 90]]]
    card["view"]["size"] = [100, 1600]
    (writable_model / "model.json").write_text(json.dumps(card))
    write_manifest(writable_model)
    assert call(writable_model, "--frame-size", "1200x1000") == 2
    said = capsys.readouterr().err
    assert "is 1200 x 1000 pixels, the model's regions are drawn on photos of 1600 x 100" in said
    assert "see --image and --frame-size" in said
    image = writable_model / "golden" / "image.png"
    assert call(writable_model, "--image", image, "--max-pixels", 10) == 1
    assert "over the limit of 10" in capsys.readouterr().err


def test_frames_have_the_size_that_regions_are_drawn_on():
    image = np.zeros((40, 60, 3), np.uint8)
    regions = View(regions=[[[0, 0], [9, 0], [9, 9], [0, 9]]], size=[100, 160])
    assert bench._camera_frame(image, None, regions).shape == (100, 160, 3)
    assert bench._camera_frame(image, None, View()).shape == (1000, 1200, 3)
    assert bench._camera_frame(image, (80, 50), regions).shape == (50, 80, 3)
    assert bench._camera_frame(image, "native", regions).shape == (40, 60, 3)


def test_without_an_engine_says_so(uint8_model, call, monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert call(uint8_model.path) == 1
    assert "no inference engine is installed" in capsys.readouterr().err
