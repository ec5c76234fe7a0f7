// The patterns are those of the models' own tokenizer.json, gathered there and in llama.cpp's list of names. Where
// llama.cpp adapted one to its engine (Tekken, GPT-4o), the model's own form is used: it is what the model was trained
// with.
#include "text/split_table.h"

#include <algorithm>
#include <string>

#include "base/error.h"

namespace frugal::text {

constexpr std::string_view kGpt2 = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
const std::string_view kGpt2Pattern = kGpt2;

namespace {

constexpr std::string_view kLlama3 = R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kQwen2 = R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kQwen35 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kTekken =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kGpt4o =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kBailing = R"('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+)";
constexpr std::string_view kSeedCoder = R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kDeepSeekCjk = R"([一-龥぀-ゟ゠-ヿ]+)";
constexpr std::string_view kDeepSeek3 =
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kDeepSeekLetters =
    R"(\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+)";
constexpr std::string_view kDeepSeekHan = R"([一-龥ࠀ-一가-퟿]+)";

const std::vector<SplitRow>& rows() {
  static const std::vector<SplitRow> table = {
      {.names = {"gpt-2", "phi-2", "jina-es", "jina-de", "jina-v2-es", "jina-v2-de", "jina-v1-en", "jina-v2-code", "roberta-bpe", "gigachat", "a.x-4.0",
                 "mellum", "modern-bert", "exaone4", "mpt", "olmo", "jais", "trillion", "granite-docling"},
       .patterns = {kGpt2}},
      {.names = {"llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "jina-v5-nano"},
       .patterns = {kLlama3},
       .ignore_merges = true,
       .add_bos = true},
      {.names = {"dbrx", "smaug-bpe", "chatglm-bpe", "glm4", "glm5"}, .patterns = {kLlama3}},
      {.names = {"qwen2", "deepseek-r1-qwen", "megrez", "stablelm2", "hunyuan", "solar-open", "grok-2", "kormo", "f2llmv2"}, .patterns = {kQwen2}},
      {.names = {"qwen35"}, .patterns = {kQwen35}},
      {.names = {"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2"}, .patterns = {R"(\p{N})", kGpt2}},
      {.names = {"falcon"}, .patterns = {R"([\p{P}\$\+<=>\^~\|`]+)", kGpt2, "[0-9][0-9][0-9]"}},
      {.names = {"default"}, .patterns = {R"([\p{P}\$\+<=>\^~\|]+)", kGpt2, R"(\p{N}+)", "[0-9][0-9][0-9]"}},
      {.names = {"deepseek-llm"}, .patterns = {R"([\r\n])", kDeepSeekLetters, R"(\s?[!-/:-~！-／：-～‘-‟　-。]+)", R"(\s+$)", kDeepSeekHan, R"(\p{N}+)"}},
      {.names = {"deepseek-coder"}, .patterns = {R"([\r\n])", R"(\s?\p{L}+)", R"(\s?\p{P}+)", kDeepSeekHan, R"(\p{N})"}},
      {.names = {"deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"}, .patterns = {R"(\p{N}{1,3})", kDeepSeekCjk, kDeepSeek3}},
      {.names = {"tekken"}, .patterns = {kTekken}, .ignore_merges = true, .add_bos = true},
      {.names = {"gpt-4o", "llama4", "kanana2", "minimax-m2", "talkie"}, .patterns = {kGpt4o}},
      {.names = {"tiny_aya", "cohere2moe"}, .patterns = {R"(\d{1,3}(?=(?:\d{3})*\b))", kGpt4o}},
      {.names = {"bloom", "poro-chat", "gpt3-finnish"}, .patterns = {R"( ?[^(\s|.,!?…。，、।۔،)]+)"}},
      {.names = {"viking"}, .patterns = {R"( ?[^(\s|.,!?…。，、।۔،)]+)", R"(\p{N})"}},
      {.names = {"bailingmoe", "bailingmoe2", "llada-moe"}, .patterns = {kBailing}},
      {.names = {"seed-coder"}, .patterns = {kSeedCoder}},
      {.names = {"gemma4"}, .patterns = {R"([^\n]+|[\n]+)"}, .add_bos = true, .byte_level = false},
  };
  return table;
}

bool in_table(std::string_view regex) {
  for (const SplitRow& row : rows()) {
    if (std::find(row.patterns.begin(), row.patterns.end(), regex) != row.patterns.end()) return true;
  }
  return false;
}

Json split_json(std::string_view regex) {
  return {{"type", "Split"}, {"pattern", {{"Regex", std::string(regex)}}}, {"behavior", "Isolated"}, {"invert", false}};
}

Json byte_level_json(bool use_regex) { return {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", use_regex}}; }

// The isolating patterns that a "pre_tokenizer" stands for; false if it holds anything else.
bool collect_patterns(const Json& step, std::vector<std::string>& patterns, bool& byte_level) {
  if (!step.is_object() || !step.contains("type") || !step["type"].is_string()) return false;
  const auto type = step["type"].get<std::string>();
  const auto flag = [&](const char* key, bool fallback) { return step.contains(key) && step[key].is_boolean() ? step[key].get<bool>() : fallback; };
  if (type == "Sequence") {
    if (!step.contains("pretokenizers") || !step["pretokenizers"].is_array()) return false;
    for (const Json& inner : step["pretokenizers"]) {
      if (inner.is_object() && inner.value("type", "") == "Sequence") return false;
      if (!collect_patterns(inner, patterns, byte_level)) return false;
    }
    return true;
  }
  if (byte_level && type != "ByteLevel" && type != "Digits" && type != "Split") return false;
  if (type == "ByteLevel") {
    if (flag("add_prefix_space", true)) return false;
    byte_level = true;
    if (flag("use_regex", true)) patterns.emplace_back(kGpt2);
    return true;
  }
  if (type == "Digits") {
    patterns.emplace_back(flag("individual_digits", false) ? R"(\p{N})" : R"(\p{N}+)");
    return true;
  }
  if (type == "Punctuation") {  // only Falcon's, whose contiguous runs GGUF writes as a pattern
    if (step.value("behavior", "") != "Contiguous") return false;
    patterns.emplace_back(R"([\p{P}\$\+<=>\^~\|`]+)");
    return true;
  }
  if (type != "Split" || flag("invert", false)) return false;
  const auto behavior = step.value("behavior", "");
  if (behavior != "Isolated") return false;
  if (!step.contains("pattern") || !step["pattern"].is_object() || !step["pattern"].contains("Regex")) return false;
  if (!step["pattern"]["Regex"].is_string()) return false;
  patterns.push_back(step["pattern"]["Regex"].get<std::string>());
  return true;
}

}  // namespace

std::span<const SplitRow> split_table() { return rows(); }

const SplitRow& find_split(std::string_view name, std::string_view source) {
  std::string known;
  for (const SplitRow& row : rows()) {
    for (const std::string_view candidate : row.names) {
      if (candidate == name) return row;
      known += known.empty() ? "" : ", ";
      known += candidate;
    }
  }
  fail(ErrorKind::unsupported, "{}: tokenizer.ggml.pre \"{}\" is not known, and another pre-tokenizer would give wrong ids. Known are: {}", source,
       printable(name), known);
}

std::unique_ptr<const SplitStep> split_by_regex(std::string_view regex, SplitBehavior behavior, bool invert, std::string_view name) {
  if (behavior == SplitBehavior::isolated && !invert) {
    if (auto step = split_by_known_slow_pattern(regex)) return step;
  }
  return split_by_pattern(std::make_shared<Pattern>(regex, name, in_table(regex)), behavior, invert);
}

PreTokenizer make_pre_tokenizer(const SplitRow& row) {
  PreTokenizer result;
  for (const std::string_view pattern : row.patterns) {
    result.steps.push_back(split_by_regex(pattern, SplitBehavior::isolated, false, row.names.front()));
  }
  result.byte_level = row.byte_level;
  return result;
}

Json pre_tokenizer_json(const SplitRow& row) {
  Json steps = Json::array();
  for (const std::string_view pattern : row.patterns) steps.push_back(split_json(pattern));
  if (row.byte_level) steps.push_back(byte_level_json(false));
  return {{"type", "Sequence"}, {"pretokenizers", std::move(steps)}};
}

const SplitRow* row_of_pre_tokenizer(const Json& pre_tokenizer, bool ignore_merges) {
  std::vector<std::string> patterns;
  bool byte_level = false;
  if (!collect_patterns(pre_tokenizer, patterns, byte_level) || !byte_level) return nullptr;
  const SplitRow* found = nullptr;
  for (const SplitRow& row : rows()) {
    if (!row.byte_level || !std::equal(row.patterns.begin(), row.patterns.end(), patterns.begin(), patterns.end())) continue;
    if (!found || row.ignore_merges == ignore_merges) found = &row;
  }
  return found;
}

}  // namespace frugal::text
