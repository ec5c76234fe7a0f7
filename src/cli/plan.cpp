// frugal plan: what a training run will need at each process, before it is begun.
#include <algorithm>

#include "base/error.h"
#include "base/method_choice.h"
#include "base/process.h"
#include "chain/chain.h"
#include "cli/arguments.h"
#include "cli/context.h"
#include "cli/resources.h"
#include "cli/training.h"
#include "kernels/cpu/machine.h"
#include "train/cost_model.h"
#include "train/new_model.h"

namespace frugal::cli {
namespace {

struct PlanValues {
  std::string model, optimizer = "adamw", strategies, ranks = "1";
  std::map<std::string, std::string> shape;
  int64_t vocab = 0, sequence_len = 1024, micro_batch_size = 4, micro_batches = 0, tensor = 1, pipeline = 1;
  bool recompute = false;
  double gigaflops = 0, utilisation = 0.5, bandwidth = 1.25, latency = 50, memory = 0;
};

nn::ModelSpec spec_of(const Context& context, const PlanValues& values) {
  if (!values.model.empty()) {
    if (!values.shape.empty() || values.vocab > 0) fail(ErrorKind::invalid_input, "a model that is there has its shape: leave the model or the shape out");
    return load_model(context, values.model).model->spec;
  }
  if (values.vocab == 0) fail(ErrorKind::invalid_input, "name a model, or give a shape with --vocab-size");
  return train::new_model_spec(Options("shape", train::shape_options(), {values.shape.begin(), values.shape.end()}), values.vocab);
}

// Those that go with the ranks that share a model (parallel_run.cpp).
std::vector<std::string> strategies_of(const PlanValues& values) {
  const auto known = values.pipeline > 1 ? std::vector<std::string>{"ddp"}
                     : values.tensor > 1 ? std::vector<std::string>{"ddp", "zero1", "zero2"}
                                         : strategy_names();
  if (values.strategies.empty()) return known;
  std::vector<std::string> names;
  for (size_t begin = 0; begin <= values.strategies.size();) {
    const size_t end = std::min(values.strategies.find(',', begin), values.strategies.size());
    names.push_back(values.strategies.substr(begin, end - begin));
    if (std::find(known.begin(), known.end(), names.back()) == known.end())
      fail(ErrorKind::invalid_input, "no strategy \"{}\"{}{}", printable(names.back()),
           values.tensor * values.pipeline > 1 ? fmt::format(" where processes share a model: {}", fmt::join(known, ", ")) : "",
           did_you_mean(names.back(), known));
    begin = end + 1;
  }
  return names;
}

Json row_of(const std::string& strategy, const train::Workload& work, const train::CostEstimate& cost) {
  return {{"strategy", strategy},
          {"ranks", work.ranks},
          {"tensor_parallel_size", work.size.tensor},
          {"pipeline_parallel_size", work.size.pipeline},
          {"gradient_accumulation_steps", work.micro_batches},
          {"parameter_bytes", cost.parameters},
          {"gradient_bytes", cost.gradients},
          {"optimizer_bytes", cost.optimizer},
          {"activation_bytes", cost.activations},
          {"buffer_bytes", cost.buffers},
          {"bytes_per_rank", cost.bytes()},
          {"sent_bytes_per_step", cost.sent_bytes},
          {"compute_seconds", cost.compute_seconds},
          {"bubble_fraction", cost.bubble()},
          {"exposed_communication_seconds", cost.exposed_seconds},
          {"seconds_per_step", cost.seconds()},
          {"tokens_per_second", cost.tokens_per_second}};
}

std::string gigabytes(const Json& row, const char* key) { return fmt::format("{:.2f}", row.at(key).get<double>() / 1e9); }

void show(const Json& rows, const PlanValues& values, uint64_t parameters, double flops) {
  std::string text = fmt::format(
      "{:.1f} M parameters; a rank: {:.0f} GFLOPS of training, {} GB/s to others; GB at the rank that needs most, beside the program's own {:.2f}\n",
      static_cast<double>(parameters) / 1e6, flops / 1e9, values.bandwidth, static_cast<double>(peak_rss_bytes()) / 1e9);
  text += fmt::format("{:<8} {:>6} {:>6} {:>6} {:>8} {:>9} {:>9} {:>11} {:>8} {:>8} {:>7} {:>10} {:>10} {:>10}{}\n", "strategy", "ranks", "tensor", "stages",
                      "weights", "gradients", "optimizer", "activations", "buffers", "total", "bubble", "s/step", "s exposed", "tokens/s",
                      values.memory > 0 ? "  fits" : "");
  for (const Json& row : rows) {
    text += fmt::format("{:<8} {:>6} {:>6} {:>6} {:>8} {:>9} {:>9} {:>11} {:>8} {:>8} {:>6.1f}% {:>10.3g} {:>10.3g} {:>10.4g}{}\n",
                        row.at("strategy").get<std::string>(), row.at("ranks").get<int>(), row.at("tensor_parallel_size").get<int>(),
                        row.at("pipeline_parallel_size").get<int>(), gigabytes(row, "parameter_bytes"), gigabytes(row, "gradient_bytes"),
                        gigabytes(row, "optimizer_bytes"), gigabytes(row, "activation_bytes"), gigabytes(row, "buffer_bytes"), gigabytes(row, "bytes_per_rank"),
                        100 * row.at("bubble_fraction").get<double>(), row.at("seconds_per_step").get<double>(),
                        row.at("exposed_communication_seconds").get<double>(), row.at("tokens_per_second").get<double>(),
                        values.memory > 0 ? row.at("fits").get<bool>() ? "  yes" : "  no" : "");
  }
  print(text);
}

void run(const Context& context, const PlanValues& values) {
  const auto optimizer = choose_method(train::optimizer_table(), values.optimizer);
  const std::vector<std::string> strategies = strategies_of(values);
  const std::vector<int64_t> ranks = number_list(values.ranks, "--ranks", 1 << 20);
  const nn::ModelSpec spec = spec_of(context, values);
  uint64_t parameters = 0;
  for (const train::Parameter& parameter : train::parameters_of(spec)) parameters += static_cast<uint64_t>(parameter.tensor.numel());
  train::Cluster cluster;
  cluster.flops = values.utilisation * (values.gigaflops > 0 ? values.gigaflops * 1e9 : 2 * kernels::measure_float_peak());
  cluster.bytes_per_second = values.bandwidth * 1e9;
  cluster.latency = values.latency * 1e-6;
  const train::ModelParallelSize size{static_cast<int>(values.tensor), static_cast<int>(values.pipeline)};
  Json rows = Json::array();
  for (const int64_t count : ranks) {
    for (const std::string& strategy : strategies) {
      if (count < 1) fail(ErrorKind::invalid_input, "--ranks: must be at least 1");
      if (count == size.ranks() && strategy != strategies.front()) continue;  // one copy of the model: they are one
      const train::Workload work{.ranks = static_cast<int>(count),
                                 .strategy = strategy_of(strategy),
                                 .size = size,
                                 .micro_batch_tokens = values.micro_batch_size * values.sequence_len,
                                 .sequence_tokens = values.sequence_len,
                                 .micro_batches = values.micro_batches > 0 ? values.micro_batches : count,
                                 .recompute = values.recompute};
      const train::CostEstimate cost = train::estimate_cost(spec, work, cluster, *optimizer.row, optimizer.options);
      rows.push_back(row_of(strategy, work, cost));
      if (values.memory > 0) rows.back()["fits"] = cost.bytes() + static_cast<double>(peak_rss_bytes()) <= values.memory * 1e9;
    }
  }
  if (context.json)
    return print_json({{"parameters", parameters},
                       {"program_bytes", peak_rss_bytes()},
                       {"optimizer", chain::canonical_text(optimizer.row->id, optimizer.options)},
                       {"rows", rows}});
  show(rows, values, parameters, cluster.flops);
}

}  // namespace

void add_plan(CLI::App& app, Context& context) {
  const auto values = std::make_shared<PlanValues>();
  Verb verb = new_verb(app, context, "plan", "What training will need at each process: memory and time by strategy and number of ranks",
                       [&context, values] { run(context, *values); });
  verb.text("model,-m,--model,--hf-repo", values->model, "Path or hub name; without it a shape, as frugal train takes it");
  add_shape_flags(verb, values->shape);
  verb.integer("--vocab-size", values->vocab, 1, 1 << 24, "Tokens of a shape's vocabulary")
      .text("--optimizer", values->optimizer, "Row of the optimizers, with options [adamw]")
      .text("--strategy", values->strategies, "Some of ddp, zero1, zero2, zero3, by commas [all]")
      .integer("--tensor-parallel-size,--tensor_parallel_size", values->tensor, 1, 1 << 10, "Of the processes, those that share a model's matrices [1]")
      .integer("--pipeline-parallel-size,--pipeline_parallel_size", values->pipeline, 1, 1 << 10, "Of the processes, stages that share a model's blocks [1]")
      .text("--ranks", values->ranks, "Numbers of processes, by commas [1]")
      .integer("--sequence-len,--sequence_len", values->sequence_len, 2, 1 << 20, "Tokens of a sequence [1024]")
      .integer("--micro-batch-size,--micro_batch_size", values->micro_batch_size, 1, 1 << 20, "Sequences that are computed at once [4]")
      .integer("--gradient-accumulation-steps,--gradient_accumulation_steps", values->micro_batches, 1, 1 << 30,
               "Micro-batches of a step, of all processes together [as many as processes]")
      .flag("--gradient-checkpointing,--gradient_checkpointing", values->recompute, "Blocks are computed again in backward")
      .number("--peak-gflops", values->gigaflops, 0, 1e12, "Float peak of a process in GFLOPS (0: this machine's, measured on --threads)")
      .number("--mfu", values->utilisation, 1e-4, 1, "Share of it that training gets; frugal runs shows a run's [0.5]")
      .number("--bandwidth", values->bandwidth, 1e-6, 1e6, "GB/s between two processes [1.25, a 10 Gbit network]")
      .number("--latency", values->latency, 0, 1e9, "Microseconds of a message [50]")
      .number("--memory", values->memory, 0, 1e9, "GB that a process may use: says what fits (0: no limit)");
}

}  // namespace frugal::cli
