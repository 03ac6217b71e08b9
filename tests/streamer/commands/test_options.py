"""The parser: misspelt words get their near ones, help names the defaults, and starting is fast."""

from __future__ import annotations

import subprocess
import sys

import pytest

from engines.base import UsageError
from streamer.cli import COMMANDS, main, parse
from streamer.config import Config


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["modles"], "got the command 'modles', expected one of run, demo, watch"),
        (["modles"], "did you mean 'models'?"),
        (
            ["run", "--classifer", "x"],
            "the option '--classifer', which does not exist; did you mean '--classifier'?",
        ),
        (["run", "--mode", "lve"], "--mode: got 'lve', expected one of live, analysis; did you mean 'live'?"),
        (["run", "--sauce=x"], "did you mean '--source'?"),
        (["run", "--record-sa", "jpeg"], "did you mean '--record-as'"),
        (["run", "--dashbord"], "did you mean '--dashboard'"),
        (["export", "j", "--fromat", "csv"], "did you mean '--format'?"),
        (["export", "j", "-o", "x", "--format", "cvs"], "--format: got 'cvs', expected one of csv, coco, json"),
        (["control", "tcp://x", "paus"], "did you mean 'pause'"),
        (["control", "tcp://x", "pause", "--tiemout", "2"], "did you mean '--timeout'?"),
        (["models", "pul"], "did you mean 'pull'?"),
        (["keys", "nwe", "x"], "did you mean 'new'?"),
        (["--versoin"], "did you mean '--version'?"),
    ],
)
def test_a_misspelt_word_gets_the_near_one(capsys, words, expected):
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert expected in err


@pytest.mark.parametrize("words", [["run", "--sour", "sim:"], ["run", "--class", "none"], ["play", "r", "--pub", "x"]])
def test_an_abbreviation_is_no_option(words):
    with pytest.raises(UsageError, match="which does not exist"):
        parse(words)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "got no COMMAND, which has to be given; see: leukostream --help"),
        (["recount"], "got no JOURNAL, which has to be given; see: leukostream recount --help"),
        (["recount", "a", "b"], "got 'b', expected nothing more; see: leukostream recount --help"),
        (["run", "--stop-at", "many"], "--stop-at: got 'many', expected a whole number; see: leukostream run --help"),
        (["run", "--source"], "--source: got nothing, expected at least one value"),
        (["demo", "--source", "sim:"], "got the option '--source', which does not exist"),
    ],
)
def test_other_bad_usage_says_where_to_look(capsys, words, expected):
    assert main(words) == 2
    err = capsys.readouterr().err
    assert expected in err
    assert err.count("\n") == 1


def test_what_looks_like_an_option_may_be_a_value():
    _, options = parse(["subscribe", "tcp://x", "--topic=--odd"])
    assert options.topic == "--odd"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_that_describes_each_option(capsys, name):
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert out.startswith(f"usage: leukostream {name}")
    lines = out.splitlines()
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if line.startswith("  -") and "  " not in line.strip():  # too long for its column: the text is below it
            assert following.startswith(" " * 10), line


def test_the_help_of_run_is_grouped_and_names_the_defaults(capsys):
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    out = " ".join(capsys.readouterr().out.split())
    groups = ("sources", "models", "counting", "keeping", "publishing", "security", "dashboard", "machine")
    places = [out.index(f" {group}: ") for group in groups]
    assert places == sorted(places)
    for default in ("yolov5n-blood", "auto", "got", "measured"):
        assert f"(default: {default})" in out


def test_every_option_of_run_is_a_key_of_the_configuration():
    _, options = parse(
        [
            *("run", "--source", "a", "b", "--source", "c", "--mode", "live", "--stop-at", "5", "--no-picture"),
            *("--min-score", "0.5", "--insecure", "--config", "x.toml"),
        ]
    )
    assert options.config_file == "x.toml"
    assert options.given == {
        **{"source": ("a", "b", "c"), "mode": "live", "stop_at": 5, "picture": False, "min_score": 0.5},
        "insecure": True,
    }
    _, every = parse(["run"])
    assert every.given == {}
    from streamer.commands import run
    from streamer.commands.options import Parser

    parser = Parser()
    run.add_options(parser)
    options_of_run = {action.dest for action in parser._actions} - {"help", "config"}
    assert options_of_run <= set(Config.__struct_fields__)


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["run", "--sauce"], ["demo", "--help"], ["modles"]])
@pytest.mark.lengthy
def test_help_and_misspelt_words_load_no_machinery(words):
    code = (
        "import sys; from streamer.cli import main\n"
        f"try: main({words})\n"
        "except SystemExit: pass\n"
        "print('loaded', *sorted({'cv2', 'onnx', 'onnxruntime', 'zmq', 'scipy', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "loaded"
