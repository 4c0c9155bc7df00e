// Runs programs of Metal kernels on the CPU: reads buffers and steps from standard input, writes the buffers' content
// to standard output, until the input ends. Memory errors and undefined behaviour end it (it is built with sanitizers).
//
// All numbers are 32-bit words. A program: the number of buffers, then for each its length, 1 if its elements follow
// (else it is filled with NaN), and the elements; the number of steps, then the steps, each a kind and:
//   0, a launch: kernel index, number of parameter words and they, three sides of the grid, then the number of places
//   and each place as buffer index and offset;
//   1, a product: parts, rows, columns, depth, then for both factors buffer index, offset, 1 if transposed and stride
//   from part to part, then the result's buffer index.

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <utility>
#include <vector>

// Last, for it takes words like `device` and `constant` away.
#include KERNELS

namespace {

uint word() {
    uint value;
    if (std::fread(&value, sizeof value, 1, stdin) != 1) {
        std::fprintf(stderr, "the input ends within a program\n");
        std::exit(1);
    }
    return value;
}

// Exactly as long as its content, so that the sanitizer notices a step beyond.
struct Buffer {
    std::unique_ptr<float[]> elements;
    uint length;
};

struct Place {
    uint buffer, offset;
};

using Buffers = std::vector<Buffer>;
using Launcher = void (*)(const uint* parameters, const uint3& grid, bool backwards, float** buffers);

template <class Parameters, class... Pointers, std::size_t... Index>
void run(void (*body)(const Parameters&, uint3, Pointers...), const uint* words, const uint3& grid, bool backwards,
         float** buffers, std::index_sequence<Index...>) {
    Parameters parameters;
    std::memcpy(&parameters, words, sizeof parameters);
    // Threads run in any order on a GPU; two opposite ones must agree.
    for (uint z = 0; z < grid.z; z++)
        for (uint y = 0; y < grid.y; y++)
            for (uint x = 0; x < grid.x; x++) {
                uint3 at = backwards ? uint3{grid.x - 1 - x, grid.y - 1 - y, grid.z - 1 - z} : uint3{x, y, z};
                body(parameters, at, buffers[Index]...);
            }
}

template <class Parameters, class... Pointers>
void launch(void (*body)(const Parameters&, uint3, Pointers...), const uint* words, const uint3& grid, bool backwards,
            float** buffers) {
    run(body, words, grid, backwards, buffers, std::index_sequence_for<Pointers...>());
}

struct Entry {
    Launcher run;
    std::size_t parameter_words, places;
};

template <class Parameters, class... Pointers>
constexpr Entry entry(void (*)(const Parameters&, uint3, Pointers...), Launcher run) {
    return {run, sizeof(Parameters) / sizeof(uint), sizeof...(Pointers)};
}

#define KERNEL(name)                                                                                  \
    entry(name, [](const uint* words, const uint3& grid, bool backwards, float** buffers) {           \
        launch(name, words, grid, backwards, buffers);                                                \
    }),

// Generated: KERNEL(…) for each kernel, and the structs' layouts as static assertions.
const Entry kernels[] = {
#include "kernels.inc"
};
#include "layouts.inc"

void step_launch(Buffers& buffers) {
    const Entry& entry = kernels[word()];
    std::vector<uint> parameters(word());
    for (uint& parameter : parameters) parameter = word();
    uint3 grid;
    grid.x = word(), grid.y = word(), grid.z = word();
    std::vector<Place> places(word());
    for (Place& place : places) place.buffer = word(), place.offset = word();
    if (parameters.size() != entry.parameter_words || places.size() != entry.places) {
        std::fprintf(stderr, "a kernel was given %zu parameter words and %zu buffers instead of %zu and %zu\n",
                     parameters.size(), places.size(), entry.parameter_words, entry.places);
        std::exit(1);
    }
    Buffers copies;
    for (const Buffer& buffer : buffers) {
        copies.push_back({std::unique_ptr<float[]>(new float[buffer.length]), buffer.length});
        std::memcpy(copies.back().elements.get(), buffer.elements.get(), buffer.length * sizeof(float));
    }
    for (Buffers* each : {&buffers, &copies}) {
        std::vector<float*> pointers;
        for (const Place& place : places) {
            // A pointer with nothing behind it, when the offset is too large, would go unnoticed until it is used.
            if (place.offset >= (*each)[place.buffer].length) std::abort();
            pointers.push_back((*each)[place.buffer].elements.get() + place.offset);
        }
        entry.run(parameters.data(), grid, each == &copies, pointers.data());
    }
    for (std::size_t index = 0; index < buffers.size(); index++) {
        if (std::memcmp(buffers[index].elements.get(), copies[index].elements.get(),
                        buffers[index].length * sizeof(float)) != 0) {
            std::fprintf(stderr, "the order of a kernel's threads changes its result\n");
            std::exit(1);
        }
    }
}

struct Factor {
    const float* elements;
    bool transposed;
    uint part_stride;
};

Factor factor(Buffers& buffers, uint parts, uint rows, uint columns) {
    uint buffer = word(), offset = word();
    bool transposed = word() != 0;
    uint part_stride = word();
    if (offset + std::uint64_t(parts - 1) * part_stride + std::uint64_t(rows) * columns > buffers[buffer].length) {
        std::fprintf(stderr, "a factor reaches beyond its buffer\n");
        std::exit(1);
    }
    return {buffers[buffer].elements.get() + offset, transposed, part_stride};
}

// Stands in for candle's matrix product.
void step_product(Buffers& buffers) {
    uint parts = word(), rows = word(), columns = word(), depth = word();
    Factor left = factor(buffers, parts, rows, depth);
    Factor right = factor(buffers, parts, depth, columns);
    float* result = buffers[word()].elements.get();
    for (uint part = 0; part < parts; part++)
        for (uint row = 0; row < rows; row++)
            for (uint column = 0; column < columns; column++) {
                double sum = 0;
                for (uint k = 0; k < depth; k++) {
                    float a = left.elements[part * left.part_stride + (left.transposed ? k * rows + row : row * depth + k)];
                    float b = right.elements[part * right.part_stride + (right.transposed ? column * depth + k : k * columns + column)];
                    sum += double(a) * double(b);
                }
                result[(part * rows + row) * columns + column] = float(sum);
            }
}

Buffers read_buffers(uint count) {
    Buffers buffers;
    for (uint index = 0; index < count; index++) {
        uint length = word();
        buffers.push_back({std::unique_ptr<float[]>(new float[length]), length});
        bool given = word() != 0;
        for (uint element = 0; element < length; element++) {
            if (given) {
                uint bits = word();
                std::memcpy(&buffers.back().elements[element], &bits, sizeof bits);
            } else {
                buffers.back().elements[element] = std::numeric_limits<float>::quiet_NaN();
            }
        }
    }
    return buffers;
}

} // namespace

int main() {
    uint count;
    while (std::fread(&count, sizeof count, 1, stdin) == 1) {
        Buffers buffers = read_buffers(count);
        for (uint steps = word(); steps > 0; steps--) {
            if (word() == 0) step_launch(buffers);
            else step_product(buffers);
        }
        for (const Buffer& buffer : buffers) {
            std::fwrite(buffer.elements.get(), sizeof(float), buffer.length, stdout);
        }
        std::fflush(stdout);
    }
}
