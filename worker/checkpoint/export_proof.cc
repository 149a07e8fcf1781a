// SPDX-License-Identifier: Apache-2.0
#include "worker/checkpoint/export_proof.h"

#include <ATen/ATen.h>

#include <cstring>
#include <memory>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "worker/checkpoint/export_plan.h"
#include "worker/checkpoint/nearest_even.h"
#include "worker/checkpoint/safetensors.h"
#include "worker/checkpoint/tensor_map.h"
#include "worker/parallel/agree.h"

namespace temper {
namespace {

constexpr char kSingleFile[] = "model.safetensors";
constexpr char kIndex[] = "model.safetensors.index.json";

using Difference = ExportProof::Difference;

// The weight files of an export: by its index, or the single one.
absl::StatusOr<std::set<std::string>> WeightFiles(const ObjectStore& store, const std::string& directory,
                                                  std::map<std::string, std::string>& file_of) {
  absl::StatusOr<bool> indexed = store.Exists(directory + kIndex);
  if (!indexed.ok()) return indexed.status();
  if (!*indexed) return std::set<std::string>{kSingleFile};
  absl::StatusOr<std::string> text = store.Read(directory + kIndex);
  if (!text.ok()) return text.status();
  const nlohmann::json index = nlohmann::json::parse(*text, nullptr, /*allow_exceptions=*/false);
  if (!index.is_object() || !index.contains("weight_map") || !index["weight_map"].is_object()) {
    return absl::DataLossError(absl::StrCat(store.UriOf(directory + kIndex), " is no index"));
  }
  std::set<std::string> files;
  for (const auto& [tensor, file] : index["weight_map"].items()) {
    if (!file.is_string()) return absl::DataLossError(absl::StrCat(store.UriOf(directory + kIndex), " is no index"));
    file_of.emplace(tensor, file.get<std::string>());
    files.insert(file.get<std::string>());
  }
  return files;
}

// What is wrong with a tensor being in this file; "" when nothing is.
std::string Misplaced(const SafetensorsEntry& entry, const std::string& file,
                      const std::map<std::string, std::string>& file_of, const ExportedTensor* planned) {
  if (planned == nullptr) return "is not in the source";
  if (entry.dtype != planned->entry.dtype) {
    return absl::StrCat("is ", entry.dtype, " instead of ", planned->entry.dtype);
  }
  if (entry.shape != planned->entry.shape) {
    return absl::StrCat("is ", ShapeText(entry.shape), " instead of ", ShapeText(planned->entry.shape));
  }
  if (file_of.empty()) return "";
  const auto indexed = file_of.find(entry.name);
  if (indexed == file_of.end()) return "is not in the index";
  return indexed->second == file ? "" : absl::StrCat("is in ", indexed->second, " by the index");
}

template <typename T>
T LoadBits(const char* bytes, int64_t index) {
  T value;
  std::memcpy(&value, bytes + index * static_cast<int64_t>(sizeof(T)), sizeof(T));
  return value;
}

float WidenBfloat16(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }
float WidenHalf(uint16_t bits) { return static_cast<float>(c10::Half(bits, c10::Half::from_bits())); }
float WidenFloat(uint32_t bits) { return std::bit_cast<float>(bits); }
uint32_t SameFloat(float value) { return std::bit_cast<uint32_t>(value); }

// Counts the elements whose stored bits are not those of the rounded master. Any NaN equals any other.
template <typename T, T (*Round)(float), float (*Widen)(T)>
void Compare(const at::Tensor& master, const char* stored, int64_t first_element, Difference& difference) {
  const float* values = master.const_data_ptr<float>();
  for (int64_t i = 0; i < master.numel(); ++i) {
    const T found = LoadBits<T>(stored, i);
    const T expected = Round(values[i]);
    if (found == expected || (std::isnan(Widen(found)) && std::isnan(values[i]))) continue;
    if (difference.elements++ == 0) {
      difference.first_element = first_element + i;
      difference.stored = Widen(found);
      difference.expected = Widen(expected);
    }
  }
}

absl::Status ComparePiece(const ObjectReader& reader, const SafetensorsEntry& entry, const TensorPiece& piece,
                          const at::Tensor& master, Difference& difference) {
  int64_t row_elements = 1;
  for (size_t i = 1; i < entry.shape.size(); ++i) row_elements *= entry.shape[i];
  const int64_t element_size = SafetensorsElementSize(entry.dtype);
  const int64_t first = piece.row * row_elements;
  absl::StatusOr<std::string> stored =
      reader.ReadAt(entry.begin + first * element_size, piece.rows * row_elements * element_size);
  if (!stored.ok()) return stored.status();
  if (entry.dtype == "BF16") {
    Compare<uint16_t, NearestEvenBfloat16, WidenBfloat16>(master, stored->data(), first, difference);
  } else if (entry.dtype == "F16") {
    Compare<uint16_t, NearestEvenHalf, WidenHalf>(master, stored->data(), first, difference);
  } else {
    Compare<uint32_t, SameFloat, WidenFloat>(master, stored->data(), first, difference);
  }
  return absl::OkStatus();
}

// Ranks that share the weights all go through all pieces, whatever rank 0 finds.
absl::Status CompareTensor(const ObjectReader& reader, const SafetensorsEntry& entry, const TensorBinding& binding,
                           const TensorMap& map, ProcessGroup* ranks, Difference& difference) {
  absl::Status status;
  (void)map.ForEachPiece(binding, [&](const TensorPiece& piece) {
    const at::Tensor master = piece.Load(ranks, /*to=*/0);
    if (master.defined() && status.ok()) status = ComparePiece(reader, entry, piece, master.cpu(), difference);
    return ranks == nullptr ? status : absl::OkStatus();
  });
  return status;
}

// A tensor that was carried over has to be the source's own.
absl::Status CompareVerbatim(const ObjectReader& reader, const SafetensorsEntry& entry, const HfRepository& source,
                             const RepositoryTensor& tensor, Difference& difference) {
  absl::StatusOr<std::string> stored = reader.ReadAt(entry.begin, entry.size());
  if (!stored.ok()) return stored.status();
  const absl::StatusOr<at::Tensor> own = source.Tensor(tensor);
  if (!own.ok()) return own.status();
  if (BytesOf(*own) != *stored) difference.elements = 1;
  return absl::OkStatus();
}

// A tensor of the export, and what it should be.
struct StoredTensor {
  const ObjectReader* reader;
  SafetensorsEntry entry;
  const ExportedTensor* planned;
};

// The export's tensors, if they are those of the plan.
absl::StatusOr<std::vector<StoredTensor>> FindTensors(const ObjectStore& store, std::string_view directory,
                                                      const ExportPlan& plan,
                                                      std::vector<std::unique_ptr<ObjectReader>>& readers) {
  std::string prefix(directory);
  if (!prefix.empty()) prefix += '/';
  std::map<std::string, std::string> file_of;
  absl::StatusOr<std::set<std::string>> files = WeightFiles(store, prefix, file_of);
  if (!files.ok()) return files.status();
  std::vector<StoredTensor> tensors;
  std::set<std::string> seen;
  for (const std::string& file : *files) {
    absl::StatusOr<std::unique_ptr<ObjectReader>> reader = store.OpenForRead(prefix + file);
    if (!reader.ok()) return reader.status();
    readers.push_back(*std::move(reader));
    const std::string display = store.UriOf(prefix + file);
    absl::StatusOr<SafetensorsHeader> header = ReadSafetensorsHeader(*readers.back(), display);
    if (!header.ok()) return header.status();
    for (const SafetensorsEntry& entry : header->entries) {
      const ExportedTensor* planned = plan.Find(entry.name);
      if (std::string wrong = Misplaced(entry, file, file_of, planned); !wrong.empty()) {
        return absl::DataLossError(absl::StrCat(display, ": tensor ", entry.name, " ", wrong));
      }
      seen.insert(entry.name);
      tensors.push_back({readers.back().get(), entry, planned});
    }
  }
  for (const ExportedTensor& tensor : plan.tensors) {
    if (!seen.contains(tensor.entry.name)) {
      return absl::DataLossError(absl::StrCat(store.UriOf(directory), " lacks tensor ", tensor.entry.name));
    }
  }
  return tensors;
}

}  // namespace

nlohmann::ordered_json ExportProof::ToJson() const {
  nlohmann::ordered_json json = {{"passed", passed()},
                                 {"method", "every tensor equals its fp32 master rounded to nearest even, bit for bit"},
                                 {"tensors", tensors},
                                 {"elements", elements},
                                 {"bytes", bytes}};
  json["differences"] = nlohmann::ordered_json::array();
  for (const Difference& difference : differences) {
    json["differences"].push_back({{"tensor", difference.tensor},
                                   {"elements", difference.elements},
                                   {"first_element", difference.first_element},
                                   {"stored", difference.stored},
                                   {"expected", difference.expected}});
  }
  return json;
}

absl::StatusOr<ExportProof> ProveExport(const ObjectStore& store, std::string_view directory,
                                        const HfRepository& source, const FamilySpec& family, const ModelConfig& config,
                                        std::span<const WeightView> weights, ProcessGroup* ranks) {
  absl::StatusOr<TensorMap> map = TensorMap::Build(family, config, weights);
  if (!map.ok()) return map.status();
  const absl::StatusOr<ExportPlan> plan = PlanExport(source, *map, weights);
  if (!plan.ok()) return plan.status();
  std::vector<std::unique_ptr<ObjectReader>> readers;
  const auto tensors = FindTensors(store, directory, *plan, readers);
  if (absl::Status all = Agree(tensors.status(), ranks); !all.ok()) return all;

  ExportProof proof;
  const bool compares = ranks == nullptr || ranks->rank() == 0;
  absl::Status status;
  for (const auto& [reader, entry, planned] : *tensors) {
    Difference difference{.tensor = entry.name};
    if (planned->verbatim == nullptr) {
      status.Update(CompareTensor(*reader, entry, *planned->binding, *map, ranks, difference));
    } else if (compares) {
      status.Update(CompareVerbatim(*reader, entry, source, *planned->verbatim, difference));
    }
    if (difference.elements > 0) proof.differences.push_back(difference);
    proof.tensors += 1;
    proof.elements += entry.size() / SafetensorsElementSize(entry.dtype);
    proof.bytes += entry.size();
  }
  if (absl::Status all = Agree(status, ranks); !all.ok()) return all;
  return proof;
}

}  // namespace temper
