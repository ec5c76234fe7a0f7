// Sums gradients over ranks while backward still computes others: PyTorch DDP (Li et al., 2020, arXiv 2006.15704, section 3.2: buckets in the
// reverse order of the parameters, each reduced as soon as its last gradient is there). To the rank that owns a parameter alone for ZeRO (Rajbhandari
// et al., 2019, arXiv 1910.02054, section 5.2), whose other ranks then hold no gradient of it.
//
// Where it differs: which gradient of a parameter is its last in a backward pass is learned from the pass before (a recomputed block or a tied weight
// may bring several), and taken to be the first in the first one; what comes later all the same is summed in a second round.
#pragma once

#include <memory>
#include <vector>

#include "dist/process_group.h"
#include "train/gradient_hooks.h"
#include "train/parameter.h"

namespace frugal::train {

class GradientReducer {
 public:
  // owners: for each parameter the rank that gets the sum; empty: all get it. One reducer at a time for a parameter.
  GradientReducer(dist::ProcessGroup& group, const std::vector<Parameter>& parameters, std::vector<int> owners, int64_t bucket_bytes = 25 << 20);
  ~GradientReducer();
  GradientReducer(const GradientReducer&) = delete;
  GradientReducer& operator=(const GradientReducer&) = delete;

  // Between begin() and end() this rank computes at most one micro-batch's backward (objective.h). All ranks call both.
  void begin();
  // Waits for the sums of what is in .grad, which it takes away.
  void end();
  // Puts the sums of all ends since the last call into .grad, where this rank gets them; a parameter that had no gradient on any rank has none.
  void put_gradients();

 private:
  struct Bucket;
  void gradient_is_there(size_t parameter);
  void find_gradients_of_forward(size_t first);
  void launch_ready();
  void launch(Bucket& bucket);
  void complete(Bucket& bucket);
  void add(Bucket& bucket, const at::Tensor& sums, const at::Tensor& contributions);
  bool is_mine(const Bucket& bucket) const;

  dist::ProcessGroup& group_;
  const std::vector<Parameter>& parameters_;
  std::vector<Bucket> buckets_;
  std::vector<size_t> bucket_of_;
  std::vector<int> expected_, count_;          // gradients of each parameter in a backward pass: the last one (-1: none was), this one
  std::vector<char> had_gradient_;             // at begin()
  std::vector<float> contributed_;             // since begin(): whether this rank has a gradient of it
  std::vector<at::Tensor> sums_;               // since put_gradients()
  size_t next_ = 0;                            // the first bucket that is not launched
  bool is_armed_ = false, has_begun_ = false;  // begun: a gradient came since begin()
  GradientHooks hooks_;
};

}  // namespace frugal::train
