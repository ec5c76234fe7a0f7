// Adafactor: Adaptive Learning Rates with Sublinear Memory Cost (Shazeer and Stern, 2018), as transformers has it. Of a matrix's squared
// gradients only the means of rows and columns are kept: with beta2 = 1 - t^decay_rate
//   r <- beta2 r + (1 - beta2) mean over columns of (g^2 + eps1),  c likewise over rows
//   u = g / sqrt(r c / mean(r)),  u <- u / max(1, rms(u) / clip_threshold),  w <- (1 - rate decay) w - rate u
// and for vectors u = g / sqrt(v), v the mean of squares itself.
//
// The rate is the schedule's, as in transformers' Trainer; relative_step takes the paper's own min(0.01, 1 / sqrt(t)) instead.
// State: 4 (rows + columns) bytes a matrix. Cost: four passes over the gradient.
#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "train/optimizer_rows.h"
#include "train/per_parameter.h"
#include "train/sums.h"

namespace frugal::train {
namespace {

struct State {
  at::Tensor step, exp_avg_sq_row, exp_avg_sq_col, exp_avg_sq, exp_avg;
  StateTensors tensors() {
    return {{"step", &step}, {"exp_avg_sq_row", &exp_avg_sq_row}, {"exp_avg_sq_col", &exp_avg_sq_col}, {"exp_avg_sq", &exp_avg_sq}, {"exp_avg", &exp_avg}};
  }
};

double square(double x) { return x * x; }
// mean <- beta mean + (1 - beta) value
void decay_into(float& mean, double value, double beta) { mean = static_cast<float>(beta * mean + (1 - beta) * value); }

// Of one matrix: u[i][j] = g[i][j] row[i] column[j].
struct Factors {
  std::vector<float> row, column;
};

struct Matrix {
  const float* numbers;
  int64_t rows, columns;
};

double rms(double sum_of_squares, int64_t count) { return std::sqrt(sum_of_squares / static_cast<double>(count)); }

// Brings the means of rows and columns up to date. Each is summed by one thread.
Factors factors(const Matrix& g, float* row_means, float* column_means, double beta, double eps) {
  parallel_for(g.rows, std::max<int64_t>(1, 16'384 / g.columns), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const float* line = g.numbers + i * g.columns;
      const double sum = lane_sum(g.columns, [=](int64_t j) { return static_cast<double>(line[j]) * line[j]; });
      decay_into(row_means[i], sum / static_cast<double>(g.columns) + eps, beta);
    }
  });
  parallel_for(g.columns, std::max<int64_t>(64, 16'384 / g.rows), [&](int64_t begin, int64_t end) {
    std::vector<double> sums(end - begin);
    for (int64_t i = 0; i < g.rows; ++i) {
      const float* line = g.numbers + i * g.columns + begin;
      for (int64_t j = 0; j < end - begin; ++j) sums[j] += static_cast<double>(line[j]) * line[j];
    }
    for (int64_t j = begin; j < end; ++j) decay_into(column_means[j], sums[j - begin] / static_cast<double>(g.rows) + eps, beta);
  });
  Factors factors{std::vector<float>(g.rows), std::vector<float>(g.columns)};
  const double mean = lane_sum(g.rows, [=](int64_t i) { return static_cast<double>(row_means[i]); }) / static_cast<double>(g.rows);
  for (int64_t i = 0; i < g.rows; ++i) factors.row[i] = static_cast<float>(1 / std::sqrt(row_means[i] / mean));
  for (int64_t j = 0; j < g.columns; ++j) factors.column[j] = static_cast<float>(1 / std::sqrt(static_cast<double>(column_means[j])));
  return factors;
}

double sum_of_squared_updates(const Matrix& g, const Factors& factors) {
  std::vector<double> sums(g.rows);
  parallel_for(g.rows, std::max<int64_t>(1, 16'384 / g.columns), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const float* line = g.numbers + i * g.columns;
      const float* column = factors.column.data();
      sums[i] = square(factors.row[i]) * lane_sum(g.columns, [=](int64_t j) { return square(static_cast<double>(line[j]) * column[j]); });
    }
  });
  double sum = 0;
  for (const double part : sums) sum += part;
  return sum;
}

// w <- keep w - u, where u is scaled and, with `mean`, averaged over the steps.
struct Move {
  float scale, keep;
  float beta1;
  float* mean;
  void apply(float& w, int64_t i, float update) const {
    float u = scale * update;
    if (mean) u = mean[i] = beta1 * mean[i] + (1 - beta1) * u;
    w = w * keep - u;
  }
};

class Adafactor : public PerParameter<State> {
 public:
  Adafactor(std::vector<Parameter> parameters, const Options& options)
      : PerParameter(std::move(parameters)),
        eps1_(options.number("eps1")),
        eps2_(options.number("eps2")),
        clip_threshold_(options.number("clip_threshold")),
        decay_rate_(options.number("decay_rate")),
        beta1_(options.number("beta1")),
        weight_decay_(options.number("weight_decay")),
        scale_parameter_(options.boolean("scale_parameter")),
        relative_step_(options.boolean("relative_step")),
        warmup_init_(options.boolean("warmup_init")) {
    if (warmup_init_ && !relative_step_) fail(ErrorKind::invalid_input, "adafactor: warmup_init=true needs relative_step=true");
    for (const Parameter& parameter : parameters_) {
      const at::IntArrayRef shape = parameter.tensor.sizes();
      State state;
      state.step = zeros({});
      if (shape.size() >= 2) {
        std::vector<int64_t> columns(shape.begin(), shape.end() - 2);
        columns.push_back(shape.back());
        state.exp_avg_sq_row = zeros(shape.slice(0, shape.size() - 1));
        state.exp_avg_sq_col = zeros(columns);
      } else {
        state.exp_avg_sq = zeros(shape);
      }
      if (beta1_ > 0) state.exp_avg = zeros(shape);
      states_.push_back(state);
    }
  }

 private:
  void update(const Parameter& parameter, const at::Tensor& gradient, State& state, double learning_rate) override {
    if (gradient.numel() == 0) return;
    const double step = increment(state.step);
    double rate = learning_rate;
    if (relative_step_) rate = parameter.learning_rate_scale * std::min(warmup_init_ ? 1e-6 * step : 1e-2, 1 / std::sqrt(step));
    if (scale_parameter_) rate *= std::max(eps2_, rms(sum_of_squares({&parameter.tensor, 1}), gradient.numel()));
    const double beta2 = 1 - std::pow(step, decay_rate_);
    const auto move = [&](double update_sum) {
      const double clip = std::max(1.0, rms(update_sum, gradient.numel()) / clip_threshold_);
      return Move{static_cast<float>(rate / clip), static_cast<float>(1 - rate * decay_of(parameter, weight_decay_)), static_cast<float>(beta1_),
                  state.exp_avg.defined() ? state.exp_avg.mutable_data_ptr<float>() : nullptr};
    };
    float* w = parameter.tensor.mutable_data_ptr<float>();
    if (state.exp_avg_sq.defined())
      update_vector(gradient, state, beta2, move, w);
    else
      update_matrices(gradient, state, beta2, move, w);
  }

  template <typename MakeMove>
  void update_vector(const at::Tensor& gradient, State& state, double beta2, const MakeMove& make_move, float* w) {
    const float* g = gradient.const_data_ptr<float>();
    float* v = state.exp_avg_sq.mutable_data_ptr<float>();
    const double eps = eps1_;
    at::Tensor updates = zeros(gradient.sizes());
    float* u = updates.mutable_data_ptr<float>();
    for_each_number(gradient.numel(), [=](int64_t i) {
      decay_into(v[i], square(g[i]) + eps, beta2);
      u[i] = static_cast<float>(g[i] / std::sqrt(static_cast<double>(v[i])));
    });
    const Move move = make_move(sum_of_squares({&updates, 1}));
    for_each_number(gradient.numel(), [=](int64_t i) { move.apply(w[i], i, u[i]); });
  }

  // More than two dimensions are a batch of matrices, whose updates are clipped together.
  template <typename MakeMove>
  void update_matrices(const at::Tensor& gradient, State& state, double beta2, const MakeMove& make_move, float* w) {
    const int64_t rows = gradient.size(-2), columns = gradient.size(-1), count = gradient.numel() / (rows * columns);
    const auto matrix = [&](int64_t k) { return Matrix{gradient.const_data_ptr<float>() + k * rows * columns, rows, columns}; };
    std::vector<Factors> all;
    double sum = 0;
    for (int64_t k = 0; k < count; ++k) {
      all.push_back(factors(matrix(k), state.exp_avg_sq_row.mutable_data_ptr<float>() + k * rows, state.exp_avg_sq_col.mutable_data_ptr<float>() + k * columns,
                            beta2, eps1_));
      sum += sum_of_squared_updates(matrix(k), all.back());
    }
    const Move move = make_move(sum);
    parallel_for(count * rows, std::max<int64_t>(1, 16'384 / columns), [&](int64_t begin, int64_t end) {
      for (int64_t line = begin; line < end; ++line) {
        const Factors& factors = all[line / rows];
        const float* g = gradient.const_data_ptr<float>();
        const float row = factors.row[line % rows];
        for (int64_t j = 0; j < columns; ++j) {
          const int64_t i = line * columns + j;
          move.apply(w[i], i, g[i] * (row * factors.column[j]));
        }
      }
    });
  }

  double eps1_, eps2_, clip_threshold_, decay_rate_, beta1_, weight_decay_;
  bool scale_parameter_, relative_step_, warmup_init_;
};

}  // namespace

OptimizerRow adafactor_row() {
  OptimizerRow row;
  row.id = "adafactor";
  row.title = "Adafactor";
  row.leaf = "train";
  row.arxiv = "1804.04235";
  row.summary = "of a matrix's squared gradients only the means of rows and columns: next to no state";
  row.options = {number_option("eps1", 1e-30, 0, 1, "added to squared gradients"),
                 number_option("eps2", 1e-3, 0, 1, "with scale_parameter: least size of a tensor"),
                 number_option("clip_threshold", 1, 1e-6, 1e6, "largest root mean square of a tensor's update"),
                 number_option("decay_rate", -0.8, -10, 0, "power of the step that new squares count by"),
                 beta_option("beta1", 0, "decay of a mean of updates; 0: none, and no state for it"),
                 weight_decay_option(0),
                 boolean_option("scale_parameter", false, "times the root mean square of the tensor"),
                 boolean_option("relative_step", false, "min(0.01, 1 / sqrt(step)) instead of the schedule's learning rate"),
                 boolean_option("warmup_init", false, "with relative_step: begin at 1e-6, not at 0.01")};
  row.function = make_optimizer<Adafactor>;
  row.claims = {loss_against_adamw("loss within 1 % of AdamW's after the same steps", {"adafactor"}, {1e-3, 2e-3, 4e-3}, 1.01),
                state_against_adamw("hardly any state: a twentieth of AdamW's", "adafactor", 0.05)};
  return row;
}

}  // namespace frugal::train
