"""The cost of a cell: a row a classifier, both looks in it."""

import json

from tools.bench import classifier as bench


def test_each_classifier_has_a_row_with_the_looks_that_it_takes(tmp_path, capsys):
    file = tmp_path / "out.json"
    assert bench.main(["mobilenetv3-small", "ml-cnn", "--rounds", "2", "--batch", "2", "--json", str(file)]) == 0
    rows = json.loads(file.read_text())["classifiers"]
    assert {name: row["looks"] for name, row in rows.items()} == {"mobilenetv3-small": 2, "ml-cnn": 2}
    assert all(0 < row["quartiles"][0] <= row["ms"] <= row["quartiles"][1] for row in rows.values())
    assert "mobilenetv3-small" in capsys.readouterr().out
