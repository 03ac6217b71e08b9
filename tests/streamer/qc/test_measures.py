"""What is measured of a slide: by hand, and of a journal."""

from __future__ import annotations

import math
import sqlite3
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest

from streamer.counting.verdict import SlideEvidence
from streamer.journal import JournalReader
from streamer.qc.measures import BRIGHTNESS, FOCUS, LIGHT_COLOUR, MEASURES, STAIN, UNLIKE_TRAINING, measured, values_of
from streamer.records import SlideInfo
from tests.streamer.journal.journal_cases import write_walk


def evidence(**of):
    usual = {
        **dict.fromkeys(
            ("mean_novelty", "smudge_cells", "progress", "rbc_px", "light_range", "only_extent_px", "known")
        ),
        **{"white_cells": 50, "unclassified": 9, "unlike_training": 4, "frames": 1, "has_colours": True},
        **{"plasma": (0.1, 0.2, 0.3), "red": (0.6, 0.4, 0.05)},
    }
    return SlideEvidence(**{**usual, **of})


def test_the_values_by_hand():
    values = values_of(evidence(), [0.4, 0.9, 0.5], knows_training=True)
    assert list(values) == list(MEASURES)
    assert values[FOCUS] == 0.5
    assert values[BRIGHTNESS] == pytest.approx(100 * math.exp(-0.2))
    assert values[LIGHT_COLOUR] == pytest.approx(-0.2)
    assert [values[one] for one in STAIN] == [0.6, 0.4, 0.05]
    assert values[UNLIKE_TRAINING] == pytest.approx(8.0)


def test_what_was_not_measured_is_none():
    values = values_of(evidence(plasma=None, red=None, white_cells=0), [], knows_training=True)
    assert set(values.values()) == {None}
    assert values_of(evidence(), [], knows_training=False)[UNLIKE_TRAINING] is None


def test_a_journal(tmp_path):
    path = write_walk(tmp_path / "walk.db")
    with closing(sqlite3.connect(path)) as database:
        focus = [row[0] for row in database.execute("SELECT focus FROM frames WHERE focus IS NOT NULL")]
    with JournalReader(path) as reader:
        found = measured(reader.sessions[0])
    assert (found.name, found.session, found.instrument) == ("slide", "session", "files")
    assert found.values[FOCUS] == pytest.approx(np.median(focus))
    assert 0 < found.values[BRIGHTNESS] < 100
    assert found.values[UNLIKE_TRAINING] is not None
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE sessions SET address = 'camera:0', live = 1")
    with JournalReader(path) as reader:
        assert measured(reader.sessions[0]).instrument == "camera:0"


def test_a_slide_has_the_names_that_people_gave_to_it_and_its_instrument(tmp_path):
    with JournalReader(write_walk(tmp_path / "walk.db")) as reader:
        named = replace(reader.sessions[0], slide=SlideInfo(name="S-1", instrument="scope 2"), live=True)
        found = measured(named)
    assert (found.name, found.instrument) == ("S-1", "scope 2")
