// A program that loads libtorch, makes a tensor and ends.
#include <ATen/ATen.h>

int main() { return at::ones({4}).sum().item<float>() == 4 ? 0 : 1; }
