// SPDX-License-Identifier: Apache-2.0
#include "client/command/format.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace temper::command {
namespace {

// The character at the beginning of `text`; `length` is set to its bytes, to 0 when they are not valid UTF-8.
char32_t DecodeUtf8(std::string_view text, int& length) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char first = byte(0);
  length = first < 0x80 ? 1 : first >> 5 == 0x6 ? 2 : first >> 4 == 0xE ? 3 : first >> 3 == 0x1E ? 4 : 0;
  if (length == 0 || static_cast<size_t>(length) > text.size()) return length = 0;
  if (length == 1) return first;
  char32_t character = first & (0xFF >> (length + 1));
  for (int i = 1; i < length; ++i) {
    if (byte(i) >> 6 != 0x2) return length = 0;
    character = character << 6 | (byte(i) & 0x3F);
  }
  constexpr char32_t kSmallest[] = {0, 0, 0x80, 0x800, 0x10000};
  const bool surrogate = character >= 0xD800 && character <= 0xDFFF;
  if (character < kSmallest[length] || character > 0x10FFFF || surrogate) length = 0;
  return character;
}

bool IsControl(char32_t character) { return character < 0x20 || (character >= 0x7F && character < 0xA0); }

// Wide in every terminal: East Asian wide letters and pictographs. Zero for what combines with its predecessor.
int CharacterWidth(char32_t c) {
  if ((c >= 0x300 && c <= 0x36F) || c == 0x200D || (c >= 0xFE00 && c <= 0xFE0F)) return 0;
  const bool wide = (c >= 0x1100 && c <= 0x115F) || (c >= 0x2E80 && c <= 0xA4CF) || (c >= 0xAC00 && c <= 0xD7A3) ||
                    (c >= 0xF900 && c <= 0xFAFF) || (c >= 0xFE30 && c <= 0xFE6F) || (c >= 0xFF00 && c <= 0xFF60) ||
                    (c >= 0x1F300 && c <= 0x1FAFF) || (c >= 0x20000 && c <= 0x3FFFD);
  return wide ? 2 : 1;
}

std::string WithoutPrefix(const std::string& name, std::string_view prefix) {
  return name.starts_with(prefix) ? name.substr(prefix.size()) : name;
}

}  // namespace

std::string HumanDuration(absl::Duration duration) {
  const double seconds = std::max(0.0, absl::ToDoubleSeconds(duration));
  if (!std::isfinite(seconds)) return "-";
  if (seconds < 9.95) return absl::StrFormat("%.1fs", seconds);
  const auto whole = static_cast<int64_t>(std::llround(seconds));
  if (whole < 60) return absl::StrFormat("%ds", whole);
  if (whole < 3600) return absl::StrFormat("%dm%02ds", whole / 60, whole % 60);
  if (whole < 86400) return absl::StrFormat("%dh%02dm", whole / 3600, whole / 60 % 60);
  return absl::StrFormat("%dd%02dh", whole / 86400, whole / 3600 % 24);
}

std::string HumanBytes(int64_t bytes) {
  constexpr const char* kUnits[] = {"kB", "MB", "GB", "TB", "PB"};
  if (bytes < 1000) return absl::StrCat(bytes, " B");
  double value = static_cast<double>(bytes) / 1000;
  size_t unit = 0;
  // 999.95 would be shown as 1000.0.
  while (value >= 999.95 && unit + 1 < std::size(kUnits)) {
    value /= 1000;
    ++unit;
  }
  return absl::StrFormat("%.1f %s", value, kUnits[unit]);
}

std::string HumanLoss(double loss) { return absl::StrFormat("%.4f", loss); }

std::string HumanRate(double per_second) {
  if (!std::isfinite(per_second)) return "-";
  if (per_second < 999.95) return absl::StrFormat("%.1f", per_second);
  std::string digits = absl::StrFormat("%.0f", per_second);
  for (int i = static_cast<int>(digits.size()) - 3; i > 0; i -= 3) digits.insert(static_cast<size_t>(i), 1, ',');
  return digits;
}

std::string HumanPercent(double ratio) { return absl::StrFormat("%.1f%%", 100 * ratio); }

absl::Time ToTime(const google::protobuf::Timestamp& time) {
  return absl::FromUnixSeconds(time.seconds()) + absl::Nanoseconds(time.nanos());
}

std::string HumanTime(const google::protobuf::Timestamp& time, absl::TimeZone zone) {
  if (time.seconds() == 0) return "-";
  return absl::FormatTime("%Y-%m-%d %H:%M:%S", ToTime(time), zone);
}

std::string StateName(v1::JobState state) { return WithoutPrefix(v1::JobState_Name(state), "JOB_STATE_"); }

std::string CauseName(v1::FailureCause cause) {
  if (cause == v1::FAILURE_CAUSE_UNSPECIFIED) return "";
  return WithoutPrefix(v1::FailureCause_Name(cause), "FAILURE_CAUSE_");
}

std::string PhaseText(v1::Phase phase) {
  switch (phase) {
    case v1::PHASE_PREPARING_DATA:
      return "preparing the data";
    case v1::PHASE_LOADING_MODEL:
      return "loading the model";
    case v1::PHASE_TRAINING:
      return "training";
    case v1::PHASE_EXPORTING:
      return "exporting";
    case v1::PHASE_VERIFYING:
      return "verifying the export";
    default:
      return "";
  }
}

std::string Printable(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    int length = 0;
    const char32_t character = DecodeUtf8(text, length);
    if (length == 0) {
      out.push_back('?');
      length = 1;
    } else if (character == '\t' || character == '\n') {
      out.push_back(' ');
    } else if (IsControl(character)) {
      out.push_back('?');
    } else {
      out.append(text.substr(0, static_cast<size_t>(length)));
    }
    text.remove_prefix(static_cast<size_t>(length));
  }
  return out;
}

int DisplayWidth(std::string_view text) {
  int width = 0;
  while (!text.empty()) {
    int length = 0;
    const char32_t character = DecodeUtf8(text, length);
    width += length == 0 ? 1 : CharacterWidth(character);
    text.remove_prefix(static_cast<size_t>(std::max(length, 1)));
  }
  return width;
}

std::string Truncated(std::string_view text, int width) {
  if (DisplayWidth(text) <= width) return std::string(text);
  if (width <= 0) return "";
  std::string out;
  int used = 0;
  while (!text.empty()) {
    int length = 0;
    const char32_t character = DecodeUtf8(text, length);
    used += length == 0 ? 1 : CharacterWidth(character);
    if (used > width - 1) break;
    out.append(text.substr(0, static_cast<size_t>(std::max(length, 1))));
    text.remove_prefix(static_cast<size_t>(std::max(length, 1)));
  }
  return out + "…";
}

}  // namespace temper::command
