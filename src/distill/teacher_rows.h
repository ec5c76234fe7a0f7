// Black box: rows of data with the teacher's words in the place of their last answer.
#pragma once

#include <string>
#include <vector>

#include "data/dataset.h"
#include "nn/loader.h"
#include "train/continuation.h"

namespace frugal::distill {

struct TeacherRowsOptions {
  train::ContinuationOptions answers;  // longest: rows whose prompt has as many tokens are left out; end_ids are the teacher's own
  int64_t batch = 8;                   // rows that are answered at once
  const Clock* clock = nullptr;        // for templates that write the date
};

struct TeacherRowsReport {
  uint64_t rows = 0;      // written
  uint64_t cut = 0;       // of them with answers that max_new_tokens or longest ended
  uint64_t left_out = 0;  // questions that are too long
};

// Writes `path`, whole or not at all: JSON lines of chat rows, each the messages before the row's last answer and then what the teacher says, by its
// own template and tokenizer. Rows are conversations of any kind (data/row.h). Shows progress. Throws
// Error{invalid_input} for texts and preferences, which ask nothing, and for a row that cannot be read, with its file and line.
TeacherRowsReport write_teacher_rows(const nn::LoadedModel& teacher, const std::vector<data::Source>& sources, const TeacherRowsOptions& options,
                                     const std::string& path);

}  // namespace frugal::distill
