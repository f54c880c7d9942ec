"""Speed against other open-source detectors: same backbone, weights, layers, photos and precision.

    python benchmarks/peers/run.py CATEGORY [--json FILE] [--only NAME ...]

CATEGORY is a folder in MVTec layout. Each peer is installed into a virtual environment of its own,
fitted, exported and run in the way that it recommends; README.md beside this file says what was
kept equal and how. A peer that fails is reported as such and does not stop the others.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torchvision
from comparisons import PEERS, Ours, Peer
from safetensors.torch import save_file
from turns import Worker, WorkerError, compare
from worker import PREPARED

from fre_edge.options import FitOptions
from fre_edge.weights import load_weights, suit
from fre_edge.zoo import backbone_spec
from fre_runtime.environment import environment
from fre_runtime.files import good_images
from fre_runtime.image import encode_image, read_image, resize
from fre_runtime.threads import default_threads

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
SIZE = 256
REPLACED = {"opencv-python": "opencv-python-headless"}
"""The same code, without the graphics libraries that a server has not."""


class Run:
    """One run: where things are, and what has been prepared."""

    def __init__(self, category: Path, images: int, build: Path, seconds: float) -> None:
        self.build = build
        self.seconds = seconds
        self.environments: dict[str, list[str]] = {}
        (build / "logs").mkdir(parents=True, exist_ok=True)
        self.common = self._photos(category, images)

    def peer(self, peer: Peer) -> list[dict]:
        """Measure one peer against each of ours; a failure is a row too."""
        try:
            python = self._environment(peer.environment)
            config = self._peer_config(peer)
            theirs = self._prepare(python, peer.worker, peer.name, config)
        except Exception as error:  # whatever it is, the other peers go on
            failed = self._without_paths(error)
            return [_row(peer, ours) | {"failed": failed} for ours in peer.against]
        rows = []
        for ours in peer.against:
            row = _row(peer, ours) | {"their_fit": theirs}
            try:
                row["our_fit"] = mine = self._ours(ours)
                row["fit_ratio"] = theirs["fit_s"] / mine["fit_s"]
                row |= self._compare(python, peer, ours)
            except Exception as error:
                row["failed"] = self._without_paths(error)
            rows.append(row)
        return rows

    def _compare(self, python: Path, peer: Peer, ours: Ours) -> dict:
        _say(f"{peer.name} against ours ({ours.name})")
        workers: list[Worker] = []
        try:
            for interpreter, script, name in (
                (python, peer.worker, peer.name),
                (Path(sys.executable), "ours.py", f"ours-{ours.name}"),
            ):
                command = self._command(interpreter, script, "serve", name)
                workers.append(Worker(command, _environ(interpreter), self._log(f"{name}-serve")))
            theirs, mine = workers
            measured = compare(theirs, mine, self.seconds)
            return {"their_run": theirs.info, "our_run": mine.info} | measured
        finally:
            for worker in workers:
                worker.close()

    def _ours(self, ours: Ours) -> dict:
        config = {
            "backbone": ours.backbone,
            "layers": ours.layers,
            "components": ours.components,
            "weights": "auto" if ours.backbone == "efficientnet_lite0" else str(self._state(ours)),
        }
        return self._prepare(Path(sys.executable), "ours.py", f"ours-{ours.name}", config)

    def _peer_config(self, peer: Peer) -> dict[str, Any]:
        spec = backbone_spec(peer.backbone)
        config = {
            "backbone": peer.backbone,
            "layers": peer.layers,
            "timm": spec.model,
            "state": str(self._state(peer)),
            "mean": spec.mean,
            "std": spec.std,
            "requirements": _requirements(peer.environment).read_text().splitlines(),
            **peer.options,
        }
        if peer.options.get("model") == "Fre":  # the very grid and rank that ours has
            fitted = self._ours(peer.against[0])
            (layer,) = fitted["layers"]
            config |= {
                "pool": fitted["pool"],
                "grid": layer["grid"],
                "latent_dim": layer["components"],
            }
        return config

    def _prepare(self, python: Path, script: str, name: str, config: dict) -> dict:
        """Fit and export, unless the very same was done before."""
        folder = self.build / "models" / name
        path = self._config(name)
        config = json.loads(json.dumps({**config, **self.common, "folder": str(folder)}))
        prepared = folder / PREPARED
        if not (prepared.exists() and json.loads(path.read_text()) == config):
            _say(f"fitting {name}")
            shutil.rmtree(folder, ignore_errors=True)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(config, indent=1))
            log = self._log(name)
            with log.open("w") as out:
                done = subprocess.run(
                    self._command(python, script, "prepare", name),
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=out,
                    env=_environ(python),
                )
            if done.returncode:
                raise WorkerError(log)
        return json.loads(prepared.read_text())

    def _environment(self, name: str) -> Path:
        """Make the virtual environment, unless its requirements are installed already."""
        folder = self.build / name
        python = folder / "bin" / "python"
        requirements = _requirements(name)
        stamp = folder / "installed.txt"
        if not (stamp.exists() and stamp.read_text() == requirements.read_text()):
            _say(f"installing {requirements.name}")
            if not python.exists():
                venv.create(folder, with_pip=True, symlinks=True)
            pip = [python, "-m", "pip", "--quiet", "--disable-pip-version-check"]
            subprocess.run([*pip, "install", "-r", requirements], check=True)
            packages = dict(line.split("==") for line in _installed(python))
            for package, instead in REPLACED.items():
                if package in packages:
                    subprocess.run([*pip, "uninstall", "--yes", package], check=True)
                    pin = f"{instead}=={packages[package]}"
                    install = [*pip, "install", "--no-deps", "--force-reinstall", pin]
                    subprocess.run(install, check=True)
            stamp.write_text(requirements.read_text())
        self.environments[name] = _installed(python)
        return python

    def _photos(self, category: Path, images: int) -> dict[str, Any]:
        """Resize the photos once, so that no one's resizing counts, and hand all the same files."""
        paths = good_images(category)[:images]
        if len(paths) < images:
            sys.exit(f"{category}: holds {len(paths)} good photos, {images} were asked for")
        folder = self.build / "photos"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        digest = hashlib.sha256()
        for i, path in enumerate(paths):
            image = resize(read_image(path), SIZE, SIZE)
            digest.update(image.tobytes())
            (folder / f"{i:05d}.png").write_bytes(encode_image(image, ".png"))
        np.save(self.build / "image.npy", image)
        return {
            "photos": str(folder),
            "photos_sha256": digest.hexdigest(),
            "images": images,
            "image": str(self.build / "image.npy"),
            "size": SIZE,
            "threads": default_threads(),
        }

    def _state(self, of: Peer | Ours) -> Path:
        """Write the backbone's weights once, under the names of its library."""
        path = self.build / f"{of.backbone}.safetensors"
        if not path.exists():
            spec = backbone_spec(of.backbone)
            if spec.library == "timm":
                own = timm.create_model(spec.model, pretrained=False).state_dict()
                state, info = load_weights(spec, "auto")
                assert state is not None
                own = suit(state, own, own, info)
            else:  # no embedded weights; the same random ones for both
                own = torchvision.models.get_model(spec.model, weights=None).state_dict()
            save_file({name: tensor.contiguous() for name, tensor in own.items()}, path)
        return path

    def _without_paths(self, error: Exception) -> str:
        return str(error).replace(str(self.build), "build/peers").replace(str(ROOT), ".")

    def _command(self, python: Path, script: str, command: str, name: str) -> list[str]:
        return [str(python), str(HERE / script), command, str(self._config(name))]

    def _config(self, name: str) -> Path:
        return self.build / "configs" / f"{name}.json"

    def _log(self, name: str) -> Path:
        return self.build / "logs" / f"{name}.log"


def _row(peer: Peer, ours: Ours) -> dict[str, Any]:
    return {
        "peer": peer.name,
        "ours": ours.name,
        "their_backbone": peer.backbone,
        "our_backbone": ours.backbone,
        "their_layers": peer.layers,
        "our_layers": ours.layers,
        "same_layers": (peer.backbone, peer.layers) == (ours.backbone, ours.layers),
        "target": peer.target,
        "fit_target": peer.fit_target,
    }


def _requirements(environment: str) -> Path:
    return HERE / f"requirements-{environment}.txt"


def _installed(python: Path) -> list[str]:
    done = subprocess.run(
        [python, "-m", "pip", "list", "--format=json", "--disable-pip-version-check"],
        capture_output=True,
        check=True,
    )
    return [f"{package['name']}=={package['version']}" for package in json.loads(done.stdout)]


def _environ(python: Path) -> dict[str, str]:
    """Return the variables for a worker: a peer's gets none that leads to our own packages."""
    leaks = () if python == Path(sys.executable) else ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    kept = {key: value for key, value in os.environ.items() if key not in leaks}
    return kept | {"HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


HEADER = (
    f"{'peer':<33}{'its layers':<28}{'our layers':<28}{'ms':>7}{'ours':>7}  "
    f"{'ratio (95% interval)':<20}{'target':>8}{'':8}{'fit s':>8}{'ours':>7}{'ratio':>7}"
)


def _line(row: dict) -> str:
    layers = [f"{'+'.join(row[key]):<28}" for key in ("their_layers", "our_layers")]
    line = f"{row['peer']:<33}{''.join(layers)}"
    if "failed" in row:
        return f"{line}failed: {row['failed']}"
    ratio, fit = row["ratio"], row["fit_ratio"]
    interval = f"{ratio['median']:.2f} ({ratio['low']:.2f}-{ratio['high']:.2f})"
    line += (
        f"{row['their_ms']['median']:>7.2f}{row['our_ms']['median']:>7.2f}  {interval:<20}"
        f"{row['target']:>8.1f} {_verdict(ratio['median'], row['target']):<7}"
        f"{row['their_fit']['fit_s']:>8.1f}{row['our_fit']['fit_s']:>7.1f}{fit:>7.1f}"
    )
    if row["fit_target"]:
        line += f" (target {row['fit_target']:g} {_verdict(fit, row['fit_target'])})"
    return line


def _verdict(value: float, target: float) -> str:
    return "met" if value >= target else "missed"


def main() -> None:
    names = [peer.name for peer in PEERS]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("category", type=Path, help="folder in MVTec layout")
    parser.add_argument("--images", type=int, default=209, help="photos used (default 209)")
    parser.add_argument(
        "--only", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names)
    )
    parser.add_argument("--seconds", type=float, default=30.0, help="for each pair (default 30)")
    parser.add_argument(
        "--build",
        type=Path,
        default=ROOT / "build" / "peers",
        help="environments and models, re-used by later runs (default build/peers)",
    )
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks/results/peers.json")
    args = parser.parse_args()
    run = Run(args.category, args.images, args.build.resolve(), args.seconds)
    report: dict[str, Any] = {
        "environment": environment(),
        "images": args.images,
        "our_options": {"variance": FitOptions.variance, "score": FitOptions.score},
        "results": [],
    }
    for peer in PEERS:
        if peer.name in args.only:
            report["results"] += run.peer(peer)
            report["packages"] = run.environments
            args.json.write_text(json.dumps(report, indent=1) + "\n")
    print(HEADER)
    for row in report["results"]:
        print(_line(row))


if __name__ == "__main__":
    main()
