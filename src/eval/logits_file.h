// The log-probabilities of a base model at the scored positions, in a file, so that many models are compared with a base
// that ran once. Layout: magic, version, ctx, chunks, vocab, hash of the tokens, hash of the model, then float16 [chunk, scored, vocab].
// float16 keeps log-probabilities near 0, which carry the mass, to 1e-7 and those near -10 to 4e-3; the KL that a model
// has to itself through the file is measured in the test.
#pragma once

#include <memory>
#include <string>

#include "base/file.h"
#include "eval/perplexity.h"

namespace frugal::eval {

struct LogitsHeader {
  int64_t ctx = 0, chunks = 0, vocab = 0;
  std::string text_hash;        // EvalText::hash, at most 64 bytes
  std::string model_hash = {};  // of the base's weights, at most 64 bytes
};

// Pass write() as ScoreSink, then commit(). The file appears whole or not at all.
class LogitsWriter {
 public:
  LogitsWriter(const std::string& path, const LogitsHeader& header);
  void write(const at::Tensor& log_probabilities);
  void commit();

 private:
  AtomicFile file_;
};

// Throws Error{corrupt_file} when sizes do not fit the file.
class LogitsFile : public BaseScores {
 public:
  explicit LogitsFile(const std::string& path);
  int64_t chunks() const override { return header_.chunks; }
  int64_t vocab() const override { return header_.vocab; }
  at::Tensor log_probabilities(int64_t chunk) const override;
  const LogitsHeader& header() const { return header_; }

 private:
  LogitsHeader header_;
  std::shared_ptr<MappedFile> file_;
  uint64_t data_offset_ = 0;
};

}  // namespace frugal::eval
