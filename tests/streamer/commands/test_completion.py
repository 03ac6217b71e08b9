"""`leukostream completion` and `--version`."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from streamer import __version__
from streamer.cli import COMMANDS, main
from streamer.commands.completion import INSTALL

ASKED = """
eval "$1"
COMP_WORDS=(leukostream $2) COMP_CWORD=$(set -- $2; echo $#)
_shtab_leukostream
echo "${COMPREPLY[@]}"
"""


def script(capsys: pytest.CaptureFixture[str], shell: str) -> str:
    assert main(["completion", shell]) == 0
    return capsys.readouterr().out


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("mo", {"mosaic", "models"}),
        ("run --stop", {"--stop-at", "--stop-at-precision"}),
        ("models sh", {"show"}),
        ("export --format d", {"dicom"}),
    ],
)
def test_bash_completes_commands_options_and_choices(
    capsys: pytest.CaptureFixture[str], words: str, expected: set[str]
) -> None:
    code = script(capsys, "bash")
    done = subprocess.run(["bash", "-c", ASKED, "bash", code, words], capture_output=True, text=True, timeout=60)
    assert set(done.stdout.split()) == expected


@pytest.mark.parametrize("shell", INSTALL)
def test_every_shell_knows_every_command(capsys: pytest.CaptureFixture[str], shell: str) -> None:
    code = script(capsys, shell)
    assert [name for name in COMMANDS if name not in code] == []
    assert "--stop-at-precision" in code or "stop-at-precision" in code


def test_the_version_comes_with_those_of_the_backends(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"leukostream {__version__}"
    assert [line.split()[0] for line in lines[1:]] == ["python", "onnxruntime", "tensorrt", "tensorrt-rtx"]
    assert lines[2].split()[1][0].isdigit()
