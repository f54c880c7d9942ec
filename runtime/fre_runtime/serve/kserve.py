"""The KServe v2 inference protocol over REST: its JSON, and Triton's binary tensors within it.

Requests become arrays and arrays become answers here; what is wrong with a request is a
`ProtocolError`, and nothing is guessed. https://kserve.github.io/website describes the protocol,
its extension for binary tensors is Triton's.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fre_runtime.card import OUTPUTS, Card, Graph
from fre_runtime.engines.base import Outputs
from fre_runtime.errors import FreError

JSON_LENGTH = "Inference-Header-Content-Length"
"""Header: bytes of JSON at the start of a body that goes on with binary tensors."""

MAX_BATCH = 32
"""Images in one request: a batch holds memory for all of its features at once."""

CHARACTERS = 24
"""Of JSON for each number of one image: all digits of a float. Python takes up to some 45 bytes of
memory for a byte of JSON, so what the JSON of a request costs is bounded by the model's input."""

SPARE = 1 << 16
"""Bytes of JSON besides the numbers."""

MAX_DEPTH = 4
"""Axes of a tensor: lists within lists."""

SLACK = 1e-3
"""How far float pixels may lie outside 0..1: resizing overshoots a little."""

_DATATYPES = {"uint8": "UINT8", "float32": "FP32", "bool": "BOOL"}

_OUTPUT_TYPES = dict(zip(OUTPUTS, ("FP32", "BOOL", "FP32", "BOOL"), strict=True))


class ProtocolError(FreError, ValueError):
    """A request breaks the protocol or does not fit the model."""


@dataclass(frozen=True)
class InferRequest:
    """What was asked."""

    batch: NDArray[Any]
    outputs: dict[str, bool]
    """Names of the wanted outputs in their order; True: as binary data."""
    id: str | None


def server_metadata(version: str) -> dict[str, Any]:
    """Answer to ``GET /v2``."""
    return {"name": "fre-serve", "version": version, "extensions": ["binary_tensor_data"]}


def model_metadata(card: Card, engine: str, said: Mapping[str, str]) -> dict[str, Any]:
    """Answer to ``GET /v2/models/NAME``.

    ``said`` is what the graph file says of itself. It is passed on under ``rt_info``, where Intel's
    Model API asks servers for the kind of the model.
    """
    graph = card.graph
    map_shape = [-1, 1, graph.map_height, graph.map_width]
    shapes = dict(zip(OUTPUTS, ([-1], [-1], map_shape, map_shape), strict=True))
    return {
        "name": card.name,
        "versions": ["1"],
        "platform": {"openvino": "openvino_ir", "onnxruntime": "onnxruntime_onnx"}[engine],
        "inputs": [
            {
                "name": graph.input_name,
                "datatype": _DATATYPES[graph.input_dtype],
                "shape": [-1, *graph.input_shape],
            }
        ],
        "outputs": [
            {"name": name, "datatype": kind, "shape": shapes[name]}
            for name, kind in _OUTPUT_TYPES.items()
        ],
        "rt_info": {"model_info": dict(said)},
    }


def parse_request(body: bytes, json_length: str | None, graph: Graph) -> InferRequest:
    """Read the body of ``POST /v2/models/NAME/infer``.

    Parameters
    ----------
    body
        JSON, or JSON with binary tensors behind it.
    json_length
        Value of the header `JSON_LENGTH`, or None.
    graph
        What the model takes.

    Raises
    ------
    ProtocolError
        When the body is not what the protocol or the model wants.
    """
    head, tail = _split(body, json_length)
    limit = json_limit(graph)
    if len(head) > limit:
        raise ProtocolError(
            f"the JSON has {len(head)} bytes, over this model's limit of {limit}; send the tensor "
            "as binary data, which is faster, too"
        )
    request = _parse_json(head)
    inputs = request.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise ProtocolError(f"inputs must be a list of one tensor, {graph.input_name!r}")
    batch = _read_tensor(inputs[0], tail, graph)
    if batch.dtype == np.float32 and not (batch.min() >= -SLACK and batch.max() <= 1 + SLACK):
        raise ProtocolError(
            f"{graph.input_name} must lie in 0..1, got {batch.min():g}..{batch.max():g}; divide "
            "8-bit pixels by 255, and nothing else: the graph normalises"
        )
    request_id = request.get("id")
    if request_id is not None and not isinstance(request_id, str):
        raise ProtocolError(f"id must be a string, got {request_id!r}")
    return InferRequest(batch, _wanted(request), request_id)


def json_limit(graph: Graph) -> int:
    """Bytes of JSON in one request: one float image with all its digits, several of uint8."""
    return SPARE + CHARACTERS * math.prod(graph.input_shape)


def _split(body: bytes, json_length: str | None) -> tuple[bytes, bytes]:
    if json_length is None:
        return body, b""
    digits = json_length.isascii() and json_length.isdigit() and len(json_length) < 16
    if not (digits and int(json_length) <= len(body)):
        raise ProtocolError(f"{JSON_LENGTH} must be 0..{len(body)}, the body's bytes")
    return body[: int(json_length)], body[int(json_length) :]


def _parse_json(head: bytes) -> dict[str, Any]:
    def refuse(constant: str) -> float:
        raise ProtocolError(f"the JSON holds {constant}, which is not a number of JSON")

    try:
        request = json.loads(head, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        if isinstance(error, ProtocolError):
            raise
        raise ProtocolError(f"the request is not JSON ({error})") from error
    if not isinstance(request, dict):
        raise ProtocolError("the request must be a JSON object")
    return request


def _read_tensor(tensor: dict[str, Any], tail: bytes, graph: Graph) -> NDArray[Any]:
    name, dtype = graph.input_name, np.dtype(graph.input_dtype)
    if tensor.get("name") != name:
        raise ProtocolError(f"the model's input is {name!r}, got {_short(tensor.get('name'))}")
    if tensor.get("datatype") != _DATATYPES[dtype.name]:
        raise ProtocolError(
            f"{name} must be {_DATATYPES[dtype.name]}, got {_short(tensor.get('datatype'))}"
        )
    shape = _shape(tensor.get("shape"), graph)
    count = math.prod(shape)
    size = _parameters(tensor, name).get("binary_data_size")
    if size is None:
        if tail:
            raise ProtocolError(f"{len(tail)} bytes follow the JSON, binary_data_size names none")
        return _from_json(tensor.get("data"), name, dtype, count).reshape(shape)
    expected = count * dtype.itemsize
    if size != expected or len(tail) != expected:
        raise ProtocolError(
            f"{name} of shape {list(shape)} takes {expected} bytes; binary_data_size is "
            f"{_short(size)} and {len(tail)} bytes follow the JSON"
        )
    if "data" in tensor:
        raise ProtocolError(f"{name} has both data and binary_data_size")
    return np.frombuffer(tail, dtype).reshape(shape)


def _shape(given: Any, graph: Graph) -> tuple[int, ...]:  # noqa: ANN401 - parsed JSON
    fits = (
        isinstance(given, list)
        and all(type(side) is int for side in given)
        and tuple(given[1:]) == graph.input_shape
        and 1 <= given[0] <= MAX_BATCH
    )
    if not fits:
        wanted = ", ".join(map(str, graph.input_shape))
        raise ProtocolError(
            f"{graph.input_name} must have the shape [n, {wanted}] with n in 1..{MAX_BATCH}, got "
            f"{_short(given)}"
        )
    return tuple(given)


def _from_json(data: Any, name: str, dtype: np.dtype[Any], count: int) -> NDArray[Any]:  # noqa: ANN401 - parsed JSON
    """Nested lists or one flat list, row by row; numbers must be what the datatype holds."""
    # Before numpy sees it: of one long text among many short ones it makes gigabytes.
    if kinds := _kinds(data) - {int, float}:
        found = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise ProtocolError(
            f"data of {name} must hold {count} numbers of {_DATATYPES[dtype.name]}, got {found}"
        )
    try:
        array = np.asarray(data)
    except (ValueError, OverflowError) as error:
        raise ProtocolError(f"data of {name} is not a regular array of numbers") from error
    if array.dtype.kind not in ("iu" if dtype.kind == "u" else "iuf") or array.size != count:
        raise ProtocolError(
            f"data of {name} must hold {count} numbers of {_DATATYPES[dtype.name]}, got "
            f"{array.size} of {array.dtype}"
        )
    if dtype.kind == "u" and (array.min() < 0 or array.max() > np.iinfo(dtype).max):
        raise ProtocolError(f"data of {name} must lie in 0..{np.iinfo(dtype).max}")
    with np.errstate(over="ignore"):  # infinity is refused with all else outside 0..1
        return array.astype(dtype)


def _kinds(data: Any) -> set[type]:  # noqa: ANN401 - parsed JSON
    """The types in nested lists; ``list`` is one of them where the depth is uneven or too large."""
    level = [data]
    for _ in range(MAX_DEPTH + 1):
        if (kinds := set(map(type, level))) != {list}:
            break
        level = list(chain.from_iterable(level))
    return kinds


def _wanted(request: dict[str, Any]) -> dict[str, bool]:
    """Which outputs, and which of them as binary data."""
    default = _binary(_parameters(request, "request"), "binary_data_output", False)
    outputs = request.get("outputs")
    outputs = [] if outputs is None else outputs
    if not isinstance(outputs, list) or not all(isinstance(output, dict) for output in outputs):
        raise ProtocolError("outputs must be a list of objects")
    wanted = {}
    for output in outputs or [{"name": name} for name in OUTPUTS]:
        name = output.get("name")
        if name not in OUTPUTS:
            have = ", ".join(OUTPUTS)
            raise ProtocolError(f"the model has no output {_short(name)}; it has {have}")
        parameters = _parameters(output, name)
        if parameters.get("classification"):
            raise ProtocolError(f"{name}: the classification extension is not offered")
        wanted[name] = _binary(parameters, "binary_data", default)
    return wanted


def _parameters(thing: dict[str, Any], name: str) -> dict[str, Any]:
    parameters = thing.get("parameters", {})
    if not isinstance(parameters, dict):
        raise ProtocolError(f"parameters of {name} must be an object")
    if any(key.startswith("shared_memory") for key in parameters):
        raise ProtocolError(f"{name}: shared memory is not offered")
    return parameters


def _binary(parameters: dict[str, Any], key: str, default: bool) -> bool:
    value = parameters.get(key, default)
    if not isinstance(value, bool):
        raise ProtocolError(f"{key} must be true or false, got {_short(value)}")
    return value


def format_answer(
    card: Card, request: InferRequest, outputs: Outputs
) -> tuple[bytes, dict[str, str]]:
    """Write the answer: its body and headers.

    Raises
    ------
    ProtocolError
        When a score is not a number and was not asked for as binary data: JSON cannot say so.
    """
    tensors, blobs = [], []
    for name, binary in request.outputs.items():
        array: NDArray[Any] = np.ascontiguousarray(getattr(outputs, name))
        tensor: dict[str, Any] = {
            "name": name,
            "datatype": _OUTPUT_TYPES[name],
            "shape": list(array.shape),
        }
        if binary:
            blobs.append(array.tobytes())
            tensor["parameters"] = {"binary_data_size": array.nbytes}
        elif not np.isfinite(array).all():
            raise ProtocolError(
                f"{name} is not a number, so these images are invalid; ask for binary_data to get "
                "the tensor as it is"
            )
        else:
            tensor["data"] = array.ravel().tolist()
        tensors.append(tensor)
    answer: dict[str, Any] = {"model_name": card.name, "model_version": "1", "outputs": tensors}
    if request.id is not None:
        answer["id"] = request.id
    head = json.dumps(answer).encode()
    if not blobs:
        return head, {"Content-Type": "application/json"}
    headers = {"Content-Type": "application/octet-stream", JSON_LENGTH: str(len(head))}
    return head + b"".join(blobs), headers


def _short(value: Any) -> str:  # noqa: ANN401 - parsed JSON
    """A value as an error shows it, however long somebody made it."""
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
