// SPDX-License-Identifier: Apache-2.0
#include "worker/train/teacher.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "common/failure.h"
#include "worker/text/same_tokens.h"

namespace temper {
namespace {

constexpr char kField[] = "method.distillation.teacher: ";

absl::Status OfTeacher(const absl::Status& status) {
  return WithCause(absl::Status(status.code(), absl::StrCat(kField, status.message())), CauseOf(status));
}

}  // namespace

TransformerOptions TeacherOptions(at::ScalarType dtype, at::Device device) {
  return {.dtype = dtype, .lora = LoraConfig{}, .device = device};  // no adapter on a base that is frozen
}

absl::Status CheckTeacher(const TrainJob& job, const NativeRepository& teacher, at::ScalarType dtype,
                          const TrainingData& data) {
  const std::string& uri = job.distillation->teacher;
  const auto tokenizer = Tokenizer::Open(teacher.repository->store());
  if (!tokenizer.ok()) return OfTeacher(tokenizer.status());
  const std::string difference = TokenDifference(data.tokenizer(), *tokenizer);
  if (!difference.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(kField, uri, " has another tokenizer than ", job.model_uri, ": ", difference,
                     ". Their distributions are of different tokens and can't be compared: choose a teacher with the "
                     "model's tokenizer, usually a larger model of the same series"));
  }
  if (teacher.config.vocab_size <= data.tokenizer().max_id()) {
    return absl::InvalidArgumentError(absl::StrCat(
        kField, uri, " has ", teacher.config.vocab_size, " rows in its embedding, but the tokenizer has ids up to ",
        data.tokenizer().max_id(), ": its embedding was not resized after tokens were added"));
  }
  if (data.max_sample_tokens() > teacher.config.max_positions) {
    return absl::InvalidArgumentError(absl::StrCat(
        kField, uri, " has ", teacher.config.max_positions, " positions, but samples may have ",
        data.max_sample_tokens(), " tokens: set data.max_sample_tokens to at most ", teacher.config.max_positions));
  }
  const absl::Status sound = CheckCheckpoint(teacher, TeacherOptions(dtype));
  return sound.ok() ? sound : OfTeacher(sound);
}

absl::StatusOr<LoadedModel> LoadTeacher(const NativeRepository& teacher, at::ScalarType dtype, at::Device device,
                                        ProcessGroup* ranks) {
  auto loaded = LoadModel(teacher, TeacherOptions(dtype, device), ranks);
  if (!loaded.ok()) return OfTeacher(loaded.status());
  return loaded;
}

}  // namespace temper
