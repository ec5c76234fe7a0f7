"""Prints the membership bitmaps in src/formats/i_quants_grids.cpp, from the codebooks of the PyPI package `gguf`.

Bit n of a bitmap (hexadecimal digit n / 4, its bit n % 4) says whether the vector with number n is an entry.
"""
import gguf
import gguf.quants
import numpy as np

for name in ["IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ1_S"]:
    quant = gguf.quants._type_traits[gguf.GGMLQuantizationType[name]]
    quant.init_grid()
    levels = [int(level) for level in quant.grid_map]
    grid = np.vectorize(lambda value: levels.index(int(value)))(quant.grid.reshape(quant.grid_shape))
    width = grid.shape[1]
    numbers = (grid * len(levels) ** np.arange(width)).sum(axis=1)
    assert (np.diff(numbers) > 0).all()
    bits = np.zeros((len(levels) ** width + 3) // 4 * 4, dtype=int)
    bits[numbers] = 1
    digits = "".join(f"{digit:x}" for digit in bits.reshape(-1, 4) @ [1, 2, 4, 8])
    print(f"constexpr std::string_view k{name.replace('_', '').capitalize()} =")
    lines = [digits[i:i + 128] for i in range(0, len(digits), 128)]
    print("\n".join(f'    "{line}"' for line in lines) + ";\n")
