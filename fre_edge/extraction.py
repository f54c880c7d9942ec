"""Running photos through the trunk: PyTorch for a few, OpenVINO for many."""

import contextlib
import logging
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import openvino
import torch
from numpy.typing import NDArray
from openvino.frontend import FrontEndManager
from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

from fre_edge.checkpoint import Checkpoint
from fre_edge.features import FeatureExtractor, FeatureShape
from fre_edge.gathering import Gatherer, Keep
from fre_edge.strategies.base import Features
from fre_runtime.engines.base import Settings
from fre_runtime.engines.openvino import config
from fre_runtime.errors import DataError
from fre_runtime.image import Image
from fre_runtime.ordered import ordered_map
from fre_runtime.photos import Photo, PhotoReader
from fre_runtime.progress import track
from fre_runtime.threads import default_threads

log = logging.getLogger(__name__)

MANY = 128
"""Photos from which converting the trunk for OpenVINO (0.7 s) saves more time than it takes."""


class Trunk(Protocol):
    """Image to features, on several photos at a time."""

    workers: int
    """How many calls at once serve it best."""
    prepare: Callable[[], object] | None
    """To be called once in each thread that calls."""

    def __call__(self, image: Image) -> list[Features]:
        """Flat float32 features (D,) of each layer, for a uint8 (H, W, 3) image."""
        ...


def trunk_for(extractor: FeatureExtractor, size: tuple[int, int], photos: int) -> Trunk:
    """The faster way to run a uint8 ``extractor`` on so many photos of ``size``."""
    return TorchTrunk(extractor) if photos < MANY else OpenVinoTrunk.convert(extractor, size)


class TorchTrunk:
    """Each core works on a photo of its own with one thread.

    Faster than sharing photos or batches among threads, which wait for each other at every layer,
    and the same bits whatever the number of cores.
    """

    def __init__(self, extractor: FeatureExtractor) -> None:
        self._extractor = extractor
        self.workers = default_threads()
        self.prepare: Callable[[], object] | None = lambda: torch.set_num_threads(1)

    @torch.inference_mode()
    def __call__(self, image: Image) -> list[Features]:
        """See `Trunk`."""
        return [u.flatten().numpy() for u in self._extractor(torch.from_numpy(image)[None])]


class OpenVinoTrunk:
    """A trunk compiled by OpenVINO; its features match PyTorch's to 1e-5 of the largest.

    Parameters
    ----------
    model
        Image to the features of each layer, uint8 (1, H, W, 3) or float32 (1, 3, H, W) in 0..1.
    precision
        ``f32``, ``bf16`` or ``int8``, as in `Settings`.
    prepare_input
        From a uint8 (H, W, 3) image to the batch that ``model`` takes.
    """

    def __init__(
        self,
        model: openvino.Model,
        precision: str = "f32",
        prepare_input: Callable[[Image], NDArray[Any]] = lambda image: image[None],
    ) -> None:
        settings = Settings(default_threads(), precision, throughput=True)
        self._compiled = openvino.compile_model(model, "CPU", config(settings))
        self._prepare_input = prepare_input
        self._local = threading.local()
        # One more, so that a stream never waits for its next photo.
        self.workers = 1 + int(self._compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        self.prepare: Callable[[], object] | None = None

    @classmethod
    def convert(cls, extractor: FeatureExtractor, size: tuple[int, int]) -> "OpenVinoTrunk":
        """Convert a uint8 ``extractor``.

        By OpenVINO's frontend itself: `openvino.convert_model` calls the same, and spends as long
        again on what this model does not need.
        """
        example = torch.zeros(1, *size, 3, dtype=torch.uint8)
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")  # of the tracer, about shapes that are fixed here
            traced = torch.jit.trace(extractor, example, check_trace=False)  # type: ignore[no-untyped-call]
            decoder = TorchScriptPythonDecoder(traced, example_input=example)
            frontend = FrontEndManager().load_by_framework("pytorch")
            model = frontend.convert(frontend.load(decoder))
        model.reshape(list(example.shape))
        return cls(model)

    def __call__(self, image: Image) -> list[Features]:
        """See `Trunk`."""
        if not hasattr(self._local, "request"):
            self._local.request = self._compiled.create_infer_request()
        request: openvino.InferRequest = self._local.request
        request.infer([self._prepare_input(image)])
        outputs = range(len(self._compiled.outputs))
        return [request.get_output_tensor(i).data.ravel().copy() for i in outputs]


def extract(
    trunk: Trunk, reader: PhotoReader, shapes: Sequence[FeatureShape]
) -> tuple[list[Path], list[Features]]:
    """Run all photos, or their tiles, through ``trunk``.

    Returns the photo of each row, and float32 (N, D) for each layer.
    """
    keep = Keep(shapes, reader.expected)
    photos = gather(trunk, reader, keep)
    return photos, keep.state().kept


def gather(
    trunk: Trunk,
    reader: PhotoReader,
    gatherer: Gatherer,
    checkpoint: Checkpoint | None = None,
    note: Callable[[int], None] | None = None,
) -> list[Path]:
    """Run all photos, or their tiles, through ``trunk`` into ``gatherer``; the photo of each row.

    Beyond what the gatherer takes, memory does not grow with the photos. With a ``checkpoint`` it
    goes on where an earlier one was stopped, to the same result. ``note`` is told after each photo
    how many there are.

    Raises
    ------
    DataError
        When a feature is not finite.
    """
    photos = [] if checkpoint is None else checkpoint.resume(reader, gatherer)

    def run(photo: Photo) -> tuple[Path, list[Features]]:
        return photo.path, trunk(photo.image)

    rows = ordered_map(run, reader, trunk.workers, 2 * trunk.workers, trunk.prepare)
    shown = track(rows, reader.expected - reader.start, "extracting features")
    with _one_thread_each():
        for path, taps in shown if log.isEnabledFor(logging.INFO) else rows:
            if not all(np.isfinite(layer).all() for layer in taps):
                raise DataError(
                    f"the backbone gives non-finite features for {path}; its weights are damaged"
                )
            gatherer.add(path, taps)
            photos.append(path)
            if note is not None:
                note(len(photos))
            if checkpoint is not None:
                checkpoint.note(reader, gatherer, photos)
    if checkpoint is not None:
        checkpoint.save(reader, gatherer, photos)
    return photos


@contextlib.contextmanager
def _one_thread_each() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
