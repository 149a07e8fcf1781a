# SPDX-License-Identifier: Apache-2.0
"""What any gRPC or Prometheus tool may expect of a server."""

import urllib.request

from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase


def test_health_says_serving_for_the_server_and_its_services(server):
    stub = health_pb2_grpc.HealthStub(server.channel)
    for service in ("", "temper.v1.TrainingService", "temper.v1.WorkerService"):
        answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING, service


def test_reflection_describes_every_call(server):
    database = ProtoReflectionDescriptorDatabase(server.channel)
    assert {"temper.v1.TrainingService", "temper.v1.WorkerService"} <= set(database.get_services())
    service = DescriptorPool(database).FindServiceByName("temper.v1.TrainingService")
    methods = {method.name for method in service.methods}
    assert methods == {
        *("CreateJob", "GetJob", "ListJobs", "CancelJob", "PauseJob", "ResumeJob", "DeleteJob"),
        *("WatchJob", "QueryMetrics", "ListCheckpoints", "ListArtifacts", "ReadArtifact"),
        *("ListFamilies", "UploadFile"),
    }


def test_healthz_and_metrics_answer(server, spec):
    job = server.submit(spec)
    server.wait_for_end(job)
    with urllib.request.urlopen(f"http://{server.http}/healthz", timeout=10) as answer:
        assert answer.status == 200
    with urllib.request.urlopen(f"http://{server.http}/metrics", timeout=10) as answer:
        metrics = answer.read().decode()
    assert f'temper_train_step{{job="{job}"}} 60' in metrics
    assert f'temper_train_loss{{job="{job}"}}' in metrics
