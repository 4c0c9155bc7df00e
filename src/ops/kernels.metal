// Galley's Metal kernels: f32, NHWC, one thread per result, no barriers, no atomics, no threadgroup memory.
//
// The same text compiles as C++ against tests/metal-shim, where every kernel is run over its whole grid and compared
// with the CPU. To stay within what the shim runs faithfully: functions of metal:: are named in full, kernels take
// their parameters, then their position, then buffers, and no thread reads what another thread of its launch writes.
//
// Positions are unsigned and 32 bits wide: the host refuses buffers of 2^31 elements and more. A position left of an
// image wraps around to a large number, so that one comparison with the image's length finds both ends.

#include <metal_stdlib>

// A window that slides over images; a launch covers output rows (image * out_height + y) from first_row on.
struct Windows {
    uint batch;
    uint height;
    uint width;
    uint channels;
    uint side;
    uint stride;
    uint top;
    uint left;
    uint out_height;
    uint out_width;
    uint first_row;
    uint rows;
    uint slices;
    uint activation;
};

// A matrix of rows. Sums along a row are split over lanes, sums along a column over slices.
struct Rows {
    uint rows;
    uint columns;
    uint lanes;
    uint slices;
    uint activation;
    uint has_residual;
    float epsilon;
};

// What an optimizer's step does to one variable; each kernel reads what it needs.
struct Update {
    // Of the variable: its moments, one behind the other, are twice as long.
    uint length;
    float keep;
    float share;
    float first;
    float second;
    float decayed;
    float rate;
    float root;
    float epsilon;
};

enum : uint {
    // Neighbouring outputs of a row that one thread computes, so that each weight is loaded once for all.
    PIXELS = 4,
    // Neighbouring weights of a window row that one thread sums, so that each gradient is loaded once for all.
    TAPS = 7,
    NOWHERE = 0xffffffffu,
};

// In the order of ops::Activation.
enum : uint { NO_ACTIVATION, RELU, RELU6, GELU, GELU_TANH, SILU, HARD_SWISH, HARD_SIGMOID, SIGMOID };

// --- activations -------------------------------------------------------------------------------------------------

// Unlike metal::clamp this keeps a NaN.
static inline float between(float low, float x, float high) {
    return x < low ? low : (x > high ? high : x);
}

static inline float sigmoid(float x) {
    return 1.0f / (1.0f + metal::exp(between(-87.0f, -x, 87.0f)));
}

static inline float hard_sigmoid(float x) {
    return between(0.0f, x + 3.0f, 6.0f) * (1.0f / 6.0f);
}

// Rational approximation of Eigen's generic_fast_erf_float; Metal has no erf.
static inline float error_function(float x) {
    x = between(-4.0f, x, 4.0f);
    float square = x * x;
    float above = -2.7261423e-10f;
    above = metal::fma(above, square, 2.7706814e-8f);
    above = metal::fma(above, square, -2.101024e-6f);
    above = metal::fma(above, square, -5.6925064e-5f);
    above = metal::fma(above, square, -7.3499063e-4f);
    above = metal::fma(above, square, -2.9546e-3f);
    above = metal::fma(above, square, -1.6096033e-2f);
    float below = -1.4566072e-5f;
    below = metal::fma(below, square, -2.1337406e-4f);
    below = metal::fma(below, square, -1.682827e-3f);
    below = metal::fma(below, square, -7.3733292e-3f);
    below = metal::fma(below, square, -1.4264739e-2f);
    return x * above / below;
}

// The normal distribution's share below x: gelu(x) is x times it.
static inline float normal_share(float x) {
    return 0.5f * (1.0f + error_function(x * 0.70710678f));
}

static inline float activated(uint activation, float x) {
    switch (activation) {
        case RELU: return x < 0.0f ? 0.0f : x;
        case RELU6: return between(0.0f, x, 6.0f);
        // Beyond, the share is 0 but for its last bit, which no large factor may blow up.
        case GELU: return (x < -5.7f ? -5.7f : x) * normal_share(x);
        // 2 sqrt(2/pi): tanh(u) is 2 sigmoid(2u) - 1.
        case GELU_TANH: return x * sigmoid(1.595769f * (x + 0.044715f * x * x * x));
        case SILU: return x * sigmoid(x);
        case HARD_SWISH: return x * hard_sigmoid(x);
        case HARD_SIGMOID: return hard_sigmoid(x);
        case SIGMOID: return sigmoid(x);
        default: return x;
    }
}

// The derivative at x. Where there is none, the convention of PyTorch.
static inline float slope(uint activation, float x) {
    switch (activation) {
        case RELU: return x > 0.0f ? 1.0f : 0.0f;
        case RELU6: return x > 0.0f && x < 6.0f ? 1.0f : 0.0f;
        case GELU: return normal_share(x) + x * 0.39894228f * metal::exp(between(-87.0f, -0.5f * x * x, 0.0f));
        case GELU_TANH: {
            float share = sigmoid(1.595769f * (x + 0.044715f * x * x * x));
            return share + x * share * (1.0f - share) * 1.595769f * (1.0f + 0.134145f * x * x);
        }
        case SILU: {
            float share = sigmoid(x);
            return share * (1.0f + x * (1.0f - share));
        }
        case HARD_SWISH: return x <= -3.0f ? 0.0f : (x >= 3.0f ? 1.0f : x * (1.0f / 3.0f) + 0.5f);
        case HARD_SIGMOID: return x > -3.0f && x < 3.0f ? 1.0f / 6.0f : 0.0f;
        case SIGMOID: {
            float share = sigmoid(x);
            return share * (1.0f - share);
        }
        default: return 1.0f;
    }
}

// Grid: columns, rows. May work in place: y may be x.
kernel void bias_activation(constant Rows& p [[buffer(0)]], uint3 at [[thread_position_in_grid]],
                            device const float* x [[buffer(1)]], device const float* bias [[buffer(2)]],
                            device const float* residual [[buffer(3)]], device float* y [[buffer(4)]]) {
    uint index = at.y * p.columns + at.x;
    float value = x[index] + bias[at.x];
    if (p.has_residual != 0) {
        value += residual[index];
    }
    y[index] = activated(p.activation, value);
}

// Grid: columns, rows.
kernel void activation(constant Rows& p [[buffer(0)]], uint3 at [[thread_position_in_grid]],
                       device const float* x [[buffer(1)]], device float* y [[buffer(2)]]) {
    uint index = at.y * p.columns + at.x;
    y[index] = activated(p.activation, x[index]);
}

// Grid: columns, rows.
kernel void activation_gradient(constant Rows& p [[buffer(0)]], uint3 at [[thread_position_in_grid]],
                                device const float* x [[buffer(1)]], device const float* g [[buffer(2)]],
                                device float* gx [[buffer(3)]]) {
    uint index = at.y * p.columns + at.x;
    gx[index] = g[index] * slope(p.activation, x[index]);
}

// --- sums --------------------------------------------------------------------------------------------------------

// First pass of the sum of each column. Grid: columns, slices. Writes (slices, columns).
kernel void column_sums(constant Rows& p [[buffer(0)]], uint3 at [[thread_position_in_grid]],
                        device const float* x [[buffer(1)]], device float* partial [[buffer(2)]]) {
    float sum = 0.0f;
    for (uint row = at.y; row < p.rows; row += p.slices) {
        sum += x[row * p.columns + at.x];
    }
    partial[at.y * p.columns + at.x] = sum;
}

// Second pass of every sum over slices, in their order. Grid: columns. Reads (slices, columns).
kernel void sum_slices(constant Rows& p [[buffer(0)]], uint3 at [[thread_position_in_grid]],
                       device const float* partial [[buffer(1)]], device float* y [[buffer(2)]]) {
    float sum = 0.0f;
    for (uint slice = 0; slice < p.slices; slice++) {
        sum += partial[slice * p.columns + at.x];
    }
    y[at.x] = sum;
}

// Adds to what the slices' sum was so far: y is read and written. Grid: columns.
kernel void add_slices(constant Rows& p [[buffer(0)]], uint3 at [[thread_position_in_grid]],
                       device const float* partial [[buffer(1)]], device float* y [[buffer(2)]]) {
    float sum = y[at.x];
    for (uint slice = 0; slice < p.slices; slice++) {
        sum += partial[slice * p.columns + at.x];
    }
    y[at.x] = sum;
}

// First pass of the sum of all squares. Grid: slices. Writes (slices).
kernel void square_sums(constant Rows& p [[buffer(0)]], uint3 at [[thread_position_in_grid]],
                        device const float* x [[buffer(1)]], device float* partial [[buffer(2)]]) {
    float sum = 0.0f;
    for (uint row = at.x; row < p.rows; row += p.slices) {
        sum = metal::fma(x[row], x[row], sum);
    }
    partial[at.x] = sum;
}

// --- layer norm --------------------------------------------------------------------------------------------------

// Mean and sum of squared deviations of every lanes-th value of a row. Grid: lanes, rows. Writes (rows, lanes, 2).
kernel void lane_moments(constant Rows& p [[buffer(0)]], uint3 at [[thread_position_in_grid]],
                         device const float* x [[buffer(1)]], device float* partial [[buffer(2)]]) {
    device const float* row = x + at.y * p.columns;
    float sum = 0.0f;
    uint count = 0;
    for (uint column = at.x; column < p.columns; column += p.lanes) {
        sum += row[column];
        count++;
    }
    float mean = sum / float(count);
    float squares = 0.0f;
    for (uint column = at.x; column < p.columns; column += p.lanes) {
        float deviation = row[column] - mean;
        squares = metal::fma(deviation, deviation, squares);
    }
    uint index = (at.y * p.lanes + at.x) * 2;
    partial[index] = mean;
    partial[index + 1] = squares;
}

// Joins the lanes (Chan, Golub and LeVeque). Grid: rows. Writes (rows, 2): mean, and one over the standard deviation.
kernel void row_moments(constant Rows& p [[buffer(0)]], uint3 at [[thread_position_in_grid]],
                        device const float* partial [[buffer(1)]], device float* moments [[buffer(2)]]) {
    float mean = 0.0f;
    float squares = 0.0f;
    float count = 0.0f;
    for (uint lane = 0; lane < p.lanes; lane++) {
        uint index = (at.x * p.lanes + lane) * 2;
        float more = float((p.columns - lane + p.lanes - 1) / p.lanes);
        float total = count + more;
        float difference = partial[index] - mean;
        mean += difference * more / total;
        squares += partial[index + 1] + difference * difference * count * more / total;
        count = total;
    }
    moments[at.x * 2] = mean;
    moments[at.x * 2 + 1] = 1.0f / metal::sqrt(squares / count + p.epsilon);
}

// Grid: columns, rows.
kernel void layer_norm(constant Rows& p [[buffer(0)]], uint3 at [[thread_position_in_grid]],
                       device const float* x [[buffer(1)]], device const float* moments [[buffer(2)]],
                       device const float* weight [[buffer(3)]], device const float* bias [[buffer(4)]],
                       device float* y [[buffer(5)]]) {
    uint index = at.y * p.columns + at.x;
    float normal = (x[index] - moments[at.y * 2]) * moments[at.y * 2 + 1];
    y[index] = metal::fma(normal, weight[at.x], bias[at.x]);
}

// Sums of g w and of g w n over every lanes-th value of a row, n the normalized input. Grid: lanes, rows.
// Writes (rows, lanes, 2).
kernel void layer_norm_lane_sums(constant Rows& p [[buffer(0)]], uint3 at [[thread_position_in_grid]],
                                 device const float* x [[buffer(1)]], device const float* g [[buffer(2)]],
                                 device const float* weight [[buffer(3)]], device const float* moments [[buffer(4)]],
                                 device float* partial [[buffer(5)]]) {
    float mean = moments[at.y * 2];
    float scale = moments[at.y * 2 + 1];
    float plain = 0.0f;
    float weighted = 0.0f;
    for (uint column = at.x; column < p.columns; column += p.lanes) {
        uint index = at.y * p.columns + column;
        float gradient = g[index] * weight[column];
        plain += gradient;
        weighted = metal::fma(gradient, (x[index] - mean) * scale, weighted);
    }
    uint index = (at.y * p.lanes + at.x) * 2;
    partial[index] = plain;
    partial[index + 1] = weighted;
}

// Joins pairs of sums. Grid: rows. Reads (rows, lanes, 2), writes (rows, 2).
kernel void sum_lanes(constant Rows& p [[buffer(0)]], uint3 at [[thread_position_in_grid]],
                      device const float* partial [[buffer(1)]], device float* sums [[buffer(2)]]) {
    float first = 0.0f;
    float second = 0.0f;
    for (uint lane = 0; lane < p.lanes; lane++) {
        uint index = (at.x * p.lanes + lane) * 2;
        first += partial[index];
        second += partial[index + 1];
    }
    sums[at.x * 2] = first;
    sums[at.x * 2 + 1] = second;
}

// Grid: columns, rows.
kernel void layer_norm_input_gradient(constant Rows& p [[buffer(0)]], uint3 at [[thread_position_in_grid]],
                                      device const float* x [[buffer(1)]], device const float* g [[buffer(2)]],
                                      device const float* weight [[buffer(3)]],
                                      device const float* moments [[buffer(4)]], device const float* sums [[buffer(5)]],
                                      device float* gx [[buffer(6)]]) {
    uint index = at.y * p.columns + at.x;
    float scale = moments[at.y * 2 + 1];
    float normal = (x[index] - moments[at.y * 2]) * scale;
    float mean = (sums[at.y * 2] + normal * sums[at.y * 2 + 1]) / float(p.columns);
    gx[index] = scale * (g[index] * weight[at.x] - mean);
}

// First pass of the sum of g n over rows. Grid: columns, slices. Writes (slices, columns).
kernel void layer_norm_weight_gradient(constant Rows& p [[buffer(0)]], uint3 at [[thread_position_in_grid]],
                                       device const float* x [[buffer(1)]], device const float* g [[buffer(2)]],
                                       device const float* moments [[buffer(3)]],
                                       device float* partial [[buffer(4)]]) {
    float sum = 0.0f;
    for (uint row = at.y; row < p.rows; row += p.slices) {
        uint index = row * p.columns + at.x;
        float normal = (x[index] - moments[row * 2]) * moments[row * 2 + 1];
        sum = metal::fma(g[index], normal, sum);
    }
    partial[at.y * p.columns + at.x] = sum;
}

// --- depthwise convolution ---------------------------------------------------------------------------------------

// Grid: channels, groups of PIXELS columns, output rows.
kernel void depthwise(constant Windows& p [[buffer(0)]], uint3 at [[thread_position_in_grid]],
                      device const float* x [[buffer(1)]], device const float* weight [[buffer(2)]],
                      device const float* bias [[buffer(3)]], device float* y [[buffer(4)]]) {
    uint channel = at.x;
    uint first = at.y * PIXELS;
    uint image = at.z / p.out_height;
    uint row = at.z % p.out_height;
    float sums[PIXELS];
    for (uint i = 0; i < PIXELS; i++) {
        sums[i] = bias[channel];
    }
    for (uint dy = 0; dy < p.side; dy++) {
        uint line = row * p.stride + dy - p.top;
        if (line >= p.height) {
            continue;
        }
        device const float* pixels = x + (image * p.height + line) * p.width * p.channels + channel;
        for (uint dx = 0; dx < p.side; dx++) {
            float factor = weight[(dy * p.side + dx) * p.channels + channel];
            for (uint i = 0; i < PIXELS; i++) {
                uint column = (first + i) * p.stride + dx - p.left;
                if (column < p.width) {
                    sums[i] = metal::fma(pixels[column * p.channels], factor, sums[i]);
                }
            }
        }
    }
    for (uint i = 0; i < PIXELS; i++) {
        if (first + i < p.out_width) {
            y[(at.z * p.out_width + first + i) * p.channels + channel] = activated(p.activation, sums[i]);
        }
    }
}

// The output whose window has the padded input position at its offset, or NOWHERE.
static inline uint reached(uint position, uint offset, uint stride, uint outputs) {
    uint way = position - offset;
    if (position < offset || way % stride != 0 || way / stride >= outputs) {
        return NOWHERE;
    }
    return way / stride;
}

// Grid: channels, groups of PIXELS columns, input rows.
kernel void depthwise_input_gradient(constant Windows& p [[buffer(0)]], uint3 at [[thread_position_in_grid]],
                                     device const float* g [[buffer(1)]], device const float* weight [[buffer(2)]],
                                     device float* gx [[buffer(3)]]) {
    uint channel = at.x;
    uint first = at.y * PIXELS;
    uint image = at.z / p.height;
    uint row = at.z % p.height;
    float sums[PIXELS];
    for (uint i = 0; i < PIXELS; i++) {
        sums[i] = 0.0f;
    }
    for (uint dy = 0; dy < p.side; dy++) {
        uint line = reached(row + p.top, dy, p.stride, p.out_height);
        if (line == NOWHERE) {
            continue;
        }
        device const float* gradients = g + (image * p.out_height + line) * p.out_width * p.channels + channel;
        for (uint dx = 0; dx < p.side; dx++) {
            float factor = weight[(dy * p.side + dx) * p.channels + channel];
            for (uint i = 0; i < PIXELS; i++) {
                uint column = reached(first + i + p.left, dx, p.stride, p.out_width);
                if (column != NOWHERE) {
                    sums[i] = metal::fma(gradients[column * p.channels], factor, sums[i]);
                }
            }
        }
    }
    for (uint i = 0; i < PIXELS; i++) {
        if (first + i < p.width) {
            gx[(at.z * p.width + first + i) * p.channels + channel] = sums[i];
        }
    }
}

// First pass of the sum over images and rows. Grid: channels, window rows times groups of TAPS, slices.
// Writes (slices, side, side, channels).
kernel void depthwise_weight_gradient(constant Windows& p [[buffer(0)]], uint3 at [[thread_position_in_grid]],
                                      device const float* x [[buffer(1)]], device const float* g [[buffer(2)]],
                                      device float* partial [[buffer(3)]]) {
    uint channel = at.x;
    uint groups = (p.side + TAPS - 1) / TAPS;
    uint dy = at.y / groups;
    uint first = at.y % groups * TAPS;
    float sums[TAPS];
    for (uint i = 0; i < TAPS; i++) {
        sums[i] = 0.0f;
    }
    for (uint row = at.z; row < p.batch * p.out_height; row += p.slices) {
        uint line = row % p.out_height * p.stride + dy - p.top;
        if (line >= p.height) {
            continue;
        }
        device const float* pixels = x + (row / p.out_height * p.height + line) * p.width * p.channels + channel;
        device const float* gradients = g + row * p.out_width * p.channels + channel;
        for (uint output = 0; output < p.out_width; output++) {
            float gradient = gradients[output * p.channels];
            for (uint i = 0; i < TAPS; i++) {
                uint column = output * p.stride + first + i - p.left;
                if (first + i < p.side && column < p.width) {
                    sums[i] = metal::fma(gradient, pixels[column * p.channels], sums[i]);
                }
            }
        }
    }
    for (uint i = 0; i < TAPS; i++) {
        if (first + i < p.side) {
            partial[((at.z * p.side + dy) * p.side + first + i) * p.channels + channel] = sums[i];
        }
    }
}

// --- dense convolution -------------------------------------------------------------------------------------------

// The window at each output position of some rows, side by side. Grid: channels, side * side, rows * out_width.
// Writes (rows * out_width, side * side, channels).
kernel void gather_windows(constant Windows& p [[buffer(0)]], uint3 at [[thread_position_in_grid]],
                           device const float* x [[buffer(1)]], device float* windows [[buffer(2)]]) {
    uint output_row = p.first_row + at.z / p.out_width;
    uint line = output_row % p.out_height * p.stride + at.y / p.side - p.top;
    uint column = at.z % p.out_width * p.stride + at.y % p.side - p.left;
    float value = 0.0f;
    if (line < p.height && column < p.width) {
        uint image = output_row / p.out_height;
        value = x[((image * p.height + line) * p.width + column) * p.channels + at.x];
    }
    windows[(at.z * p.side * p.side + at.y) * p.channels + at.x] = value;
}

// The reverse: each input position of the images these rows belong to gathers its gradient from the windows it lies
// in. Grid: channels, width, input rows of those images. An image's first rows set gx, later ones add to it.
kernel void scatter_windows(constant Windows& p [[buffer(0)]], uint3 at [[thread_position_in_grid]],
                            device const float* windows [[buffer(1)]], device float* gx [[buffer(2)]]) {
    uint image = p.first_row / p.out_height + at.z / p.height;
    uint row = at.z % p.height;
    uint index = ((image * p.height + row) * p.width + at.y) * p.channels + at.x;
    float sum = p.first_row > image * p.out_height ? gx[index] : 0.0f;
    for (uint dy = 0; dy < p.side; dy++) {
        uint line = reached(row + p.top, dy, p.stride, p.out_height);
        // Counted from the launch's first row; before it, this wraps around.
        uint output_row = image * p.out_height + line - p.first_row;
        if (line == NOWHERE || output_row >= p.rows) {
            continue;
        }
        for (uint dx = 0; dx < p.side; dx++) {
            uint column = reached(at.y + p.left, dx, p.stride, p.out_width);
            if (column != NOWHERE) {
                uint window = output_row * p.out_width + column;
                sum += windows[(window * p.side * p.side + dy * p.side + dx) * p.channels + at.x];
            }
        }
    }
    gx[index] = sum;
}

// --- pools -------------------------------------------------------------------------------------------------------

// Where the largest value of a window lies: the first of equals, the last NaN if there is any, NOWHERE in padding.
static inline uint largest(constant Windows& p, device const float* x, uint image, uint row, uint column,
                           uint channel) {
    uint best = NOWHERE;
    float found = 0.0f;
    for (uint dy = 0; dy < p.side; dy++) {
        uint line = row * p.stride + dy - p.top;
        for (uint dx = 0; dx < p.side; dx++) {
            uint place = column * p.stride + dx - p.left;
            if (line < p.height && place < p.width) {
                uint index = ((image * p.height + line) * p.width + place) * p.channels + channel;
                float value = x[index];
                if (best == NOWHERE || value > found || metal::isnan(value)) {
                    best = index;
                    found = value;
                }
            }
        }
    }
    return best;
}

// Grid: channels, out_width, output rows.
kernel void max_pool(constant Windows& p [[buffer(0)]], uint3 at [[thread_position_in_grid]],
                     device const float* x [[buffer(1)]], device float* y [[buffer(2)]]) {
    uint best = largest(p, x, at.z / p.out_height, at.z % p.out_height, at.y, at.x);
    y[(at.z * p.out_width + at.y) * p.channels + at.x] = best == NOWHERE ? -INFINITY : x[best];
}

// Grid: channels, width, input rows.
kernel void max_pool_gradient(constant Windows& p [[buffer(0)]], uint3 at [[thread_position_in_grid]],
                              device const float* x [[buffer(1)]], device const float* g [[buffer(2)]],
                              device float* gx [[buffer(3)]]) {
    uint image = at.z / p.height;
    uint row = at.z % p.height;
    uint index = (at.z * p.width + at.y) * p.channels + at.x;
    float sum = 0.0f;
    for (uint dy = 0; dy < p.side; dy++) {
        uint line = reached(row + p.top, dy, p.stride, p.out_height);
        if (line == NOWHERE) {
            continue;
        }
        for (uint dx = 0; dx < p.side; dx++) {
            uint column = reached(at.y + p.left, dx, p.stride, p.out_width);
            if (column != NOWHERE && largest(p, x, image, line, column, at.x) == index) {
                sum += g[((image * p.out_height + line) * p.out_width + column) * p.channels + at.x];
            }
        }
    }
    gx[index] = sum;
}

// Grid: channels, batch.
kernel void global_average_pool(constant Windows& p [[buffer(0)]], uint3 at [[thread_position_in_grid]],
                                device const float* x [[buffer(1)]], device float* y [[buffer(2)]]) {
    uint pixels = p.height * p.width;
    device const float* image = x + at.y * pixels * p.channels + at.x;
    float sum = 0.0f;
    for (uint pixel = 0; pixel < pixels; pixel++) {
        sum += image[pixel * p.channels];
    }
    y[at.y * p.channels + at.x] = sum / float(pixels);
}

// Grid: channels, height * width, batch.
kernel void global_average_pool_gradient(constant Windows& p [[buffer(0)]], uint3 at [[thread_position_in_grid]],
                                         device const float* g [[buffer(1)]], device float* gx [[buffer(2)]]) {
    uint pixels = p.height * p.width;
    gx[(at.z * pixels + at.y) * p.channels + at.x] = g[at.z * p.channels + at.x] / float(pixels);
}

// --- updates -----------------------------------------------------------------------------------------------------

// What is written last is read before: these work in place. Rounded as on the CPU, without fma.

// Grid: elements.
kernel void blend(constant Update& p [[buffer(0)]], uint3 at [[thread_position_in_grid]],
                  device const float* x [[buffer(1)]], device float* y [[buffer(2)]]) {
    y[at.x] = p.keep * y[at.x] + p.share * x[at.x];
}

// Grid: elements of the gradient, which is multiplied by the one scale first.
kernel void follow_moments(constant Update& p [[buffer(0)]], uint3 at [[thread_position_in_grid]],
                           device const float* g [[buffer(1)]], device const float* scale [[buffer(2)]],
                           device float* moments [[buffer(3)]]) {
    float gradient = scale[0] * g[at.x];
    uint second = p.length + at.x;
    moments[at.x] = p.first * moments[at.x] + (1.0f - p.first) * gradient;
    moments[second] = p.second * moments[second] + (1.0f - p.second) * gradient * gradient;
}

// Grid: elements of the weight.
kernel void descend(constant Update& p [[buffer(0)]], uint3 at [[thread_position_in_grid]],
                    device const float* moments [[buffer(1)]], device float* weight [[buffer(2)]]) {
    float divisor = metal::sqrt(moments[p.length + at.x]) / p.root + p.epsilon;
    weight[at.x] = p.decayed * weight[at.x] - p.rate * (moments[at.x] / divisor);
}
