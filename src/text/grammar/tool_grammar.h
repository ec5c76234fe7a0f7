// The grammar of answers that may, or must, call tools.
#pragma once

#include <memory>
#include <vector>

#include "text/grammar/grammar.h"
#include "text/tool_format.h"

namespace frugal::text {

struct ToolGrammarOptions {
  bool required = false;  // the answer is a call; else it is text, with or without calls behind it
  bool parallel = true;   // more than one, where the format has a place for them
  // What an answer that is no call must be; null: any text, which may also stand before calls. What begins as a call does is one, and must be
  // whatever this grammar says of it: the parser reads it so (AnswerParserOptions::calls_alone).
  const Grammar* answer = nullptr;
};

// Names are those of `tools`, arguments follow their schemas, without properties that a schema does not name unless it says
// additionalProperties. Where the answer need not be a call and a tool is not strict, a sound schema that cannot be enforced makes its arguments
// any JSON object, with a line in the log; else it is an Error that names the tool and the place (see Grammar for kinds).
std::shared_ptr<const Grammar> tool_grammar(const ToolFormat& format, const std::vector<Tool>& tools, const ToolGrammarOptions& options);

}  // namespace frugal::text
