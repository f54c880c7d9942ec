"""Pages written from the code: fields of the card, options of commands, public Python names."""

import argparse
import dataclasses
import importlib
import inspect
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import griffe

from fre_runtime.card import Card

ROOT = Path(__file__).parents[2]
PACKAGES = {"fre_runtime": "runtime", "fre_edge": ".", "fre_export": "export"}
"""The packages and their source roots, in the order of the API page."""


def card_page() -> str:
    """Every field of ``model.json``, from the dataclasses and what stands below each field."""
    lines = [
        "# Fields of model.json",
        "",
        "The card of a [model directory](model-directory.md), as the runtime reads it: every field "
        "must be there, and no other. Written from `fre_runtime.card`.",
        "",
    ]
    for kind in _kinds(Card):
        module = griffe.load(
            kind.__module__, search_paths=[ROOT / path for path in PACKAGES.values()]
        )
        documented = module[kind.__name__]
        summary = inspect.cleandoc(kind.__doc__ or "")
        lines += [f"## {kind.__name__}", "", summary, "", "| field | type | |", "|---|---|---|"]
        for field in dataclasses.fields(kind):
            text = documented[field.name].docstring
            about = " ".join(text.value.split()).replace("``", "`") if text else ""
            lines.append(f"| `{field.name}` | {_type(field.type)} | {_cell(about)} |")
        lines.append("")
    return "\n".join(lines)


def _kinds(kind: type) -> Iterator[type]:
    """A dataclass and those in its fields, each once, the outer ones first."""
    found: list[type] = []
    waiting = [kind]
    while waiting:
        one = waiting.pop(0)
        if one not in found:
            found.append(one)
            for field in dataclasses.fields(one):
                inner = [field.type, *getattr(field.type, "__args__", ())]
                waiting += [part for part in inner if dataclasses.is_dataclass(part)]
    return iter(found)


def _type(kind: object) -> str:
    """A type as a reader of JSON calls it, dataclasses linked to their section."""
    if dataclasses.is_dataclass(kind):
        return f"[{kind.__name__}](#{kind.__name__.lower()})"
    text = kind.__name__ if kind in (int, str, float, bool) else str(kind)
    for inner in getattr(kind, "__args__", ()):
        if dataclasses.is_dataclass(inner):
            outer, _, rest = text.partition(f"{inner.__module__}.{inner.__qualname__}")
            return f"`{outer}`{_type(inner)}`{rest}`"
    return f"`{_cell(text)}`"


def commands_page() -> str:
    """Arguments and options of every command, from its own parser."""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    lines = [
        "# Commands",
        "",
        "Exit codes: 0 done, 1 failed, 2 misused, 130 stopped by Ctrl-C. Written from the parsers, "
        "as `--help` is.",
        "",
    ]
    for name in scripts:
        parser = _parser(name, scripts[name])
        usage = re.sub(r"\s+", " ", parser.format_usage().removeprefix("usage: ")).strip()
        lines += [
            f"## {name}",
            "",
            parser.description or "",
            "",
            "```text",
            *_wrap(usage),
            "```",
            "",
        ]
        for group in parser._action_groups:
            actions = [a for a in group._group_actions if a.help != argparse.SUPPRESS]
            actions = [a for a in actions if not isinstance(a, argparse._HelpAction)]
            if not actions:
                continue
            if group.title not in ("positional arguments", "options"):
                lines += [f"**{group.title}**", ""]
            lines += [group.description or "", "", "| | |", "|---|---|"]
            lines += [f"| {_spelled(parser, action)} | {_about(action)} |" for action in actions]
            lines.append("")
    return "\n".join(lines)


def _parser(name: str, launcher: str) -> argparse.ArgumentParser:
    """The parser of a command: its module is the one that its launcher runs."""
    module, _, function = launcher.partition(":")
    caught: list[argparse.ArgumentParser] = []

    class Caught(Exception):
        pass

    def catch(parser: argparse.ArgumentParser, *_: object) -> None:
        caught.append(parser)
        raise Caught

    run = getattr(importlib.import_module(module), function)
    command = re.search(r'launch\("([\w.]+)"\)', inspect.getsource(run))
    assert command, f"{launcher} does not launch a command"
    with patch.object(argparse.ArgumentParser, "parse_args", catch):
        try:
            importlib.import_module(command[1]).parse_args([])
        except Caught:
            return caught[0]
    raise AssertionError(f"{name} parses no arguments")


def _wrap(usage: str) -> list[str]:
    """Break a usage line between its parts, at about 90 characters."""
    lines = [""]
    for part in re.findall(r"\[[^\]]*(?:\[[^\]]*\][^\]]*)*\]|\([^)]*\)|\S+", usage):
        if len(lines[-1]) + len(part) > 90:
            lines.append("   ")
        lines[-1] += f"{' ' if lines[-1] else ''}{part}"
    return lines


def _spelled(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    formatter = parser._get_formatter()
    return f"`{_cell(formatter._format_action_invocation(action))}`"


def _about(action: argparse.Action) -> str:
    text = (action.help or "").replace("%%", "%").replace("%(default)s", str(action.default))
    return _cell(re.sub(r"(?<![\w`])(--[a-z][\w-]*|'')", r"`\1`", text))


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def api_page() -> str:
    """The public names of the three packages, each rendered by mkdocstrings."""
    lines = [
        "# Python",
        "",
        "The public names of the three packages. `fre_runtime` needs neither PyTorch nor the other "
        "two.",
        "",
    ]
    for package in PACKAGES:
        module = importlib.import_module(package)
        lines += [f"## {package}", "", (module.__doc__ or "").splitlines()[0], ""]
        for name in module.__all__:
            lines += [f"::: {package}.{name}", ""]
    return "\n".join(lines)
