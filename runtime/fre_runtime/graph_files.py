"""Changing constants and metadata inside of the graph files, with neither onnx nor OpenVINO.

The two thresholds are constants of the graph. Every client must see new ones, so they are changed
in the files themselves: nothing else of the graph is touched.
"""

import struct
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from fre_runtime.calibration import Calibration
from fre_runtime.errors import ArtifactError


def threshold_constants(calibration: Calibration) -> dict[str, float]:
    """The thresholds by the names that their constants have in every graph."""
    return {
        "head.image_tau": calibration.image.value,
        "head.pixel_tau": calibration.pixel.value,
    }


def rewrite(path: Path, constants: Mapping[str, float], metadata: Mapping[str, str]) -> None:
    """Set scalar float32 constants and metadata of ``model.onnx``, or of ``model.xml`` and its bin.

    Raises
    ------
    ArtifactError
        When the file lacks a constant: it was written by an earlier version.
    """
    try:
        if path.suffix == ".xml":
            weights = path.with_suffix(".bin")
            xml, more = _rewrite_ir(path.read_bytes(), weights.stat().st_size, constants, metadata)
            with weights.open("ab") as file:
                file.write(more)
            path.write_bytes(xml)
        else:
            path.write_bytes(_rewrite_onnx(path.read_bytes(), constants, metadata))
    except (ValueError, IndexError, ElementTree.ParseError) as error:
        raise ArtifactError(
            f"{path}: its thresholds cannot be changed ({error}); export the model again"
        ) from error


def _rewrite_ir(
    xml: bytes, end: int, constants: Mapping[str, float], metadata: Mapping[str, str]
) -> tuple[bytes, bytes]:
    """Return the new XML, and what to append to the weights, which have ``end`` bytes.

    OpenVINO stores equal constants once, so the old bytes may belong to others as well: the new
    value goes to the end of the file, and the constant's offset there.
    """
    root = ElementTree.fromstring(xml)
    more = b""
    for name, value in constants.items():
        found = root.findall(f"./layers/layer[@type='Const'][@name='{name}']/data")
        wanted = {"element_type": "f32", "shape": "", "size": "4"}
        if len(found) != 1 or any(found[0].get(k) != v for k, v in wanted.items()):
            raise ValueError(f"no constant {name}")
        found[0].set("offset", str(end + len(more)))
        more += struct.pack("<f", value)
    for key, text in metadata.items():
        entry = root.find(f"./rt_info/model_info/{key}")
        if entry is None:
            raise ValueError(f"no metadata {key}")
        entry.set("value", text)
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True), more


# Numbers of the fields in onnx.proto, which are fixed for good.
_GRAPH, _METADATA = 7, 14  # of ModelProto
_INITIALIZER = 5  # of GraphProto
_NAME, _RAW_DATA = 8, 9  # of TensorProto
_KEY, _VALUE = 1, 2  # of StringStringEntryProto
_BYTES = 2
"""Wire type of strings, bytes and messages."""


class _Field(NamedTuple):
    number: int
    wire: int
    start: int
    """Offset of its tag."""
    content: int
    """Offset of its content; of a varint the tag's end."""
    end: int


def _rewrite_onnx(
    data: bytes, constants: Mapping[str, float], metadata: Mapping[str, str]
) -> bytes:
    """Change ``raw_data`` where it stands, since its length stays, then write metadata anew."""
    changed = bytearray(data)
    missing = dict(constants)
    for graph in _fields(data, 0, len(data)):
        if graph.number != _GRAPH:
            continue
        for tensor in _fields(data, graph.content, graph.end):
            if tensor.number != _INITIALIZER:
                continue
            parts = {f.number: f for f in _fields(data, tensor.content, tensor.end)}
            name = _text(data, parts[_NAME]) if _NAME in parts else ""
            if name in missing and _RAW_DATA in parts:
                raw = parts[_RAW_DATA]
                if raw.end - raw.content != 4:
                    raise ValueError(f"{name} is no scalar")
                changed[raw.content : raw.end] = struct.pack("<f", missing.pop(name))
    if missing:
        raise ValueError(f"no constant {', '.join(missing)}")
    return _with_metadata(bytes(changed), metadata)


def _with_metadata(data: bytes, metadata: Mapping[str, str]) -> bytes:
    pieces = []
    missing = dict(metadata)
    for field in _fields(data, 0, len(data)):
        piece = data[field.start : field.end]
        if field.number == _METADATA:
            parts = {f.number: f for f in _fields(data, field.content, field.end)}
            key = _text(data, parts[_KEY])
            if key in missing:
                entry = _message(_KEY, key.encode()) + _message(_VALUE, missing.pop(key).encode())
                piece = _message(_METADATA, entry)
        pieces.append(piece)
    if missing:
        raise ValueError(f"no metadata {', '.join(missing)}")
    return b"".join(pieces)


def _fields(data: bytes, start: int, end: int) -> Iterator[_Field]:
    """The fields of one protobuf message."""
    at = start
    while at < end:
        tag, content = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == _BYTES:
            size, content = _varint(data, content)
            stop = content + size
        elif wire in _SKIP:
            stop = _SKIP[wire](data, content)
        else:
            raise ValueError(f"wire type {wire} at byte {at}")
        if stop > end:
            raise ValueError(f"a field ends at byte {stop}, its message at {end}")
        yield _Field(number, wire, at, content, stop)
        at = stop


_SKIP: dict[int, Callable[[bytes, int], int]] = {
    0: lambda data, at: _varint(data, at)[1],
    1: lambda data, at: at + 8,
    5: lambda data, at: at + 4,
}


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise ValueError(f"a number at byte {at} does not end")


def _text(data: bytes, field: _Field) -> str:
    return data[field.content : field.end].decode()


def _message(number: int, content: bytes) -> bytes:
    return _encoded(number << 3 | _BYTES) + _encoded(len(content)) + content


def _encoded(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
