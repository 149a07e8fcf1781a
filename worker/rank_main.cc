// SPDX-License-Identifier: Apache-2.0
// temper-rank: one device of a gang.
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <string>
#include <system_error>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/strings/numbers.h"
#include "worker/ops/vector_math.h"
#include "worker/parallel/flight_recorder.h"
#include "worker/session/session.h"
#include "worker/session/spin_count.h"
#include "worker/session/standalone.h"
#include "worker/train/preflight.h"
#include "worker/train/trainer.h"
#include "worker/verify/verify_command.h"
#include "worker/verify/verify_export.h"

namespace {

// The node decides when a rank ends. A signal to the whole process group (Ctrl-C, a service manager) reaches the node
// too, which then says Stop.
void LeaveSignalsToTheNode() {
  std::signal(SIGINT, SIG_IGN);
  std::signal(SIGTERM, SIG_IGN);
}

absl::Status RunTrainJob(const temper::TrainJob& job, temper::TrainObserver& observer, const temper::StopSignal& stop) {
  const auto verify_export = [](const temper::VerifiedExport& exported) {
    return temper::VerifyExport(exported.model, exported.adapter, exported.layers_at_a_time);
  };
  return temper::RunTrainJob(job, observer, stop, {.exported = verify_export, .model = temper::VerifyFirstLayers});
}

absl::Status RunPreflight(const temper::TrainJob& job, temper::TrainObserver& observer,
                          const temper::StopSignal& stop) {
  return temper::RunPreflight(job, observer, stop, temper::VerifyFirstLayers);
}

// Prepares `temper-rank verify`; the options go to `request`.
CLI::App* AddVerify(CLI::App& app, temper::VerifyRequest& request) {
  CLI::App* verify = app.add_subcommand(
      "verify", "Compare the native model with transformers' own; exit 0: passed, 1: failed, 2: could not");
  verify->add_option("--model", request.models, "Model directories (Hugging Face layout)")->required();
  verify->add_option("--adapter", request.adapter, "A PEFT adapter directory to put on each model");
  verify->add_option("--dtype", request.dtype, "What the native model computes in")
      ->check(CLI::IsMember({"fp32", "bf16"}))
      ->capture_default_str();
  verify->add_flag("--layers", request.layers, "Also name the first module whose output departs");
  verify->add_flag("--gradients", request.gradients, "Also compare the gradient of every weight (fp32)");
  verify
      ->add_option("--layers-at-a-time", request.layers_at_a_time,
                   "Compare so many layers after the other, each time as a model of their own: for models that do not "
                   "fit into memory twice")
      ->check(CLI::Range(1, 1000));
  verify->add_option("--output", request.output, "json: an object a line for each model")
      ->check(CLI::IsMember({"table", "json"}))
      ->capture_default_str();
  // For tests that plant bugs, so not shown: what the native side loads instead of each model.
  verify->add_option("--native-model", request.native_models)->group("");
  return verify;
}

// Begins anew with a spin count, unless the user or the node has chosen one; goes on without where that fails.
void ChooseSpinCount(char** argv) {
  if (temper::SpinCountIsChosen()) return;
  setenv(temper::kSpinCountVariable, temper::kSpinCount, /*overwrite=*/0);
  std::error_code error;
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe", error);
  if (!error && program.filename() == "temper-rank") execv(program.c_str(), argv);  // not a loader that runs it
}

}  // namespace

int main(int argc, char** argv) {
  ChooseSpinCount(argv);
  CLI::App app{
      "temper-rank: the training engine on one device.\n"
      "temper-worker starts it; by hand, use `temper-rank train JOB.json`."};
  app.require_subcommand(0, 1);
  std::string job_file;
  std::vector<std::string> job_files;
  std::string job_id = "local";
  CLI::App* train = app.add_subcommand("train", "Train without a server; prints one JSON object a line");
  train
      ->add_option("files", job_files,
                   "The job (temper.v1.JobSpec) as JSON; several are trained one after the other, whatever ends one")
      ->required();
  train->add_option("--job-id", job_id, "Results go to OUTPUT/ID/export-e0001")->capture_default_str();
  bool trust_remote_code = false;
  train->add_flag("--trust-remote-code", trust_remote_code, "Run code that lies beside the model, if it needs that");
  CLI::App* preflight = app.add_subcommand("preflight", "Look at model and data, train nothing; prints what it found");
  preflight->add_option("file", job_file, "The job (temper.v1.JobSpec) as JSON")->required();
  temper::VerifyRequest verify_request;
  const CLI::App* verify = AddVerify(app, verify_request);
  CLI11_PARSE(app, argc, argv);
  temper::ops::InitializeVectorMath();

  if (*preflight) return temper::RunStandalone(job_file, job_id, RunPreflight, std::cout, std::cerr);
  const auto train_alone = [&](temper::TrainJob job, temper::TrainObserver& observer, const temper::StopSignal& stop) {
    job.trust_remote_code = trust_remote_code;
    return ::RunTrainJob(job, observer, stop);
  };
  int code = 0;
  for (const std::string& file : job_files) {
    code = std::max(code, temper::RunStandalone(file, job_id, train_alone, std::cout, std::cerr));
  }
  if (*train) return code;

  if (*verify) return temper::RunVerify(verify_request, std::cout, std::cerr);

  const char* variable = std::getenv("TEMPER_RANK_FD");
  int fd = -1;
  if (variable == nullptr || !absl::SimpleAtoi(variable, &fd) || fd < 0) {
    std::cerr << "temper-rank: TEMPER_RANK_FD does not name the socket to a temper-worker, so there is nothing to do.\n"
                 "Submit a job with `temper submit`, or run one here with `temper-rank train JOB.json`.\n";
    return 2;
  }
  LeaveSignalsToTheNode();
  const auto verify_model = [](const std::string& model, const temper::VerifyRequest& request) {
    return temper::VerifyModel(model, request);
  };
  return temper::RunSession(fd, {.train = RunTrainJob,
                                 .preflight = RunPreflight,
                                 .verify = verify_model,
                                 .collectives = temper::CollectivesUnderWay});
}
