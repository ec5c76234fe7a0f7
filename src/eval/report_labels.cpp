#include "eval/report_labels.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <tuple>

namespace frugal::eval {
namespace {

constexpr double kMarker = 8;       // half the side of the square that a marker needs
constexpr double kLeaderFrom = 16;  // from this distance on a line joins label and marker
constexpr double kAmbiguous = 30;   // for each other marker that is as near to the label as its own
constexpr double kCrossing = 0.2;   // per pixel of what should be avoided
constexpr double kForbidden = 1e6;  // per pixel of overlap: any overlap is worse than any distance

struct Candidate {
  Box box;
  double distance;
  double cost;  // of the position alone
};

double overlap(const Box& a, const Box& b) {
  const double width = std::min(a.right, b.right) - std::max(a.left, b.left);
  const double height = std::min(a.bottom, b.bottom) - std::max(a.top, b.top);
  return width > 0 && height > 0 ? width * height : 0;
}

Box marker_box(const LabelRequest& request) { return {request.x - kMarker, request.y - kMarker, request.x + kMarker, request.y + kMarker}; }
Box error_box(const LabelRequest& request) {
  return {request.x - 3, std::min(request.error_top, request.y), request.x + 3, std::max(request.error_bottom, request.y)};
}

// Where the line from a marker meets its label: the nearest point of the box.
std::pair<double, double> nearest(const Box& box, double x, double y) { return {std::clamp(x, box.left, box.right), std::clamp(y, box.top, box.bottom)}; }

// Length of the segment inside a box, by sampling: the picture needs no better.
double length_inside(const Box& box, double x0, double y0, double x1, double y1) {
  constexpr int kSamples = 24;
  int inside = 0;
  for (int i = 1; i < kSamples; ++i) {
    const double t = static_cast<double>(i) / kSamples;
    const double x = x0 + t * (x1 - x0), y = y0 + t * (y1 - y0);
    inside += x > box.left && x < box.right && y > box.top && y < box.bottom;
  }
  return std::hypot(x1 - x0, y1 - y0) * inside / kSamples;
}

// What all labels of a plot share.
struct Scene {
  const std::vector<LabelRequest>& requests;
  const std::vector<Box>& avoid;
  Box area;
  double font_size;
};

// Positions around the marker: right and left first, then above and below, then ever farther out.
std::vector<Candidate> candidates_for(size_t self, const Scene& scene, double width) {
  const auto& [requests, avoid, area, font_size] = scene;
  const LabelRequest& request = requests[self];
  const double height = font_size * 1.15;
  std::vector<Candidate> candidates;
  for (const double distance : {10.0, 15.0, 22.0, 32.0, 44.0, 60.0, 80.0, 105.0, 135.0}) {
    constexpr int kDirections = 16;
    for (int i = 0; i < kDirections; ++i) {
      const double angle = 2 * M_PI * i / kDirections;
      const double dx = std::cos(angle), dy = std::sin(angle);
      // The box touches the point at `distance` with the side that faces the marker.
      const double cx = request.x + dx * distance + (std::abs(dx) < 1e-9 ? 0 : dx * width / 2 / std::max(std::abs(dx), 0.35));
      const double cy = request.y + dy * distance + dy * height / 2;
      const Box box{cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2};
      const double outside = width * height - overlap(box, area);
      double cost = distance * 0.6 + (dx > 0.9 ? 0 : dx < -0.9 ? 2 : 5 + 3 * std::abs(dy)) + (outside > 0.5 ? kForbidden * outside : 0);
      for (const Box& obstacle : avoid) cost += kCrossing * overlap(box, obstacle);
      const auto [near_x, near_y] = nearest(box, request.x, request.y);
      const double own = std::hypot(near_x - request.x, near_y - request.y);
      for (size_t j = 0; j < requests.size(); ++j) {
        const auto [other_x, other_y] = nearest(box, requests[j].x, requests[j].y);
        if (j != self && std::hypot(other_x - requests[j].x, other_y - requests[j].y) < own + 3) cost += kAmbiguous;
        cost += kForbidden * (overlap(box, marker_box(requests[j])) + overlap(box, error_box(requests[j])));
        if (j != self && distance >= kLeaderFrom) cost += 30 * length_inside(marker_box(requests[j]), request.x, request.y, near_x, near_y);
      }
      candidates.push_back({box, distance, cost});
    }
  }
  return candidates;
}

// Cost of two labels together: their overlap, and each one's line under the other's text.
double joint_cost(const LabelRequest& a, const Candidate& at_a, const LabelRequest& b, const Candidate& at_b) {
  double cost = kForbidden * overlap(at_a.box, at_b.box);
  const auto line_cost = [](const LabelRequest& from, const Candidate& at, const Box& box) {
    if (at.distance < kLeaderFrom) return 0.0;
    const auto [x, y] = nearest(at.box, from.x, from.y);
    return 30 * length_inside(box, from.x, from.y, x, y);
  };
  return cost + line_cost(a, at_a, at_b.box) + line_cost(b, at_b, at_a.box);
}

class Placement {
 public:
  explicit Placement(const Scene& scene) : scene_(scene), requests_(scene.requests), size_(scene.font_size) {
    chosen_.assign(requests_.size(), -1);
    for (const LabelRequest& request : requests_) texts_.push_back(request.text);
    for (size_t i = 0; i < requests_.size(); ++i) options_.push_back(options_of(i));
  }

  void solve() {
    std::vector<size_t> order(requests_.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return crowding(a) > crowding(b); });
    constexpr int kSweeps = 12;
    for (int sweep = 0; sweep < kSweeps; ++sweep) {
      bool moved = false;
      for (const size_t i : order) moved = choose(i) || moved;
      if (!moved) break;
    }
  }

  // Shortens, then drops, the labels that still cover something.
  void give_up_on_overlaps() {
    for (size_t i = 0; i < requests_.size(); ++i) {
      if (total_cost(i, chosen_[i]) < kForbidden) continue;
      texts_[i] = requests_[i].fallback;
      options_[i] = options_of(i);
      chosen_[i] = -1;
      choose(i);
      if (total_cost(i, chosen_[i]) >= kForbidden) chosen_[i] = -1;
    }
  }

  PlacedLabel result(size_t i) const {
    PlacedLabel label;
    if (chosen_[i] < 0) return label;
    const Candidate& at = options_[i][static_cast<size_t>(chosen_[i])];
    label.shown = true;
    label.text = texts_[i];
    label.box = at.box;
    label.x = at.box.left + 1;
    label.y = at.box.bottom - 0.28 * size_;
    label.leader = at.distance >= kLeaderFrom;
    std::tie(label.leader_x, label.leader_y) = nearest(at.box, requests_[i].x, requests_[i].y);
    return label;
  }

 private:
  std::vector<Candidate> options_of(size_t i) const { return candidates_for(i, scene_, text_width(texts_[i], size_) * (requests_[i].bold ? 1.1 : 1) + 4); }
  double crowding(size_t i) const {
    double sum = 0;
    for (const LabelRequest& other : requests_) sum += 1 / (400 + std::pow(other.x - requests_[i].x, 2) / 4 + std::pow(other.y - requests_[i].y, 2));
    return sum;
  }
  double total_cost(size_t i, int choice) const {
    if (choice < 0) return std::numeric_limits<double>::infinity();
    const Candidate& at = options_[i][static_cast<size_t>(choice)];
    double cost = at.cost;
    for (size_t j = 0; j < requests_.size(); ++j) {
      if (j != i && chosen_[j] >= 0) cost += joint_cost(requests_[i], at, requests_[j], options_[j][static_cast<size_t>(chosen_[j])]);
    }
    return cost;
  }
  bool choose(size_t i) {
    int best = chosen_[i];
    double best_cost = total_cost(i, best);
    for (int choice = 0; choice < static_cast<int>(options_[i].size()); ++choice) {
      if (options_[i][static_cast<size_t>(choice)].cost >= best_cost) continue;
      const double cost = total_cost(i, choice);
      if (cost < best_cost) {
        best = choice;
        best_cost = cost;
      }
    }
    const bool moved = best != chosen_[i];
    chosen_[i] = best;
    return moved;
  }

  const Scene& scene_;
  const std::vector<LabelRequest>& requests_;
  double size_;
  std::vector<std::string> texts_;
  std::vector<std::vector<Candidate>> options_;
  std::vector<int> chosen_;
};

}  // namespace

double text_width(std::string_view text, double font_size) {
  double ems = 0;
  for (const char c : text) {
    if ((static_cast<unsigned char>(c) & 0xC0) == 0x80) continue;  // counted with the first byte of its character
    ems += std::string_view("ijl.,:;|!'()[]/ tf-").find(c) != std::string_view::npos ? 0.38
           : std::string_view("mwMW%@+\xC3").find(c) != std::string_view::npos       ? 0.95
                                                                                     : 0.62;
  }
  return ems * font_size;
}

std::vector<PlacedLabel> place_labels(const std::vector<LabelRequest>& requests, const std::vector<Box>& avoid, const Box& area, double font_size) {
  // More labels than this cannot be read, and finding places for them takes cubic time: only points of the front get one.
  constexpr size_t kMostLabels = 60;
  std::vector<size_t> labelled;
  std::vector<Box> obstacles = avoid;
  for (size_t i = 0; i < requests.size(); ++i) {
    if (requests.size() <= kMostLabels || (requests[i].bold && labelled.size() < kMostLabels)) {
      labelled.push_back(i);
    } else {
      obstacles.push_back(marker_box(requests[i]));
    }
  }
  std::vector<LabelRequest> wanted;
  for (const size_t i : labelled) wanted.push_back(requests[i]);
  const Scene scene{wanted, obstacles, area, font_size};
  Placement placement(scene);
  placement.solve();
  placement.give_up_on_overlaps();
  std::vector<PlacedLabel> labels(requests.size());
  for (size_t i = 0; i < labelled.size(); ++i) labels[labelled[i]] = placement.result(i);
  return labels;
}

}  // namespace frugal::eval
