"""A film with a clock, a logo and a crosshair burnt in, in the journal: cut off, gone on with and counted again it is
what it is where nobody disturbed it."""

from __future__ import annotations

import pytest

from engines.models.loading import load_classifier, load_detector
from streamer.analysis.analyser import Analyser
from streamer.commands.recount import recount
from streamer.config import DEFAULT_CLASSIFIER, DEFAULT_DETECTOR
from streamer.counting.decision import ClassDecision
from streamer.journal import Journal, rules_of
from streamer.protocol.factory import MessageFactory
from streamer.records import Frame
from streamer.run.session import SlideSession
from streamer.sources.simulated import SlideParameters, VirtualSlide
from tests.streamer.journal.test_journal import told

FILM = "sim:seed=6,cells=8,pattern=mixed,jumps=1,returns=1,dwell=1,travel=3,overlay=1"
SLIDE = "slide"


@pytest.fixture(scope="module")
def models():
    return load_detector(DEFAULT_DETECTOR), load_classifier(DEFAULT_CLASSIFIER)


@pytest.fixture(scope="module")
def seen(models):
    film = VirtualSlide(SlideParameters.parse(FILM))
    frames = [Frame(SLIDE, number, 0, film.render(number)) for number in range(len(film))]
    return Analyser(*models).analyse(frames)


def run_over(path, frames, models, *, resume=False, finish=True):
    """(what was published of these frames, the parts of a frame that show no slide)."""
    journal = Journal(path, resume=resume)
    kept = journal.session(SLIDE) or journal.new_session(
        SLIDE, "session", address=FILM, live=False, rules=rules_of(*models)
    )
    run_id = f"run{frames[0].frame.frame_id}"
    kept.begin_run(run_id, "{}")
    factory = MessageFactory(SLIDE, session="session", run_id=run_id, next_session_seq=kept.stored.next_seq)
    score = models[0].card.thresholds.operating
    session = SlideSession(factory, ClassDecision.of(models[1]), operating_score=score, journal=kept)
    published = [emission for one in frames for emission in session.update(one)]
    hidden = session.hidden_px
    if finish:
        published += session.finish("finished", "end of the source")
    journal.close()
    return published, hidden


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, seen, models):
    return run_over(tmp_path_factory.mktemp("journal") / "whole.db", seen, models)


@pytest.mark.lengthy
@pytest.mark.parametrize("every", [1000, 4])
@pytest.mark.parametrize("cut", [3, 14, 27])
def test_cut_off_and_gone_on_with_it_is_the_same(tmp_path, seen, models, undisturbed, cut, every, monkeypatch):
    monkeypatch.setattr("streamer.run.session.CHECKPOINT_EVERY_FRAMES", every)
    path = tmp_path / "cut.db"
    published, _ = run_over(path, seen[:cut], models, finish=False)
    further, hidden = run_over(path, seen[cut:], models, resume=True)
    assert told(published + further) == told(undisturbed[0])
    assert hidden == undisturbed[1]


@pytest.mark.lengthy
def test_counted_again_it_is_what_was_published(tmp_path, seen, models, capsys):
    path = tmp_path / "whole.db"
    _, hidden = run_over(path, seen, models)
    assert len(hidden) >= 3
    assert recount(str(path)) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("equal to the final differential published, ")
