"""What the ONNX passes share: who makes a value, who uses it, and the constants."""

from collections import defaultdict

import numpy as np
import onnx
from numpy.typing import NDArray


class Nodes:
    """An index of a graph's nodes by the values that they make and use."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph = graph
        self.makers = {name: node for node in graph.node for name in node.output}
        self.users: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in graph.node:
            for name in node.input:
                self.users[name].append(node)
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        self._outputs = {value.name for value in graph.output}

    def only_user(self, value: str, kind: str) -> onnx.NodeProto | None:
        """The one node that uses ``value``, if it is a ``kind`` and nothing else sees the value."""
        users = self.users[value]
        if len(users) != 1 or users[0].op_type != kind or value in self._outputs:
            return None
        return users[0]

    def constant(self, name: str) -> NDArray[np.generic] | None:
        """Value of the initializer ``name``."""
        tensor = self._constants.get(name)
        return None if tensor is None else onnx.numpy_helper.to_array(tensor)

    def replace(self, old: list[onnx.NodeProto], new: list[onnx.NodeProto]) -> None:
        """Put ``new`` where the first of ``old`` was."""
        place = next(i for i, node in enumerate(self.graph.node) if any(node is o for o in old))
        kept = [node for node in self.graph.node if not any(node is o for o in old)]
        kept[place:place] = new
        self.become(kept)

    def become(self, nodes: list[onnx.NodeProto]) -> None:
        """Make ``nodes`` those of the graph, without nodes and constants that nothing uses."""
        used, useful = set(self._outputs), []
        for node in reversed(nodes):
            if not used.isdisjoint(node.output):
                useful.append(node)
                used.update(node.input)
        del self.graph.node[:]
        self.graph.node.extend(reversed(useful))
        for tensor in [t for t in self.graph.initializer if t.name not in used]:
            self.graph.initializer.remove(tensor)
