"""Triton's backend "onnxruntime", for a Triton without one: ONNX Runtime from PyPI runs the model.

Triton itself reads the repository and the configuration, checks requests and switches versions.
"""

import json
from pathlib import Path

import onnxruntime
import triton_python_backend_utils as utils


class TritonPythonModel:
    """What Triton asks of a backend in Python."""

    @staticmethod
    def auto_complete_config(config):
        return config

    def initialize(self, args):
        path = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        self.outputs = [one["name"] for one in json.loads(args["model_config"])["output"]]

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        feed = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        arrays = self.session.run(self.outputs, feed)
        tensors = map(utils.Tensor, self.outputs, arrays)
        return utils.InferenceResponse(list(tensors))
