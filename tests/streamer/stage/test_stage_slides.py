"""Real slides whose frames' places and cells are known, and the simulated slide, from frames to unique cells."""

import json

import pytest

from tools.bench.stage import main as bench_stage
from tools.evaluate.unique_cells import main as evaluate_unique_cells


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    from tools.data.readers import DataSetMissing, data_root

    try:
        root = data_root()
    except DataSetMissing as missing:
        pytest.skip(str(missing))
    if not (root / "chula_wbc" / "unique_cells.json").is_file():
        pytest.skip(f"{root} has no chula_wbc/unique_cells.json")
    file = tmp_path_factory.mktemp("bench") / "stage.json"
    assert bench_stage(["--data", str(root), "--json", str(file)]) == 0
    return json.loads(file.read_text())


@pytest.mark.data
def test_islands_and_unique_cells_of_real_slides_are_exactly_the_truth(real):
    got = {name: (slide["islands"], slide["cells"], slide["lost"]) for name, slide in real["slides"].items()}
    assert got == {name: (slide["true_islands"], slide["true_cells"], 0) for name, slide in real["slides"].items()}
    assert len(got) == 7


@pytest.mark.data
def test_registration_error_on_real_slides(real):
    for figures in (real["error_said_px"], real["error_final_px"]):
        assert figures["median"] <= 0.5
        assert figures["p95"] <= 2.5


@pytest.mark.data
def test_the_gate_accepts_real_slides(real):
    assert sum(slide["rejected"] for slide in real["slides"].values()) == 0


@pytest.mark.parametrize(
    "slide",
    [
        pytest.param("sim:seed=3,cells=24,pattern=mixed,jumps=2,returns=2", id="raster, jumps and returns"),
        pytest.param("sim:seed=6,cells=24,pattern=jump,dwell=1", id="every stop a jump"),
        pytest.param("sim:seed=4,cells=16,pattern=mixed,jumps=1,noise=3,blur=3,vignette=3", id="three times as bad"),
        pytest.param("sim:seed=8,cells=8,pattern=raster,width=1440,height=900,red=55,travel=3", id="a larger camera"),
    ],
)
def test_every_white_cell_of_a_simulated_slide_is_counted_once(slide, tmp_path):
    file = tmp_path / "errors.json"
    assert evaluate_unique_cells([slide, "--json", str(file)]) == 0
    result = json.loads(file.read_text())
    assert (result["counted"], result["errors"]) == (result["expected"], [])
    assert result["islands"] == 1
    assert result["place_error_px"]["p95"] < 1.0
