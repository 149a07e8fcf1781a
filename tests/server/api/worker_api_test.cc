// SPDX-License-Identifier: Apache-2.0
#include "server/api/worker_api.h"

#include <gmock/gmock.h>

#include "tests/server/api/api_fixture.h"

namespace temper {
namespace {

class WorkerApiTest : public ApiTest {
 protected:
  // A node's end of the stream.
  struct Node {
    explicit Node(std::unique_ptr<v1::WorkerService::Stub> worker_stub) : stub(std::move(worker_stub)) {
      // What would hang fails instead.
      context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
      stream = stub->Attach(&context);
    }

    void Send(const v1::Hello& hello) {
      v1::AttachRequest request;
      *request.mutable_hello() = hello;
      stream->Write(request);
    }
    void Send(const v1::RankReport& report) {
      v1::AttachRequest request;
      *request.mutable_report() = report;
      stream->Write(request);
    }
    // The next answer; empty when the stream is over.
    v1::AttachResponse Receive() {
      v1::AttachResponse response;
      stream->Read(&response);
      return response;
    }
    // Reads until the report is acknowledged; false when the stream is over before.
    bool AwaitAck(int64_t sequence) {
      v1::AttachResponse response;
      while (stream->Read(&response)) {
        if (response.ack().sequence() >= sequence) return true;
      }
      return false;
    }
    grpc::StatusCode Finish() {
      v1::AttachResponse response;
      while (stream->Read(&response)) {
      }
      return stream->Finish().error_code();
    }

    std::unique_ptr<v1::WorkerService::Stub> stub;
    grpc::ClientContext context;
    std::unique_ptr<grpc::ClientReaderWriter<v1::AttachRequest, v1::AttachResponse>> stream;
  };

  void SetUp() override {
    ApiTest::SetUp();
    Create("a");
    Settle();
  }

  v1::JobState State() { return controller->Get("jobs/a")->state(); }
};

TEST_F(WorkerApiTest, Hello_IsAnsweredWithTheAssignment) {
  Node node(WorkerStub());
  node.Send(HelloOf("a"));
  const v1::AttachResponse response = node.Receive();
  ASSERT_TRUE(response.has_assignment());
  EXPECT_EQ(response.assignment().job(), "jobs/a");
  EXPECT_EQ(response.assignment().epoch(), 1);
  EXPECT_EQ(response.assignment().spec().training().steps(), 100);
  EXPECT_EQ(State(), v1::JOB_STATE_RUNNING);
  node.stream->WritesDone();
  EXPECT_EQ(node.Finish(), grpc::StatusCode::OK);
}

TEST_F(WorkerApiTest, WrongToken_IsUnauthenticated) {
  v1::Hello hello = HelloOf("a");
  hello.set_token("guess");
  Node node(WorkerStub());
  node.Send(hello);
  EXPECT_EQ(node.Finish(), grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(State(), v1::JOB_STATE_STARTING);
}

TEST_F(WorkerApiTest, SecondIncarnation_IsRefused) {
  Node first(WorkerStub());
  first.Send(HelloOf("a", "1"));
  ASSERT_TRUE(first.Receive().has_assignment());
  Node second(WorkerStub());
  second.Send(HelloOf("a", "2"));
  EXPECT_EQ(second.Finish(), grpc::StatusCode::FAILED_PRECONDITION);
  first.Send(StepReport(1, 1));
  EXPECT_TRUE(first.AwaitAck(1));
  first.stream->WritesDone();
  EXPECT_EQ(first.Finish(), grpc::StatusCode::OK);
}

TEST_F(WorkerApiTest, ReportBeforeHello_IsInvalid) {
  Node node(WorkerStub());
  node.Send(StepReport(1, 1));
  EXPECT_EQ(node.Finish(), grpc::StatusCode::INVALID_ARGUMENT);
}

class SilentNodeTest : public WorkerApiTest {
 protected:
  SilentNodeTest() { rpc_options.node_silence.attached = std::chrono::seconds(1); }

  // What a stream that the server ends without an answer ends with.
  static std::string EndOf(Node& node) {
    EXPECT_EQ(node.Receive().message_case(), v1::AttachResponse::MESSAGE_NOT_SET);
    const grpc::Status status = node.stream->Finish();
    EXPECT_EQ(status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
    return status.error_message();
  }
};

TEST_F(SilentNodeTest, NoHello_EndsTheStream) {
  Halt();
  rpc_options.node_silence.greeting = std::chrono::milliseconds(100);
  Boot();
  Node node(WorkerStub());
  EXPECT_EQ(EndOf(node), "no Hello from the node within 100 ms");
}

TEST_F(SilentNodeTest, NoWordAfterHello_EndsTheStream) {
  Node node(WorkerStub());
  node.Send(HelloOf("a"));
  ASSERT_TRUE(node.Receive().has_assignment());
  EXPECT_EQ(EndOf(node), "no word from the node within 1000 ms");
}

TEST_F(SilentNodeTest, Heartbeats_KeepTheStream) {
  Node node(WorkerStub());
  node.Send(HelloOf("a"));
  ASSERT_TRUE(node.Receive().has_assignment());
  const auto until = std::chrono::steady_clock::now() + std::chrono::milliseconds(1500);
  while (std::chrono::steady_clock::now() < until) {
    v1::AttachRequest request;
    request.mutable_heartbeat();
    ASSERT_TRUE(node.stream->Write(request));
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  node.Send(StepReport(1, 1));
  EXPECT_TRUE(node.AwaitAck(1));
}

TEST_F(SilentNodeTest, NodeTakesNoAnswer_IsCutOff) {
  Node node(v1::WorkerService::NewStub(NarrowChannel()));
  node.Send(HelloOf("a"));
  node.stream->WritesDone();
  EXPECT_TRUE(Eventually([&] { return CountEnded("Attach", absl::StatusCode::kDeadlineExceeded) == 1; }));
  // Nothing is left of it that a server which stops would wait for.
  const auto start = std::chrono::steady_clock::now();
  server->Shutdown(std::chrono::minutes(1));
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(30));
  EXPECT_EQ(node.Finish(), grpc::StatusCode::CANCELLED);
}

class FewGreetingsTest : public WorkerApiTest {
 protected:
  FewGreetingsTest() { rpc_options.greetings.per_caller = 1; }
};

TEST_F(FewGreetingsTest, NodeWithoutHello_HoldsTheOnlyPlaceUntilItSaysHello) {
  Node silent(WorkerStub());
  const auto end_of_another = [&] {
    Node another(WorkerStub());
    another.Send(v1::Hello());
    return another.Finish();
  };
  EXPECT_TRUE(Eventually([&] { return end_of_another() == grpc::StatusCode::RESOURCE_EXHAUSTED; }));
  silent.Send(HelloOf("a"));
  ASSERT_TRUE(silent.Receive().has_assignment());
  EXPECT_TRUE(Eventually([&] { return end_of_another() == grpc::StatusCode::INVALID_ARGUMENT; }));
}

TEST_F(WorkerApiTest, SecondHello_IsInvalid) {
  Node node(WorkerStub());
  node.Send(HelloOf("a"));
  node.Send(HelloOf("a"));
  EXPECT_EQ(node.Finish(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(WorkerApiTest, ManyReports_AreKeptBeforeTheyAreAcknowledged) {
  Node node(WorkerStub());
  node.Send(HelloOf("a"));
  ASSERT_TRUE(node.Receive().has_assignment());
  constexpr int kReports = 2000;
  std::thread sender([&] {
    for (int i = 1; i <= kReports; ++i) node.Send(LogReport(i, "line"));
  });
  int64_t acknowledged = 0;
  int acks = 0;
  while (acknowledged < kReports) {
    const v1::AttachResponse response = node.Receive();
    ASSERT_TRUE(response.has_ack());
    ASSERT_GT(response.ack().sequence(), acknowledged);
    acknowledged = response.ack().sequence();
    ++acks;
    // Durable at this moment: an event per report, besides the states.
    ASSERT_GE(controller->Get("jobs/a")->last_sequence(), acknowledged);
  }
  sender.join();
  EXPECT_LT(acks, kReports / 2) << "reports are not kept in batches";
  node.stream->WritesDone();
  EXPECT_EQ(node.Finish(), grpc::StatusCode::OK);
}

TEST_F(WorkerApiTest, NodeClosesItsSide_WhatItSentIsKeptAndAcknowledged) {
  Node node(WorkerStub());
  node.Send(HelloOf("a"));
  ASSERT_TRUE(node.Receive().has_assignment());
  for (int i = 1; i <= 300; ++i) node.Send(LogReport(i, "line"));
  node.Send(EndReport(301));
  node.stream->WritesDone();
  EXPECT_TRUE(node.AwaitAck(301));
  EXPECT_EQ(node.Finish(), grpc::StatusCode::OK);
}

TEST_F(WorkerApiTest, StreamBreaks_SameIncarnationGoesOnAndRepeats) {
  {
    Node node(WorkerStub());
    node.Send(HelloOf("a"));
    ASSERT_TRUE(node.Receive().has_assignment());
    node.Send(StepReport(1, 1));
    ASSERT_TRUE(node.AwaitAck(1));
    node.context.TryCancel();
    node.Finish();
  }
  const int64_t events = controller->Get("jobs/a")->last_sequence();
  Node again(WorkerStub());
  again.Send(HelloOf("a"));
  ASSERT_TRUE(again.Receive().has_assignment());
  again.Send(StepReport(1, 1));
  EXPECT_TRUE(again.AwaitAck(1));
  EXPECT_EQ(controller->Get("jobs/a")->last_sequence(), events) << "a repeated report was kept twice";
  again.Send(StepReport(2, 2));
  EXPECT_TRUE(again.AwaitAck(2));
  again.stream->WritesDone();
  EXPECT_EQ(again.Finish(), grpc::StatusCode::OK);
}

TEST_F(WorkerApiTest, ServerStops_NodeIsToldAtOnceAndTheNextServerKeepsWhatItRepeats) {
  Node node(WorkerStub());
  node.Send(HelloOf("a"));
  ASSERT_TRUE(node.Receive().has_assignment());
  const auto before = std::chrono::steady_clock::now();
  server->Shutdown(std::chrono::seconds(60));
  EXPECT_LT(std::chrono::steady_clock::now() - before, std::chrono::seconds(30)) << "it waited for the node";
  EXPECT_EQ(node.Finish(), grpc::StatusCode::UNAVAILABLE);

  Halt();
  Boot();
  Node again(WorkerStub());
  again.Send(HelloOf("a"));
  ASSERT_TRUE(again.Receive().has_assignment());
  again.Send(StepReport(1, 1));
  EXPECT_TRUE(again.AwaitAck(1));
  again.stream->WritesDone();
  EXPECT_EQ(again.Finish(), grpc::StatusCode::OK);
}

TEST_F(WorkerApiTest, GapInTheReports_EndsTheStream) {
  Node node(WorkerStub());
  node.Send(HelloOf("a"));
  ASSERT_TRUE(node.Receive().has_assignment());
  node.Send(StepReport(2, 1));
  EXPECT_EQ(node.Finish(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(WorkerApiTest, Cancel_SendsStop) {
  Node node(WorkerStub());
  node.Send(HelloOf("a"));
  ASSERT_TRUE(node.Receive().has_assignment());
  ASSERT_TRUE(controller->Cancel("jobs/a").ok());
  Settle();
  EXPECT_TRUE(node.Receive().has_stop());
  node.stream->WritesDone();
  EXPECT_EQ(node.Finish(), grpc::StatusCode::OK);
}

TEST_F(WorkerApiTest, EpochIsOver_IsFailedPrecondition) {
  const v1::Hello hello = HelloOf("a");
  ASSERT_TRUE(controller->Cancel("jobs/a").ok());
  Settle();
  launcher.Exit({"a", 1});
  Settle();
  Node node(WorkerStub());
  node.Send(hello);
  EXPECT_EQ(node.Finish(), grpc::StatusCode::FAILED_PRECONDITION);
}

}  // namespace
}  // namespace temper
