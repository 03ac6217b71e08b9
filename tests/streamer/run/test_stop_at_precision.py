"""A run that its own limits end: when, and which limits it ends with."""

from __future__ import annotations

import json

import pytest

from engines.base import UsageError
from streamer.analysis import models
from streamer.analysis.analyser import Analyser
from streamer.commands.recount import recount
from streamer.commands.run import build
from streamer.config import Config, load_config
from streamer.counting.decision import ClassDecision
from streamer.counting.differential import CLOPPER_PEARSON, CONFIDENCE_SEQUENCE, widest
from streamer.journal import Journal
from streamer.protocol.factory import MessageFactory
from streamer.protocol.messages import DifferentialMessage
from streamer.run.pipeline import Limits, Pipeline, RunOutputs
from streamer.run.session import SlideSession
from tests.cases import Collected, ScriptedSource, always
from tests.streamer.journal.journal_cases import analysed, classifier, detector, images, new_session


def run(precision: float | None) -> list[DifferentialMessage]:
    """What a pipeline publishes over a walk with sixteen white cells."""
    published = Collected()

    def session(name: str) -> SlideSession:
        return SlideSession(
            MessageFactory(name, session="session", run_id="run"),
            ClassDecision.of(classifier()),
            operating_score=0.5,
            stop_at_precision=precision,
        )

    analyser = Analyser(detector(), classifier())
    pipeline = Pipeline(
        [(ScriptedSource(images()), "analysis")], analyser, session, RunOutputs([published]), Limits(workers=1)
    )
    pipeline.start()
    pipeline.finish()
    return published.of(DifferentialMessage)


def test_a_running_count_has_limits_for_every_look_and_a_finished_one_those_of_one_look():
    messages = run(None)
    assert [message.limits_method for message in messages[:-1]] == [CONFIDENCE_SEQUENCE] * (len(messages) - 1)
    assert (messages[-1].limits_method, messages[-1].final) == (CLOPPER_PEARSON, True)
    assert len(messages) > 3


def test_a_count_that_its_precision_ends_keeps_the_limits_that_allow_for_it():
    *before, last, final = run(38.0)
    assert [widest(message.classes.values()) > 38 for message in before] == [True] * len(before)
    assert widest(last.classes.values()) <= 38
    assert (final.limits_method, final.final) == (CONFIDENCE_SEQUENCE, True)
    assert final.frames < len(images())


def test_a_precision_that_is_not_reached_lets_the_source_end_and_its_limits_still_allow_for_it():
    final = run(5.0)[-1]
    assert (final.limits_method, final.frames) == (CONFIDENCE_SEQUENCE, len(images()))


@pytest.mark.parametrize(("precision", "method"), [(None, CLOPPER_PEARSON), (5.0, CONFIDENCE_SEQUENCE)])
def test_the_journal_gives_the_same_limits_again(tmp_path, capsys, precision, method):
    path = tmp_path / "slide.db"
    journal = Journal(path)
    kept = new_session(journal)
    kept.begin_run("run", json.dumps({"stop_at_precision": precision}))
    factory = MessageFactory("slide", session=kept.stored.id, run_id="run")
    session = SlideSession(
        factory, ClassDecision.of(classifier()), operating_score=0.5, stop_at_precision=precision, journal=kept
    )
    for one in analysed():
        list(session.update(one))
    final, _ = session.finish("finished", "end of the source")[-2]
    journal.close()
    assert final.limits_method == method
    assert recount(str(path)) == 0
    assert "equal to the final differential" in capsys.readouterr().out


def test_without_a_classifier_there_is_nothing_to_be_precise_about(monkeypatch):
    monkeypatch.setattr(models, "load_detector", lambda *_, **__: detector())
    config = Config(source=("sim:cells=1",), classifier="none", stop_at_precision=5.0)
    with pytest.raises(UsageError, match="--stop-at-precision: got no classifier, expected one"):
        build.run(config)


def test_a_misspelt_reference_range_is_told_with_the_near_name(monkeypatch, tmp_path):
    monkeypatch.setattr(models, "load_detector", lambda *_, **__: detector())
    monkeypatch.setattr(models, "load_classifier", lambda *_, **__: always(0))
    file = tmp_path / "run.toml"
    file.write_text("[reference_ranges]\nneutrophils = [35, 71]\n")
    with pytest.raises(UsageError, match=r"got 'neutrophils', .* did you mean 'neutrophil'"):
        build.run(load_config(str(file), {"source": ("sim:cells=1",)}))
