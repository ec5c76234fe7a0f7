#include "serve/key_limit.h"

#include <atomic>
#include <utility>

#include "serve/api.h"

namespace frugal::serve {

// The end of an answer counts before the client can see it: it may ask again at once.
class KeyLimit::Counted final : public HttpResponse {
 public:
  Counted(std::shared_ptr<HttpResponse> response, std::shared_ptr<Counts> counts, std::string key)
      : response_(std::move(response)), counts_(std::move(counts)), key_(std::move(key)) {}
  ~Counted() override { release(); }

  void send(int status, const HttpHeaders& headers, std::string body) override {
    release();
    response_->send(status, headers, std::move(body));
  }
  void start(int status, const HttpHeaders& headers) override { response_->start(status, headers); }
  bool write(std::string_view data) override { return response_->write(data); }
  void finish() override {
    release();
    response_->finish();
  }
  size_t waiting_bytes() const override { return response_->waiting_bytes(); }
  bool gone() const override { return response_->gone(); }
  void on_gone(std::function<void()> callback) override { response_->on_gone(std::move(callback)); }
  void on_room(std::function<void()> callback) override { response_->on_room(std::move(callback)); }

 private:
  void release() {
    if (released_.exchange(true)) return;
    const std::lock_guard lock(counts_->mutex);
    const auto found = counts_->by_key.find(key_);
    if (--found->second == 0) counts_->by_key.erase(found);
  }
  std::shared_ptr<HttpResponse> response_;
  std::shared_ptr<Counts> counts_;
  std::string key_;
  std::atomic<bool> released_{false};
};

std::shared_ptr<HttpResponse> KeyLimit::admit(const std::string& key, std::shared_ptr<HttpResponse> response) {
  if (most_ == 0) return response;
  {
    const std::lock_guard lock(under_way_->mutex);
    int64_t& count = under_way_->by_key[key];
    if (count >= most_) {
      throw ApiError(429, fmt::format("this API key has {} requests under way, {} are allowed (--max-requests-per-key)", count, most_), {},
                     "rate_limit_exceeded");
    }
    ++count;
  }
  return std::make_shared<Counted>(std::move(response), under_way_, key);
}

}  // namespace frugal::serve
