# SPDX-License-Identifier: Apache-2.0
"""The metrics page, as promtool and a real Prometheus read it."""

import shutil
import subprocess
import time

import pytest
import requests
from servers.prometheus import Prometheus
from temper_process import JOB, Node, wait_for

PROMTOOL = shutil.which("promtool")


@pytest.fixture
def busy_server(server, protos):
    """One job that has taken three steps, one that waits."""
    training, _, _ = protos
    server.temper("submit", "-", "--job-id", "busy", text=JOB, check=0)
    server.temper("submit", "-", "--job-id", "waiting", text=JOB, check=0)
    node = Node(server, protos, "busy")
    for step in (1, 2, 3):
        metrics = training.StepMetrics(
            step=step, total_steps=10, loss=2.5 / step, grad_norm=1, learning_rate=1e-4, tokens=1000, scored_tokens=400
        )
        metrics.seconds, metrics.mfu, metrics.hfu, metrics.padding_ratio = 0.4, 0.25, 0.3, 0.125
        metrics.peak_memory_bytes = 3_000_000_000
        node.report(step=metrics)
    node.report(checkpoint=training.CheckpointCommitted(step=3, uri="/c", pause_seconds=0.1, commit_seconds=2))
    yield server
    node.close()


def test_page_is_clean_for_promtool(busy_server):
    assert PROMTOOL, "apt-get install prometheus"
    page = requests.get(f"{busy_server.http}/metrics", timeout=5)
    assert page.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    check = subprocess.run([PROMTOOL, "check", "metrics"], input=page.content, capture_output=True, check=False)
    assert check.returncode == 0, check.stdout + check.stderr
    assert not check.stdout + check.stderr


def test_prometheus_scrapes_the_server(busy_server, tmp_path):
    prometheus = Prometheus(tmp_path / "prometheus", busy_server.http.removeprefix("http://"))

    def value(expression):
        result = wait_for(lambda: prometheus.query(expression), expression)
        assert len(result) == 1, result
        return float(result[0]["value"][1])

    with prometheus:
        assert value('up{job="temper-server"}') == 1
        assert value('temper_train_step{job="busy"}') == 3
        assert value('temper_train_loss{job="busy"}') == pytest.approx(2.5 / 3)
        assert value('temper_train_tokens_total{job="busy"}') == 3000
        assert value('temper_train_scored_tokens_total{job="busy"}') == 1200
        assert value('temper_train_padding_ratio{job="busy"}') == 0.125
        assert value('temper_train_mfu_ratio{job="busy"}') == 0.25
        assert value('temper_train_hfu_ratio{job="busy"}') == 0.3
        assert value('histogram_quantile(0.5, temper_train_step_seconds_bucket{job="busy"})') == pytest.approx(
            0.65, 0.6
        )
        assert value('temper_checkpoint_seconds_sum{job="busy", stage="commit"}') == 2
        assert value('temper_job_state{job="busy", state="RUNNING"}') == 1
        assert value('temper_job_state{job="waiting", state="QUEUED"}') == 1
        assert value('temper_job_info{job="waiting"}') == 1
        assert value("temper_queue_wait_seconds_count") == 1
        assert value('temper_job_launches_total{job="busy"}') == 1
        assert value('temper_train_peak_memory_bytes{job="busy"}') == 3e9
        assert 0 < value("temper_server_disk_free_bytes") < value("temper_server_disk_size_bytes")
        assert value('temper_server_jobs{state="RUNNING"}') == 1
        assert value('temper_server_rpcs_total{method="CreateJob", code="OK"}') == 2
        assert value("temper_server_build_info") == 1
        assert (
            abs(value("temper_server_clock_drift_seconds")) < 300
        )  # nobody sets the clock of a test's machine by more
        assert abs(value("temper_server_start_time_seconds") - time.time()) < 300


def test_health(busy_server):
    answer = requests.get(f"{busy_server.http}/healthz", timeout=5)
    assert (answer.status_code, answer.text) == (200, "ok\n")
    assert requests.get(f"{busy_server.http}/none", timeout=5).status_code == 404
