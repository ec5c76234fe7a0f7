#include "cli/tuning.h"

#include "base/method_choice.h"
#include "chain/chain.h"
#include "cli/terminal.h"
#include "train/full_parameters.h"
#include "tune/qlora.h"

namespace frugal::cli {
namespace {

constexpr double kAdapterRate = 2e-4, kFullRate = 2e-5;

void tune_adapter(const Tuning& t, const train::RunFolder& folder) {
  const bool four_bits = t.plan.run.boolean("load_in_4bit") || t.way.row->id == "qlora", doubly = t.plan.run.boolean("bnb_4bit_use_double_quant");
  tune::FourBitReport base;
  if (four_bits) {
    base = tune::quantize_base(*t.model.model, doubly);
    print_note(fmt::format("{}: {} matrices are in NF4 now, {} stay in the format that they have", t.base, base.quantized, base.kept));
  }
  const std::unique_ptr<tune::Adapter> adapter = t.way.row->function(*t.model.model, t.way.options, {t.context.method_seed(), t.model.tokenizer.get(), [&] {
                                                                                                       nn::SaveOptions options;
                                                                                                       options.overwrite = true;
                                                                                                       const std::string path = t.plan.output + "/base";
                                                                                                       if (t.ranks.leads())
                                                                                                         t.context.loader.save(t.model, path, options);
                                                                                                       return path;
                                                                                                     }});
  t.model.model->set_execution(four_bits ? nn::Execution::stored : nn::Execution::expanded);
  adapter->set_training(true);
  TrainingJob job{.ranks = t.ranks,
                  .model = t.model,
                  .data = t.data,
                  .parameters = adapter->parameters(),
                  .options = trainer_options(t.values, t.plan, t.context, kAdapterRate),
                  .fingerprint = t.fingerprint,
                  .flops = train::training_flops(*t.model.model, adapter->parameters()),
                  .what = "adapter",
                  .checkpoints_have_files = true,
                  .objective = t.objective};
  job.options.hook = adapter->step_hook();
  job.fingerprint["method"] = chain::canonical_text(t.way.row->id, t.way.options);
  if (base.quantized > 0) job.fingerprint["base"] = doubly ? "nf4 double" : "nf4";
  job.seed_randomness = [&](uint64_t seed) { adapter->seed(seed); };
  job.set_training = [&](bool training) { adapter->set_training(training); };
  job.recompute.random_state = [&] { return adapter->generator_state(); };
  job.recompute.set_random_state = [&](const at::Tensor& state) { adapter->set_generator_state(state); };
  job.files = [&](const std::string& into) {
    adapter->save(into + "/.adapter", t.base);
    move_files(into + "/.adapter", into);
  };
  run_training(t.context, t.plan, folder, job);
}

void tune_all(const Tuning& t, const train::RunFolder& folder) {
  TrainingJob job{.ranks = t.ranks,
                  .model = t.model,
                  .data = t.data,
                  .parameters = train::all_parameters(*t.model.model),
                  .options = trainer_options(t.values, t.plan, t.context, kFullRate),
                  .fingerprint = t.fingerprint,
                  .flops = train::training_flops(*t.model.model),
                  .what = "model",
                  .files = whole_model_files(t.context, t.model),
                  .objective = t.objective};
  job.fingerprint["method"] = kWholeModel;
  if (t.way.sampling_row) {
    job.sampling = t.way.sampling_row->function(t.way.options, t.context.method_seed());
    job.fingerprint["method"] = chain::canonical_text(t.way.sampling_row->id, t.way.options);
    job.flops = {};  // which blocks train is not the same all the while
  }
  run_training(t.context, t.plan, folder, job);
}

}  // namespace

std::string ways_to_tune() { return fmt::format("{}, {}, {}", kWholeModel, ids_of(tune::layer_sampling_table()), ids_of(tune::adapter_table())); }

WayToTune way_to_tune(const std::string& text) {
  if (const StepText way = parse_step(text); way.id == kWholeModel) return {nullptr, nullptr, Options(way.id, {}, way.options)};
  if (tune::layer_sampling_table().find(parse_step(text).id)) {
    const auto sampling = choose_method(tune::layer_sampling_table(), text);
    return {nullptr, sampling.row, sampling.options};
  }
  const auto choice = choose_method(tune::adapter_table(), text);
  return {choice.row, nullptr, choice.options};
}

void tune_model(const Tuning& tuning, const train::RunFolder& folder) {
  if (tuning.way.row)
    tune_adapter(tuning, folder);
  else
    tune_all(tuning, folder);
}

}  // namespace frugal::cli
