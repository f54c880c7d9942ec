import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


def table(*argv):
    command = [sys.executable, "-m", "benchmarks.tables", *argv]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


@pytest.fixture
def copies(tmp_path):
    shutil.copytree(ROOT / "benchmarks" / "results", tmp_path / "results")
    shutil.copy(ROOT / "README.md", tmp_path / "README.md")
    shutil.copy(ROOT / "benchmarks" / "README.md", tmp_path / "benchmarks.md")
    documents = ["--readme", tmp_path / "README.md", "--benchmarks", tmp_path / "benchmarks.md"]
    return tmp_path, [*documents, "--results", tmp_path / "results"]


def test_the_committed_readme_says_what_the_committed_figures_say():
    done = table("--check")
    assert done.returncode == 0, done.stdout + done.stderr


def test_new_figures_are_noticed_and_written(copies):
    root, argv = copies
    path = root / "results" / "bench-latency.json"
    report = json.loads(path.read_text())
    report["results"][0]["latency_ms"]["median"] = 1234.56
    sweep = report["results"][0] | {"threads": 99, "stages_ms": {}}
    report["results"].append(sweep)
    path.write_text(json.dumps(report))
    p95 = report["results"][0]["latency_ms"]["p95"]
    before = (root / "README.md").read_text()
    assert table("--check", *argv).returncode == 1
    assert (root / "README.md").read_text() == before
    assert table(*argv).returncode == 0
    assert f"| 1234.6 ({p95:.1f}) ms |" in (root / "README.md").read_text()
    assert table("--check", *argv).returncode == 0


def test_a_readme_without_markers_is_refused(copies):
    root, argv = copies
    (root / "README.md").write_text("# FRE Edge\n")
    done = table(*argv)
    assert done.returncode == 1
    assert "has no <!-- quality:begin -->" in done.stderr
