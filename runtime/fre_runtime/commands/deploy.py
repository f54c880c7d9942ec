"""fre-deploy: a model directory laid out for OpenVINO Model Server and Triton."""

import argparse
import dataclasses
import shlex
from pathlib import Path

from fre_runtime.commands.common import out, write_json
from fre_runtime.model_dir import open_model_dir
from fre_runtime.repository import Servable, lay_out


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line of fre-deploy."""
    parser = argparse.ArgumentParser(
        prog="fre-deploy",
        description="Lay a model directory out for OpenVINO Model Server and Triton, as a new "
        "model or the next version of one that is there. Needs neither PyTorch nor an engine.",
    )
    parser.add_argument("model", type=Path, metavar="MODEL", help="directory that fre-export wrote")
    parser.add_argument(
        "directory",
        type=Path,
        metavar="DIR",
        help="the servers' files; made if it is not there, else added to",
    )
    parser.add_argument("--name", help="what clients call it (default: the model's own name)")
    parser.add_argument(
        "--variant", default="fp32", help="precision variant (default fp32); others are NAME-V"
    )
    parser.add_argument("--json", metavar="FILE", help="write what was done as JSON; - for stdout")
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> int:
    """Run fre-deploy."""
    model = open_model_dir(args.model)
    done = lay_out(model, args.directory, name=args.name, variant=args.variant)
    if args.json:
        write_json(args.json, {**dataclasses.asdict(done), "root": str(done.root)})
    if args.json != "-":
        for line in describe(done):
            out(line)
    return 0


def describe(done: Servable) -> list[str]:
    """What was laid out, and the commands that serve it."""
    root = done.root.absolute()
    commands = {
        "ovms": f"ovms --config_path {shlex.quote(str(root / 'ovms/config.json'))} "
        "--rest_port 8000",
        "triton": f"tritonserver --model-repository {shlex.quote(str(root / 'triton'))} "
        "--model-control-mode poll",
    }
    return [
        f"{done.root}: {done.name} version {done.version} ({done.variant})",
        *(f"  {commands[server]}" for server in done.servers),
    ]
