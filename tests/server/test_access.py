# SPDX-License-Identifier: Apache-2.0
"""Who may call what: every method that the server describes and every page that it has, as everybody who may come.

Leaves build/reports/access.json: `route`, `identity`, `expected` and `got` of each call.
"""

import json
import os
import re
import signal
import sqlite3
import subprocess
import urllib.error
import urllib.request
from dataclasses import dataclass

import grpc
import pytest
from google.protobuf import message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from temper_process import BIN, JOB, LIMIT, ROOT, Server, make_token, wait_for

# Who is to be admitted, apart from the server's own table: a method or page that is not here fails the test.
ANYONE, READER, SUBMITTER, OWNER, ADMIN, GANG = "anyone", "reader", "submitter", "owner", "admin", "gang"
TRAINING, TOKENS = "/temper.v1.TrainingService/", "/temper.v1.TokenService/"
API, PAGE = "/api/v1", "/api/v1/jobs/{job}"
NEEDED = {
    **dict.fromkeys((TRAINING + m for m in ("GetJob", "ListJobs", "WatchJob", "QueryMetrics")), READER),
    **dict.fromkeys((TRAINING + m for m in ("ListCheckpoints", "ListFamilies")), READER),
    **dict.fromkeys((TRAINING + m for m in ("CreateJob", "UploadFile")), SUBMITTER),
    **dict.fromkeys((TRAINING + m for m in ("CancelJob", "PauseJob", "ResumeJob", "DeleteJob")), OWNER),
    **dict.fromkeys((TRAINING + m for m in ("ListArtifacts", "ReadArtifact")), OWNER),
    **dict.fromkeys((TOKENS + m for m in ("CreateToken", "ListTokens", "RevokeToken")), ADMIN),
    "/temper.v1.WorkerService/Attach": GANG,
    "/grpc.health.v1.Health/Check": ANYONE,
    "/grpc.health.v1.Health/Watch": ANYONE,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": ANYONE,
    "GET /metrics": READER,
    "GET /healthz": ANYONE,
    **dict.fromkeys(("GET /", "GET /assets/{file}", "GET /downloads/{ticket}/{file...}"), ANYONE),
    **dict.fromkeys(
        (f"GET {API}/{page}" for page in ("session", "jobs", "stream", "events", "sparklines", "jobs/{job}")), READER
    ),
    **dict.fromkeys((f"GET {PAGE}/{page}" for page in ("metrics", "history", "checkpoints")), READER),
    **dict.fromkeys((f"POST {PAGE}/{action}" for action in ("pause", "resume", "cancel", "tickets")), OWNER),
    f"GET {PAGE}/artifacts": OWNER,
}
# Each is admitted where one of these is needed. The job that calls are about is the owner's.
MAY = {
    "no token": {ANYONE},
    "wrong token": {ANYONE},
    "expired admin": {ANYONE},
    "revoked admin": {ANYONE},
    "reader": {ANYONE, READER},
    "submitter, other's job": {ANYONE, READER, SUBMITTER},
    "submitter, own job": {ANYONE, READER, SUBMITTER, OWNER},
    "admin": {ANYONE, READER, SUBMITTER, OWNER, ADMIN},
    "gang": {ANYONE, GANG},
    "gang of another job": {ANYONE},
    "gang of an older epoch": {ANYONE},
}
KNOWN = {"reader", "submitter, other's job", "submitter, own job", "admin"}  # to whom a refusal is no question of who
SECRET = re.compile(r"[0-9a-f]{64}")


@dataclass
class Place:
    """A server that asks for tokens, with the owner's job `mine`, and a gang of `gang` in its second epoch."""

    server: Server
    tokens: dict[str, str]  # by identity
    hello: dict[str, object]  # job and epoch that a gang's token is shown for


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    server = Server(
        tmp_path_factory.mktemp("access"), options=["--require-tokens", "--slots=cpu:2", "--retry-backoff=1"]
    )
    server.start()
    tokens = {
        "no token": "",
        "wrong token": f"temper_{'0' * 16}_{'0' * 64}",
        "expired admin": make_token(server, "old", "admin", "--expires", "1h"),
        "revoked admin": make_token(server, "gone", "admin"),
        "reader": make_token(server, "eve", "reader"),
        "submitter, other's job": make_token(server, "ben", "submitter"),
        "submitter, own job": make_token(server, "ana", "submitter"),
        "admin": make_token(server, "root", "admin"),
    }
    with sqlite3.connect(server.data / "tokens.db") as database:
        database.execute("UPDATE tokens SET expire_us = create_us + 1 WHERE name = 'old'")
        (gone,) = database.execute("SELECT id FROM tokens WHERE name = 'gone'").fetchone()
    subprocess.run([BIN / "temper-server", "token", "revoke", gone, "--data-dir", server.data], check=True)
    submit(server, tokens["submitter, own job"], "gang", "other-gang")
    older = server.environment_of("gang")
    os.kill(int(older["PID"]), signal.SIGKILL)  # the job gets another gang
    tokens["gang"] = server.environment_of("gang", epoch=2)["TEMPER_WORKER_TOKEN"]
    submit(server, tokens["submitter, own job"], "mine")  # waits: both slots are taken
    tokens["gang of another job"] = server.environment_of("other-gang")["TEMPER_WORKER_TOKEN"]
    tokens["gang of an older epoch"] = older["TEMPER_WORKER_TOKEN"]
    yield Place(server, tokens, {"job": "jobs/gang", "epoch": 2, "incarnation": "test"})
    server.stop()


def submit(server: Server, token: str, *jobs: str) -> None:
    for job in jobs:
        server.temper("submit", "-", "--job-id", job, text=JOB, environment={"TEMPER_TOKEN": token}, check=0)


def described_methods(channel: grpc.Channel):
    """What the server says it has, by reflection; that has no word about what is in gRPC's own services."""
    database = ProtoReflectionDescriptorDatabase(channel)
    pool = DescriptorPool(database)
    standard = {file.DESCRIPTOR.package: file.DESCRIPTOR for file in (health_pb2, reflection_pb2)}
    for service in database.get_services():
        package, name = service.rsplit(".", 1)
        found = standard[package].services_by_name[name] if package in standard else pool.FindServiceByName(service)
        for method in found.methods:
            route, request = f"/{service}/{method.name}", message_factory.GetMessageClass(method.input_type)()
            # Of gRPC's own services the server may have an older version than we know here.
            if package not in standard or call(channel, route, request, "") != "UNIMPLEMENTED":
                yield route, request


def fill(request, job: str, hello: dict[str, object], token: str) -> None:
    """What makes a request one about a job of the owner's, or a gang's own."""
    fields = request.DESCRIPTOR.fields_by_name
    for name in ("name", "parent"):
        if name in fields:
            setattr(request, name, f"jobs/{job}")
    if "hello" in fields:
        for name, value in {**hello, "token": token}.items():
            setattr(request.hello, name, value)


def call(channel: grpc.Channel, route: str, request, token: str) -> str:
    """The code that a call with one message ends with, or is about to when it answers. Whatever the method is, on the
    wire it is a stream in both directions."""
    metadata = [("authorization", f"Bearer {token}")] if token else []
    stream = channel.stream_stream(route)(iter([request.SerializeToString()]), metadata=metadata, timeout=LIMIT)
    code, details = "OK", ""
    try:
        next(stream, None)
    except grpc.RpcError as error:
        code, details = error.code().name, error.details()
    stream.cancel()
    assert not SECRET.search(details), f"{route} tells a secret"
    return code


def ask(server: Server, page: str, token: str) -> str:
    """The same for a page ("GET /metrics")."""
    method, path = page.split(" ")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(server.http + path, headers=headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=LIMIT):
            return "OK"
    except urllib.error.HTTPError as error:
        code, said = error.code, error.read().decode()
    assert not SECRET.search(said), f"{page} tells a secret"
    return {401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED"}.get(code, str(code))


def pages(server: Server) -> list[str]:
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(server.http + "/none", timeout=LIMIT)
    assert error.value.code == 404
    return re.findall(r"(?:GET|POST) /[^\s,]*", error.value.read().decode())


def expectation(needed: str, identity: str) -> str:
    if needed in MAY[identity]:
        return "admitted"
    return "PERMISSION_DENIED" if identity in KNOWN and needed != GANG else "UNAUTHENTICATED"


def test_every_route_admits_exactly_who_may(place):
    rows = []
    with grpc.insecure_channel(place.server.grpc) as channel:
        methods = list(described_methods(channel))
        found = pages(place.server)
        assert {route for route, _ in methods} | set(found) == set(NEEDED)
        for number, (identity, token) in enumerate(place.tokens.items()):
            job = f"mine-{number}"  # some who may do so will delete it
            submit(place.server, place.tokens["submitter, own job"], job)
            for route, request in methods:
                fill(request, job, place.hello, token)
                rows.append((route, identity, call(channel, route, request, token)))
            rows += [(page, identity, ask(place.server, page.replace("{job}", job), token)) for page in found]
    refusals = ("UNAUTHENTICATED", "PERMISSION_DENIED")
    report = [
        {
            "route": route,
            "identity": identity,
            "expected": expectation(NEEDED[route], identity),
            "got": got if got in refusals else "admitted",
        }
        for route, identity, got in rows
    ]
    path = ROOT / "build/reports/access.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n")
    assert len(report) == len(NEEDED) * len(MAY)
    assert [row for row in report if row["got"] != row["expected"]] == []


def test_a_gang_of_an_older_epoch_is_told_to_go(place):
    with grpc.insecure_channel(place.server.grpc) as channel:
        route = "/temper.v1.WorkerService/Attach"
        request = dict(described_methods(channel))[route]
        fill(request, "mine", place.hello | {"epoch": 1}, place.tokens["gang of an older epoch"])
        assert call(channel, route, request, "") == "FAILED_PRECONDITION"


def test_whoever_may_not_see_a_job_does_not_learn_whether_there_is_one(place):
    with grpc.insecure_channel(place.server.grpc) as channel:
        methods = dict(described_methods(channel))
        for route in (TRAINING + "CancelJob", TRAINING + "ReadArtifact", TRAINING + "GetJob"):
            request = methods[route]
            for job in ("jobs/mine", "jobs/none"):
                setattr(request, "parent" if route.endswith("ReadArtifact") else "name", job)
                assert call(channel, route, request, "") == "UNAUTHENTICATED"
                if NEEDED[route] == OWNER:
                    assert call(channel, route, request, place.tokens["reader"]) == "PERMISSION_DENIED"


def test_a_revoked_token_is_refused_from_the_next_call_on(place):
    admin = {"TEMPER_TOKEN": place.tokens["admin"]}
    server = place.server
    created = server.temper("token", "create", "kim", "--expires", "1h", environment=admin, check=0)
    kim = {"TEMPER_TOKEN": created.stdout.strip()}
    assert "expires: never" not in created.stderr
    server.temper("list", environment=kim, check=0)
    tokens = json.loads(server.temper("token", "list", "--output", "json", environment=admin, check=0).stdout)["tokens"]
    (token,) = [token for token in tokens if token["identity"] == "kim"]
    assert token["role"] == "ROLE_SUBMITTER"
    assert not SECRET.search(json.dumps(tokens))
    server.temper("token", "revoke", token["name"], environment=admin, check=0)
    refused = server.temper("list", environment=kim, check=3)
    assert "was revoked" in refused.stderr
    assert "kim" in server.temper("token", "list", environment=admin, check=0).stdout


def test_a_job_is_its_submitters(place):
    server = place.server
    reader = {"TEMPER_TOKEN": place.tokens["reader"]}

    def owner(job):
        return json.loads(server.temper("get", job, "--output", "json", environment=reader, check=0).stdout)["spec"][
            "owner"
        ]

    assert owner("mine") == "ana"
    ben = {"TEMPER_TOKEN": place.tokens["submitter, other's job"]}
    refused = server.temper("submit", "-", "--set", "owner=ana", text=JOB, environment=ben, check=3)
    assert "owner is ana, but the token is ben's" in refused.stderr
    admin = {"TEMPER_TOKEN": place.tokens["admin"]}
    server.temper("submit", "-", "--job-id", "for-ben", "--set", "owner=ben", text=JOB, environment=admin, check=0)
    assert owner("for-ben") == "ben"
    server.temper("cancel", "for-ben", environment=ben, check=0)


def test_a_token_in_a_file_comes_before_the_environment(place, tmp_path):
    (tmp_path / "token").write_text(place.tokens["reader"] + "\n")
    wrong = {"TEMPER_TOKEN": place.tokens["wrong token"]}
    place.server.temper("list", "--token-file", tmp_path / "token", environment=wrong, check=0)
    missing = place.server.temper("list", "--token-file", tmp_path / "none", environment=wrong, check=2)
    assert "--token-file: cannot read" in missing.stderr
    assert "does not know the token" in place.server.temper("list", environment=wrong, check=3).stderr


def test_who_changed_what_and_who_was_refused_is_in_the_log(place):
    server = place.server
    ana, ben = ({"TEMPER_TOKEN": place.tokens[f"submitter, {whose}"]} for whose in ("own job", "other's job"))
    server.temper("submit", "-", "--job-id", "audited", text=JOB, environment=ana, check=0)
    server.temper("cancel", "audited", environment=ben, check=3)
    server.temper("cancel", "audited", environment=ana, check=0)
    server.temper("delete", 'a" identity=root', environment=ana, check=3)
    lines = [line.split("audit ", 1)[1] for line in server.log.read_text().splitlines() if " audit " in line]
    lines = [re.sub(r" peer=\S+:\d+ ", " ", line) for line in lines if "audited" in line or "root" in line]
    assert lines[-4:] == [
        'action=CreateJob object="jobs/audited" identity=ana role=submitter result=OK',
        'action=CancelJob object="jobs/audited" identity=ben role=submitter result=PERMISSION_DENIED',
        'action=CancelJob object="jobs/audited" identity=ana role=submitter result=OK',
        'action=DeleteJob object="jobs/a\\" identity=root" identity=ana role=submitter result=INVALID_ARGUMENT',
    ]
    ask(server, "GET /metrics", "")
    lines = [line.split("audit ", 1)[1] for line in server.log.read_text().splitlines() if 'object="/metrics"' in line]
    assert re.sub(r" peer=ipv4:127\.0\.0\.1:\d+ ", " ", lines[-1]) == (
        'action=GET object="/metrics" identity=- role=- result=UNAUTHENTICATED'
    )


def test_who_changed_a_job_is_in_its_events(place):
    server = place.server
    ana, root = ({"TEMPER_TOKEN": place.tokens[identity]} for identity in ("submitter, own job", "admin"))
    server.temper("submit", "-", "--job-id", "changed", text=JOB, environment=ana, check=0)  # waits for a slot
    for command, who in (("pause", ana), ("resume", root), ("cancel", ana)):
        server.temper(command, "changed", environment=who, check=0)
    shown = server.temper("watch", "changed", environment=ana, check=5).stdout.splitlines()
    assert shown == [
        "QUEUED (by ana)",
        "PAUSED: paused on request (by ana)",
        "QUEUED: resumed on request (by root)",
        "CANCELLED: cancelled on request (by ana)",
    ]
    events = server.temper("watch", "changed", "--output", "json", environment=ana, check=5).stdout
    states = [event["state"] for event in map(json.loads, events.splitlines()) if "state" in event]
    assert [state["requested_by"] for state in states] == ["ana", "ana", "root", "ana"]
    assert not SECRET.search(events)


def test_an_identity_that_calls_too_often_is_told_so(tmp_path):
    server = Server(tmp_path, options=["--require-tokens", "--max-calls-per-second", "1"]).start()
    ana, ben = ({"TEMPER_TOKEN": make_token(server, name, "reader")} for name in ("ana", "ben"))
    answers = [server.temper("list", environment=ana) for _ in range(10)]
    assert any("ana calls too often" in answer.stderr for answer in answers)
    server.temper("list", environment=ben, check=0)
    assert "429" in [ask(server, "GET /metrics", ben["TEMPER_TOKEN"]) for _ in range(10)]
    server.stop()


def test_open_streams_of_an_identity_are_bounded(tmp_path):
    server = Server(tmp_path, options=["--require-tokens", "--max-watches", "1"]).start()
    ana, ben = (make_token(server, name, "submitter") for name in ("ana", "ben"))
    submit(server, ana, "a")
    with grpc.insecure_channel(server.grpc) as channel:
        route = TRAINING + "WatchJob"
        request = dict(described_methods(channel))[route]
        request.name = "jobs/a"
        stream = channel.stream_stream(route)(
            iter([request.SerializeToString()]), metadata=[("authorization", f"Bearer {ana}")], timeout=LIMIT
        )
        next(stream)
        assert call(channel, route, request, ana) == "RESOURCE_EXHAUSTED"
        assert call(channel, route, request, ben) == "OK"
        stream.cancel()
        wait_for(lambda: call(channel, route, request, ana) == "OK", "the place to be free again")
    server.stop()


def test_jobs_name_only_places_that_the_server_allows(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/out").symlink_to("/etc")
    allowed = ["--allow-uri", f"file://{tmp_path}/data/**", "--allow-uri", "s3://bucket/team/**"]
    server = Server(tmp_path / "data", options=allowed).start()
    places = {"model.uri": "data/model", "data.uri": "data/train.jsonl", "output.uri": "data"}
    fields = {field: f"{tmp_path}/{place}" for field, place in places.items()}

    def submit(check, **changes):
        settings = [f"{field}={uri}" for field, uri in (fields | changes).items()]
        return server.temper("submit", "-", *(w for s in settings for w in ("--set", s)), text=JOB, check=check)

    submit(0)
    submit(0, **{"output.uri": "s3://bucket/team/ana"})
    for field, uri in (
        ("model.uri", "/etc"),
        ("data.uri", f"{tmp_path}/data/../secret"),
        ("output.uri", f"file://{tmp_path}/data/%2e%2e/other"),
        ("resume_from", f"{tmp_path}/data/out/checkpoint"),
        ("validation.uri", "s3://bucket/other"),
    ):
        assert f"{field}: '{uri}' is no place" in submit(3, **{field: uri}).stderr
    server.stop()


def test_a_server_without_tokens_makes_none(tmp_path):
    server = Server(tmp_path).start()
    refused = server.temper("token", "create", "ana", "--role", "admin", check=3)
    assert "asks for no tokens" in refused.stderr
    server.stop()


def test_a_name_that_stands_for_no_address_is_not_taken_for_loopback(tmp_path):
    command = [BIN / "temper-server", "--data-dir", tmp_path / "data", "--worker-binary", "/bin/true"]
    command += ["--listen", f"{'x' * 300}:0"]
    result = subprocess.run(command, text=True, capture_output=True, timeout=LIMIT, check=False)
    assert result.returncode == 2
    assert "stands for no address now" in result.stderr


@pytest.mark.parametrize(("option", "address"), [("--listen", "0.0.0.0:0"), ("--http", "[::]:0")])
def test_an_address_that_others_reach_is_refused_unless_that_is_wanted(tmp_path, option, address):
    addresses = {"--listen": "127.0.0.1:0", "--http": "127.0.0.1:0"} | {option: address}
    command = [BIN / "temper-server", "--data-dir", tmp_path / "data", "--worker-binary", "/bin/true"]
    command += [word for pair in addresses.items() for word in pair]
    result = subprocess.run(command, text=True, capture_output=True, timeout=LIMIT, check=False)
    assert result.returncode == 2
    assert f"{option} {address} can be reached from other hosts" in result.stderr
    assert "--insecure" in result.stderr
    assert not (tmp_path / "data").exists()
    with subprocess.Popen([*command, "--insecure"], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout.readline().startswith("temper-server")
        server.send_signal(signal.SIGTERM)
    wait_for(lambda: server.returncode == 0, "the server's end")
