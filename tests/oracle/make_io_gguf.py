"""Oracle for GGUF files: the `gguf` package.

dump FILE   prints what it reads, as JSON: value types, values (long arrays by hash) and tensors (shape, type, hash of the data)
write FILE  writes a file with every kind of key and several tensor types
"""
import hashlib
import json
import sys

import numpy
from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter, ReaderField
from gguf.quants import quantize


def value_of(field: ReaderField):
    kinds = [kind.name for kind in field.types]
    if field.types[0] != GGUFValueType.ARRAY:
        part = field.parts[field.data[0]]
        return kinds, bytes(part).decode("latin-1") if field.types[0] == GGUFValueType.STRING else part[0].item()
    if field.types[-1] == GGUFValueType.STRING:
        return kinds, [bytes(field.parts[i]).decode("latin-1") for i in field.data]
    return kinds, [field.parts[i][0].item() for i in field.data]


def short(value):
    """Long arrays are compared by the hash of their items, each as text and a newline."""
    if isinstance(value, list) and len(value) > 64:
        if isinstance(value[0], float):
            lines = [numpy.float32(v).tobytes().hex() for v in value]
        else:
            lines = [v if isinstance(v, str) else str(int(v)) for v in value]
        text = "".join(line + "\n" for line in lines)
        return {"count": len(value), "sha256": hashlib.sha256(text.encode("latin-1")).hexdigest()}
    return value


def dump(path):
    reader = GGUFReader(path)
    fields, tensors = {}, []
    for name, field in reader.fields.items():
        if name.startswith("GGUF."):
            continue
        kinds, value = value_of(field)
        fields[name] = {"types": kinds, "value": short(value)}
    for tensor in reader.tensors:
        tensors.append({
            "name": tensor.name,
            "shape": [int(d) for d in reversed(tensor.shape)],
            "type": tensor.tensor_type.name,
            "sha256": hashlib.sha256(tensor.data.tobytes()).hexdigest(),
        })
    print(json.dumps({"alignment": int(reader.alignment), "fields": fields, "tensors": tensors}))


def write(path):
    writer = GGUFWriter(path, "llama")
    rng = numpy.random.default_rng(7)
    writer.add_uint8("test.u8", 200)
    writer.add_int8("test.i8", -100)
    writer.add_uint16("test.u16", 60000)
    writer.add_int16("test.i16", -30000)
    writer.add_uint32("test.u32", 4000000000)
    writer.add_int32("test.i32", -2000000000)
    writer.add_float32("test.f32", 0.1)
    writer.add_uint64("test.u64", 2**64 - 1)
    writer.add_int64("test.i64", -(2**63))
    writer.add_float64("test.f64", 0.1)
    writer.add_bool("test.bool", True)
    writer.add_string("test.string", "snow \u2603")
    writer.add_array("test.ints", [1, -2, 3])
    writer.add_array("test.floats", [0.5, -0.1])
    writer.add_array("test.strings", ["a", "", "\u2603"])
    writer.add_array("test.bools", [True, False, True])
    writer.add_custom_alignment(64)
    writer.add_tensor("a", rng.standard_normal((3, 5)).astype(numpy.float32))
    writer.add_tensor("b.weight", rng.standard_normal((2, 3, 4)).astype(numpy.float16))
    writer.add_tensor("ids", numpy.arange(7, dtype=numpy.int32))
    for kind in ("Q4_0", "Q8_0", "Q4_1"):
        kind = GGMLQuantizationType[kind]
        blocks = quantize(rng.standard_normal((4, 64)).astype(numpy.float32), kind)
        writer.add_tensor(f"blocks.{kind.name}", blocks, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


{"dump": dump, "write": write}[sys.argv[1]](sys.argv[2])
