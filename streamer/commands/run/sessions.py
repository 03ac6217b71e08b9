"""Begins the sessions of a run."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from streamer.analysis.models import SourceModels
from streamer.commands.output import remark
from streamer.commands.run.area import decider_of
from streamer.commands.run.slides import SlideOfSource
from streamer.config import Config
from streamer.counting.decision import ClassDecision
from streamer.counting.known import known_of
from streamer.counting.morphometry import ShapeMeter
from streamer.journal import JournalHistory, RunJournal, SessionJournal
from streamer.protocol.factory import MessageFactory, new_id
from streamer.records import SlideInfo
from streamer.run.session import SlideSession
from streamer.run.stage_process import StageProcess
from streamer.stage.static_mask import BoxesPx

Models = Mapping[str, SourceModels]
"""By source."""


@dataclass(frozen=True, slots=True)
class RunStamp:
    """What marks the messages of this process."""

    run_id: str = field(default_factory=new_id)
    utc_offset_ns: int = field(default_factory=lambda: time.time_ns() - time.monotonic_ns())
    """Coordinated universal time minus the monotonic clock."""


@dataclass(frozen=True, slots=True, eq=False)
class SessionMaker:
    """Begins the sessions of a run, in its journal where it has one."""

    config: Config
    models: Models
    stamp: RunStamp
    journal: RunJournal | None
    history: JournalHistory | None
    ignored_px: Mapping[str, BoxesPx]
    """By source."""
    slides: Mapping[str, SlideOfSource]
    """By source."""
    stages: Mapping[str, StageProcess]
    """By source: of those that are placed in another process."""

    def first(self, source: str) -> SlideSession:
        """The session that a source starts or goes on with."""
        kept = self.journal.session(source) if self.journal else None
        slide = self.slides[source].first(SlideInfo() if kept is None else kept.stored.slide, remark)
        return self._make(source, kept, slide)

    def next(self, source: str, slide: SlideInfo) -> SlideSession:
        """That of another slide under the same source."""
        kept = self.journal.next_session(source) if self.journal else None
        if self.history is not None and kept is not None:
            self.history.add(kept.stored)
        return self._make(source, kept, slide)

    def _make(self, source: str, kept: SessionJournal | None, slide: SlideInfo) -> SlideSession:
        own = self.models[source]
        factory = MessageFactory(
            source,
            session=kept.stored.id if kept else new_id(),
            run_id=self.stamp.run_id,
            next_session_seq=kept.stored.next_seq if kept else 0,
            utc_offset_ns=self.stamp.utc_offset_ns,
        )
        return SlideSession(
            factory,
            ClassDecision.of(own.classifier) if own.classifier else None,
            operating_score=own.detector.card.thresholds.operating,
            min_score=self.config.min_score,
            reference_ranges=self.config.reference_ranges,
            stop_at_precision=self.config.stop_at_precision,
            journal=kept,
            shapes=ShapeMeter(own.segmenter, own.um_per_px, own.magnification.um_per_px_for) if own.segmenter else None,
            ignored_px=self.ignored_px[source],
            known=known_of(own.classifier.card) if own.classifier else None,
            verdict=self.config.verdict,
            slide=slide,
            label=self.slides[source].reader(slide),
            on_remark=remark,
            stage=self.stages[source].stage(self.ignored_px[source]) if source in self.stages else None,
            decider=decider_of(self.config, own.classifier, self.models.values()),
        )
