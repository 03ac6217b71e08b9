import pytest

from engines.base import UsageError
from streamer.config import FIVE_PART_RANGES, Config, load_config


def write(tmp_path, text):
    path = tmp_path / "run.toml"
    path.write_text(text)
    return str(path)


def test_the_defaults_are_a_valid_configuration():
    assert load_config(None, {}) == Config()


def test_the_command_line_wins_over_the_file(tmp_path):
    path = write(tmp_path, 'detector = "a"\nqueue = 7\n[reference_ranges]\nneutrophil = [30, 70]\n')
    config = load_config(path, {"detector": "b"})
    assert (config.detector, config.queue, config.reference_ranges["neutrophil"]) == ("b", 7, (30.0, 70.0))


def test_models_of_a_file_are_one_or_several(tmp_path):
    path = write(tmp_path, 'detector = ["a", "left=b"]\nclassifier = "c"\n')
    config = load_config(path, {})
    assert (config.detector, config.classifier) == (("a", "left=b"), "c")
    assert load_config(path, {"classifier": ("none", "left=d")}).classifier == ("none", "left=d")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("detektor = 'x'", "did you mean 'detector'?"),
        ("colour = 3", "expected one of: accession, "),
        ("queue = 0", "queue: got 0, expected a whole number of at least 1"),
        ("queue = 'many'", "queue: got a text, expected a whole number"),
        ("mode = 'fast'", "mode: invalid enum value 'fast'"),
        ("queue = ", "expected a valid TOML file"),
    ],
)
def test_a_faulty_file_is_one_clear_line(tmp_path, text, said):
    path = write(tmp_path, text)
    with pytest.raises(UsageError) as caught:
        load_config(path, {"queue": 3})
    assert said in str(caught.value)
    assert path in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named():
    with pytest.raises(UsageError, match=r"nowhere\.toml: got No such file"):
        load_config("nowhere.toml", {})


def test_ranges_that_a_file_leaves_out_are_the_usual_ones(tmp_path):
    path = write(tmp_path, "[reference_ranges]\nneutrophil = [35, 71]\n'band neutrophil' = [0, 10]\n")
    expected = {**FIVE_PART_RANGES, "neutrophil": (35.0, 71.0), "band neutrophil": (0.0, 10.0)}
    assert load_config(path, {"queue": 3}).reference_ranges == expected


@pytest.mark.parametrize("pair", ["[60, 40]", "[-1, 4]", "[90, 101]", "[nan, 4]"])
def test_a_range_that_is_none_is_refused(tmp_path, pair):
    path = write(tmp_path, f"[reference_ranges]\nneutrophil = {pair}\n")
    with pytest.raises(UsageError, match=r"reference_ranges\.neutrophil: got \[.*\], expected percentages") as caught:
        load_config(path, {})
    assert path in str(caught.value)


@pytest.mark.parametrize("percent", [0.0, -3.0, 50.0, float("nan")])
def test_a_precision_that_no_count_or_any_reaches_is_refused(percent):
    with pytest.raises(UsageError, match=r"--stop-at-precision: got .*, expected a number"):
        load_config(None, {"stop_at_precision": percent})
