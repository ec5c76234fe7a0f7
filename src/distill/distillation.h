// A student learns to say what its teachers say: the objective of the white-box methods, which compare distributions at the head.
#pragma once

#include <optional>

#include "distill/distill_table.h"
#include "distill/replay.h"
#include "train/divergence.h"
#include "train/language_modeling.h"

namespace frugal::distill {

// The teachers' models are only read, and read tokens as the student's tokenizer gives them: whoever makes this has compared the tokenizers. Of
// several teachers the mean of the logits counts; of vocabularies of different sizes (padding) what both have.
class Distillation : public train::LanguageModeling {
 public:
  // All but the options are referred to; held_out may be null, but for adaptive methods (Error{invalid_input}). end_ids: what ends an answer that the student writes; longest: tokens of such a row.
  Distillation(const nn::Model& student, std::vector<std::shared_ptr<const nn::Model>> teachers, const data::Dataset& dataset, const data::Dataset* held_out,
               train::LanguageModelingOptions options, DistillationOptions method, std::vector<int32_t> end_ids);

  // The method and the teachers are no part of fingerprint(): whoever makes this names them.
  // A micro-batch that the student writes itself counts as much as the rows of data that it began with.
  double accumulate(const train::MicroBatch& batch, double scale, uint64_t seed) override;
  double loss(const train::MicroBatch& batch, uint64_t seed) override;
  void accumulate_drawn(const train::MicroBatch& batch, double scale, uint64_t seed) override;
  train::StepHook* step_hook() override { return replay_ ? &*replay_ : nullptr; }
  Json metrics() override;  // distillation/divergence, distillation/cross_entropy, distillation/on_policy: means over targets

 private:
  std::vector<WrittenRow> written_by_student(const train::MicroBatch& batch, uint64_t seed) const;
  // What the student learns from in place of the data's rows, if it does: its own, of now or of before.
  std::optional<std::vector<WrittenRow>> own_rows(const train::MicroBatch& batch, Rng& rng);
  double backward(const train::TokenBatch& tokens, double scale, bool own);
  double labels(const train::MicroBatch& batch, double scale);
  at::Tensor teacher_logits(const std::vector<at::Tensor>& hidden, const at::Tensor& rows) const;

  std::vector<std::shared_ptr<const nn::Model>> teachers_;
  DistillationOptions method_;
  std::vector<int32_t> end_ids_;
  std::optional<AdaptiveReplay> replay_;  // of adaptive methods
  double divergence_ = 0, cross_entropy_ = 0, own_ = 0, targets_ = 0;
};

}  // namespace frugal::distill
