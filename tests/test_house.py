"""The tools that keep the house in order, and the README's two commands."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

TOOLS = {
    "format": ["ruff", "format", "--check", "."],
    "lint": ["ruff", "check", "."],
    "types": ["mypy"],
    "layers": ["lint-imports"],
}


@pytest.mark.parametrize("tool", TOOLS)
def test_tool_is_content(tool):
    program, *arguments = TOOLS[tool]
    done = subprocess.run(
        [Path(sys.executable).with_name(program), *arguments],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_ci_runs_the_readmes_second_command():
    readme = (ROOT / "README.md").read_text()
    second = "sh .ci/venv tests && .venv/bin/python -m pytest"
    assert "    sh .ci/venv && .venv/bin/python -m app\n" in readme
    assert f"    {second}\n" in readme
    assert second in (ROOT / ".ci" / "run").read_text()


def test_no_file_has_grown_a_second_purpose():
    long = {
        str(path.relative_to(ROOT)): lines
        for folder in ("models", "ood", "explain", "app")
        for path in (ROOT / folder).rglob("*.py")
        if (lines := len(path.read_text().splitlines())) > 400
    }
    assert not long
