// The one runner of claims: baseline and method on the same model, data, seeds and budget in one run, compared pairwise. A claim is data in a method's
// row (base/method_table.h).
#pragma once

#include <functional>
#include <map>
#include <string>
#include <tuple>

#include "chain/chain.h"
#include "claims/training.h"
#include "claims/verdict.h"
#include "eval/perplexity.h"

namespace frugal::claims {

struct Setting {
  // Of claims of chains of compression steps.
  std::function<nn::LoadedModel(const std::string& model)> load;  // the original that a claim names, anew at each call
  std::function<eval::EvalText(const std::string& model)> evaluation;
  std::function<chain::CalibrationText(const std::string& model)> calibration;
  chain::CalibrationOptions calibration_options;
  uint64_t seed = 0;
  // Of claims of training.
  TrainingSetting training;
};

// What a claim may measure:
//   ln_perplexity         of a chain's result, by chunk
//   loss                  held out, in nats a token, after training; by seed, as rouge_l and flops_to_loss
//   rouge_l               F of ROUGE-L (Lin, 2004) over tokens, between what the trained model goes on with and the held-out text
//   flops_to_loss         floating-point operations of training until the held-out loss is the baseline's last one. A side that does not get there
//                         has spent all it was given
//   cpu_seconds           of the process, in training
//   state_bytes           of the optimizer
//   trainable_parameters
//   activation_bytes      that the forward pass of a batch keeps for backward
//   gradient_bytes        that live at once while a batch is learned
//   merge_difference      of the logits, when the trained adapter is merged, in parts of the largest
//   logits_difference     of a model and the grown one, the same
std::vector<std::string> metrics();

class Runner {
 public:
  Runner(const chain::StepTable& steps, Setting setting) : steps_(steps), setting_(std::move(setting)), trainings_(setting_.training) {}
  // Throws Error{unsupported} for a metric that is not in metrics().
  Result run(const Claim& claim);

 private:
  struct Values {
    std::vector<double> baseline, method;
    double baseline_rate = 0, method_rate = 0;
  };
  using Measure = Values (Runner::*)(const Claim& claim);
  static const std::map<std::string, Measure>& measures();
  friend std::vector<std::string> metrics();

  Values ln_perplexity(const Claim& claim);
  Values loss(const Claim& claim);
  Values rouge_l(const Claim& claim);
  Values flops_to_loss(const Claim& claim);
  Values cpu_seconds(const Claim& claim);
  Values state_bytes(const Claim& claim);
  Values trainable_parameters(const Claim& claim);
  Values activation_bytes(const Claim& claim);
  Values gradient_bytes(const Claim& claim);
  Values merge_difference(const Claim& claim);
  Values logits_difference(const Claim& claim);

  // Chunk means of the losses of a chain's result; each chain is run once however many claims use it.
  const std::vector<double>& losses(const std::string& model, const std::vector<std::string>& chain, int chunks);
  // Of each seed and side, what `of` says of the model that was trained at the side's best rate.
  Values by_seed(const Claim& claim, bool curve, const std::function<double(const Run& run, const Trained& trained)>& of);
  Values by_side(const Claim& claim, const std::function<double(const Run& run, const Side& side)>& of);
  double best_rate(const Run& run, const std::vector<double>& rates);

  const chain::StepTable& steps_;
  Setting setting_;
  Trainings trainings_;
  std::map<std::tuple<std::string, std::vector<std::string>, int>, std::vector<double>> losses_;
};

// 2 P R / (P + R), with the longest common subsequence over the length of each.
double rouge_l(std::span<const int32_t> written, std::span<const int32_t> reference);

}  // namespace frugal::claims
