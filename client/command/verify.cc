// SPDX-License-Identifier: Apache-2.0
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>

#include "client/command/command_line.h"
#include "client/command/question.h"
#include "client/job_file.h"

namespace temper::command {
namespace {

struct VerifyCommand {
  std::string model;
  v1::VerifyOptions options;
};

ExitCode Verify(const Context& context, const VerifyCommand& command) {
  v1::CreateJobRequest request;
  request.mutable_job()->mutable_spec()->mutable_model()->set_uri(
      AbsoluteUri(command.model, std::filesystem::current_path()));
  *request.mutable_verify() = command.options;
  const auto created = context.client.CreateJob(std::move(request));
  if (!created.ok()) return Fail(context, created.status());
  const auto job = WaitForAnswer(context, created->name(), "comparing with transformers …");
  if (!job.ok()) return Fail(context, job.status());
  if (job->state() != v1::JOB_STATE_SUCCEEDED) return FailWith(*job);
  if (context.json) {
    PrintJson(job->verdict());
  } else {
    std::fputs(job->verdict().table().c_str(), stdout);
  }
  return job->verdict().passed() ? kExitOk : kExitJobEndedBad;
}

}  // namespace

void AddVerify(CLI::App& app, CommandLine& line) {
  auto verify = std::make_shared<VerifyCommand>();
  CLI::App* command = app.add_subcommand("verify", "Compare temper's model with transformers' own on a checkpoint");
  command->fallthrough();
  command->add_option("model", verify->model, "A model in Hugging Face layout: a path or a URI")
      ->required()
      ->type_name("MODEL");
  command
      ->add_option_function<std::string>(
          "--dtype", [verify](const std::string& dtype) { verify->options.set_dtype(dtype); },
          "What temper's model computes in: fp32 (the default) or bf16")
      ->check(CLI::IsMember({"fp32", "bf16"}));
  command->add_flag_callback(
      "--layers", [verify] { verify->options.set_layers(true); }, "Also name the first module whose output departs");
  command->add_flag_callback(
      "--gradients", [verify] { verify->options.set_gradients(true); },
      "Also compare the gradient of every weight (fp32)");
  command->footer(
      "Both models read the same tokens from the same files on the server's machine, and every position is compared.\n"
      "The exit code is 0 when the model passes and 5 when it does not. docs/VERIFY.md says what the figures mean.\n\n"
      "Examples:\n"
      "  temper verify ./SmolLM2-135M-Instruct --layers --gradients\n"
      "  temper verify ./SmolLM2-135M-Instruct --dtype bf16 --output json | jq .figures");
  command->callback(
      [verify, &line] { line.action = [verify](const Context& context) { return Verify(context, *verify); }; });
}

}  // namespace temper::command
