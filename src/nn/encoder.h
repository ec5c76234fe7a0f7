// A text encoder (BERT, arXiv 1810.04805): every token sees the whole text, and a text becomes one vector, or a pair of texts one score.
// Inference only. A text's numbers do not depend on what else is in the batch: there is no padding, and packed all kernels compute each
// row or each text alike in any company.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "nn/linear.h"

namespace frugal::nn {

enum class Pooling { mean, cls, last };  // over all tokens, the first one, the last one
std::string_view to_string(Pooling pooling);

// How a checkpoint, an encoder's or a decoder's, makes one vector of a text.
struct EmbeddingSpec {
  Pooling pooling = Pooling::mean;
  bool normalize = true;                       // to length 1
  int64_t max_tokens = 0;                      // of a text
  bool matryoshka = false;                     // a vector may be cut (arXiv 2205.13147)
  std::vector<int64_t> matryoshka_dimensions;  // to these only; empty: to any
  bool sigmoid = true;                         // of a cross-encoder's score
};

enum class EncoderActivation { gelu, gelu_tanh, relu };

struct EncoderSpec {
  std::string family;
  int64_t vocab = 0, hidden = 0, heads = 0, intermediate = 0;
  int64_t positions = 0, token_types = 0;  // rows of their tables
  double norm_eps = 1e-12;
  EncoderActivation activation = EncoderActivation::gelu;
  bool scores_pairs = false;  // a pooler and a classifier of one label: a cross-encoder
};

struct LayerNorm {
  double eps = 1e-12;
  Tensor weight, bias;                    // [features] float32
  Tensor forward(const Tensor& x) const;  // [..., features]
};

struct EncoderBlock {
  Linear query, key, value, output, up, down;
  LayerNorm attention_norm, mlp_norm;  // after the sum with the residual
};

// A text, or a pair of which the second begins at token `second`.
struct EncoderText {
  std::span<const int32_t> tokens;
  int64_t second = -1;  // -1: no pair
};

// Rows of a batch that belong to one text.
struct RowRange {
  int64_t begin = 0, count = 0;
};

class Encoder {
 public:
  EncoderSpec spec;
  std::shared_ptr<LinearKind> words, positions, token_types;  // [rows, hidden]
  LayerNorm embedding_norm;
  std::vector<EncoderBlock> blocks;
  Linear pooler, classifier;                        // spec.scores_pairs
  std::vector<std::shared_ptr<const void>> owners;  // mapped files that weights point into

  // The texts' rows, one text after the other: [tokens, hidden]. Throws Error{invalid_input} for an empty text, one with more tokens than
  // positions, an id outside the vocabulary, and a pair where there are no token types for one.
  Tensor forward(std::span<const EncoderText> texts) const;
  // Of each text's first row: the classifier's output, before any sigmoid, [texts, 1].
  Tensor scores(const Tensor& hidden, std::span<const RowRange> texts) const;

  void set_execution(Execution execution);
  uint64_t parameters() const;

 private:
  Tensor embed(std::span<const EncoderText> texts) const;
  Tensor attend(const EncoderBlock& block, const Tensor& x, std::span<const RowRange> texts) const;
  Tensor run(std::span<const EncoderText> texts) const;
  Execution execution_ = Execution::stored;
};

// One vector for each text: [texts, features].
Tensor pool(const Tensor& hidden, std::span<const RowRange> texts, Pooling pooling);
Tensor normalized(const Tensor& vectors);  // rows of length 1; a row of zeros stays

}  // namespace frugal::nn
