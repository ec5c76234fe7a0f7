#include "chain/chain.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/process.h"
#include "base/progress.h"
#include "chain/calibration_cache.h"
#include "nn/sharing.h"

namespace frugal::chain {
namespace {

// Rows per forward during calibration: enough for the BLAS, little beside one block in float.
constexpr int64_t kRowsPerForward = 2048;

unsigned needs_of(const ParsedStep& step) {
  const Step& function = step.row->function;
  return function.needs ? function.needs(step.options) : kNeedsNothing;
}

std::string prefix_of(const Workbench& bench) {
  std::string text;
  for (const ParsedStep& step : bench.done) text += (text.empty() ? "" : " ") + step.text();
  return text;
}

// The walk over the blocks for a run of block-scope steps.
class LayerLoop {
 public:
  LayerLoop(Workbench& bench, std::span<const ParsedStep> steps, std::span<StepResult> results) : bench_(bench), steps_(steps), results_(results) {
    bool factored = false;  // of products, the second factors need statistics carried through
    bench.model.for_each_linear([&](nn::Linear& linear) {
      for (const auto& kind : linear.kinds()) factored |= dynamic_cast<const nn::LowRankKind*>(kind.get()) != nullptr;
    });
    for (const ParsedStep& step : steps) {
      unsigned needs = needs_of(step);
      if (factored && (needs & kNeedsMagnitude)) needs |= kNeedsHessian | kNeedsSample;
      needs_ |= needs;
      sequential_ |= step.row->function.sequential && needs != 0;
      factored |= step.row->function.effect == StepEffect::low_rank;
    }
  }

  void run() {
    const at::NoGradGuard no_grad;
    Progress progress(names(), static_cast<int64_t>(bench_.model.blocks.size()));
    if (needs_ != kNeedsNothing) begin_calibration();
    for (size_t i = 0; i < bench_.model.blocks.size(); ++i) {
      progress.step(0);
      try {
        run_block(static_cast<int>(i));
      } catch (const Error& error) {
        throw Error(error.kind(), fmt::format("{}, block {}: {}", names(), i, error.what()));
      }
      progress.step(1);
    }
    if (gathering_) bench_.cache->put(prefix_of(bench_), gathered_needs_, std::move(gathered_));
  }

 private:
  std::string names() const {
    std::string text;
    for (const ParsedStep& step : steps_) text += (text.empty() ? "" : " + ") + step.row->id;
    return text;
  }

  void begin_calibration() {
    const CalibrationOptions& options = bench_.calibration;
    const auto wanted = static_cast<size_t>(options.sequences * options.sequence_length);
    if (bench_.text.tokens.size() < wanted) {
      fail(ErrorKind::invalid_input, "calibration needs {} tokens ({} sequences of {}), the text {} has {}", wanted, options.sequences, options.sequence_length,
           bench_.text.name, bench_.text.tokens.size());
    }
    gathered_needs_ = needs_;
    if (!sequential_ && bench_.cache) {
      cached_ = bench_.cache->find(prefix_of(bench_), needs_);
      if (cached_) return;
      gathering_ = true;
      gathered_needs_ |= bench_.cache->expected();
    }
    hidden_ = bench_.model.embed(std::span(bench_.text.tokens).first(wanted));
  }

  void run_block(int index) {
    nn::Block& block = bench_.model.blocks[static_cast<size_t>(index)];
    BlockContext context(block, index, static_cast<int>(bench_.model.blocks.size()));
    context.sequence_length = bench_.calibration.sequence_length;
    block.set_execution(nn::Execution::expanded);
    Stopwatch shared;
    if (cached_) {
      context.inputs = (*cached_)[static_cast<size_t>(index)];
    } else if (needs_ != kNeedsNothing) {
      context.inputs = calibrate(block);
    }
    charge(shared.seconds());
    for (size_t i = 0; i < steps_.size(); ++i) {
      const Stopwatch watch;
      steps_[i].row->function.run_block(context, steps_[i].options);
      results_[i].seconds += watch.seconds();
    }
    const bool last = index + 1 == context.block_count;
    if (needs_ != kNeedsNothing && sequential_ && !last) {
      const Stopwatch watch;
      block.set_execution(nn::Execution::expanded);
      hidden_ = forward(block, {});
      charge(watch.seconds());
    }
    block.set_execution(nn::Execution::stored);
    const uint64_t peak = peak_rss_bytes();
    for (StepResult& result : results_) result.peak_rss_bytes = std::max(result.peak_rss_bytes, peak);
  }

  std::map<nn::InputPoint, InputStatistics> calibrate(nn::Block& block) {
    const int64_t sample_rows = bench_.calibration.sample_sequences * bench_.calibration.sequence_length;
    StatisticsCollector collector(gathered_needs_, sample_rows);
    Tensor outputs = forward(block, std::ref(collector));
    if (!sequential_) hidden_ = std::move(outputs);
    auto statistics = collector.finish();
    if (gathering_) {
      CalibrationCache::spill(statistics);
      gathered_.push_back(statistics);
    }
    return statistics;
  }

  Tensor forward(const nn::Block& block, const nn::InputTap& tap) {
    const int64_t length = bench_.calibration.sequence_length;
    const int64_t per_forward = std::max<int64_t>(1, kRowsPerForward / length) * length;
    Tensor out = at::empty_like(hidden_);
    for (int64_t begin = 0; begin < hidden_.size(0); begin += per_forward) {
      stop_point();
      const int64_t rows = std::min(per_forward, hidden_.size(0) - begin);
      std::vector<nn::SequenceSlice> slices;
      for (int64_t row = 0; row < rows; row += length) slices.push_back({row, std::min(length, rows - row), nullptr});
      out.narrow(0, begin, rows).copy_(block.forward(hidden_.narrow(0, begin, rows), slices, nn::Model::positions(slices), tap));
    }
    return out;
  }

  // Time that all calibrated steps share.
  void charge(double seconds) {
    for (StepResult& result : results_) result.seconds += seconds / static_cast<double>(results_.size());
  }

  Workbench& bench_;
  std::span<const ParsedStep> steps_;
  std::span<StepResult> results_;
  unsigned needs_ = kNeedsNothing, gathered_needs_ = kNeedsNothing;
  bool sequential_ = false;
  bool gathering_ = false;
  const CalibrationCache::Blocks* cached_ = nullptr;
  CalibrationCache::Blocks gathered_;
  Tensor hidden_;
};

}  // namespace

Workbench::Workbench(nn::LoadedModel& loaded_model, CalibrationText calibration_text, CalibrationOptions options, uint64_t seed)
    : loaded(loaded_model), model(*loaded_model.model), text(std::move(calibration_text)), calibration(options), rng(seed) {
  const auto wanted = static_cast<size_t>(options.sequences * options.sequence_length);
  if (text.tokens.size() > wanted) text.tokens.resize(wanted);
}

std::string canonical_text(const std::string& id, const Options& options) {
  const std::string given = options.canonical();
  return given.empty() ? id : fmt::format("{}:{}", id, given);
}

std::string ParsedStep::text() const { return canonical_text(row->id, options); }

ParsedStep parse_chain_step(const StepTable& table, const std::string& text) {
  const StepText step = parse_step(text);
  const StepRow& row = table.at(step.id);
  return {&row, Options(row.id, row.options, step.options)};
}

std::vector<ParsedStep> parse_chain(const StepTable& table, const std::vector<std::string>& texts) {
  std::vector<ParsedStep> chain;
  for (const std::string& text : texts) chain.push_back(parse_chain_step(table, text));
  check_order(chain);
  return chain;
}

void check_order(const std::vector<ParsedStep>& chain) {
  const ParsedStep* quantized = nullptr;
  const ParsedStep* masked = nullptr;
  const ParsedStep* factored = nullptr;
  for (const ParsedStep& step : chain) {
    const StepEffect effect = step.row->function.effect;
    if (quantized && effect != StepEffect::structure) {
      fail(ErrorKind::invalid_input, "{} cannot follow {}: it would turn the quantized weights back into floats; put {} first", step.row->id,
           quantized->row->id, step.row->id);
    }
    if (masked && effect == StepEffect::low_rank) {
      fail(ErrorKind::invalid_input, "{} cannot follow {}: factors of a masked matrix would lose the mask; put {} first", step.row->id, masked->row->id,
           step.row->id);
    }
    const auto quantizes = step.row->function.quantizes;
    if (effect == StepEffect::quantize || (quantizes && quantizes(step.options))) quantized = &step;
    if (factored && effect == StepEffect::low_rank) {
      fail(ErrorKind::invalid_input, "{} cannot follow {}: factors are not factored again", step.row->id, factored->row->id);
    }
    if (effect == StepEffect::mask) masked = &step;
    if (effect == StepEffect::low_rank) factored = &step;
  }
}

std::vector<StepResult> run_chain(Workbench& bench, const std::vector<ParsedStep>& chain) {
  if (!chain.empty() && nn::sharing_of(bench.model.spec).any()) {
    fail(ErrorKind::unsupported, "{}: a {}'s blocks share weights, which {} would make different in each: train a model without sharing, or leave the step out",
         bench.loaded.name, bench.model.spec.family, chain.front().row->id);
  }
  std::vector<ParsedStep> all = bench.done;
  all.insert(all.end(), chain.begin(), chain.end());
  check_order(all);
  for (const ParsedStep& step : chain) {
    const auto reads = step.row->function.reads_original;
    if (!bench.original && reads && reads(step.options)) bench.original = std::make_shared<nn::Model>(bench.model);
  }
  std::vector<StepResult> results;
  for (const ParsedStep& step : chain) results.push_back({step.text(), 0, 0});
  for (size_t begin = 0; begin < chain.size();) {
    reset_peak_rss();
    if (chain[begin].row->function.scope == StepScope::model) {
      const Stopwatch watch;
      const at::NoGradGuard no_grad;
      chain[begin].row->function.run_model(bench, chain[begin].options);
      results[begin].seconds = watch.seconds();
      results[begin].peak_rss_bytes = peak_rss_bytes();
      bench.done.push_back(chain[begin]);
      ++begin;
      continue;
    }
    size_t end = begin;
    while (end < chain.size() && chain[end].row->function.scope == StepScope::block) ++end;
    LayerLoop(bench, std::span(chain).subspan(begin, end - begin), std::span(results).subspan(begin, end - begin)).run();
    bench.done.insert(bench.done.end(), chain.begin() + static_cast<int64_t>(begin), chain.begin() + static_cast<int64_t>(end));
    begin = end;
  }
  return results;
}

}  // namespace frugal::chain
