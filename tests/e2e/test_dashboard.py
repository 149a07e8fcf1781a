# SPDX-License-Identifier: Apache-2.0
"""The Grafana dashboard's queries, in a real Prometheus that scrapes a server with a real job."""

import contextlib
import json
import math
from pathlib import Path

import pytest
import tiny_chat_model
from servers.prometheus import Prometheus
from temper_server import wait_until

ROOT = Path(__file__).resolve().parents[2]
DASHBOARD = json.loads((ROOT / "deploy/grafana/temper.json").read_text())
RULES = ROOT / "deploy/prometheus/temper.rules.yml"


def queries() -> dict[str, str]:
    """By where it stands. Grafana's variables are what they would be a minute after the start."""
    found = {f"annotation {each['name']}": each["expr"] for each in DASHBOARD["annotations"]["list"]}
    for panel in DASHBOARD["panels"]:
        found |= {f"{panel['title']} {target['refId']}": target["expr"] for target in panel.get("targets", [])}
    for name, value in {"$__rate_interval": "10s", "$__interval": "1m", "$instance": ".*", "$job": ".*"}.items():
        found = {title: expression.replace(name, value) for title, expression in found.items()}
    return found


@pytest.fixture
def spec(endless_spec):
    endless_spec["checkpoints"] = {"every_steps": 20, "keep_last": 2}
    endless_spec["training"]["tokens_per_step"] = 512
    endless_spec["resources"]["ranks_per_node"] = 2
    return endless_spec


@pytest.fixture
def short_specs(endless_spec, tmp_path):
    """Of other methods; their figures stay."""
    tiny_chat_model.write_pairs(tmp_path / "pairs.jsonl")
    tiny_chat_model.write_model(tmp_path / "teacher", seed=5)
    short = endless_spec | {"resources": {"threads_per_rank": 1}, "lora": {"rank": 4}}
    short["training"] = endless_spec["training"] | {"steps": 5}
    return [
        short | {"method": {"preference": {}}, "data": {"uri": str(tmp_path / "pairs.jsonl")}},
        short | {"method": {"distillation": {"teacher": str(tmp_path / "teacher")}}},
    ]


def test_every_query_of_the_dashboard_finds_the_job(start_server, spec, short_specs, tmp_path):
    server = start_server(slots="cpu:3")
    with Prometheus(tmp_path / "prometheus", server.http, RULES) as prometheus:
        for each in [*short_specs, spec]:
            server.submit(each)
        wait_until(lambda: prometheus.query("temper_checkpoint_last_committed_step > 0"))
        server.processes("temper-rank")[0].kill()  # steps are lost, and a gang is launched again
        wait_until(lambda: prometheus.query("temper_lost_steps_total > 0"), timeout=60)
        silent = queries()

        def all_have_answered():
            for title, expression in list(silent.items()):
                if any(map(is_figure, prometheus.query(expression))):
                    del silent[title]
            return not silent

        with contextlib.suppress(AssertionError):
            wait_until(all_have_answered, timeout=60)
        assert not silent
        waterfall = {
            series["metric"]["category"]: float(series["value"][1])
            for series in prometheus.query("sum by (category) (temper:job_time_before:seconds)")
        }
        spent = prometheus.query("sum by (category) (temper_job_time_seconds_total)")
        assert set(waterfall) == {series["metric"]["category"] for series in spent}


def is_figure(series: dict) -> bool:
    return math.isfinite(float(series["value"][1]))
