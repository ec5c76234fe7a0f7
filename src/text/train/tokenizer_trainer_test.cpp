// Trained tokenizers: equal to those of `tokenizers` on the same files, and read back by our own loader.
#include "text/train/tokenizer_trainer.h"

#include <cmath>
#include <map>

#include "base/progress.h"
#include "base/team.h"
#include "text/tokenizer_test_support.h"
#include "text/unicode.h"

namespace frugal::text {
namespace {

// A case of the oracle and the same for ours. `more` are arguments of `tokenizers`' trainer.
struct Case {
  std::string name;
  std::vector<std::string> files;
  TokenizerTrainerOptions options;
  Json more = Json::object();
};

std::string pattern_of(const Case& item) { return item.options.pattern == "gpt-2" ? "gpt2" : item.options.pattern; }

// What both trained; the oracle's file lies beside ours.
class Trained {
 public:
  explicit Trained(const std::vector<Case>& cases) {
    Json list = Json::array();
    for (const Case& item : cases) {
      const auto& options = item.options;
      Json entry = {{"out", scratch_ / (item.name + ".json")},
                    {"type", options.type == TrainerType::bpe ? "bpe" : "unigram"},
                    {"files", item.files},
                    {"pattern", pattern_of(item)},
                    {"normalization", options.normalization == Normalization::nfc    ? "nfc"
                                      : options.normalization == Normalization::nfkc ? "nfkc"
                                                                                     : "none"},
                    {"byte_fallback", options.byte_fallback},
                    {"vocab_size", options.vocab_size},
                    {"special_tokens", options.special_tokens}};
      entry.update(item.more);
      list.push_back(entry);
    }
    run_oracle("make_trained_tokenizers.py", scratch_.write("cases.json", list.dump()));
    for (const Case& item : cases) {
      ours_[item.name] = train_tokenizer(item.files, item.options);
      theirs_[item.name] = read_json(scratch_ / (item.name + ".json"));
    }
  }
  const TrainedTokenizer& ours(const std::string& name) const { return ours_.at(name); }
  const Json& theirs(const std::string& name) const { return theirs_.at(name); }

 private:
  TemporaryFolder scratch_;
  std::map<std::string, TrainedTokenizer> ours_;
  std::map<std::string, Json> theirs_;
};

std::map<std::string, int64_t> vocabulary_of(const Json& tokenizer) {
  std::map<std::string, int64_t> result;
  for (const auto& [token, id] : tokenizer["model"]["vocab"].items()) result[token] = id.get<int64_t>();
  return result;
}

std::string words_of(std::mt19937& random, int count, const std::vector<std::string>& words) {
  std::string text;
  for (int i = 0; i < count; ++i) {
    text += words[random() % words.size()];
    text += random() % 12 == 0 ? "\n" : random() % 40 == 0 ? "  \r\n" : " ";
  }
  return text;
}

// Words over few letters, in which every pair occurs about as often: ties decide, and one token is written in several ways.
std::string letters(std::mt19937& random, size_t alphabet, int words) {
  std::string text;
  for (int i = 0; i < words; ++i) {
    for (size_t k = 1 + random() % 9; k > 0; --k) text += static_cast<char>('a' + random() % alphabet);
    text += random() % 9 == 0 ? '\n' : ' ';
  }
  return text;
}

const std::vector<std::string> kWords = {
    "the",          "The",   "quick", "brown", "foxes", "don't",  "we'll",   "caf\u00e9",  "na\u00efve",  "\u041f\u0440\u0438\u0432\u0435\u0442",
    "\u4e16\u754c", "12",    "345",   "3.14",  "hello", "world",  "low",     "lower",      "lowest",      "newer",
    "x=1;",         "(a+b)", "...",   "aaaa",  "<s>",   "\u2126", "\ufb01n", "\U0001F600", "unhappiness", "internationalization"};

class TokenizerTrainerTest : public ::testing::Test {
 protected:
  TokenizerTrainerTest() : random_(test_seed()) { text_ = folder_.write("text.txt", words_of(random_, 4000, kWords)); }

  Case bpe(const std::string& name, int64_t vocab_size) {
    Case item{.name = name, .files = {text_}, .options = {.vocab_size = vocab_size, .special_tokens = {"<s>", "</s>"}}};
    item.options.bpe.initial_alphabet = every_byte();
    item.more["initial_alphabet"] = "bytes";
    return item;
  }
  Case unigram(const std::string& name, int64_t vocab_size) {
    Case item{.name = name, .files = {text_}, .options = {.type = TrainerType::unigram, .vocab_size = vocab_size}};
    item.options.special_tokens = {"<pad>", "<unk>"};  // what the text does not hold
    item.options.unk_token = "<unk>";
    item.more["unk_token"] = "<unk>";
    return item;
  }

  TemporaryFolder folder_;
  std::mt19937 random_;
  std::string text_;
};

void expect_equal_bpe(const std::vector<Case>& cases) {
  const Trained trained(cases);
  for (const Case& item : cases) {
    SCOPED_TRACE(item.name);
    const Json& ours = trained.ours(item.name).tokenizer;
    const Json& theirs = trained.theirs(item.name);
    EXPECT_EQ(vocabulary_of(ours), vocabulary_of(theirs));
    ASSERT_EQ(ours["model"]["merges"], theirs["model"]["merges"]);
    EXPECT_EQ(ours["added_tokens"], theirs["added_tokens"]);
    EXPECT_EQ(trained.ours(item.name).merges, static_cast<int64_t>(theirs["model"]["merges"].size()));
    EXPECT_EQ(tokenizer_from_json(ours.dump(), trained.ours(item.name).config.dump(), item.name)->vocab_size(), trained.ours(item.name).vocabulary);
  }
}

TEST_F(TokenizerTrainerTest, BpeHasTheVocabularyTheIdsAndTheMergesOfTokenizers) {
  std::vector<Case> cases{bpe("plain", 500), bpe("frequent", 1000), bpe("no alphabet", 200), bpe("tiny", 100), bpe("llama3", 450), bpe("nfkc", 450)};
  cases[1].options.bpe.min_frequency = cases[1].more["min_frequency"] = 150;
  cases[2].options.bpe.initial_alphabet = "";
  cases[2].more.erase("initial_alphabet");
  cases[4].options.pattern = "llama3";
  cases[5].options.normalization = Normalization::nfkc;
  cases.push_back(bpe("all of it", 5000));
  cases.push_back(bpe("short tokens", 500));
  cases.back().options.bpe.max_token_length = 4;
  cases.back().more["max_token_length"] = 4;
  cases.push_back(bpe("special tokens that merging makes", 500));
  cases.back().options.special_tokens = {"lower", "the", "\u0120hello", "a", "<s>"};
  expect_equal_bpe(cases);
}

TEST_F(TokenizerTrainerTest, BpeBreaksTiesAsTokenizersDoes) {
  std::vector<Case> cases;
  for (int i = 0; i < 24; ++i) {
    cases.push_back(bpe(fmt::format("ties {}", i), 256 + 2 + 10 + static_cast<int64_t>(random_() % 200)));
    cases.back().files = {folder_.write(cases.back().name, letters(random_, 1 + random_() % 5, 5 + static_cast<int>(random_() % 200)))};
  }
  expect_equal_bpe(cases);
}

TEST_F(TokenizerTrainerTest, BpeOfOddFilesIsThatOfTokenizers) {
  std::vector<Case> cases;
  const auto add = [&](const std::string& name, const std::string& text) {
    cases.push_back(bpe(name, 300));
    cases.back().files = {folder_.write(name, text)};
  };
  add("one word", "word");
  add("one letter", "a");
  add("line ends", "a\nb\r\nc\r\rd  \n\n\n  \n e\u2028f\u0085g\u00a0h");
  add("zeros", std::string("a\0b a\0b a\0b", 11));
  add("a mark at the beginning", "\uFEFFtext text\n");
  add("a long word", std::string(20'000, 'x') + " xxxx");
  cases.push_back(bpe("an empty file and another", 400));
  cases.back().files = {folder_.write("empty", ""), text_, text_};
  expect_equal_bpe(cases);
}

TEST_F(TokenizerTrainerTest, LimitAlphabetKeepsTheMostFrequentBytes) {
  Case item = bpe("limited", 60);
  item.files = {folder_.write("limited.txt", "aaaaa bbbb ccc dd dd e\n")};
  item.options.bpe.initial_alphabet = "";
  item.more.erase("initial_alphabet");
  item.options.bpe.limit_alphabet = 4;
  item.more["limit_alphabet"] = 4;
  expect_equal_bpe({item});
}

// Scores to rounding; characters that come back after training score min_score + k x 0.0001 in an order that is each library's own.
void expect_equal_unigram(const std::vector<Case>& cases) {
  const Trained trained(cases);
  for (const Case& item : cases) {
    SCOPED_TRACE(item.name);
    const Json& ours = trained.ours(item.name).tokenizer["model"];
    const Json& theirs = trained.theirs(item.name)["model"];
    EXPECT_EQ(ours["unk_id"], theirs["unk_id"]);
    // Theirs can have byte tokens as special tokens only.
    if (!item.options.byte_fallback) {
      EXPECT_EQ(trained.ours(item.name).tokenizer["added_tokens"], trained.theirs(item.name)["added_tokens"]);
    }
    ASSERT_EQ(ours["vocab"].size(), theirs["vocab"].size());
    std::map<std::string, double> scores;
    double lowest = 0;
    for (size_t id = 0; id < theirs["vocab"].size(); ++id) {
      EXPECT_NEAR(ours["vocab"][id][1].get<double>(), theirs["vocab"][id][1].get<double>(), 1e-6) << id;
      scores[theirs["vocab"][id][0]] = theirs["vocab"][id][1];
      lowest = std::min(lowest, theirs["vocab"][id][1].get<double>());
    }
    int returned = 0;
    for (const Json& piece : ours["vocab"]) {
      const auto text = piece[0].get<std::string>();
      ASSERT_TRUE(scores.count(text)) << text;
      const bool is_char = decode_chars(text).size() == 1;
      if (is_char && piece[1].get<double>() < lowest + 0.01) {
        ++returned;
        EXPECT_LT(scores[text], lowest + 0.01) << text;
      } else {
        EXPECT_NEAR(piece[1].get<double>(), scores[text], 1e-6) << text;
      }
    }
    EXPECT_LT(returned, 100);
    EXPECT_EQ(tokenizer_from_json(trained.ours(item.name).tokenizer.dump(), "", item.name)->vocab_size(), trained.ours(item.name).vocabulary);
  }
}

TEST_F(TokenizerTrainerTest, UnigramHasThePiecesAndScoresOfTokenizers) {
  std::vector<Case> cases{unigram("plain", 100), unigram("bytes", 400), unigram("short pieces", 120), unigram("other rounds", 110), unigram("nfkc", 100)};
  cases[1].options.byte_fallback = true;
  cases[2].options.unigram.max_piece_length = cases[2].more["max_piece_length"] = 3;
  cases[3].options.unigram.shrinking_factor = cases[3].more["shrinking_factor"] = 0.5;
  cases[3].options.unigram.n_sub_iterations = cases[3].more["n_sub_iterations"] = 3;
  cases[4].options.normalization = Normalization::nfkc;
  cases.push_back(unigram("all of it", 3000));
  cases.push_back(unigram("more characters", 120));
  cases.back().options.unigram.initial_alphabet = "\u03b1\u03b2z";
  cases.back().more["initial_alphabet"] = {"\u03b1", "\u03b2", "z"};
  cases.push_back(unigram("one word", 50));
  cases.back().files = {folder_.write("one", "word")};
  if (shared_data_is_there()) {
    cases.push_back(unigram("Shakespeare", 500));
    const std::string text = read_file(shared_data() / "text/tinyshakespeare/input.txt");
    cases.back().files = {folder_.write("shakespeare", text.substr(random_() % 100'000, 100'000))};
  }
  expect_equal_unigram(cases);
}

TEST_F(TokenizerTrainerTest, ASpecialTokenInTheTextIsNoPieceOfAUnigramModel) {
  Case item = unigram("special", 100);
  item.options.special_tokens = {"<s>", "<unk>"};
  const Json vocabulary = train_tokenizer(item.files, item.options).tokenizer["model"]["vocab"];
  EXPECT_EQ(vocabulary.size(), 100u);
  EXPECT_EQ(vocabulary[0][0], "<s>");
  EXPECT_EQ(std::count_if(vocabulary.begin(), vocabulary.end(), [](const Json& piece) { return piece[0] == "<s>"; }), 1);
}

TEST_F(TokenizerTrainerTest, TheSameTokenizerComesOfAnyNumberOfThreads) {
  for (const Case& item : {bpe("bpe", 400), unigram("unigram", 100)}) {
    const int before = team_size();
    set_team_size(1);
    const Json one = train_tokenizer(item.files, item.options).tokenizer;
    set_team_size(3);
    EXPECT_EQ(train_tokenizer(item.files, item.options).tokenizer, one);
    set_team_size(before);
  }
}

TEST_F(TokenizerTrainerTest, SpecialTokensThatAreNamedFollowTheListAndAreInTheConfig) {
  Case item = bpe("named", 400);
  item.options.eos_token = "</s>";
  item.options.pad_token = "<pad>";
  item.options.chat_template = "{{ messages[0].content }}";
  const TrainedTokenizer trained = train_tokenizer(item.files, item.options);
  write_tokenizer(trained, folder_.path());
  const auto tokenizer = load_tokenizer_directory(folder_.path());
  EXPECT_EQ(tokenizer->find("<s>"), 0);
  EXPECT_EQ(tokenizer->special().eos, 1);
  EXPECT_EQ(tokenizer->special().pad, 2);
  EXPECT_TRUE(tokenizer->is_special(0));
  EXPECT_EQ(trained.config["additional_special_tokens"], Json::array({"<s>"}));
  EXPECT_EQ(read_file(folder_ / "chat_template.jinja"), item.options.chat_template);
  const std::string text = "lower foxes \U0001F600 never seen: \u00df\n";
  EXPECT_EQ(tokenizer->decode(tokenizer->encode(text)), text);
}

std::string message_of(const Case& item) {
  try {
    train_tokenizer(item.files, item.options);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST_F(TokenizerTrainerTest, BrokenInputIsNamedWithItsPlace) {
  Case item = bpe("broken", 300);
  item.files = {text_, folder_.write("latin1.txt", "good\nna\xEFve\n")};
  EXPECT_NE(message_of(item).find("latin1.txt: byte 7 (line 2) is not UTF-8"), std::string::npos) << message_of(item);
  item.files = {folder_.write("utf16.txt", std::string("\xFF\xFEh\0i\0", 6))};
  EXPECT_NE(message_of(item).find("UTF-16"), std::string::npos) << message_of(item);
  item.files = {folder_ / "absent.txt"};
  EXPECT_NE(message_of(item).find("absent.txt"), std::string::npos) << message_of(item);
  item.files = {folder_.path()};
  EXPECT_NE(message_of(item).find(folder_.path()), std::string::npos) << message_of(item);
  item.files = {folder_.write("nothing", "")};
  EXPECT_NE(message_of(item).find("nothing to train on"), std::string::npos) << message_of(item);
  item.files = {text_};
  item.options.special_tokens = {"<s>", "<s>"};
  EXPECT_NE(message_of(item).find("named twice"), std::string::npos) << message_of(item);
  item.options.special_tokens = {""};
  EXPECT_NE(message_of(item).find("is empty"), std::string::npos) << message_of(item);
  item.options.special_tokens = {"\xFF"};
  EXPECT_NE(message_of(item).find("not UTF-8"), std::string::npos) << message_of(item);
  EXPECT_NE(message_of(unigram("small", 10)).find("cannot hold"), std::string::npos) << message_of(unigram("small", 10));
}

TEST_F(TokenizerTrainerTest, AStopEndsTheWorkAtOnce) {
  for (const Case& item : {bpe("bpe", 400), unigram("unigram", 100)}) {
    request_stop();
    EXPECT_THROW(train_tokenizer(item.files, item.options), Interrupted);
    clear_stop();
  }
}

}  // namespace
}  // namespace frugal::text
