// frugal eval: quality, size, speed and memory of a model, alone or paired with its base.
#include <cmath>
#include <filesystem>
#include <optional>

#include "base/clock.h"
#include "base/process.h"
#include "chain/ledger_metrics.h"
#include "chain/manifest.h"
#include "cli/adapters.h"
#include "cli/context.h"
#include "cli/resources.h"
#include "eval/live_base.h"
#include "eval/logits_file.h"
#include "eval/perplexity.h"
#include "eval/speed.h"
#include "eval/tasks.h"
#include "kernels/cpu/isa.h"

namespace frugal::cli {
namespace {

struct EvalValues {
  std::string model, text, base, base_logits, save_logits, ledger, name, divergence_base;
  std::vector<std::string> tasks;
  int64_t ctx = 512, chunks = 0;
  AdapterValues adapters;
  bool exact = false, no_speed = false, divergence = false;
};

struct Measured {
  eval::Perplexity quality;
  std::optional<double> prefill_tps, decode_tps;
  std::optional<uint64_t> peak_rss;
  std::optional<std::string> base_hash;  // of the model that --base named
  std::vector<eval::TaskResult> tasks;
  double seconds = 0;
  std::optional<double> energy_joules;
};

double bits_per_weight(const nn::LoadedModel& loaded) {
  return 8.0 * static_cast<double>(loaded.file_bytes) / static_cast<double>(loaded.model->original_parameters);
}

Json to_json(const EvalValues& values, const nn::LoadedModel& loaded, const Measured& m) {
  const auto or_null = [](const auto& value) { return value ? Json(*value) : Json(nullptr); };
  Json tasks = Json::object();
  for (const eval::TaskResult& task : m.tasks) {
    tasks[task.name] = {{"accuracy", task.accuracy}, {"accuracy_norm", task.accuracy_norm}, {"stderr", task.standard_error}, {"count", task.count}};
  }
  return {{"model", loaded.name},
          {"perplexity", m.quality.perplexity},
          {"perplexity_stderr", m.quality.stderr_},
          {"ln_perplexity", m.quality.ln_perplexity},
          {"ln_ratio", or_null(m.quality.ln_ratio)},
          {"ln_ratio_stderr", or_null(m.quality.ln_ratio_stderr)},
          {"tokens", m.quality.tokens},
          {"chunks", m.quality.chunks},
          {"ctx", values.ctx},
          {"bytes", loaded.file_bytes},
          {"bits_per_weight", bits_per_weight(loaded)},
          {"kl_mean", or_null(m.quality.kl_mean)},
          {"kl_stderr", or_null(m.quality.kl_stderr)},
          {"kl_median", or_null(m.quality.kl_median)},
          {"kl_p90", or_null(m.quality.kl_p90)},
          {"kl_p99", or_null(m.quality.kl_p99)},
          {"kl_max", or_null(m.quality.kl_max)},
          {"delta_p_mean", or_null(m.quality.delta_p_mean)},
          {"delta_p_stderr", or_null(m.quality.delta_p_stderr)},
          {"delta_p_rms", or_null(m.quality.delta_p_rms)},
          {"top1_agreement", or_null(m.quality.top1_agreement)},
          {"prefill_tps", or_null(m.prefill_tps)},
          {"decode_tps", or_null(m.decode_tps)},
          {"peak_rss_bytes", or_null(m.peak_rss)},
          {"tasks", tasks}};
}

std::string to_text(const nn::LoadedModel& loaded, const Measured& m) {
  std::string out = fmt::format("{}: perplexity {:.4f} +- {:.4f} over {} tokens ({} chunks)\n", loaded.name, m.quality.perplexity, m.quality.stderr_,
                                m.quality.tokens, m.quality.chunks);
  if (m.quality.ln_ratio) {
    out += fmt::format("against the base: ln-perplexity {:+.5f} +- {:.5f} ({:+.2f} %), KL {:.3g} +- {:.2g} nats, top-1 agreement {:.2f} %\n",
                       *m.quality.ln_ratio, *m.quality.ln_ratio_stderr, 100 * (std::exp(*m.quality.ln_ratio) - 1), *m.quality.kl_mean, *m.quality.kl_stderr,
                       100 * *m.quality.top1_agreement);
    out += fmt::format(
        "KL over tokens: median {:.3g}, 90 % {:.3g}, 99 % {:.3g}, largest {:.3g}; probability of the right token {:+.3f} +- {:.3f} %, RMS {:.3f} %\n",
        *m.quality.kl_median, *m.quality.kl_p90, *m.quality.kl_p99, *m.quality.kl_max, 100 * *m.quality.delta_p_mean, 100 * *m.quality.delta_p_stderr,
        100 * *m.quality.delta_p_rms);
  }
  for (const eval::TaskResult& task : m.tasks) {
    out += fmt::format("task {}: accuracy {:.2f} % +- {:.2f}, length-normalised {:.2f} % ({} questions)\n", task.name, 100 * task.accuracy,
                       100 * task.standard_error, 100 * task.accuracy_norm, task.count);
  }
  out += fmt::format("size {:.1f} MB, {:.3f} bits per weight", static_cast<double>(loaded.file_bytes) / 1e6, bits_per_weight(loaded));
  if (m.decode_tps) {
    out += fmt::format("; prefill {:.1f} t/s, decode {:.1f} t/s, peak memory {:.0f} MB", *m.prefill_tps, *m.decode_tps, static_cast<double>(*m.peak_rss) / 1e6);
  }
  return out + "\n";
}

chain::LedgerRow ledger_row(const Context& context, const EvalValues& values, const nn::LoadedModel& loaded, const eval::EvalText& text, const Measured& m) {
  chain::LedgerRow row;
  row.kind = chain::RowKind::eval;
  row.name = values.name.empty() ? loaded.name : values.name;
  row.model_hash = weights_hash(loaded);
  row.base_hash = row.model_hash;
  row.model = loaded.name;
  if (const auto manifest = chain::read_manifest(loaded)) chain::describe_origin(*manifest, row);
  if (m.base_hash) row.base_hash = *m.base_hash;
  row.runtime = runtime_settings(values.adapters);
  if (values.exact) row.runtime.push_back("exact");
  row.machine = chain::this_machine(std::string(kernels::to_string(kernels::active_isa())), static_cast<int>(context.threads));
  row.version = kVersion;
  row.bytes = static_cast<int64_t>(loaded.file_bytes);
  row.parameters = static_cast<int64_t>(loaded.model->original_parameters);
  row.bits_per_weight = bits_per_weight(loaded);
  row.text = text.name;
  row.text_hash = text.hash;
  row.ctx = values.ctx;
  row.chunks = m.quality.chunks;
  row.tokens = m.quality.tokens;
  row.ln_perplexity = m.quality.ln_perplexity;
  row.perplexity = m.quality.perplexity;
  row.perplexity_stderr = m.quality.stderr_;
  row.ln_ratio = m.quality.ln_ratio;
  row.ln_ratio_stderr = m.quality.ln_ratio_stderr;
  row.kl_mean = m.quality.kl_mean;
  row.top1_agreement = m.quality.top1_agreement;
  for (const eval::TaskResult& task : m.tasks) row.tasks[task.name] = task.accuracy;
  row.prefill_tps = m.prefill_tps;
  row.decode_tps = m.decode_tps;
  if (m.peak_rss) row.peak_rss_bytes = static_cast<int64_t>(*m.peak_rss);
  row.energy_joules = m.energy_joules;
  return row;
}

// Before anything else is in memory: the peak is that of a process that serves this model.
void measure_speed_and_memory(const nn::Model& model, Measured& m) {
  m.prefill_tps = eval::measure_speed(model, {"pp256", 256, 0}, 3).mean();
  m.decode_tps = eval::measure_speed(model, {"tg32", 0, 32}, 3).mean();
  m.peak_rss = peak_rss_bytes();
}

void evaluate(const Context& context, const EvalValues& values) {
  if (!values.base.empty() && !values.base_logits.empty()) fail(ErrorKind::invalid_input, "--base and --base-logits exclude each other");
  for (const std::string& path : values.tasks) require_readable(path);
  if (!values.ledger.empty()) require_appendable(values.ledger);
  reset_peak_rss();
  const std::optional<double> energy_before = package_energy_joules();
  const nn::Execution execution = values.exact ? nn::Execution::expanded : nn::Execution::packed;
  nn::LoadedModel loaded = load_model(context, values.model, execution);
  attach_adapters(values.adapters, loaded, execution);
  const eval::EvalText text = load_eval_text(loaded, values.text);
  Measured measured;
  if (!values.no_speed) measure_speed_and_memory(*loaded.model, measured);

  std::unique_ptr<eval::BaseScores> base;
  if (!values.base.empty()) {
    nn::LoadedModel base_model = load_model(context, values.base, execution);
    measured.base_hash = weights_hash(base_model);
    const int64_t available = static_cast<int64_t>(text.tokens.size()) / values.ctx;
    base = std::make_unique<eval::LiveBase>(base_model.model, text, values.ctx, values.chunks > 0 ? values.chunks : available);
  } else if (!values.base_logits.empty()) {
    auto file = std::make_unique<eval::LogitsFile>(values.base_logits);
    if (file->header().text_hash != text.hash || file->header().ctx != values.ctx) {
      fail(ErrorKind::invalid_input, "{}: was made from another text or ctx", values.base_logits);
    }
    measured.base_hash = file->header().model_hash;
    base = std::move(file);
  }
  std::optional<eval::LogitsWriter> writer;
  eval::ScoreSink sink;
  if (!values.save_logits.empty()) {
    const int64_t available = static_cast<int64_t>(text.tokens.size()) / values.ctx;
    writer.emplace(values.save_logits,
                   eval::LogitsHeader{values.ctx, values.chunks > 0 ? values.chunks : available, loaded.model->spec.vocab, text.hash, weights_hash(loaded)});
    sink = [&](int64_t, const at::Tensor& log_p, const at::Tensor&) { writer->write(log_p); };
  }
  measured.quality = eval::evaluate_perplexity(*loaded.model, text, {values.ctx, values.chunks}, base.get(), sink);
  if (!std::isfinite(measured.quality.ln_perplexity))
    fail(ErrorKind::corrupt_file, "{}: the perplexity is not a number: some weight or activation is not finite", loaded.name);
  if (writer) writer->commit();
  for (const std::string& path : values.tasks) measured.tasks.push_back(eval::evaluate_task(loaded, path));
  if (const std::optional<double> energy = package_energy_joules(); energy && energy_before) measured.energy_joules = *energy - *energy_before;
  if (context.json) {
    print_json(to_json(values, loaded, measured));
  } else {
    print(to_text(loaded, measured));
  }
  if (!values.ledger.empty()) {
    chain::LedgerRow row = ledger_row(context, values, loaded, text, measured);
    if (chain::is_base(row) && !row.ln_ratio) {
      row.ln_ratio = 0;
      row.ln_ratio_stderr = 0;
    }
    chain::Ledger(values.ledger).append(row);
  }
}

}  // namespace

void add_eval(CLI::App& app, Context& context) {
  const auto values = std::make_shared<EvalValues>();
  Verb verb = new_verb(app, context, "eval", "Measure quality, size, speed and memory of a model",
                       [&context, values] {
                         if (values->divergence && values->divergence_base.empty())
                           fail(ErrorKind::invalid_input, "--kl-divergence needs --kl-divergence-base FILE");
                         if (!values->divergence_base.empty()) (values->divergence ? values->base_logits : values->save_logits) = values->divergence_base;
                         evaluate(context, *values);
                       })
                  .text("model,-m,--model,--hf-repo", values->model, "Path or hub name")
                  .required()
                  .text("--text,-f,--file", values->text, "Text file to score (default: the installed text)")
                  .integer("--ctx,-c,--ctx-size", values->ctx, 8, int64_t{1} << 20, "Tokens per chunk")
                  .integer("--chunks", values->chunks, 0, int64_t{1} << 40, "Chunks to score (0: all)")
                  .text("--base", values->base, "Model to compare with, on the same tokens")
                  .text("--base-logits", values->base_logits, "The same from a file that --save-logits wrote")
                  .text("--save-logits,--save-all-logits", values->save_logits, "Write this model's log-probabilities for --base-logits")
                  .text("--kl-divergence-base", values->divergence_base, "As llama-perplexity: --base-logits with --kl-divergence, else --save-logits")
                  .flag("--kl-divergence", values->divergence, "Compare with the file of --kl-divergence-base")
                  .texts("--tasks,--tasks-file", values->tasks, "Multiple-choice questions, JSONL {\"question\", \"choices\", \"answer\"}")
                  .text("--ledger", values->ledger, "Append the result to this ledger")
                  .text("--name", values->name, "Label of the ledger row")
                  .flag("--exact", values->exact, "Expand the weights to float and quantize nothing on the way")
                  .flag("--no-speed", values->no_speed, "Skip the measurement of speed and memory");
  add_adapter_options(verb, values->adapters);
}

}  // namespace frugal::cli
