// Axes of a plot: from values to pixels, with ticks.
#pragma once

#include <string>
#include <vector>

#include "eval/report_labels.h"

namespace frugal::eval {

struct Tick {
  double value;
  std::string label;
};

class Scale {
 public:
  enum class Kind { linear, log, ratio };

  // Maps low..high to from..to (pixels; either may be the larger). Log needs low > 0. Ratio takes differences of logarithms:
  // asinh(value / 0.02), linear within about 2 % of the base and logarithmic far from it, so that a loss of 0.3 % and one of
  // 300 % are both legible.
  Scale(Kind kind, double low, double high, double from, double to);

  double operator()(double value) const;
  double low() const { return low_; }
  double high() const { return high_; }
  Kind kind() const { return kind_; }

 private:
  static double transform(Kind kind, double value);
  Kind kind_;
  double low_, high_, from_, to_;
};

// A scale around `values` (finite, not empty) with some air at both ends: logarithmic when they are positive and spread over
// more than a factor of 2.5.
Scale scale_around(const std::vector<double>& values, double from, double to);

enum class TickFormat { bytes, rate, perplexity };  // perplexity: the value is its logarithm

// Ticks at round values, at least min_gap pixels apart.
std::vector<Tick> ticks_of(const Scale& scale, TickFormat format, double min_gap);
// Ticks of a ratio scale: ×1, ×1.01, ×1.05, ... ×20.
std::vector<Tick> ratio_ticks(const Scale& scale, double min_gap);

// The two axes around `area` with grid and labels, as SVG.
std::string draw_axes(const Box& area, const Scale& x, const std::vector<Tick>& x_ticks, const Scale& y, const std::vector<Tick>& y_ticks);

}  // namespace frugal::eval
