# SPDX-License-Identifier: Apache-2.0
"""Two nodes, each in a network namespace of its own: cables lead to the server and from one node to the other.

Run by test_nodes.py, in a namespace that goes with it. Node k has 10.77.k.1 on the cable to the server, which is at
10.77.0.254, and 10.78.0.(k + 1) on the one to the other node.
"""

import re
import shlex
import subprocess
import urllib.request
from pathlib import Path

import gang_report
import pytest
import tiny_chat_model
from safetensors.torch import load_file
from temper_server import BIN, steps_lost, wait_until
from test_ranks import job_of_two_ranks, of_kind, weights

NODES = (0, 1)


def run(*command, of=None):
    """In the namespace of a node, or in the server's."""
    enter = [] if of is None else ["nsenter", f"--net=/proc/{of.pid}/ns/net"]
    return subprocess.run([*enter, *command], check=True, capture_output=True, text=True).stdout


def network_of(pid):
    return Path(f"/proc/{pid}/ns/net").readlink()


@pytest.fixture(scope="module")
def namespaces():
    """Processes, one a node, that do nothing but to be in its namespace."""
    assert run("ip", "-oneline", "link").count("\n") == 1, "not in a namespace of its own: run test_nodes.py"
    run("ip", "link", "set", "lo", "up")
    holders = [subprocess.Popen(["unshare", "--net", "sleep", "infinity"]) for _ in NODES]
    try:
        for node, holder in enumerate(holders):
            wait_until(lambda pid=holder.pid: network_of(pid) != network_of("self"))
            to_node = f"node{node}"
            run("ip", "link", "add", to_node, "type", "veth", "peer", "name", "server", "netns", str(holder.pid))
            run("ip", "address", "add", f"10.77.{node}.254/24", "dev", to_node)
            run("ip", "link", "set", to_node, "up")
            run("ip", "link", "set", "lo", "up", of=holder)
            run("ip", "address", "add", f"10.77.{node}.1/24", "dev", "server", of=holder)
            run("ip", "link", "set", "server", "up", of=holder)
            run("ip", "route", "add", "default", "via", f"10.77.{node}.254", of=holder)
        first, second = holders
        run("ip", "link", "add", "gang", "type", "veth", "peer", "name", "gang", "netns", str(second.pid), of=first)
        for node, holder in enumerate(holders):
            run("ip", "address", "add", f"10.78.0.{node + 1}/24", "dev", "gang", of=holder)
            run("ip", "link", "set", "gang", "up", of=holder)
        yield holders
    finally:
        for holder in holders:
            holder.kill()
            holder.wait()


@pytest.fixture
def server(start_server, namespaces, tmp_path):
    """Its launcher starts each node's worker in the node's namespace, and says where the others reach it."""
    worker = tmp_path / "worker-in-its-namespace"
    pids = " ".join(str(holder.pid) for holder in namespaces)
    worker.write_text(
        "#!/bin/bash\n"
        f"pids=({pids})\n"
        "[[ $* =~ --node\\ ([0-9]+) ]] && node=${BASH_REMATCH[1]}\n"
        "exec nsenter --net=/proc/${pids[node]}/ns/net "
        f'{shlex.quote(str(BIN / "temper-worker"))} "$@" --address 10.78.0.$((node + 1))\n'
    )
    worker.chmod(0o755)
    return start_server(
        slots="cpu:2",
        listen="10.77.0.254:0",
        options=["--insecure", f"--worker-binary={worker}"],
    )


@pytest.fixture
def spec(spec):
    return job_of_two_ranks(spec)


def of_two_nodes(spec):
    return spec | {"resources": spec["resources"] | {"nodes": 2, "ranks_per_node": 1}}


def node_of(process):
    """That a worker or a rank belongs to."""
    return int(process.environ()["TEMPER_RUN_DIR"].endswith("/node-1"))


def the_process(server, name, node):
    (process,) = (process for process in server.processes(name) if node_of(process) == node)
    return process


def test_two_nodes_compute_what_one_does_whatever_happens_to_them(server, spec, namespaces):
    on_one_node = server.wait_for_end(server.submit(spec))
    assert on_one_node["state"] == "JOB_STATE_SUCCEEDED", on_one_node

    job = server.submit(of_two_nodes(spec))
    server.wait_for_step(job, epoch=1)
    for name in ("temper-worker", "temper-rank"):
        processes = sorted(server.processes(name), key=node_of)
        assert [network_of(process.pid) for process in processes] == [network_of(holder.pid) for holder in namespaces]
    the_process(server, "temper-worker", node=1).kill()
    server.wait_for_step(job, epoch=2)
    the_process(server, "temper-rank", node=1).kill()
    server.wait_for_step(job, epoch=3)
    server.kill()
    server.start()
    server.json("pause", job)
    server.wait_for_state(job, "PAUSED")
    assert server.processes() == []
    server.json("resume", job)
    server.wait_for_step(job, epoch=4)
    the_process(server, "temper-worker", node=1).terminate()
    ended = server.wait_for_end(job)
    assert ended["state"] == "JOB_STATE_SUCCEEDED", ended
    assert ended["epoch"] == 5
    assert ended["restarts"] == 2
    assert weights(ended) == weights(on_one_node)

    events = list(server.events(job))
    steps_lost(events, spec["checkpoints"]["every_steps"])
    assert sorted({step.step for step in of_kind(events, "step")}) == list(range(1, spec["training"]["steps"] + 1))
    restarts = [state.reason for state in of_kind(events, "state") if state.reason.startswith("restart ")]
    assert len(restarts) == 2
    assert "node 1: temper-worker was killed by signal 9" in restarts[0]
    assert "temper-rank was killed by SIGKILL" in restarts[1]


WIDE = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 4}


def sent_by_the_gang(namespaces):
    """Of both nodes, on the cable between them, headers and acknowledgements included."""
    return sum(
        int(re.search(r"gang: *(?:\d+ +){8}(\d+)", run("cat", "/proc/net/dev", of=holder))[1]) for holder in namespaces
    )


def test_bytes_on_the_wire_are_those_of_the_formula(server, spec, namespaces, tmp_path):
    """P·(2 + 2 + 4)·(n − 1)/n of a rank for each of its micro-batches, in bf16; docs/ARCHITECTURE.md, "Sharding".

    Two jobs that differ in their steps: loading, exporting and finding each other cost both the same.
    """
    tiny_chat_model.write_model(tmp_path / "wide", **WIDE)
    spec = of_two_nodes(spec) | {"model": {"uri": str(tmp_path / "wide")}}
    del spec["checkpoints"]
    steps, micro_batches, ranks = (2, 6), 2, 2
    tokens = {"micro_batch_tokens": 64, "tokens_per_step": 64 * micro_batches * ranks}
    counted, sent = [], []
    for number in steps:
        spec["training"] |= tokens | {"steps": number, "precision": "PRECISION_BF16"}
        before = sent_by_the_gang(namespaces)
        job = server.submit(spec)
        assert server.wait_for_end(job)["state"] == "JOB_STATE_SUCCEEDED"
        counted.append(sent_by_the_gang(namespaces) - before)
        sent.append([step.sent_bytes for step in of_kind(server.events(job), "step")])
        metrics = urllib.request.urlopen(f"http://{server.http}/metrics", timeout=10).read().decode()
        (total,) = re.findall(rf'temper_train_sent_bytes_total{{job="{job}"}} (\S+)', metrics)
        assert float(total) == pytest.approx(sum(sent[-1]), rel=1e-5)
    weights_of_model = load_file(tmp_path / "wide/model.safetensors")
    parameters = sum(tensor.numel() for tensor in weights_of_model.values())
    formula = micro_batches * parameters * (2 + 2 + 4) * (ranks - 1) / ranks
    of_a_rank = (counted[1] - counted[0]) / (steps[1] - steps[0]) / ranks
    gang_report.add(
        [
            {
                "world": ranks,
                "mode": "full, bf16, two nodes: on the wire",
                "bytes_per_step": of_a_rank,
                "bytes_formula": formula,
            }
        ]
    )
    assert of_a_rank == pytest.approx(formula, rel=0.05)
    assert sent[1][-1] == pytest.approx(formula, rel=0.02)


def test_a_node_that_can_not_listen_is_named(server, spec, namespaces):
    run("ip", "address", "delete", "10.78.0.1/24", "dev", "gang", of=namespaces[0])
    try:
        job = server.submit(of_two_nodes(spec))
        server.wait_for(job, lambda event: "can't listen on 10.78.0.1" in event.state.reason)
        server.json("cancel", job)
        server.wait_for_end(job)
    finally:
        run("ip", "address", "add", "10.78.0.1/24", "dev", "gang", of=namespaces[0])
