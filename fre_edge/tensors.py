"""Named arrays in a file: written whole or not at all, read without running code from it."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from fre_runtime.errors import ArtifactError, OutputError

Tensors = Mapping[str, NDArray[Any]]


def prefixed(prefix: str, tensors: Tensors) -> dict[str, NDArray[Any]]:
    """Put ``prefix`` and a dot before each name."""
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def below(prefix: str, tensors: Tensors) -> dict[str, NDArray[Any]]:
    """The inverse of `prefixed`, leaving out all others."""
    start = f"{prefix}."
    return {name[len(start) :]: t for name, t in tensors.items() if name.startswith(start)}


def write_tensors(path: Path, tensors: Tensors, notes: Mapping[str, str]) -> None:
    """Write a safetensors file; an earlier one at ``path`` stays until the new one is on the disk.

    Raises `OutputError` where it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        plain = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
        save_file(plain, temporary, dict(notes))
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:  # a full disk, among others
        raise OutputError(f"{path.name}: cannot be written ({error})") from error
    finally:
        temporary.unlink(missing_ok=True)


def read_tensors(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Read what `write_tensors` wrote: arrays and notes; raises `ArtifactError` where it is not."""
    try:
        with safe_open(path, "np") as file:
            names = list(file.keys())
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise ArtifactError(f"{path}: cannot be read ({error})") from error


def reserve(path: Path, size: int) -> None:
    """Make a file of ``size`` bytes whose blocks are taken; what an earlier one holds stays.

    A sparse file would kill the process where the disk is full at last, so this raises
    `OutputError` at once.
    """
    there = path.exists()
    try:
        with path.open("r+b" if there else "w+b") as file:
            file.truncate(size)
            os.posix_fallocate(file.fileno(), 0, max(size, 1))
    except OSError as error:
        if not there:
            path.unlink(missing_ok=True)
        raise OutputError(
            f"{path}: no room for {size / 1e9:.2f} GB ({error.strerror or error})"
        ) from error
