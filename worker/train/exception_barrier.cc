// SPDX-License-Identifier: Apache-2.0
#include "worker/train/exception_barrier.h"

#include <c10/util/Exception.h>

#include <exception>
#include <new>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/failure.h"
#include "worker/hf_backend/status_error.h"
#include "worker/ops/out_of_memory.h"
#include "worker/parallel/process_group.h"
#include "worker/python/hf_model.h"

namespace temper {
namespace {

absl::Status OutOfMemory(const std::string& what, const std::string& detail) {
  return WithCause(absl::ResourceExhaustedError(absl::StrCat(what, ". The system said: ", detail)),
                   FailureCause::kOutOfMemory);
}

absl::Status Explained(const absl::Status& status, TrainObserver& observer, const std::string& out_of_memory) {
  const std::string traceback = PythonTraceback(status);
  if (traceback.empty()) return status;
  observer.OnLog(LogSeverity::kError, traceback);
  return CauseOf(status) == FailureCause::kOutOfMemory ? OutOfMemory(out_of_memory, std::string(status.message()))
                                                       : status;
}

}  // namespace

absl::Status WithoutExceptions(TrainObserver& observer, const std::string& out_of_memory,
                               const std::function<absl::Status()>& work) {
  try {
    return Explained(work(), observer, out_of_memory);
  } catch (const CollectiveError& error) {
    return error.status();
  } catch (const StatusError& error) {
    return Explained(error.status(), observer, out_of_memory);
  } catch (const c10::Error& error) {
    const std::string message = error.what_without_backtrace();
    return ops::IsOutOfMemory(error) ? OutOfMemory(out_of_memory, message) : absl::InternalError(message);
  } catch (const std::bad_alloc& error) {
    return OutOfMemory(out_of_memory, error.what());
  } catch (const std::exception& error) {
    return absl::InternalError(error.what());
  }
}

}  // namespace temper
