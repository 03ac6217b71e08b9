import json

from tools.bench.slide import main


def test_figures_of_a_small_slide(tmp_path, capsys):
    file = tmp_path / "slide.json"
    assert main(["--cells", "300", "--per-field", "40", "--fields", "6", "--json", str(file)]) == 0
    [row] = json.loads(file.read_text())["rows"]
    assert row["cells"] >= 300
    assert 0 < row["ms_median"] <= row["ms_p95"]
    assert 0 < row["megabytes"] < 10
    assert str(int(row["cells"])) in capsys.readouterr().out
