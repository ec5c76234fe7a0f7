#include "io/module_tensors.h"

#include <fmt/ranges.h>

#include <cmath>

#include "formats/format.h"

namespace frugal::io {

void ModuleTensors::fail_shape(const TensorView& view, const std::string& must) const {
  fail(ErrorKind::corrupt_file, "{}: tensor {} must be {}, is {} [{}]", checkpoint_->path, printable(view.name, 200), must, view.format,
       fmt::join(view.shape, ", "));
}

const TensorView& ModuleTensors::at(std::string_view part) const { return checkpoint_->at(module_ + "." + std::string(part)); }

const TensorView& ModuleTensors::matrix(std::string_view part, std::string_view format, int64_t rows, int64_t columns) const {
  const TensorView& view = at(part);
  if (view.format != format || view.shape != std::vector<int64_t>{rows, columns}) {
    fail_shape(view, fmt::format("{} [{}, {}]", format, rows, columns));
  }
  return view;
}

const TensorView& ModuleTensors::any_matrix(std::string_view part, std::string_view format) const {
  const TensorView& view = at(part);
  const bool good = view.format == format && view.shape.size() == 2 && view.shape[0] >= 1 && view.shape[0] <= kMaxFeatures && view.shape[1] >= 1 &&
                    view.shape[1] <= kMaxFeatures;
  if (!good) fail_shape(view, fmt::format("a {} matrix", format));
  return view;
}

ScaleTable ModuleTensors::scales(std::string_view part, int64_t rows, int64_t columns) const {
  const TensorView& view = at(part);
  const bool is_float = view.format == "F32" || view.format == "F16" || view.format == "BF16";
  const bool fits = view.shape == std::vector<int64_t>{rows, columns} || (columns == 1 && view.shape == std::vector<int64_t>{rows}) ||
                    (rows == 1 && columns == 1 && view.shape.empty());
  if (!is_float || !fits) fail_shape(view, fmt::format("F32, F16 or BF16 [{}, {}]", rows, columns));
  ScaleTable table{view.format, std::vector<float>(static_cast<size_t>(rows * columns))};
  formats::format_at(view.format).decode(view.bytes.data(), table.values.data(), rows * columns);
  return table;
}

float ModuleTensors::scalar(std::string_view part) const {
  const TensorView& view = at(part);
  int64_t count = 1;
  for (const int64_t dim : view.shape) count = dim == 1 ? count : 0;
  const bool is_float = view.format == "F32" || view.format == "F16" || view.format == "BF16";
  if (count != 1 || !is_float) fail_shape(view, "one F32, F16 or BF16 value");
  float value = 0;
  formats::format_at(view.format).decode(view.bytes.data(), &value, 1);
  if (!(value > 0) || !std::isfinite(value)) refuse("{} is {}, must be finite and above 0", part, value);
  return value;
}

std::vector<int32_t> ModuleTensors::group_index(std::string_view part, int64_t columns, int64_t groups) const {
  const TensorView& view = at(part);
  if (view.format != "I32" || view.shape != std::vector<int64_t>{columns}) fail_shape(view, fmt::format("I32 [{}]", columns));
  const auto values = values_of<int32_t>(view);
  for (const int32_t value : values) {
    if (value < 0 || value >= groups) refuse("{} holds {}, must be in 0..{}", part, value, groups - 1);
  }
  return {values.begin(), values.end()};
}

}  // namespace frugal::io
