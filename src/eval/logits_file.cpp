#include "eval/logits_file.h"

#include <ATen/ATen.h>

#include <cstring>

#include "base/bounded_reader.h"
#include "base/checked.h"

namespace frugal::eval {
namespace {

constexpr std::string_view kMagic = "frugal-logits-2\n";
constexpr uint64_t kHashBytes = 64;
constexpr uint64_t kHeaderBytes = 16 + 3 * 8 + 2 * kHashBytes;

int64_t scored_of(int64_t ctx) { return ctx - 1 - ctx / 2; }

}  // namespace

LogitsWriter::LogitsWriter(const std::string& path, const LogitsHeader& header) : file_(path) {
  FRUGAL_ASSERT(header.text_hash.size() <= kHashBytes && header.model_hash.size() <= kHashBytes && kMagic.size() == 16);
  file_.write(kMagic);
  for (const int64_t value : {header.ctx, header.chunks, header.vocab}) file_.write(std::as_bytes(std::span(&value, 1)));
  for (std::string hash : {header.text_hash, header.model_hash}) {
    hash.resize(kHashBytes, '\0');
    file_.write(hash);
  }
}

void LogitsWriter::write(const at::Tensor& log_probabilities) {
  const at::Tensor half = log_probabilities.to(at::kHalf).contiguous();
  file_.write({static_cast<const std::byte*>(half.const_data_ptr()), static_cast<size_t>(half.nbytes())});
}

void LogitsWriter::commit() { file_.commit(); }

LogitsFile::LogitsFile(const std::string& path) : file_(MappedFile::open(path)) {
  BoundedReader reader(file_->bytes(), path);
  if (reader.take_text(kMagic.size(), "magic") != kMagic) fail(ErrorKind::corrupt_file, "{}: not a file of base logits", path);
  header_.ctx = reader.read<int64_t>("ctx");
  header_.chunks = reader.read<int64_t>("chunks");
  header_.vocab = reader.read<int64_t>("vocab");
  if (header_.ctx < 8 || header_.chunks < 1 || header_.vocab < 1) {
    fail(ErrorKind::corrupt_file, "{}: ctx {}, chunks {}, vocab {} make no sense", path, header_.ctx, header_.chunks, header_.vocab);
  }
  for (std::string* field : {&header_.text_hash, &header_.model_hash}) {
    const std::string_view hash = reader.take_text(kHashBytes, "hash");
    *field = hash.substr(0, hash.find('\0'));
  }
  data_offset_ = kHeaderBytes;
  const int64_t shape[] = {header_.chunks, scored_of(header_.ctx), header_.vocab, 2};
  const uint64_t wanted = checked_product(shape, path);
  if (wanted != reader.remaining()) {
    fail(ErrorKind::corrupt_file, "{}: {} bytes of logits, the header asks for {}", path, reader.remaining(), wanted);
  }
}

at::Tensor LogitsFile::log_probabilities(int64_t chunk) const {
  FRUGAL_ASSERT(chunk >= 0 && chunk < header_.chunks);
  const int64_t scored = scored_of(header_.ctx);
  const uint64_t bytes = static_cast<uint64_t>(scored * header_.vocab) * 2;
  at::Tensor half = at::empty({scored, header_.vocab}, at::kHalf);
  std::memcpy(half.mutable_data_ptr(), file_->bytes().data() + data_offset_ + static_cast<uint64_t>(chunk) * bytes, bytes);
  const at::Tensor values = half.to(at::kFloat);
  // NaN fails every comparison; halves of log-probabilities add up to 1 within their rounding.
  const at::Tensor total = at::logsumexp(values, -1);
  if (!at::all(values <= 0.001).item<bool>() || !at::all(total.abs() < 0.05).item<bool>()) {
    fail(ErrorKind::corrupt_file, "{}: chunk {} does not hold log-probabilities", file_->path(), chunk);
  }
  return values;
}

}  // namespace frugal::eval
