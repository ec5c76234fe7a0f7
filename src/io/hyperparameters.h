// The numbers of a model that every family reads, range-checked once when a checkpoint opens: no reader after it meets a
// zero divisor, a negative size or a count that the file does not back. What a family demands beyond that (which keys must
// be there) is for models/.
#pragma once

namespace frugal::io {

struct Checkpoint;

// Checks the keys that are present. Throws Error{corrupt_file} with key or JSON path.
void check_hyperparameters(const Checkpoint& checkpoint);

}  // namespace frugal::io
