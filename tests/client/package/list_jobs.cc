// SPDX-License-Identifier: Apache-2.0
// Prints the names of a server's jobs:  list_jobs HOST:PORT
#include <iostream>

#include "client/channel.h"
#include "client/training_client.h"

int main(int argc, char** argv) {
  const temper::TrainingClient client(temper::MakeChannel(argc > 1 ? argv[1] : temper::kDefaultServer));
  const auto jobs = client.ListJobs({});
  if (!jobs.ok()) {
    std::cerr << jobs.status() << "\n";
    return 1;
  }
  for (const temper::v1::Job& job : jobs->jobs()) std::cout << job.name() << "\n";
  return 0;
}
