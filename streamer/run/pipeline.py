"""The only place where threads start: one reader and one placer a source, some workers, one tail, and one
writer where the run is recorded.

reader (source > ring)  >  placer (in order: place)  >  workers (batch > detector > classifier)  >  tail (in order:
cells, counts, publish)

The calling thread keeps the terminal. Whatever fails, what was counted is published as a final differential, and the
end of the session says that it failed. Where there is a journal, nothing that it lacks is published.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from streamer.analysis.analyser import Analysed, Analyser
from streamer.analysis.models import Analysers
from streamer.inference.patience import next_frame
from streamer.journal import Emission
from streamer.protocol.messages import DifferentialMessage, FrameMessage, Sink
from streamer.recording import Recorder
from streamer.records import (
    AreaStatus,
    AuditStatus,
    Frame,
    Health,
    Mode,
    ModelHealth,
    Skip,
    SlideInfo,
    StreamStatus,
)
from streamer.run.batcher import Batcher, InOrder, SequencedFrame
from streamer.run.control import CommandExecutor
from streamer.run.lane import ENOUGH, Lane
from streamer.run.measuring import Measuring, OwnMeasuring
from streamer.run.placing import PlacedFrame
from streamer.run.ring import Ring
from streamer.run.session import SlideSession
from streamer.sources.base import Source

POLL_S = 0.05
"""How long the tail waits for a result before it looks after its sinks."""

NOWHERE_ELSE: Mapping[str, Measuring] = {}

JOIN_READER_S = 1.0
"""How long the end waits for a reader that may be blocked in a driver; it is left behind after that."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of the hand-overs, and when to stop."""

    workers: int
    max_batch: int = 1
    """Frames of one run of the models."""
    max_wait_ms: float = 5.0
    stale_after_ms: float = 1000.0
    """A live source's frame that is older when its turn comes is dropped."""
    queue: int | None = None
    """Frames of one source that may wait; None: by mode."""
    health_interval_s: float = 1.0
    stop_at: int | None = None
    """White cells of one source after which it is stopped."""
    wait_s: float = 0.0
    """How long a source that is not there yet is waited for."""


@dataclass(frozen=True, slots=True)
class RunOutputs:
    """Where a run's messages and frames go. All but `on_skip` and the recorder is called on the publishing thread."""

    sinks: Sequence[Sink]
    """They get every message; closed at the end."""
    service: Callable[[], None] = lambda: None
    """Called some twenty times a second, for sinks that have peers to answer."""
    show: Callable[[Frame], None] = lambda frame: None
    """Gets every frame published."""
    picture: Callable[[Frame, int], tuple[bytes, int, int] | None] = lambda frame, now_ns: None
    """The JPEG, width and height to publish of a frame, if any; `now_ns` is the pipeline's clock."""
    stream: Callable[[], StreamStatus | None] = lambda: None
    """How the sockets do; None where nothing is published over sockets."""
    on_skip: Callable[[Skip], None] = lambda skip: None
    """Gets what a source could not give as a frame, on the thread that reads the source."""
    lines_lost: Callable[[], int | None] = lambda: None
    """How many lines of JSON could not be written; None where none are."""
    recorder: Recorder | None = None
    """Keeps what goes in and what comes out; closed with the sinks. None: nothing is recorded."""


class _Ticket:
    """A batch under way; its place is free again when the last of its frames was published."""

    __slots__ = ("left",)

    def __init__(self, frames: int) -> None:
        self.left = frames


@dataclass(frozen=True, slots=True, eq=False)
class _Result:
    """What a worker hands to the tail: `analysed` is None where the analysis failed."""

    ticket: _Ticket
    placed: PlacedFrame
    analysed: Analysed | None


class Pipeline:
    """Analyses sources until they end, `stop` is called, or something fails.

    `start` begins, `running` says whether there is more to come, `finish` waits for the end, closes the sinks and
    raises what went wrong. `finals` are the last differentials, by source; they are there however it ended.
    """

    def __init__(
        self,
        sources: Sequence[tuple[Source, Mode]],
        analyser: Analyser | Analysers,
        new_session: Callable[[str], SlideSession],
        outputs: RunOutputs,
        limits: Limits,
        *,
        models: Callable[[str], ModelHealth] = lambda source: ModelHealth(),
        next_session: Callable[[str, SlideInfo], SlideSession] | None = None,
        measuring: Mapping[str, Measuring] = NOWHERE_ELSE,
        now_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """`models`: what analyses a source, for `health`. `next_session` makes that of another slide under a source,
        of which so much is known; None where that can't be. `measuring`: what measures the frames of sources
        whose sessions have a stage in another process, by source."""
        recorder = outputs.recorder
        self._analyser = analyser
        self._outputs = outputs
        self._sinks = [*outputs.sinks, recorder] if recorder else outputs.sinks
        self._writer = threading.Thread(target=recorder.run, name="recorder", daemon=True) if recorder else None
        self._limits = limits
        self._models = models
        self._now_ns = now_ns
        self._started_ns = now_ns()
        taken = recorder.frame if recorder else lambda frame: None
        self._lanes = {
            s.name: Lane(
                s,
                mode,
                new_session(s.name),
                limits.queue,
                outputs.on_skip,
                taken,
                limits.wait_s,
                measuring.get(s.name) or OwnMeasuring(analyser.measure),
                limits.stale_after_ms,
                now_ns,
                self._fail,
            )
            for s, mode in sources
        }
        for lane in self._lanes.values():
            lane.stop_at = limits.stop_at
        self.controls = CommandExecutor(self._lanes, self._send, next_session, self._count_placed)
        """What carries out commands, on the publishing thread."""
        self._batcher = Batcher(
            {name: lane.placed for name, lane in self._lanes.items()},
            now_ns=now_ns,
            max_frames=limits.max_batch,
            max_wait_ms=limits.max_wait_ms,
            live=[name for name, lane in self._lanes.items() if lane.mode == "live"],
            group=lambda placed: analyser.group(placed.frame, placed.plan.detects),
            is_ready=lambda placed: placed.is_ready,
        )
        # A worker takes a place before it takes frames, so the frame that all wait for always has one.
        self._places = threading.Semaphore(2 * limits.workers)
        self._results: Ring[tuple[int, _Result]] = Ring(4 * limits.workers * limits.max_batch, "block")
        self._in_order: InOrder[_Result] = InOrder()
        self._ready: deque[_Result] = deque()
        """Next in the order of their sources."""
        self._workers = [
            threading.Thread(target=self._work, name=f"worker {number}", daemon=True)
            for number in range(limits.workers)
        ]
        self._working = limits.workers
        self._lock = threading.Lock()
        self._tail = threading.Thread(target=self._publish_all, name="tail", daemon=True)
        self._failure: Exception | None = None
        self._stopped = ""
        self.finals: dict[str, DifferentialMessage] = {}

    def start(self) -> None:
        if self._writer is not None:
            self._writer.start()
        for lane in self._lanes.values():
            lane.thread.start()
            lane.placing.start()
        for thread in (*self._workers, self._tail):
            thread.start()

    @property
    def running(self) -> bool:
        return self._tail.is_alive()

    @property
    def stopping(self) -> bool:
        """Whether no source gives frames any more."""
        return all(lane.ring.closed for lane in self._lanes.values())

    def looked(self) -> Iterator[tuple[str, AreaStatus, AuditStatus | None]]:
        """(source, what was looked at, the proof) of those of which not every frame was."""
        for lane in self._lanes.values():
            if (area := lane.session.area) is not None:
                yield lane.name, area.status, area.audit

    def stop(self, reason: str) -> None:
        """Read no more; what was read is still analysed and published. `reason`, in words, is that of the end."""
        self._stopped = self._stopped or reason
        for lane in self._lanes.values():
            lane.stop.set()
            lane.ring.close()

    def finish(self) -> None:
        """Wait until all is published; raise the first failure of a worker, of the tail, or of a source."""
        while self._tail.is_alive():  # join with a timeout, so that Ctrl-C is noticed on every system
            self._tail.join(0.5)
        for lane in self._lanes.values():
            lane.thread.join(JOIN_READER_S)
        if self._writer is not None:
            self._writer.join()
        if self._failure is not None:
            raise self._failure
        for lane in self._lanes.values():
            if lane.reader.failure is not None:
                raise lane.reader.failure

    def _fail(self, error: Exception) -> None:
        with self._lock:
            self._failure = self._failure or error
        self.stop("the run failed")
        for lane in self._lanes.values():
            lane.session.give_up()
        self._batcher.look_again()

    def _work(self) -> None:
        try:
            while True:
                self._places.acquire()
                batch = self._batcher.next_batch()
                if not batch:
                    self._places.release()
                    return
                ticket = _Ticket(len(batch))
                for sequenced, analysed in zip(batch, self._analyse(batch), strict=True):
                    self._results.put((sequenced.order, _Result(ticket, sequenced.frame, analysed)))
        finally:
            with self._lock:
                self._working -= 1
                last = self._working == 0
            if last:
                self._results.close()

    def _analyse(self, batch: Sequence[SequencedFrame[PlacedFrame]]) -> Sequence[Analysed | None]:
        if self._failure is not None:
            return [None] * len(batch)
        next_frame()
        try:
            return self._analyser.look([one.frame.measured for one in batch], [one.frame.final_plan for one in batch])
        except Exception as error:
            self._fail(error)
            return [None] * len(batch)

    def _publish_all(self) -> None:
        try:
            self._publish_results()
        except Exception as error:
            self._fail(error)
            for result in self._ready:
                result.placed.frame.settle(False)
            while not self._results.drained:  # let the workers end
                if (item := self._results.get(POLL_S)) is not None:
                    item[1].placed.frame.settle(False)
                    self._places.release()
        finally:
            self._publish_ends()

    def _publish_results(self) -> None:
        health_due_ns = self._now_ns()
        while self._ready or not self._results.drained:
            self._publish_next()
            self._outputs.service()
            if self._now_ns() >= health_due_ns:
                health_due_ns = self._now_ns() + round(self._limits.health_interval_s * 1e9)
                self._publish_health()

    def _publish_next(self) -> None:
        if not self._ready and (item := self._results.get(POLL_S)) is not None:
            order, result = item
            self._ready.extend(self._in_order.put(result.placed.frame.source, order, result))
        if self._ready:
            result = self._ready.popleft()
            self._publish_frame(self._lanes[result.placed.frame.source], result)

    def _count_placed(self, source: str) -> None:
        """Count what was placed of a source whose placer is held."""
        lane = self._lanes[source]
        while not (lane.placer.idle and lane.counted == lane.placer.count) and not self._results.drained:
            self._publish_next()

    def _publish_frame(self, lane: Lane, result: _Result) -> None:
        lane.counted += 1
        result.ticket.left -= 1
        if result.ticket.left == 0:
            self._places.release()
        analysed = result.analysed
        if analysed is None or lane.enough is not None:
            lane.ignored["analysis failed" if analysed is None else ENOUGH] += 1
            lane.session.pass_over()
            self._batcher.look_again()
            result.placed.frame.settle(False)
            return
        self._outputs.show(analysed.frame)
        picture = self._outputs.picture(analysed.frame, self._now_ns())
        if picture is not None:
            self._send(lane.session.picture(analysed.frame, picture))
        progress = lane.progress()
        kept = False
        try:
            emissions = lane.session.update(analysed, progress, result.placed.placed)
            kept = True
        finally:
            analysed.frame.settle(kept)
        if lane.session.area is not None:
            self._batcher.look_again()
        self._send(emissions)
        for message, _ in emissions:
            if isinstance(message, FrameMessage):
                lane.published += 1
                lane.recent.append((message.published_ns, (message.published_ns - message.captured_ns) / 1e6))
        if lane.enough is not None:
            lane.stop.set()
            lane.ring.close()

    def _publish_health(self) -> None:
        for lane in self._lanes.values():
            health = Health(
                models=self._models(lane.name),
                uptime_s=(self._now_ns() - self._started_ns) / 1e9,
                sources={lane.name: lane.health()},
                stream=self._outputs.stream(),
                recording=self._outputs.recorder.health() if self._outputs.recorder else None,
                jsonl_lost=self._outputs.lines_lost(),
            )
            self._send(lane.session.health(health))

    def _publish_ends(self) -> None:
        try:
            for lane in self._lanes.values():
                lane.thread.join(JOIN_READER_S)  # so that its last state is published
            self._publish_health()
            for lane in self._lanes.values():
                state, reason = lane.ending(self._failure, self._stopped)
                progress = lane.progress(cut_short=lane.is_cut_short(state))
                emissions = lane.session.finish(state, reason, progress)
                self._send(emissions)
                for message, _ in emissions:
                    if isinstance(message, DifferentialMessage):
                        self.finals[lane.name] = message
        except Exception as error:
            self._fail(error)
        for sink in self._sinks:
            try:
                sink.close()
            except Exception as error:  # a command that came in its last moments, and could not be journaled
                self._fail(error)

    def _send(self, emissions: Sequence[Emission]) -> None:
        for message, payload in emissions:
            for sink in self._sinks:
                sink.publish(message, payload)
