"""`leukostream adapt`: from named cells to a profile that `run --site` and `classify --site` load."""

from __future__ import annotations

import csv
import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest

from engines.base import UsageError
from engines.models.loading import load_classifier
from engines.models.site import find_site
from engines.zoo.registry import find, zoo_card
from streamer.cli import main
from streamer.commands.adapt.cells import class_index, named_cells
from streamer.counting.known import known_of
from streamer.journal import Journal, JournalError
from tests.cases import textured_slide
from tests.engines.small_classifier import classifier
from tests.streamer.journal.journal_cases import analysed, images, new_session, rules, session_of
from tests.streamer.journal.journal_cases import classifier as scripted_classifier
from tests.streamer.run.test_reclassify import say

CLASSES = ("lymphocyte", "monocyte", "neutrophil")
COLOURS = ((200, 60, 90), (120, 200, 60), (60, 90, 200))
"""Of the cells of each class, blue, green, red."""
CARD = """
task = "classifier"
[input]
height_px = 16
width_px = 16
mirrored_margin = 1.3
[thresholds]
operating = 0.4
[training]
data = ["elsewhere"]
"""
FIGURES = """
[[figures]]
dataset = "elsewhere"
part = "holdout"
command = "measured there"
cells = 10
accuracy = 0.9
accuracy_classified = 0.95
[[figures]]
dataset = "far"
part = "validation"
command = "measured there"
cells = 10
accuracy_classified = 0.8
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A classifier of colours whose last layer is random, with its card."""
    path = tmp_path / "tiny.onnx"
    onnx.save(classifier(len(CLASSES)), path)
    classes = "".join(f'[[classes]]\nname = "{name}"\nkind = "white"\n' for name in CLASSES)
    path.with_suffix(".toml").write_text(CARD + classes + FIGURES)
    return path


def picture(class_index: int, rng: np.random.Generator) -> np.ndarray:
    """A cell uint8 (24,24,3) of its class's colour."""
    image = np.full((24, 24, 3), 225.0)
    cv2.circle(image, (12, 12), 9, COLOURS[class_index], -1)
    return np.clip(image + rng.normal(0, 12, image.shape), 0, 255).astype(np.uint8)


def write_cells(folder: Path, counts: Sequence[int], seed: int = 0) -> Path:
    """Pictures and the CSV file that names them; its path."""
    rng, path = np.random.default_rng(seed), folder / "cells.csv"
    folder.mkdir(exist_ok=True)
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["file", "class", "seen by"])
        for c, count in enumerate(counts):
            for i in range(count):
                name = f"{CLASSES[c]}-{i}.png"
                cv2.imwrite(str(folder / name), picture(c, rng))
                rows.writerow([name, CLASSES[c], "A. B."])
    return path


def told(capfd: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, list[str]]:
    status = main([str(word) for word in words])
    captured = capfd.readouterr()
    return status, captured.out, captured.err.splitlines()


def names_of(folder: Path, *options: object) -> dict[str, str]:
    out = folder.parent / "lines.jsonl"
    words = ["classify", "--source", folder, "--jsonl", out, "--detector", "none", *options]
    assert main([str(word) for word in words]) == 0
    return {line["file"]: line["top_class"] for line in map(json.loads, out.read_text().splitlines())}


def right(named: dict[str, str]) -> float:
    return float(np.mean([name == file.rpartition("-")[0] for file, name in named.items() if file != "cells.csv"]))


def test_a_profile_names_the_cells_of_its_laboratory_better(tmp_path, model, capfd) -> None:
    cells, site = write_cells(tmp_path / "cells", (15, 12, 18)), tmp_path / "erbil"
    status, out, err = told(capfd, "adapt", cells, "-o", site, "--classifier", model, "--detector", "none")
    assert (status, err) == (0, [])
    assert "45 cells: neutrophil 18, lymphocyte 15, monocyte 12" in out
    assert "on cells left out: balanced accuracy" in out
    assert "at home: not measured" in out
    assert f"leukostream run --site {site}" in out
    assert sorted(path.name for path in site.iterdir()) == ["tiny-erbil.onnx", "tiny-erbil.toml"]
    others = write_cells(tmp_path / "others", (10, 10, 10), seed=1).parent
    before, after = names_of(others, "--classifier", model), names_of(others, "--site", site)
    assert right(after) > right(before) + 0.2
    assert "site profile erbil: tiny-erbil, made of tiny with 45 cells" in capfd.readouterr().out
    loaded = load_classifier(str(site / "tiny-erbil.onnx"))
    assert loaded.card.name == "tiny-erbil"
    assert loaded.threshold >= 0.4


def test_the_card_says_what_it_was_made_of_and_what_became_of_the_figures(tmp_path, model, capfd) -> None:
    cells, site = write_cells(tmp_path / "cells", (15, 12, 18)), tmp_path / "erbil"
    assert told(capfd, "adapt", cells, "-o", site, "--classifier", model, "--detector", "none")[0] == 0
    profile, base = find_site(site), find(str(model), "classifier").card
    own = profile.site
    assert (own["base"], own["base_sha256"], own["cells"]) == ("tiny", base.sha256, 45)
    assert own["cells_by_class"] == ["neutrophil: 18", "lymphocyte: 15", "monocyte: 12"]
    assert str(own["home"]).startswith("not measured")
    views = {(on.dataset, on.view): one for on, one in profile.card.figures.items()}
    assert set(views) == {
        ("erbil", "before adapting"),
        ("erbil", ""),
        ("elsewhere", "base model"),
        ("far", "base model"),
    }
    assert views["erbil", ""]["balanced_accuracy"] > views["erbil", "before adapting"]["balanced_accuracy"]
    assert views["erbil", ""]["command"].startswith("leukostream adapt ")
    assert profile.card.training["data"] == ["elsewhere", "erbil"]
    worst = known_of(profile.card).worst_unseen
    assert worst is not None
    assert (worst.name, worst.wrong_percent) == ("far", 20.0)
    assert known_of(base).worst_unseen == worst


def test_run_takes_the_profile_and_the_messages_name_it(tmp_path, model, capfd) -> None:
    cells, site = write_cells(tmp_path / "cells", (15, 12, 18)), tmp_path / "erbil"
    assert told(capfd, "adapt", cells, "-o", site, "--classifier", model, "--detector", "none")[0] == 0
    frames, out = tmp_path / "frames", tmp_path / "out.jsonl"
    frames.mkdir()
    cv2.imwrite(str(frames / "0.png"), textured_slide(width=320))
    status, said, _ = told(capfd, "run", "--source", frames, "--site", site, "--jsonl", out, "--no-dashboard")
    assert status == 0
    assert "site profile erbil: tiny-erbil" in said
    health = [line for line in map(json.loads, out.read_text().splitlines()) if line["type"] == "health"]
    assert all("tiny-erbil" in json.dumps(line) for line in health)
    assert health


def test_an_exported_table_is_taken_as_it_is_and_what_no_person_has_named_is_left_out(tmp_path, model, capfd) -> None:
    cells, site = write_cells(tmp_path / "cells", (15, 12, 18)), tmp_path / "erbil"
    named = [f"{row.rpartition(',')[0]},1" for row in cells.read_text().splitlines()[1:]]
    machine = ["monocyte-0.png,lymphocyte,0", "missing.png,lymphocyte,0", "lymphocyte-0.png,unclassified,1"]
    cells.write_text("\n".join(["picture,class,reviewed", *machine, *named]))
    status, out, err = told(capfd, "adapt", cells, "-o", site, "--classifier", model, "--detector", "none")
    assert (status, err) == (0, [])
    assert "45 cells: neutrophil 18, lymphocyte 15, monocyte 12" in out


def test_what_does_not_help_is_refused_in_one_line_and_nothing_is_written(tmp_path, model, capfd) -> None:
    cells = write_cells(tmp_path / "cells", (12, 12, 12))
    text = cells.read_text().splitlines()
    mixed = [f"{row.split(',')[0]},{CLASSES[i % 3]}" for i, row in enumerate(text[1:])]
    cells.write_text("\n".join(["file,class", *mixed]))
    status, _, err = told(capfd, "adapt", cells, "-o", tmp_path / "site", "--classifier", model, "--detector", "none")
    assert status == 1
    assert len(err) == 1
    assert "nothing is written: go on with tiny" in err[0]
    assert not (tmp_path / "site").exists()


CSVS = [
    ("file,class\nx.png,lymphocite\n", 2, "did you mean 'lymphocyte'"),
    ("file,class\nmissing.png,lymphocyte\n", 2, "missing.png"),
    ("file,class\ncells.csv,lymphocyte\n", 2, "expected a picture of a cell"),
    ("picture,name\nx.png,lymphocyte\n", 2, "got the columns picture, name, expected a first line file,class"),
    ("", 2, "got the columns none"),
    ("file,class\n,lymphocyte\n", 2, "line 2: got no file or no class"),
    ("file,class\nlymphocyte-0.png,lymphocyte\nlymphocyte-0.png,monocyte\n", 2, "again as another class"),
    ("file,class\nlymphocyte-0.png,lymphocyte\n", 1, "got 1, expected 20 at least"),
    ("file,class\n", 1, "got no cell, expected a hundred"),
]


@pytest.mark.parametrize(("text", "expected", "words"), CSVS, ids=[words for *_, words in CSVS])
def test_bad_cells_are_one_line(tmp_path, model, capfd, text, expected, words) -> None:
    cells = write_cells(tmp_path / "cells", (2, 2, 2))
    cells.write_text(text)
    status, _, err = told(capfd, "adapt", cells, "-o", tmp_path / "site", "--classifier", model, "--detector", "none")
    assert status == expected
    assert len(err) == 1
    assert words in err[0]


def test_cells_of_a_single_class_are_one_line(tmp_path, model, capfd) -> None:
    cells = write_cells(tmp_path / "cells", (25, 0, 0))
    status, _, err = told(capfd, "adapt", cells, "-o", tmp_path / "site", "--classifier", model, "--detector", "none")
    assert (status, len(err)) == (1, 1)
    assert "of a single class (lymphocyte)" in err[0]


def test_a_subclass_counts_as_its_class() -> None:
    card = zoo_card("mobilenetv3-small")
    assert class_index("band neutrophil", card, "here") == card.class_names.index("neutrophil")
    with pytest.raises(UsageError, match=r"here: got the class 'band neutrofil'.*did you mean 'band neutrophil'"):
        class_index("band neutrofil", card, "here")


def test_a_classifier_that_can_not_be_adapted_and_a_folder_with_another_model_are_told(tmp_path, model, capfd) -> None:
    cells, site = write_cells(tmp_path / "cells", (2, 2, 2)), tmp_path / "site"
    status, _, err = told(capfd, "adapt", cells, "-o", site, "--classifier", "ml-cnn")
    assert (status, len(err)) == (1, 1)
    assert "can't be adapted" in err[0]
    site.mkdir()
    (site / "other.toml").write_text("")
    status, _, err = told(capfd, "adapt", cells, "-o", site, "--classifier", model, "--detector", "none")
    assert (status, len(err)) == (2, 1)
    assert "got a folder that holds other.toml" in err[0]


@pytest.mark.parametrize("command", [["run", "--source", "sim:"], ["classify", "--source", ".", "--jsonl", "-"]])
def test_a_site_that_is_none_is_told(tmp_path, capfd, command) -> None:
    for site, words in ((tmp_path / "nowhere", "got no folder"), (tmp_path, "got 0 site profiles")):
        status, _, err = told(capfd, *command, "--site", site)
        assert status == 2
        assert words in err[-1]
    status, _, err = told(capfd, *command, "--site", tmp_path, "--classifier", "ml-cnn")
    assert status == 2
    assert "--site: got --classifier too" in err[-1]


def corrected_journal(path: Path, address: str) -> list[str]:
    """A journal of frames of `address` whose first cells were given these classes."""
    journal = Journal(path)
    session, frames = (
        session_of(journal.new_session("slide", "session", address=address, live=False, rules=rules())),
        analysed(),
    )
    for one in frames[:12]:
        session.update(one)
    corrected = [cell for cell in session.count.cells() if not cell.partial][:4]
    names = ["basophil", "monocyte", "unclassified", corrected[3].class_name]
    for cell, name in zip(corrected, names, strict=True):
        say(session, cell.cell_id, name)
    for one in frames[12:]:
        session.update(one)
    list(session.finish("finished", "end of the source"))
    journal.close()
    return [name for name in names if name != "unclassified"]


@pytest.mark.parametrize("kept", [False, True], ids=["by their pictures", "in their frames"])
def test_corrected_cells_of_a_journal_are_looked_at_as_in_the_run(tmp_path, kept) -> None:
    folder = tmp_path / "frames"
    if kept:
        folder.mkdir()
        for i, image in enumerate(images()):
            cv2.imwrite(str(folder / f"{i}.png"), image)
    names = corrected_journal(tmp_path / "slide.db", f"path:{folder}")
    looker = scripted_classifier()
    found = named_cells(str(tmp_path / "slide.db"), looker, None)
    assert sorted(looker.class_names[cell.class_index] for cell in found) == sorted(names)
    assert {cell.slide for cell in found} == {"session"}
    looks = [
        looker.crop(one.frame.image, one.detections.boxes_px[i : i + 1])[0].astype(float)
        for one in analysed()
        for i in one.detections.white_rows.tolist()
    ]
    middle = np.s_[:, 4:-4, 4:-4]  # a picture in the journal ends before the crop does
    for cell in found:
        if kept:
            assert any(np.array_equal(cell.crops, look) for look in looks)
        else:
            assert min(np.abs(cell.crops[middle] - look[middle]).mean() for look in looks) < 6


def test_a_journal_without_corrected_cells_or_their_pictures_is_told(tmp_path) -> None:
    journal, path = Journal(tmp_path / "slide.db"), str(tmp_path / "slide.db")
    session, frames = session_of(new_session(journal)), analysed()
    for one in frames:
        session.update(one)
    cell = next(iter(session.count.cells()))
    journal.close()
    with pytest.raises(JournalError, match=r"no cell that a person corrected or confirmed.*reclassify CELL CLASS"):
        named_cells(path, scripted_classifier(), None)
    journal = Journal(tmp_path / "slide.db", resume=True)
    session = session_of(journal.session("slide"), run_id="run-2")
    say(session, cell.cell_id, "monocyte")
    journal.close()
    with sqlite3.connect(path) as database:
        database.execute("DELETE FROM pictures")
    with pytest.raises(JournalError, match="got no picture of its 1 corrected cells"):
        named_cells(path, scripted_classifier(), None)
