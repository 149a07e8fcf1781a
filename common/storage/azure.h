// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <memory>
#include <string_view>

#include "absl/status/statusor.h"
#include "common/storage/remote_file_system.h"

namespace temper {

// abfs://container@account/prefix?endpoint=URL, Azure Blob Storage and Data Lake Storage Gen2. The account may be
// spelled with its host (account.dfs.core.windows.net), which sets the cloud, and be left out with its '@' where
// AZURE_STORAGE_ACCOUNT_NAME or AZURE_STORAGE_ACCOUNT has it. Without `endpoint`: AZURE_STORAGE_ENDPOINT,
// AZURE_STORAGE_SERVICE_ENDPOINT, else Azure's. abfss:// is the same: what encrypts is the endpoint, https by default.
// Credentials: AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_KEY, AZURE_STORAGE_SAS_TOKEN, else where the Azure SDK looks
// for them: AZURE_CLIENT_ID and what belongs to it, a workload identity, `az login`, the machine's identity. An
// endpoint that the URI names gets signatures by the key alone, never a token: a job may not send the server's wherever
// it likes.
//
// The SDK repeats a request that fails for a reason that may pass three times. All but writing goes on with that, with
// growing pauses, until `deadline` has passed since the first failure; a file that could not be written has to be
// written anew. INVALID_ARGUMENT for a malformed URI. Any thread.
absl::StatusOr<RemotePlace> OpenAzure(std::string_view uri, std::chrono::milliseconds deadline);

// What OpenAzure() makes of an account's files: requests that are repeated, and files that are seen once they are
// whole. For tests of what emulators do not do.
std::shared_ptr<arrow::fs::FileSystem> WithAzureRetries(std::shared_ptr<arrow::fs::FileSystem> files,
                                                        std::chrono::milliseconds deadline);

}  // namespace temper
