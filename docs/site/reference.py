"""Pages written from the code: fields of the card, options of commands, public Python names."""

import argparse
import dataclasses
import importlib
import inspect
import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import get_origin
from unittest.mock import patch

import griffe

from fre_runtime.card import Card

ROOT = Path(__file__).parents[2]
PLAIN = (int, str, float, bool)
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
    parts = [part for part in getattr(kind, "__args__", ()) if dataclasses.is_dataclass(part)]
    if parts and get_origin(kind) in (list, dict):
        linked = _type(parts[0])
        return f"list of {linked}" if get_origin(kind) is list else f"{linked} by name"
    if parts:
        return f"{_type(parts[0])} or null"
    return f"`{kind.__name__ if kind in PLAIN else kind}`"


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
        lines += [f"## {name}", "", parser.description or "", ""]
        lines += ["```text", _usage(parser), "```", ""]
        for group in parser._action_groups:
            actions = [a for a in group._group_actions if a.help != argparse.SUPPRESS]
            actions = [a for a in actions if not isinstance(a, argparse._HelpAction)]
            if not actions:
                continue
            if group.title not in ("positional arguments", "options"):
                lines += [f"**{group.title}**", ""]
            head = "argument" if group.title == "positional arguments" else "option"
            lines += [group.description or "", "", f"| {head} | |", "|---|---|"]
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


def _usage(parser: argparse.ArgumentParser) -> str:
    with patch.dict(os.environ, COLUMNS="84"):
        return parser.format_usage().removeprefix("usage: ").rstrip()


def _spelled(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    formatter = parser._get_formatter()
    return f"`{formatter._format_action_invocation(action)}`"


def _about(action: argparse.Action) -> str:
    text = (action.help or "").replace("%%", "%").replace("%(default)s", str(action.default))
    return _cell(re.sub(r"(?<![\w`])(--[a-z][\w-]*|'')", r"`\1`", text))


def _cell(text: str) -> str:
    """Text of a table's cell; between backticks a bar needs no escape, and would show one."""
    parts = re.split(r"(`[^`]*`)", text)
    parts[::2] = [part.replace("|", "\\|") for part in parts[::2]]
    return "".join(parts)


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
