// Labels beside points, placed so that none covers another, a marker or an error bar.
#pragma once

#include <string>
#include <vector>

namespace frugal::eval {

struct Box {
  double left, top, right, bottom;
};

struct LabelRequest {
  double x, y;                     // of the marker
  double error_top, error_bottom;  // ends of its error bar; equal to y without one
  std::string text;                // clean, not escaped
  std::string fallback;            // shorter, for where the text has no room
  bool bold = false;
};

struct PlacedLabel {
  bool shown = false;  // false: neither text had room
  std::string text;
  double x = 0, y = 0;  // left end of the baseline
  Box box{};
  bool leader = false;  // far from its marker: draw a line from the marker to (leader_x, leader_y)
  double leader_x = 0, leader_y = 0;
};

// Width in pixels of a sans-serif text, estimated on the safe side.
double text_width(std::string_view text, double font_size);

// One label for each request, in order. A shown label overlaps no other shown one, no marker, no error bar and lies in
// `area`; what lies in `avoid` is covered only for want of a better place. Greedy by crowding, then improved one at a time; the
// same input gives the same output.
std::vector<PlacedLabel> place_labels(const std::vector<LabelRequest>& requests, const std::vector<Box>& avoid, const Box& area, double font_size);

}  // namespace frugal::eval
