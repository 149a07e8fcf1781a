// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <string_view>

#include "absl/status/statusor.h"
#include "common/storage/remote_file_system.h"
#include "common/storage/storage_uri.h"

namespace temper {

// hf://org/name@revision/path and hf://datasets/org/name@revision/path: repositories of a Hugging Face hub, read only.
// Without `@revision`: main.
//
// The cache of huggingface_hub comes first (HF_HUB_CACHE, else HF_HOME/hub, else ~/.cache/huggingface/hub): a branch or
// tag that it knows is the commit that it was when it was taken there, and its files are not asked for again. The rest
// comes from HF_ENDPOINT (https://huggingface.co without it) with HF_TOKEN, or the token that `hf auth login` stored.
// With HF_HUB_OFFLINE (or TRANSFORMERS_OFFLINE) the cache is all that there is. Without it, a hub that does not answer
// leaves the files that the cache has, and no list of them: they may not be all.
//
// A request that fails for a reason that may pass (no connection, silence of 30 s or of `deadline`, whichever is less,
// 429, 5xx) is repeated with growing pauses until `deadline` has passed since its first failure. The hub says a large
// file's SHA-256, which is compared once the file was read from its beginning to its end; of one that is read in parts,
// size and digest as the hub says them have to stay the same. The token goes to the hub alone, never to where it
// redirects.
//
// Errors are ObjectStore's; a repository or revision that is not there, or is not shown to this token, is
// FAILED_PRECONDITION. Any thread.

// The place's commit is in `uri`. An empty endpoint: all of it is in the cache, and `root` a directory of this machine.
absl::StatusOr<RemotePlace> OpenHub(std::string_view uri, std::chrono::milliseconds deadline);

// The place with the commit that OpenHub() would find.
absl::StatusOr<HubPlace> PinHub(const HubPlace& place, std::chrono::milliseconds deadline);

}  // namespace temper
