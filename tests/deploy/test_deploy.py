# SPDX-License-Identifier: Apache-2.0
"""The files of deploy/, as the tools that read them see them."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DASHBOARD = ROOT / "deploy/grafana/temper.json"
CHECK_DASHBOARD = ROOT / "build/web-tools/bin/check_dashboard"  # of `make setup`


def run(*command, **options) -> subprocess.CompletedProcess:
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, **options)


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "config", ROOT / "deploy/prometheus/prometheus.yml"),
        ("test", "rules", ROOT / "tests/deploy/temper.rules.test.yml"),
    ],
)
def test_promtool_is_content(arguments):
    assert shutil.which("promtool"), "apt-get install prometheus"
    check = run("promtool", *arguments)
    assert check.returncode == 0, check.stdout + check.stderr


def test_every_alert_has_a_test():
    """promtool does not say so: it passes rules that nothing looks at."""
    rules = (ROOT / "deploy/prometheus/temper.rules.yml").read_text()
    tests = (ROOT / "tests/deploy/temper.rules.test.yml").read_text()
    alerts = [line.split()[-1] for line in rules.splitlines() if "- alert:" in line]
    assert len(alerts) >= 6
    assert [alert for alert in alerts if alert not in tests] == []


def test_dashboard_is_what_grafana_expects(tmp_path):
    check = run(CHECK_DASHBOARD, DASHBOARD)
    assert check.returncode == 0, check.stdout + check.stderr
    wrong = json.loads(DASHBOARD.read_text())
    wrong["panels"][1]["gridPos"]["width"] = 3
    (tmp_path / "wrong.json").write_text(json.dumps(wrong))
    check = run(CHECK_DASHBOARD, tmp_path / "wrong.json")
    assert check.returncode == 1
    assert "unexpected field 'width'" in check.stderr
