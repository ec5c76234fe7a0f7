// What prompt tuning and prefix tuning learn: virtual tokens before every sequence (nn::VirtualTokens), and no weights.
#pragma once

#include <memory>
#include <vector>

#include "io/peft.h"
#include "nn/model.h"
#include "train/parameter.h"

namespace frugal::tune {

class SoftPrompt {
 public:
  virtual ~SoftPrompt() = default;
  virtual void put(nn::Model& model) const = 0;
  static void take_out(nn::Model& model);
  virtual std::vector<train::Parameter> parameters() = 0;
  virtual at::Tensor embeddings() const = 0;  // [virtual tokens, numbers of one], as the file has them
};

// Of rows that the first block reads in place of embeddings.
std::unique_ptr<SoftPrompt> prompt_rows(at::Tensor rows);  // [virtual tokens, hidden]

// Of keys and values in each block, from a table [virtual tokens, prefix_width()]; or from the tables that `projection` makes of a narrow one.
struct PrefixProjection {
  at::Tensor first, first_bias, second, second_bias;  // [hidden, token_dim], [hidden], [prefix_width, hidden], [prefix_width]
};
std::unique_ptr<SoftPrompt> prefix_tables(at::Tensor table, std::optional<PrefixProjection> projection = {});

// Numbers of a virtual token: keys, then values of each block. Throws Error{unsupported} where blocks have none, or of different sizes.
int64_t prefix_width(const nn::Model& model, const std::string& source);

// Completes the configuration with what peft wants to know of the model. Throws Error{unsupported} when it has virtual tokens already,
// Error{invalid_input} when they would fill its context.
io::PeftConfig checked_soft_prompt(const nn::Model& model, io::PeftConfig config, const std::string& source);

}  // namespace frugal::tune
