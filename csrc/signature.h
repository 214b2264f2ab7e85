// What Python is told of a pass: its signature, and its fields for whoever draws arguments for it.
#pragma once

#include <pybind11/pybind11.h>

#include <string>
#include <vector>

#include "arguments.h"

namespace fastbound {

// The visitor that only listens. A size is given a huge value of its own, by which shapes that are made of it are told
// apart: "classes - 1".
class Signature {
 public:
  void sizes() const {}
  template <typename... More>
  void sizes(const char* name, Index& value, More&&... more) {
    integer(name, value, 0, INT64_MAX);
    sizes(more...);
  }

  void integer(const char* name, Index& value, Index least, Index most) {
    value = kApart * static_cast<Index>(sizes_.size() + 1);
    sizes_.emplace_back(name);
    pybind11::dict field = add(name, "integer", "int");
    field["least"] = least;
    if (most != INT64_MAX) field["most"] = most;
  }

  template <typename T>
  void number(const char* name, T&, double least, double most) {
    pybind11::dict field = add(name, "number", "float");
    field["least"] = least;
    field["most"] = most;
  }

  template <typename E>
  void in(const char* name, const E*&, Dims dims, Need need = kNeeded) {
    tensor<E>(name, "in", dims, need);
  }
  template <typename E>
  void out(const char* name, E*&, Dims dims, Need need = kNeeded, const void* = nullptr) {
    tensor<E>(name, "out", dims, need);
  }
  void indices(const char* name, const Index*&, Dims dims, Index end) {
    tensor<Index>(name, "in", dims, kNeeded)["end"] = written(end);
  }
  void require(bool, const char*) {}

  std::string text() const { return text_; }
  pybind11::list fields() const { return fields_; }

 private:
  static constexpr Index kApart = Index(1) << 40;

  pybind11::dict add(const char* name, const char* kind, const std::string& type) {
    text_ += (text_.empty() ? "" : ", ") + std::string(name) + ": " + type;
    pybind11::dict field;
    field["name"] = name;
    field["kind"] = kind;
    fields_.append(field);
    return field;
  }

  // Described for maps in bfloat16, whose computations are in float32.
  template <typename E>
  pybind11::dict tensor(const char* name, const char* kind, Dims dims, Need need) {
    pybind11::dict field = add(name, kind, need == kOrNull ? "Tensor | None" : "Tensor");
    pybind11::list shape;
    for (const Index size : dims) shape.append(written(size));
    field["shape"] = shape;
    const dlpack::DataType type = kElement<E>;
    field["element"] = type == kElement<BFloat16> ? "stored" : (type == kElement<float> ? "computed" : "int64");
    field["or_null"] = need == kOrNull;
    return field;
  }

  std::string written(Index size) const {
    const Index at = (size + kApart / 2) / kApart, more = size - at * kApart;
    if (at == 0) return std::to_string(size);
    const std::string sign = more < 0 ? " - " : " + ";
    return sizes_[at - 1] + (more == 0 ? "" : sign + std::to_string(more < 0 ? -more : more));
  }

  std::vector<std::string> sizes_;
  std::string text_;
  pybind11::list fields_;
};

}  // namespace fastbound
