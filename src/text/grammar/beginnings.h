// The texts of one grammar that do not begin with a text of another.
#pragma once

#include "text/grammar/builder.h"

namespace frugal::text::grammar {

// Nodes for the texts of `program` of which no beginning is a text of `beginnings`; maybe none at all. What both have in common is followed
// byte by byte, so `beginnings` should be short texts: too many ways to be at one place are an Error{invalid_input}.
NodeId texts_without_beginnings(Builder& builder, const Program& program, const Program& beginnings);

}  // namespace frugal::text::grammar
