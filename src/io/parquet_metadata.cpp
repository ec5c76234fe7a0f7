#include "io/parquet_metadata.h"

#include <set>
#include <utility>

#include "base/error.h"

namespace frugal::io::parquet {
namespace {

constexpr int kMaxDepth = 32;
constexpr uint32_t kMaxPage = uint32_t{256} << 20;
constexpr std::string_view kMagic = "PAR1", kEncrypted = "PARE";

// Thrift's compact protocol. Structs are read field by field; fields that nobody asks for are passed over.
class Thrift {
 public:
  enum Type : int { stop, yes, no, i8, i16, i32, i64, f64, binary, list, set, map, structure };

  explicit Thrift(BoundedReader& in) : in_(in) {}

  // on_field(id, type) returns whether it has read the value.
  template <typename OnField>
  void read_struct(const OnField& on_field) {
    if (++depth_ > kMaxDepth) in_.fail_here("nested deeper than {} levels", kMaxDepth);
    int32_t id = 0;
    for (;;) {
      const auto head = in_.read<uint8_t>("a field");
      const int type = head & 15;
      if (type == stop) break;
      id = head >> 4 ? id + (head >> 4) : narrow(integer(), INT16_MIN, INT16_MAX);
      if (!on_field(id, type)) skip(type);
    }
    --depth_;
  }

  template <typename OnElement>
  void read_list(int type, int of, const OnElement& on_element) {
    if (type != list) in_.fail_here("a list was expected");
    const auto [count, element] = list_head();
    if (count > 0 && element != of) in_.fail_here("a list of other elements was expected");
    for (uint64_t i = 0; i < count; ++i) on_element();
  }

  int32_t int32(int type) {
    if (type != i32) in_.fail_here("a 32-bit integer was expected");
    return narrow(integer(), INT32_MIN, INT32_MAX);
  }
  uint64_t size(int type) {
    if (type != i64 && type != i32) in_.fail_here("an integer was expected");
    const int64_t value = integer();
    if (value < 0) in_.fail_here("a size of {}", value);
    return static_cast<uint64_t>(value);
  }
  std::string text(int type) {
    if (type != binary) in_.fail_here("a text was expected");
    return std::string(in_.take_text(varint(), "a text"));
  }

 private:
  uint64_t varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const auto byte = in_.read<uint8_t>("an integer");
      value |= static_cast<uint64_t>(byte & 127) << shift;
      if (byte < 128) return value;
    }
    in_.fail_here("an integer of more than ten bytes");
  }
  int64_t integer() {
    const uint64_t value = varint();
    return static_cast<int64_t>(value >> 1 ^ (~(value & 1) + 1));
  }
  int32_t narrow(int64_t value, int64_t min, int64_t max) {
    if (value < min || value > max) in_.fail_here("the integer {} is out of range", value);
    return static_cast<int32_t>(value);
  }
  std::pair<uint64_t, int> list_head() {
    const auto head = in_.read<uint8_t>("a list");
    const uint64_t count = head >> 4 == 15 ? varint() : head >> 4;
    if (count > in_.remaining()) in_.fail_here("a list of {} elements in {} bytes", count, in_.remaining());
    return {count, head & 15};
  }
  void skip(int type) {
    if (++depth_ > kMaxDepth) in_.fail_here("nested deeper than {} levels", kMaxDepth);
    switch (type) {
      case yes:
      case no: break;
      case i8: in_.take(1, "a byte"); break;
      case i16:
      case i32:
      case i64: varint(); break;
      case f64: in_.take(8, "a number"); break;
      case binary: in_.take(varint(), "a text"); break;
      case list:
      case set: {
        const auto [count, element] = list_head();
        for (uint64_t i = 0; i < count; ++i) element == yes || element == no ? void(in_.take(1, "a boolean")) : skip(element);
        break;
      }
      case map: {
        const uint64_t count = varint();
        if (count > in_.remaining()) in_.fail_here("a map of {} entries in {} bytes", count, in_.remaining());
        const int types = count > 0 ? in_.read<uint8_t>("a map") : 0;
        for (uint64_t i = 0; i < 2 * count; ++i) {
          const int element = i % 2 ? types & 15 : types >> 4;
          element == yes || element == no ? void(in_.take(1, "a boolean")) : skip(element);
        }
        break;
      }
      case structure: read_struct([](int32_t, int) { return false; }); break;
      default: in_.fail_here("no type {}", type);
    }
    --depth_;
  }

  BoundedReader& in_;
  int depth_ = 0;
};

enum class Repetition : int32_t { required, optional, repeated };

struct Node {
  std::string name;
  int32_t physical = -1, repetition = 0, converted = -1;
  uint64_t children = 0;
  bool list = false, map = false, plain_text = true;
};

Node read_node(Thrift& in) {
  Node node;
  in.read_struct([&](int32_t id, int type) {
    switch (id) {
      case 1: node.physical = in.int32(type); return true;
      case 3: node.repetition = in.int32(type); return true;
      case 4: node.name = in.text(type); return true;
      case 5: node.children = in.size(type); return true;
      case 6: node.converted = in.int32(type); return true;
      case 10:
        if (type != Thrift::structure) return false;
        in.read_struct([&](int32_t logical, int) {
          node.list = node.list || logical == 3;
          node.map = node.map || logical == 2;
          node.plain_text = logical != 5 && logical != 12 && logical != 13;  // decimals, 16-bit floats, UUIDs... are no texts
          return false;
        });
        return true;
      default: return false;
    }
  });
  node.list = node.list || node.converted == 3;
  node.map = node.map || node.converted == 1 || node.converted == 2;
  node.plain_text = node.plain_text && node.converted != 5;
  return node;
}

// The columns of the tree that the file lists in depth-first order.
class SchemaReader {
 public:
  SchemaReader(const std::vector<Node>& nodes, const BoundedReader& in) : nodes_(nodes), in_(in) {}

  std::vector<Column> read() {
    if (nodes_.empty()) in_.fail_here("no schema");
    children(take(), {}, 0);
    if (next_ != nodes_.size()) in_.fail_here("the schema has {} nodes too many", nodes_.size() - next_);
    return std::move(columns_);
  }

 private:
  const Node& take() {
    if (next_ == nodes_.size()) in_.fail_here("the schema ends too early");
    return nodes_[next_++];
  }

  void children(const Node& node, const Column& column, int depth) {
    std::set<std::string> names;
    for (uint64_t i = 0; i < node.children; ++i) {
      const Node& child = take();
      if (!names.insert(child.name).second) in_.fail_here("two fields {}", printable(child.name));
      read(child, column, depth + 1, Place::field);
    }
  }

  enum class Place { field, list, element };  // of a struct; the repeated one of a list; what that one holds

  void read(const Node& node, Column column, int depth, Place place) {
    if (depth > kMaxDepth) in_.fail_here("a schema nested deeper than {} levels", kMaxDepth);
    if (node.repetition < 0 || node.repetition > 2) in_.fail_here("no repetition {}", node.repetition);
    const auto repetition = static_cast<Repetition>(node.repetition);
    column.path.push_back(node.name);
    if (node.map && column.unsupported.empty()) column.unsupported = "a map";
    if (place == Place::list && repetition != Repetition::repeated) in_.fail_here("the list {} has no elements", printable(column.path[0]));
    if (repetition == Repetition::optional) ++column.max_definition;
    if (place == Place::field) column.steps.push_back({Step::Kind::field, node.name, column.max_definition, 0});
    if (place == Place::element) column.steps.push_back({Step::Kind::value, "", column.max_definition, 0});
    if (repetition == Repetition::repeated) {
      ++column.max_definition;
      ++column.max_repetition;
      column.steps.push_back({Step::Kind::element, "", column.max_definition, column.max_repetition});
    }
    if (node.children == 0) {
      leaf(node, std::move(column));
    } else if (place == Place::list && node.children == 1 && node.name != "array" && !node.name.ends_with("_tuple")) {
      read(take(), column, depth + 1, Place::element);  // three levels: the repeated group only holds the element
    } else if (node.list && node.children == 1) {
      read(take(), column, depth + 1, Place::list);
    } else {
      children(node, column, depth);
    }
  }

  void leaf(const Node& node, Column column) {
    if (node.physical < 0 || node.physical > static_cast<int32_t>(Physical::fixed_byte_array)) in_.fail_here("no type {}", node.physical);
    column.physical = static_cast<Physical>(node.physical);
    const bool odd = column.physical == Physical::int96 || column.physical == Physical::fixed_byte_array || !node.plain_text;
    if (odd && column.unsupported.empty()) column.unsupported = "neither a text, a boolean nor a plain number";
    columns_.push_back(std::move(column));
  }

  const std::vector<Node>& nodes_;
  const BoundedReader& in_;
  size_t next_ = 0;
  std::vector<Column> columns_;
};

Chunk read_chunk(Thrift& in, const BoundedReader& bytes, const Column& column, uint64_t footer) {
  Chunk chunk;
  int32_t codec = 0, physical = -1;
  uint64_t data = 0, dictionary = 0;
  std::vector<std::string> path;
  bool found = false;
  in.read_struct([&](int32_t id, int type) {
    if (id == 1) chunk.problem = "its values lie in another file";
    if (id == 8 || id == 9) chunk.problem = "it is encrypted";
    if (id != 3 || type != Thrift::structure) return false;
    found = true;
    in.read_struct([&](int32_t key, int kind) {
      switch (key) {
        case 1: physical = in.int32(kind); return true;
        case 3: in.read_list(kind, Thrift::binary, [&] { path.push_back(in.text(Thrift::binary)); }); return true;
        case 4: codec = in.int32(kind); return true;
        case 5: chunk.values = in.size(kind); return true;
        case 7: chunk.size = in.size(kind); return true;
        case 9: data = in.size(kind); return true;
        case 11: dictionary = in.size(kind); return true;
        default: return false;
      }
    });
    return true;
  });
  if (!chunk.problem.empty()) return chunk;
  if (!found) bytes.fail_here("a column without metadata");
  if (path != column.path || physical != static_cast<int32_t>(column.physical)) bytes.fail_here("a column that is not the schema's");
  chunk.codec = static_cast<Codec>(codec);
  if (codec != 0 && codec != 1 && codec != 2 && codec != 6) chunk.problem = fmt::format("its compression ({}) is not one of snappy, gzip and zstd", codec);
  chunk.begin = dictionary > 0 && dictionary < data ? dictionary : data;
  if (chunk.begin > footer || chunk.size > footer - chunk.begin)
    bytes.fail_here("a column of {} bytes at {}, the footer begins at {}", chunk.size, chunk.begin, footer);
  return chunk;
}

RowGroup read_group(Thrift& in, const BoundedReader& bytes, const std::vector<Column>& columns, uint64_t footer) {
  RowGroup group;
  in.read_struct([&](int32_t id, int type) {
    if (id == 1) {
      in.read_list(type, Thrift::structure, [&] {
        if (group.chunks.size() == columns.size()) bytes.fail_here("a row group of more than {} columns", columns.size());
        group.chunks.push_back(read_chunk(in, bytes, columns[group.chunks.size()], footer));
      });
      return true;
    }
    if (id == 3) group.rows = in.size(type);
    return id == 3;
  });
  if (group.chunks.size() != columns.size()) bytes.fail_here("a row group of {} columns, the schema has {}", group.chunks.size(), columns.size());
  return group;
}

}  // namespace

FileMetadata read_metadata(std::span<const std::byte> bytes, const std::string& name) {
  const auto text = [&](size_t at, size_t count) { return std::string_view(reinterpret_cast<const char*>(bytes.data()) + at, count); };
  if (bytes.size() >= 4 && text(bytes.size() - 4, 4) == kEncrypted) fail(ErrorKind::unsupported, "{}: is encrypted", name);
  if (bytes.size() < 12 || text(0, 4) != kMagic || text(bytes.size() - 4, 4) != kMagic)
    fail(ErrorKind::corrupt_file, "{}: does not begin and end as a Parquet file. Perhaps it is cut short?", name);
  BoundedReader tail(bytes.subspan(bytes.size() - 8, 4), name, bytes.size() - 8);
  const auto size = tail.read<uint32_t>("the size of the footer");
  if (size > bytes.size() - 12) tail.fail_here("a footer of {} bytes in a file of {}", size, bytes.size());
  const size_t begin = bytes.size() - 8 - size;
  BoundedReader in(bytes.subspan(begin, size), name, begin);
  Thrift thrift(in);
  FileMetadata result;
  std::vector<Node> nodes;
  std::set<int32_t> seen;
  thrift.read_struct([&](int32_t id, int type) {
    if (!seen.insert(id).second) in.fail_here("the footer's field {} a second time", id);
    switch (id) {
      case 2:
        thrift.read_list(type, Thrift::structure, [&] { nodes.push_back(read_node(thrift)); });
        result.columns = SchemaReader(nodes, in).read();
        return true;
      case 3: result.rows = thrift.size(type); return true;
      case 4: thrift.read_list(type, Thrift::structure, [&] { result.groups.push_back(read_group(thrift, in, result.columns, begin)); }); return true;
      default: return false;
    }
  });
  for (const int32_t id : {2, 3, 4}) {
    if (!seen.contains(id)) in.fail_here("a footer without its field {} (2: schema, 3: number of rows, 4: row groups)", id);
  }
  uint64_t rows = 0;
  for (const RowGroup& group : result.groups) {
    if (group.rows > result.rows - rows) in.fail_here("its row groups have more rows than the {} that it tells", result.rows);
    rows += group.rows;
  }
  if (rows != result.rows) in.fail_here("its row groups have {} rows, it tells {}", rows, result.rows);
  return result;
}

PageHeader read_page_header(BoundedReader& in) {
  Thrift thrift(in);
  PageHeader header;
  int32_t kind = 0, encoding = 0, definition = 3, repetition = 3;
  const auto small = [&](int type) {
    const uint64_t value = thrift.size(type);
    if (value > kMaxPage) in.fail_here("a page with the size {}, {} are allowed", value, kMaxPage);
    return static_cast<uint32_t>(value);
  };
  thrift.read_struct([&](int32_t id, int type) {
    switch (id) {
      case 1: kind = thrift.int32(type); return true;
      case 2: header.uncompressed = small(type); return true;
      case 3: header.compressed = small(type); return true;
      case 5:
      case 7:
      case 8: break;
      default: return false;
    }
    if (type != Thrift::structure) in.fail_here("a page without its header");
    thrift.read_struct([&](int32_t key, int kind_of_value) {
      if (key == 1) return header.values = small(kind_of_value), true;
      if (id == 8) {
        switch (key) {
          case 4: encoding = thrift.int32(kind_of_value); return true;
          case 5: header.definition_bytes = small(kind_of_value); return true;
          case 6: header.repetition_bytes = small(kind_of_value); return true;
          case 7: header.is_compressed = kind_of_value == Thrift::yes; return true;
          default: return false;
        }
      }
      if (key == 2) return encoding = thrift.int32(kind_of_value), true;
      if (id == 5 && key == 3) return definition = thrift.int32(kind_of_value), true;
      if (id == 5 && key == 4) return repetition = thrift.int32(kind_of_value), true;
      return false;
    });
    return true;
  });
  header.kind = static_cast<PageHeader::Kind>(kind);
  header.encoding = static_cast<Encoding>(encoding);
  header.levels_are_rle = definition == 3 && repetition == 3;
  return header;
}

}  // namespace frugal::io::parquet
