// QA-LoRA (arXiv 2309.14717, section 3.3): LoRA beside grouped integers that reads the sum of each group's inputs, so that what it adds to a row is
// one number for each group, and merges into the zero points: the merged model is as quantized as before. The scale is as in peft, by the number
// of groups over the group size.
//
// Cost: LoRA's, with an A that is a group size smaller. Merged zero points are float32.
#include "tune/qa_lora.h"

#include "tune/adapter_sites.h"
#include "tune/target_modules.h"

namespace frugal::tune {
namespace {

// That of the weights, where it is the same everywhere.
int64_t group_size_of(nn::Model& model, const io::PeftConfig& config) {
  int64_t size = 0;
  for (const nn::Linear* linear : TargetModules(config, "qa-lora").find(model)) {
    const auto* grouped = dynamic_cast<const nn::GroupedKind*>(linear->kinds().front().get());
    if (!grouped) {
      fail(ErrorKind::unsupported, "qa-lora: {} is {}: it is for grouped integers, as compress --step rtn:bits=4,group=32 makes them; lora goes with any",
           linear->name(), linear->describe());
    }
    const int64_t own = grouped->weight()->group_size;
    if (size != 0 && own != size) fail(ErrorKind::unsupported, "qa-lora: {} has groups of {}, others of {}: give group", linear->name(), own, size);
    size = own;
  }
  return size;
}

std::unique_ptr<Adapter> run(nn::Model& model, const Options& options, const AttachContext& context) {
  io::PeftConfig config = lora_config(options);
  config.qalora_group_size = options.integer("group") > 0 ? options.integer("group") : group_size_of(model, config);
  return attach_new(model, config, "qa-lora", context.seed);
}

}  // namespace

AdapterRow qa_lora_row() {
  AdapterRow row;
  row.id = "qa-lora";
  row.title = "QA-LoRA";
  row.leaf = "tune";
  row.arxiv = "2309.14717";
  row.summary = "LoRA of pooled inputs, which merges into the zero points of grouped integers";
  row.options = lora_options();
  row.options.push_back(
      integer_option("group", 0, 0, io::kMaxAdapterRank, "inputs that are pooled (0: as many as share a scale); to be merged, a multiple of those"));
  row.function = run;
  row.reference = "that its merge computes the same is a test of src/tune";
  return row;
}

}  // namespace frugal::tune
