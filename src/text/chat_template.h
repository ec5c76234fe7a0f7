// Chat templates: a Jinja interpreter of our own over plain values, byte-equal to Python jinja2's
// ImmutableSandboxedEnvironment(trim_blocks, lstrip_blocks, loopcontrols) with the globals of transformers
// (raise_exception, strftime_now, namespace, range, dict, tojson, the generation tag).
//
// Rendering gives segments, not one string: text that came from the request is marked `from_data`, so that a user who
// types "<|im_end|>" gets plain tokens. How to tokenize: look for special tokens only where the whole token lies in
// template text (not from_data), and tokenize what lies between two special tokens as one piece, because merges cross
// the borders of segments.
//
// Left out on purpose: include, import, extends, block, autoescape, the `random`, `pprint`, `urlize`, `wordwrap`, `xmlattr` filters,
// lipsum, cycler, joiner, Markup (`safe` and `escape` give plain strings), integers above 127 bits. One known difference:
// a variable of the caller that is read only in inner blocks before a top-level set of the same name is undefined in
// jinja2 and the caller's here.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/json.h"

namespace frugal::text {

struct RenderedSegment {
  std::string text;         // UTF-8, not empty
  bool from_data = false;   // came from messages, tools, documents or extra: must never become special tokens
  bool generation = false;  // inside {% generation %}: what an assistant says, the part that training learns
};

// Concatenation of all segments: byte-equal to what jinja2 renders.
std::string joined(const std::vector<RenderedSegment>& segments);

// What a template may spend; beyond it render() throws Error{invalid_input}. One step is one node evaluated, one
// element copied or compared, or 4 KiB of text copied.
struct TemplateLimits {
  size_t max_steps = 1'000'000;
  size_t max_output_bytes = size_t{4} << 20;  // of the result and of every single string on the way
  size_t max_live_bytes = size_t{64} << 20;   // of all values that the template made, beyond its inputs
  double max_seconds = 5;                     // processor time; templates in use take milliseconds
};

struct RenderOptions {
  Json tools;      // array of JSON schemas, or null
  Json documents;  // array of {title, text}, or null
  bool add_generation_prompt = false;
  std::string bos_token;  // empty: undefined in the template
  std::string eos_token;
  Json special_tokens;           // object name -> text of others that the template may name (unk_token ...), or null
  Json extra;                    // object: chat_template_kwargs such as enable_thinking, or null
  const Clock* clock = nullptr;  // for strftime_now, local time; nullptr: the system clock
  TemplateLimits limits;
};

namespace jinja {
struct TemplateProgram;  // the parsed template (template_ast.h)
}

// A parsed template: immutable, cheap to copy, thread-safe.
class ChatTemplate {
 public:
  // `name` (a file or metadata key) leads the messages. Throws Error{invalid_input} with the line for a syntax error,
  // an unknown filter or test, nesting beyond 64; Error{unsupported} for the statements left out above.
  ChatTemplate(std::string_view source, std::string name);

  // messages: array of objects. A role that is one plain word ([a-z_]+) counts as template text, because templates
  // build special tokens from it ('<|' + role + '|>'). Throws Error{invalid_input} for raise_exception(), a broken
  // limit, or whatever jinja2 refuses.
  std::vector<RenderedSegment> render(const Json& messages, const RenderOptions& options) const;

  // True when the template reads a variable of this name before it sets one itself ("tools", "enable_thinking").
  bool reads(std::string_view variable) const;

  const std::string& source() const;
  const std::string& name() const;

 private:
  std::shared_ptr<const jinja::TemplateProgram> program_;
};

// Messages as transformers hands them to a template: fields that are null are dropped, and the reasoning is found
// under each of its names (reasoning_content, thinking). Throws Error{invalid_input} if not an array of objects.
Json normalized_messages(const Json& messages);

}  // namespace frugal::text
