"""Under `--require` nothing that is asked for may be missing, and no test is skipped on its account."""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path

import pytest

from tests import requirements
from tests.requirements import REQUIREMENTS, parse, refuse_skip, required_by

HERE = Path(__file__).parent

pytest_plugins = ["pytester"]


def _import_skips() -> list[tuple[str, str, str]]:
    """(file, module, reason) of every `pytest.importorskip` with a reason."""
    found = []
    for path in sorted(HERE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.importorskip"):
                continue
            reason = next((word.value for word in node.keywords if word.arg == "reason"), None)
            if isinstance(node.args[0], ast.Constant) and isinstance(reason, ast.Constant):
                found.append((path.name, str(node.args[0].value), str(reason.value)))
    return found


def test_every_skip_for_want_of_a_module_is_known_by_its_reason():
    skips = _import_skips()
    assert len(skips) > 10
    for file, module, reason in skips:
        name = module.partition(".")[0]
        if name in REQUIREMENTS:
            assert required_by(reason, [name]) == name, (file, reason)


def test_a_skip_for_another_reason_stays_one():
    for reason in ("root may write everywhere", "network namespaces are not permitted here", "CUDA is there"):
        assert required_by(f"Skipped: {reason}", REQUIREMENTS) is None


def test_an_unknown_name_is_refused():
    with pytest.raises(pytest.UsageError, match="--require: got 'torhc', expected some of torch, sklearn"):
        parse("torhc")
    assert parse("") == ()


def test_what_is_missing_is_said_at_once_with_what_to_do(monkeypatch):
    missing = replace(REQUIREMENTS["torch"], why_not=lambda: "no module torch")
    monkeypatch.setattr(requirements, "REQUIREMENTS", {**REQUIREMENTS, "torch": missing})
    with pytest.raises(pytest.UsageError, match=r"--require torch: got no module torch, expected it .*\[train\]"):
        parse("torch")


def test_a_skip_becomes_a_failure(pytester, monkeypatch):
    """That of a test, and that of a module."""
    here = {name: replace(REQUIREMENTS[name], why_not=lambda: None) for name in ("bindings", "torch")}
    monkeypatch.setattr(requirements, "REQUIREMENTS", {**REQUIREMENTS, **here})
    pytester.makepyfile(
        test_one="import pytest\ndef test_it(): pytest.skip('bindings are not here: make bindings')\n"
        "def test_other(): pytest.skip('no IPv6')\n",
        test_two="import pytest\npytest.importorskip('no_such_module', reason='needs the extra `train`')\n",
    )
    given = ("-p", "no:cacheprovider", "-p", "tests.requirements")
    strict = pytester.runpytest_inprocess(*given, "--require", "bindings,torch", "--continue-on-collection-errors")
    strict.assert_outcomes(failed=1, skipped=1, errors=1)
    strict.stdout.fnmatch_lines(["*expected no skip: --require bindings says that it must be here*"])
    pytester.runpytest_inprocess(*given).assert_outcomes(skipped=3)


def test_what_passed_is_left_alone():
    report = pytest.TestReport("a", ("a", 0, "a"), {}, "passed", None, "call")
    refuse_skip(report, REQUIREMENTS)
    assert report.passed
