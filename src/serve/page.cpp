// The web page at / and the ledger that it draws. The page is one file, web/dist/index.html.gz, made by vite from web/ (docs/serve.md).
#include <openssl/evp.h>
#include <zlib.h>

#include <algorithm>

#include "base/error.h"
#include "io/sha256.h"
#include "serve/service.h"

// The file's bytes, between two symbols.
asm(R"(
  .section .rodata
  .global frugal_web_page, frugal_web_page_end
  .hidden frugal_web_page, frugal_web_page_end
frugal_web_page:
  .incbin ")" FRUGAL_WEB_PAGE R"("
frugal_web_page_end:
  .byte 0
  .previous
)");
extern "C" const unsigned char frugal_web_page[], frugal_web_page_end[];

namespace frugal::serve {
namespace {

std::string inflated(std::string_view gzip) {
  z_stream stream = {};
  if (inflateInit2(&stream, 16 + MAX_WBITS) != Z_OK) throw std::bad_alloc();
  std::string out(size_t{1} << 20, '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(gzip.data()));
  stream.avail_in = static_cast<uInt>(gzip.size());
  int code = Z_OK;
  while (code == Z_OK || code == Z_BUF_ERROR) {
    if (stream.total_out == out.size()) out.resize(2 * out.size());
    stream.next_out = reinterpret_cast<Bytef*>(out.data() + stream.total_out);
    stream.avail_out = static_cast<uInt>(out.size() - stream.total_out);
    const uLong before = stream.total_out;
    code = inflate(&stream, Z_NO_FLUSH);
    if (code == Z_BUF_ERROR && stream.total_out == before) break;
  }
  out.resize(stream.total_out);
  inflateEnd(&stream);
  FRUGAL_ASSERT(code == Z_STREAM_END);
  return out;
}

// 'sha256-...' of what stands between the first such tags (vite.config.ts: the style, then the script, no other), as a Content-Security-Policy names an inline script or style.
std::string source_of(std::string_view html, std::string_view open, std::string_view close) {
  const size_t tag = html.find(open);
  FRUGAL_ASSERT(tag != html.npos);
  const size_t begin = html.find('>', tag) + 1, end = html.find(close, begin);
  FRUGAL_ASSERT(end != html.npos);
  const std::string hex = io::sha256_hex(std::as_bytes(std::span(html.substr(begin, end - begin))));
  std::string digest, base64(44, '\0');
  for (size_t i = 0; i < hex.size(); i += 2) {
    const auto digit = [](char c) { return c <= '9' ? c - '0' : c - 'a' + 10; };
    digest += static_cast<char>(digit(hex[i]) * 16 + digit(hex[i + 1]));
  }
  EVP_EncodeBlock(reinterpret_cast<unsigned char*>(base64.data()), reinterpret_cast<const unsigned char*>(digest.data()), static_cast<int>(digest.size()));
  return "'sha256-" + base64 + "'";
}

struct Page {
  std::string gzip, html;
  HttpHeaders headers;
};

const Page& page() {
  static const Page made = [] {
    Page page;
    page.gzip.assign(reinterpret_cast<const char*>(frugal_web_page), reinterpret_cast<const char*>(frugal_web_page_end));
    page.html = inflated(page.gzip);
    // Nothing but this file and this server; attributes hold the sizes of mathematics. No picture is loaded from anywhere.
    const std::string policy = fmt::format(
        "default-src 'none'; script-src {}; style-src-elem {}; style-src-attr 'unsafe-inline'; img-src data:; connect-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types dompurify",
        source_of(page.html, "<script", "</script>"), source_of(page.html, "<style", "</style>"));
    page.headers = {{"Content-Type", "text/html; charset=utf-8"},
                    {"Cache-Control", "no-cache"},
                    {"Vary", "Accept-Encoding"},
                    {"ETag", "W/\"" + io::sha256_hex(std::as_bytes(std::span(page.html))).substr(0, 32) + "\""},
                    {"Content-Security-Policy", policy},
                    {"Cross-Origin-Opener-Policy", "same-origin"},
                    {"Referrer-Policy", "no-referrer"},
                    {"X-Content-Type-Options", "nosniff"},
                    {"X-Frame-Options", "DENY"}};
    return page;
  }();
  return made;
}

// The parts of a header between commas, without white space.
std::vector<std::string> parts_of(const std::string* header) {
  std::vector<std::string> parts(1);
  for (const char c : header ? *header : "") {
    if (c == ',')
      parts.emplace_back();
    else if (c != ' ' && c != '\t')
      parts.back() += c;
  }
  return parts;
}

bool takes_gzip(const HttpRequest& request) {
  return std::ranges::any_of(parts_of(request.header("accept-encoding")), [](const std::string& part) {
    const std::string name = part.substr(0, part.find(';'));
    const size_t weight = part.find(";q=");
    return (name == "gzip" || name == "x-gzip") && (weight == part.npos || part.find_first_of("123456789", weight) != part.npos);
  });
}

void root(Call& call) {
  HttpHeaders headers = page().headers;
  const std::string etag = std::ranges::find(headers, "ETag", &std::pair<std::string, std::string>::first)->second;
  for (const std::string& known : parts_of(call.request.header("if-none-match"))) {
    if (known == "*" || known == etag || "W/" + known == etag) return call.response->send(304, headers, "");
  }
  const bool gzip = takes_gzip(call.request);
  if (gzip) headers.emplace_back("Content-Encoding", "gzip");
  call.response->send(200, headers, gzip ? page().gzip : page().html);
}

void ledger(Call& call) { send_json(*call.response, call.service.ledger()); }

}  // namespace

std::vector<Route> page_routes() { return {{"GET", "/", root}, {"GET", "/v1/ledger", ledger}}; }

}  // namespace frugal::serve
