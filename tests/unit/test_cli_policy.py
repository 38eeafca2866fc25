"""`airmedic policy check`."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from cli.policy import app
from tests.unit.policy_cases import DEFAULT


def test_a_good_policy_is_told_in_words(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text("version: 1\nrules: [{name: mine, match: {dag: 'a_*'}, verdict: never}]\n")

    result = CliRunner().invoke(app, ["check", str(path)])

    assert result.exit_code == 0
    assert "1. mine: never when dag a_*" in result.stdout


def test_without_a_file_the_policy_that_ships_is_told() -> None:
    result = CliRunner().invoke(app, ["check"])

    assert result.exit_code == 0
    assert DEFAULT.digest in result.stdout


def test_a_wrong_policy_ends_with_status_2(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text("version: 1\nrulez: []\n")

    result = CliRunner().invoke(app, ["check", str(path)])

    assert result.exit_code == 2
    assert f"{path}: rulez: unknown key" in result.stderr
    assert "did you mean 'rules'?" in result.stderr
