import numpy as np
import pytest

from engines.base import Attribute, Classifications
from streamer.commands.classify import classified_file
from streamer.counting.decision import Naming

ATTRIBUTES = (Attribute("nucleus_shape", ("round", "bent", "split")), Attribute("cell_size", ("small", "big")))
NAMING = Naming(("neutrophil", "platelet"), 0.6, novel_above=0.99, attributes=ATTRIBUTES, attributes_of=("neutrophil",))


@pytest.mark.parametrize(
    ("probabilities", "novelty", "name", "reason"),
    [
        ((0.9, 0.1), 0.5, "neutrophil", None),
        ((0.9, 0.1), None, "neutrophil", None),
        ((0.9, 0.1), np.float32(0.99), "neutrophil", None),
        ((0.9, 0.1), 0.995, "unclassified", "unlike the training cells"),
        ((0.55, 0.45), 0.5, "unclassified", "low confidence"),
        ((0.55, 0.45), 0.995, "unclassified", "unlike the training cells"),
    ],
)
def test_a_class_is_given_to_what_is_likely_and_like_the_training_cells(probabilities, novelty, name, reason):
    assert NAMING.class_name(probabilities, novelty) == name
    assert NAMING.reason(probabilities, novelty) == reason
    assert NAMING.top_class(probabilities) == "neutrophil"
    blind = Naming(NAMING.class_names, 0.6)
    assert blind.class_name((0.9, 0.1), 1.0) == "neutrophil"


def found(novelty=(0.1, 0.1, 0.999)):
    return Classifications(
        np.float32([[0.9, 0.1], [0.1, 0.9], [0.9, 0.1]]),
        NAMING.class_names,
        np.zeros((3, 0), np.float32),
        (),
        (),
        attribute_probabilities=np.float32([[0.2, 0.7, 0.1, 0.6, 0.4]] * 3),
        attributes=ATTRIBUTES,
        novelty=np.float32(novelty),
    )


def test_a_line_of_classify_says_how_a_cell_looks_where_its_class_was_described():
    looks = found()
    neutrophil, platelet, novel = (classified_file("a", looks[i : i + 1], None, NAMING) for i in range(3))
    assert {name: one.value for name, one in neutrophil.attributes.items()} == {
        "nucleus_shape": "bent",
        "cell_size": "small",
    }
    assert neutrophil.attributes["nucleus_shape"].confidence == 0.7
    assert (platelet.class_, platelet.attributes) == ("platelet", None)
    assert (novel.class_, novel.top_class, novel.attributes) == ("unclassified", "neutrophil", None)
    reasons = [line.unclassified_reason for line in (neutrophil, platelet, novel)]
    assert reasons == [None, None, "unlike the training cells"]
    assert NAMING.class_names_of(found()) == ["neutrophil", "platelet", "unclassified"]
