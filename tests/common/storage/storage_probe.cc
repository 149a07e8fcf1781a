// SPDX-License-Identifier: Apache-2.0
// What a process does with a store, one call a run, for tests that break the store meanwhile. Prints a line of JSON.
#include <CLI/CLI.hpp>
#include <chrono>
#include <cstring>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>

#include "common/digest.h"
#include "common/failure.h"
#include "common/storage/object_store.h"
#include "common/storage/publication.h"

namespace temper {
namespace {

using Json = nlohmann::json;
using Clock = std::chrono::steady_clock;

constexpr size_t kPiece = 4 << 20;

double SecondsSince(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

// Deterministic, and no two pieces are alike.
std::string Piece(uint64_t number) {
  std::string piece(kPiece, '\0');
  uint64_t state = number + 1;
  for (size_t i = 0; i < piece.size(); i += 8) {
    state = state * 6364136223846793005 + 1442695040888963407;
    std::memcpy(piece.data() + i, &state, 8);
  }
  return piece;
}

struct Call {
  std::string action, uri, path;
  int64_t size = 0;
  int64_t offset = 0, piece = 32 << 20;
  int deadline_ms = 120'000;
};

absl::Status Write(const Call& call, ObjectStore& store, Json& result) {
  auto writer = store.Create(call.path);
  if (!writer.ok()) return writer.status();
  Sha256 digest;
  for (int64_t done = 0; done < call.size; done += kPiece) {
    const std::string piece = Piece(done).substr(0, std::min<int64_t>(kPiece, call.size - done));
    digest.Update(piece);
    if (absl::Status status = (*writer)->Write(piece); !status.ok()) return status;
    std::cerr << done + piece.size() << std::endl;  // for who wants to strike in the middle of it
  }
  result["sha256"] = digest.Hex();
  return (*writer)->Close();
}

// All of it, or `size` bytes at `offset`.
absl::Status Read(const Call& call, ObjectStore& store, Json& result) {
  const auto reader = store.OpenForRead(call.path);
  if (!reader.ok()) return reader.status();
  const int64_t end = call.size > 0 ? call.offset + call.size : (*reader)->size();
  Sha256 digest;
  for (int64_t done = call.offset; done < end; done += call.piece) {
    const auto bytes = (*reader)->ReadAt(done, std::min(call.piece, end - done));
    if (!bytes.ok()) return bytes.status();
    digest.Update(*bytes);
  }
  result["size"] = (*reader)->size();
  result["sha256"] = digest.Hex();
  result["local"] = store.LocalPath(call.path).value_or("");
  return absl::OkStatus();
}

// A committed directory of one file.
absl::Status Publish(const Call& call, ObjectStore& store) {
  auto publication = Publication::Begin(store, call.path, "job", 1);
  if (!publication.ok()) return publication.status();
  const auto file = (*publication)->Create("file");
  if (!file.ok()) return file.status();
  for (int64_t done = 0; done < call.size; done += kPiece) {
    const std::string piece = Piece(done).substr(0, std::min<int64_t>(kPiece, call.size - done));
    if (absl::Status status = (*file)->Write(piece); !status.ok()) return status;
    std::cerr << done + piece.size() << std::endl;
  }
  if (absl::Status status = (*file)->Close(); !status.ok()) return status;
  return (*publication)->Commit();
}

absl::Status Verify(const Call& call, const ObjectStore& store) {
  const auto manifest = ReadManifest(store, call.path);
  return manifest.ok() ? VerifyFiles(store, call.path, *manifest) : manifest.status();
}

absl::Status Run(const Call& call, Json& result) {
  const std::chrono::milliseconds deadline(call.deadline_ms);
  if (call.action == "pin") {
    const auto pinned = PinnedUri(call.uri, {deadline});
    result["uri"] = pinned.value_or("");
    return pinned.status();
  }
  const auto store = ObjectStore::Open(call.uri, {deadline});
  if (!store.ok()) return store.status();
  result["uri"] = (*store)->uri();
  if (call.action == "write") return Write(call, **store, result);
  if (call.action == "read") return Read(call, **store, result);
  if (call.action == "publish") return Publish(call, **store);
  if (call.action == "verify") return Verify(call, **store);
  if (call.action == "check") return (*store)->CheckWritable(call.path);
  if (call.action == "list") {
    const auto objects = (*store)->List(call.path);
    if (objects.ok()) result["objects"] = objects->size();
    return objects.status();
  }
  return absl::InvalidArgumentError("no such action");
}

}  // namespace
}  // namespace temper

int main(int argc, char** argv) {
  temper::Call call;
  CLI::App app;
  app.add_option("action", call.action, "write, read, publish, verify, check, list or pin")->required();
  app.add_option("uri", call.uri)->required();
  app.add_option("path", call.path, "below it");
  app.add_option("--size", call.size, "of what is written, or read");
  app.add_option("--offset", call.offset, "of what is read");
  app.add_option("--piece", call.piece, "that is read at a time");
  app.add_option("--deadline-ms", call.deadline_ms);
  CLI11_PARSE(app, argc, argv);
  nlohmann::json result;
  const auto begin = temper::Clock::now();
  const absl::Status status = temper::Run(call, result);
  result["seconds"] = temper::SecondsSince(begin);
  result["code"] = absl::StatusCodeToString(status.code());
  result["message"] = std::string(status.message());
  if (!status.ok()) result["cause"] = temper::FailureCauseName(temper::CauseOf(status));
  std::cout << result.dump() << std::endl;
  return 0;
}
