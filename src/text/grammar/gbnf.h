// llama.cpp's GBNF.
#pragma once

#include <string_view>

#include "text/grammar/builder.h"

namespace frugal::text::grammar {

Program parse_gbnf(std::string_view text);

}  // namespace frugal::text::grammar
