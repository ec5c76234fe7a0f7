// What is shown of runs, before it is drawn: the columns of the table and the figures over the steps.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "eval/report_scale.h"
#include "train/run_history.h"

namespace frugal::train {

struct RunColumn {
  std::string title, help;
  bool numeric = true;
  std::function<std::string(const RunHistory&)> text;  // clean; empty when unknown
};
// Those that some run has something in.
std::vector<RunColumn> run_columns(const std::vector<RunHistory>& runs);

struct CurvePoint {
  double step = 0, value = 0;  // NaN: a gap
};

struct Series {
  size_t run = 0;  // index
  bool held_out = false;
  std::vector<CurvePoint> points;
};

enum class ValueAxis {
  from_zero,
  around,  // the values, with some air
  spread   // around them, and logarithmic when they spread far
};

struct Curve {
  std::string title;
  eval::TickFormat format = eval::TickFormat::rate;
  ValueAxis axis = ValueAxis::around;
  std::vector<Series> series;  // of each run that has the figure, not empty
  double first_step() const, last_step() const;
  eval::Scale step_scale(double from, double to) const, value_scale(double from, double to) const;
  std::vector<eval::Tick> step_ticks(const eval::Scale& scale, double min_gap) const;  // whole ones
};

// Loss (held out as well), learning rate, gradient norm, tokens a second, model FLOP utilisation, memory, and what else the logs have by name; of
// those that have a finite value.
std::vector<Curve> curves_of(const std::vector<RunHistory>& runs);

// At most `most` points: each the mean of as many that follow each other; a gap where none of them is finite.
std::vector<CurvePoint> thinned(const std::vector<CurvePoint>& points, size_t most);

}  // namespace frugal::train
