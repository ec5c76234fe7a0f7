// Multiple-choice tasks: the answer is the choice that the model finds most likely as a continuation of the question.
// One JSON object a line: {"question" (or "query"): text, "choices": [texts], "answer" (or "gold"): index from 0}.
#pragma once

#include <cstdint>
#include <string>

#include "nn/loader.h"

namespace frugal::eval {

struct TaskResult {
  std::string name;  // file name without extension
  int64_t count = 0;
  double accuracy = 0;        // by the sum of the log-probabilities, as lm-eval's acc
  double accuracy_norm = 0;   // by the sum divided by the bytes of the choice, as lm-eval's acc_norm
  double standard_error = 0;  // of accuracy
};

// Throws Error{corrupt_file} with the line number, Error{invalid_input} for a question that is longer than the context.
TaskResult evaluate_task(const nn::LoadedModel& model, const std::string& path);

}  // namespace frugal::eval
