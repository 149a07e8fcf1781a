// SPDX-License-Identifier: Apache-2.0
#include "server/jobs/job_time.h"

#include <algorithm>
#include <chrono>
#include <initializer_list>

#include "common/rpc/timestamp.h"

namespace temper {
namespace {

// A field of v1::JobTime.
struct Category {
  double (v1::JobTime::*get)() const;
  void (v1::JobTime::*set)(double);
};

constexpr Category kQueued{&v1::JobTime::queued, &v1::JobTime::set_queued};
constexpr Category kChecking{&v1::JobTime::checking, &v1::JobTime::set_checking};
constexpr Category kStarting{&v1::JobTime::starting, &v1::JobTime::set_starting};
constexpr Category kTraining{&v1::JobTime::training, &v1::JobTime::set_training};
constexpr Category kLost{&v1::JobTime::lost, &v1::JobTime::set_lost};
constexpr Category kCheckpointing{&v1::JobTime::checkpointing, &v1::JobTime::set_checkpointing};
constexpr Category kValidating{&v1::JobTime::validating, &v1::JobTime::set_validating};
constexpr Category kExporting{&v1::JobTime::exporting, &v1::JobTime::set_exporting};
constexpr Category kStopping{&v1::JobTime::stopping, &v1::JobTime::set_stopping};
constexpr Category kPaused{&v1::JobTime::paused, &v1::JobTime::set_paused};
constexpr Category kOther{&v1::JobTime::other, &v1::JobTime::set_other};

Category CategoryOf(const v1::Job& job) {
  switch (job.state()) {
    case v1::JOB_STATE_QUEUED:
      return kQueued;
    case v1::JOB_STATE_CHECKING:
      return kChecking;
    case v1::JOB_STATE_PAUSED:
      return kPaused;
    case v1::JOB_STATE_STOPPING:
      return kStopping;
    case v1::JOB_STATE_RUNNING:
      break;
    default:
      return kStarting;
  }
  switch (job.phase()) {
    case v1::PHASE_TRAINING:
      return kOther;
    case v1::PHASE_EXPORTING:
    case v1::PHASE_VERIFYING:
      return kExporting;
    default:
      return kStarting;
  }
}

void Add(v1::JobTime& time, Category category, double seconds) {
  (time.*category.set)((time.*category.get)() + seconds);
}

// Takes what a report explains from where SpendUntil put it. At most what is there: a report may claim more time than
// passed between two of them.
void Explain(v1::Job& job, Category as, double seconds, std::initializer_list<Category> from_all) {
  v1::JobTime& spent = *job.mutable_time_spent();
  for (const Category from : from_all) {
    const double moved = std::clamp(seconds, 0.0, (spent.*from.get)());
    Add(spent, from, -moved);
    Add(spent, as, moved);
    seconds -= moved;
  }
}

}  // namespace

void SpendUntil(v1::Job& job, WallTime time, bool lost) {
  v1::JobTime& spent = *job.mutable_time_spent();
  if (spent.has_until()) {
    const WallTime since = FromTimestamp(spent.until());
    if (time <= since) return;
    const bool training = job.state() == v1::JOB_STATE_RUNNING && job.phase() == v1::PHASE_TRAINING;
    Add(spent, lost && training ? kLost : CategoryOf(job), std::chrono::duration<double>(time - since).count());
  }
  *spent.mutable_until() = ToTimestamp(time);
}

void SpendStep(v1::Job& job, const v1::StepMetrics& step) {
  v1::JobTime& spent = *job.mutable_time_spent();
  const bool again = step.step() <= spent.highest_step();
  spent.set_highest_step(std::max(spent.highest_step(), step.step()));
  const double checkpoint = step.phases().checkpoint();
  const Category training = again ? kLost : kTraining;
  if (job.phase() == v1::PHASE_LOADING_MODEL) {  // the gang before took it
    Explain(job, kCheckpointing, checkpoint, {kLost});
    Explain(job, training, step.seconds() - checkpoint, {kLost});
    return;
  }
  // A step that ends while the gang is being stopped began before.
  Explain(job, kCheckpointing, checkpoint, {CategoryOf(job), kOther});
  Explain(job, training, step.seconds() - checkpoint, {CategoryOf(job), kOther});
}

void SpendValidation(v1::Job& job, const v1::ValidationResult& validation) {
  Explain(job, kValidating, validation.seconds(), {CategoryOf(job), kOther});
}

std::vector<std::pair<std::string, double>> Categories(const v1::JobTime& spent) {
  std::vector<std::pair<std::string, double>> categories;
  const google::protobuf::Descriptor& fields = *v1::JobTime::descriptor();
  for (int i = 0; i < fields.field_count(); ++i) {
    const google::protobuf::FieldDescriptor* field = fields.field(i);
    if (field->cpp_type() != google::protobuf::FieldDescriptor::CPPTYPE_DOUBLE) continue;
    categories.emplace_back(field->name(), spent.GetReflection()->GetDouble(spent, field));
  }
  return categories;
}

}  // namespace temper
