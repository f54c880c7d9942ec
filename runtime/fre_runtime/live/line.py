"""One line: one source, one model; reads in one thread, scores in another."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from fre_runtime.calibration import Calibration
from fre_runtime.drift import ADVICE, FEWEST, RECOVERED, DriftOptions, DriftState, DriftWatch
from fre_runtime.image import Image
from fre_runtime.live.backoff import Backoff
from fre_runtime.live.captures import Capture
from fre_runtime.live.events import Counters, Event, Sink
from fre_runtime.live.frozen import FrozenPicture
from fre_runtime.live.newest import NewestQueue
from fre_runtime.live.options import SAME_PART, LineOptions
from fre_runtime.live.reader import Reader
from fre_runtime.result import Result
from fre_runtime.sources import Frame

POLL_SECONDS = 0.1
"""How often the watchdogs look."""
MAX_HANGING = 3
"""So many readers of one source may hang in the system; no further one is started then."""


@dataclass(frozen=True)
class _Picture:
    number: int
    frame: Frame
    wall: float
    clock: float


class Line:
    """One source with one model.

    A camera or stream that fails, ends or falls silent is opened again, with delays that grow. A
    line ends when its file ends, or when it is told to.

    Parameters
    ----------
    name
        What events and counters call it.
    detector
        Scores one uint8 (H, W, 3) RGB image, e.g. a `Detector`.
    capture
        Where the pictures come from; see `fre_runtime.live.captures.open_capture`.
    sinks
        Get each event. The caller closes them.
    options
        Limits.
    backoff
        Delays before a source is opened again.
    calibration
        What the scores are watched for drift against, through reconnects, too; without it, or
        where it rests on too few parts, they are not.
    """

    def __init__(
        self,
        name: str,
        detector: Callable[[Image], Result],
        capture: Capture,
        sinks: Sequence[Sink],
        options: LineOptions | None = None,
        backoff: Backoff | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        self.name = name
        self.capture = capture
        self.counters = Counters()
        """A snapshot, replaced as pictures come and go."""
        self.reconnects = 0
        """How often the source was opened again."""
        self.unheard = 0
        """Events that a sink raised for."""
        self.drift: DriftState | None = None
        """What the scores so far say; None where they are not watched."""
        self.alarm: Event | None = None
        """The event at which the latest drift alarm began, without its picture; it may be over, see
        ``drift.drifting``."""
        self.alarms = 0
        """Drift alarms so far."""
        self._detector = detector
        self._sinks = sinks
        self._options = options or LineOptions()
        self._backoff = backoff or Backoff()
        self._lock = threading.Lock()  # for the counters and the queue together
        self._queue: NewestQueue[_Picture] = NewestQueue(self._options.queue)
        self._open = True
        self._given_up = False
        self._told = 0  # pictures that were scored or failed, and the sinks have heard of
        self._asked: float | None = None  # since when the model owes an answer
        self._overdue = False
        self._frozen = FrozenPicture()
        self._size: tuple[int, int] | None = None
        self._watch = _drift_watch(calibration, self._options, capture)
        self._watching = threading.Lock()
        if self._watch:
            self.drift = self._watch.state

    def run(self, stop: threading.Event) -> Counters:
        """Read and score until ``stop`` is set or the source ends; once only.

        Trouble of the source, the model or a sink never raises: it is in events and counters.
        """
        scorer = threading.Thread(target=self._score, name=f"score {self.name}", daemon=True)
        scorer.start()
        readers: list[Reader] = []
        while not stop.is_set():
            readers = [reader for reader in readers if reader.alive]
            trouble = self._read(readers, stop)
            if trouble is None:
                break
            delay = self._backoff.next()
            self._catch_up(stop)
            self._tell_stale(f"{trouble}; trying again in {delay:.1f} s")
            if not stop.wait(delay):
                self.reconnects += 1
        self._end(scorer, stop)
        for reader in readers:
            reader.join(POLL_SECONDS)
        return self.counters

    def reset_drift(self) -> None:
        """End a drift alarm and watch anew: its cause was found, or what is seen is meant."""
        with self._watching:
            if self._watch:
                self._watch.reset()
                self.drift = self._watch.state

    def _read(self, readers: list[Reader], stop: threading.Event) -> str | None:
        """Read the source as long as it goes well; returns what is wrong, None at the end."""
        name, options = self.capture.name, self._options
        if len(readers) >= MAX_HANGING:
            return f"{name}: {MAX_HANGING} attempts hang in the system; look after the camera"
        reader = Reader(self.capture, self._take)
        readers.append(reader)
        try:
            while not reader.wait(POLL_SECONDS):
                if stop.is_set():
                    return None
                self._watch_model()
                limit = options.no_frame if reader.frames else options.opening
                if self.capture.endless and reader.silence() > limit:
                    return f"{name}: no frame for {limit:g} s"
            return reader.trouble
        finally:
            reader.leave()
            if reader.frames:
                self._backoff.reset()

    def _catch_up(self, stop: threading.Event) -> None:
        """Wait until all pictures are told of, lest a good one be the last word on a dead source.

        Not for a model that hangs.
        """
        while self.counters.captured - self.counters.dropped > self._told:
            if self._watch_model() or stop.wait(0.01):
                return

    def _take(self, frame: Frame, left: Callable[[], bool]) -> None:
        """Called by the reader for each picture."""
        wall, clock = time.time(), time.monotonic() - frame.decode_ms / 1e3
        while self.capture.patient and not self._queue.wait_for_room(POLL_SECONDS):
            if left():
                return
        with self._lock:
            if self._open:
                gone = self._queue.put(_Picture(self.counters.captured, frame, wall, clock))
                self._add(captured=1, dropped=len(gone))

    def _add(self, captured: int = 0, dropped: int = 0, failed: int = 0) -> None:
        c = self.counters
        self.counters = replace(
            c, captured=c.captured + captured, dropped=c.dropped + dropped, failed=c.failed + failed
        )

    def _score(self) -> None:
        """The scoring thread."""
        while (picture := self._queue.get()) is not None:
            self._asked = time.monotonic()
            event = self._judge(picture)
            self._asked = None
            with self._lock:
                if self._given_up:
                    return  # counted already
                if event.score is None:
                    self._add(failed=1)
                else:
                    c, worse = self.counters, event.state == "anomalous"
                    self.counters = replace(
                        c, scored=c.scored + 1, anomalous=c.anomalous + int(worse)
                    )
            self._tell(self._watched(event))
            self._told += 1

    def _watched(self, event: Event) -> Event:
        """The event, with what the scores up to its own say of drift."""
        with self._watching:
            if self._watch is None or self.drift is None:
                return event
            before = self.drift.drifting
            if event.raw_score is not None:
                self.drift = self._watch.update(event.raw_score)
            event = replace(event, drift=self.drift)
            if self.drift.drifting and not before:
                direction = self.drift.direction
                why = f"the scores have become {direction} than chance explains; {ADVICE}"
                event = replace(event, warning=why)
                self.alarm = replace(event, image=None, result=None)
                self.alarms += 1
            elif before and not self.drift.drifting:
                event = replace(event, warning="the drift alarm is over: " + RECOVERED)
        return event

    def _judge(self, picture: _Picture) -> Event:
        event = Event(
            line=self.name,
            source=picture.frame.source,
            number=picture.number,
            time=picture.wall,
            state="invalid",
        )
        try:
            frame = picture.frame.decoded()
            event = replace(event, image=frame.image)
            return self._judged(event, frame, picture.clock)
        except Exception as error:  # whatever it is, this picture has no score
            return replace(event, error=str(error) or type(error).__name__)

    def _judged(self, event: Event, frame: Frame, clock: float) -> Event:
        if frame.image is None:
            return replace(event, error=frame.error)
        if self.capture.endless:
            still = self._frozen.seconds(frame.image, clock)
            if 0 < self._options.frozen <= still:
                error = f"{frame.source}: the very same picture for {still:.1f} s"
                return replace(event, state="stale", error=error)
            if why := self._misshapen(frame.image):
                return replace(event, error=f"{frame.source}: {why}")
        result = self._detector(frame.image)
        if self.capture.endless and (why := self._moved(result)):
            return replace(event, error=f"{frame.source}: {why}")
        if result.state == "invalid":
            return replace(event, error="the score is not a number", result=result)
        return replace(
            event,
            state=result.state,
            score=result.score,
            raw_score=result.raw_score,
            latency_ms=(time.monotonic() - clock) * 1e3,
            boxes=tuple(result.boxes) if result.state == "anomalous" else (),
            result=result,
        )

    def _misshapen(self, image: Image) -> str | None:
        """Why a picture cannot be of the view that the line began with."""
        size = image.shape[1], image.shape[0]
        if self._size is None:
            self._size = size
        (width, height), (first_width, first_height) = size, self._size
        if abs(width * first_height - first_width * height) <= 0.01 * width * first_height:
            return None
        return (
            f"the picture is {width} x {height}, the line began with {first_width} x "
            f"{first_height}; if that is meant, start again"
        )

    def _moved(self, result: Result) -> str | None:
        """Why tiles, which count pixels, do not show what they showed at first.

        Of regions the model itself refuses another size.
        """
        size = result.image_size[1], result.image_size[0]
        first = self._size or size
        view = result.placement.plan.view if result.placement else None
        if view is None or not view.tile or size == first:
            return None
        return (
            f"the picture is {size[0]} x {size[1]}, the line began with {first[0]} x {first[1]}, "
            "and the model looks at tiles of fixed pixels; set the camera back, or start again"
        )

    def _watch_model(self) -> bool:
        """Whether the model is overdue; told once."""
        asked, limit = self._asked, self._options.inference
        overdue = asked is not None and time.monotonic() - asked > limit
        if overdue and not self._overdue:
            self._tell_stale(f"no answer from the model for {limit:g} s")
        self._overdue = overdue
        return overdue

    def _end(self, scorer: threading.Thread, stop: threading.Event) -> None:
        """Score what waits, or count it as dropped; do not wait for a model that hangs."""
        while True:
            overdue = self._watch_model()
            with self._lock:
                gone = self._queue.close(discard=overdue or stop.is_set())
                self._open = False
                self._add(dropped=len(gone))
                self._given_up = overdue
                if overdue:
                    self._add(failed=self.counters.waiting)
            if overdue or not scorer.is_alive():
                return
            scorer.join(POLL_SECONDS)

    def _tell_stale(self, error: str) -> None:
        self._tell(
            Event(
                line=self.name,
                source=self.capture.name,
                number=self.counters.captured,
                time=time.time(),
                state="stale",
                error=error,
                drift=self.drift,
            )
        )

    def _tell(self, event: Event) -> None:
        for sink in self._sinks:
            try:
                sink.emit(event)
            except Exception:  # a sink's trouble is not the line's
                self.unheard += 1


def _drift_watch(
    calibration: Calibration | None, options: LineOptions, capture: Capture
) -> DriftWatch | None:
    every = options.drift
    if every is None:
        every = 1 if capture.patient else SAME_PART
    if calibration is None or calibration.scenes < FEWEST or every == 0:
        return None
    return DriftWatch(calibration, DriftOptions(every=every))
