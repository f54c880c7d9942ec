"""What the image of docs/embedding/Dockerfile weighs, but for its base.

    python benchmarks/image.py [--json FILE]

For each engine: a new virtual environment, made as the Dockerfile makes it (its own `RUN` line,
with the engine put in the place of openvino), and its size, all and by package.
"""

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from footprint import ROOT, size_mb

from fre_runtime.engines import ENGINES
from fre_runtime.environment import environment

DOCKERFILE = ROOT / "docs/embedding/Dockerfile"
LARGEST = 8
"""Packages that are listed by themselves."""


def build_commands(engine: str, environment: Path) -> list[list[str]]:
    """The Dockerfile's `RUN` line, for the sources here and another place than /opt/fre."""
    text = DOCKERFILE.read_text(encoding="utf-8").replace("\\\n", " ")
    (line,) = (line for line in text.splitlines() if line.startswith("RUN python -m venv"))
    line = line.removeprefix("RUN ").replace("openvino", engine)
    line = line.replace("/opt/fre", str(environment)).replace("/src", str(ROOT))
    return [shlex.split(command) for command in line.split("&&")]


def measure(engine: str) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "fre"
        for program, *arguments in build_commands(engine, place):
            interpreter = sys.executable if program == "python" else program
            subprocess.run([interpreter, *arguments], check=True, stdout=subprocess.DEVNULL)
        (site,) = place.glob("lib/python*/site-packages")
        packages = {path.name: size_mb(path) for path in site.iterdir() if path.is_dir()}
        largest = sorted(packages.items(), key=lambda item: -item[1])[:LARGEST]
        return {
            "engine": engine,
            "environment_mb": round(size_mb(place)),
            "largest_mb": {name: round(size) for name, size in largest},
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks/results/image.json")
    args = parser.parse_args()
    rows = [measure(engine) for engine in ENGINES]
    result = {"environment": environment(), "results": rows}
    args.json.write_text(json.dumps(result, indent=1) + "\n")
    for row in rows:
        print(row)


if __name__ == "__main__":
    sys.exit(main())
