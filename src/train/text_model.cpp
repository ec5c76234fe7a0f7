#include "train/text_model.h"

#include "base/error.h"

namespace frugal::train {
namespace {

// Templates that write the date get the one that Llama 3's falls back to.
class SteadyClock final : public Clock {
 public:
  double seconds() const override { return system_clock().seconds(); }
  int64_t unix_time() const override { return 1'721'995'200; }  // 2024-07-26T12:00:00Z
};

}  // namespace

const Clock& training_clock() {
  static const SteadyClock clock;
  return clock;
}

data::TextModel text_model_of(const nn::LoadedModel& model) {
  if (!model.tokenizer) fail(ErrorKind::invalid_input, "{}: the checkpoint has no tokenizer", model.name);
  data::TextModel text;
  text.tokenizer = model.tokenizer.get();
  text.chat_template = model.chat_template.get();
  text.chat_template_problem = model.chat_template_problem;
  text.bos_text = model.bos_text;
  text.eos_text = model.eos_text;
  text.clock = &training_clock();
  return text;
}

}  // namespace frugal::train
