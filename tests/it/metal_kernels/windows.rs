//! Convolutions and pools.

use candle_core::Result;
use galley::ops::metal::programs;
use galley::ops::{self, Activation, Geometry, Padding, Window};

use super::{ACTIVATIONS, Random, Shim, assert_equals, assert_near, tensor};

const CASES: usize = 40;

/// A random window over a random small image.
fn geometry(random: &mut Random, paddings: &[usize]) -> Geometry {
    loop {
        let (kernel, stride) = (random.within(1, 9), random.within(1, 3));
        let padding = match paddings[random.within(0, paddings.len() - 1)] {
            0 => Padding::Each(random.within(0, kernel / 2)),
            1 => Padding::Same,
            _ => Padding::Ceil,
        };
        let dims = [random.within(1, 3), random.within(1, 13), random.within(1, 13), random.within(1, 9)];
        if let Ok(geometry) = (Window { kernel, stride, padding }).over(&dims) {
            return geometry;
        }
    }
}

/// Shapes of the networks' own layers, cut down in size.
fn usual() -> Vec<Geometry> {
    let each = |kernel, stride, padding| Window { kernel, stride, padding: Padding::Each(padding) };
    let windows =
        [each(7, 1, 3), each(3, 1, 1), each(3, 2, 1), each(5, 2, 2), each(4, 4, 0), each(2, 2, 0), each(1, 2, 0)];
    windows.iter().map(|window| window.over(&[2, 12, 11, 6]).unwrap()).collect()
}

fn cases(seed: u64, paddings: &[usize]) -> (Random, Vec<Geometry>) {
    let mut random = Random(seed);
    let mut cases = usual();
    cases.extend((0..CASES).map(|_| geometry(&mut random, paddings)));
    (random, cases)
}

fn input_dims(geometry: &Geometry) -> [usize; 4] {
    [geometry.batch, geometry.height, geometry.width, geometry.channels]
}

/// Output positions, then input positions, of all images.
fn positions(geometry: &Geometry) -> (usize, usize) {
    let Geometry { batch, height, width, out_height, out_width, .. } = *geometry;
    (batch * out_height * out_width, batch * height * width)
}

/// Visits output position, place in the window and input position of everything that windows hold.
fn taps(geometry: &Geometry, mut visit: impl FnMut(usize, usize, usize)) {
    let Geometry { batch, height, width, out_height, out_width, window, top, left, .. } = *geometry;
    for output in 0..batch * out_height * out_width {
        let (image, y, x) = (output / (out_height * out_width), output / out_width % out_height, output % out_width);
        for place in 0..window.kernel * window.kernel {
            let line = (y * window.stride + place / window.kernel).checked_sub(top).filter(|line| *line < height);
            let column = (x * window.stride + place % window.kernel).checked_sub(left).filter(|column| *column < width);
            if let (Some(line), Some(column)) = (line, column) {
                visit(output, place, (image * height + line) * width + column);
            }
        }
    }
}

#[test]
fn depthwise_equals_the_cpu() -> Result<()> {
    let Some(mut shim) = Shim::start() else { return Ok(()) };
    let (mut random, cases) = cases(1, &[0, 1]);
    for (index, geometry) in cases.iter().enumerate() {
        let Geometry { channels, window, .. } = *geometry;
        let activation = ACTIVATIONS[index % ACTIVATIONS.len()];
        let x = random.values(positions(geometry).1 * channels);
        let weight = random.values(window.kernel * window.kernel * channels);
        let bias = random.values(channels);
        let ours = shim.run(&programs::depthwise(geometry, activation)?, &[&x, &weight, &bias]);
        let weight = tensor(&weight, &[window.kernel, window.kernel, channels])?;
        let x = tensor(&x, &input_dims(geometry))?;
        let oracle = ops::depthwise(&x, &weight, &tensor(&bias, &[channels])?, window, activation)?;
        assert_equals(&format!("{activation:?} {geometry:?}"), &ours, &oracle)?;
    }
    Ok(())
}

#[test]
fn depthwise_gradients_equal_plain_loops() -> Result<()> {
    let Some(mut shim) = Shim::start() else { return Ok(()) };
    let (mut random, cases) = cases(2, &[0, 1]);
    for geometry in &cases {
        let Geometry { channels, window, .. } = *geometry;
        let (outputs, inputs) = positions(geometry);
        let (x, g) = (random.values(inputs * channels), random.values(outputs * channels));
        let weight = random.values(window.kernel * window.kernel * channels);
        let mut input_gradient = vec![0.0; x.len()];
        let mut weight_gradient = vec![0.0; weight.len()];
        taps(geometry, |output, place, input| {
            for channel in 0..channels {
                let gradient = f64::from(g[output * channels + channel]);
                let (input, place) = (input * channels + channel, place * channels + channel);
                input_gradient[input] += gradient * f64::from(weight[place]);
                weight_gradient[place] += gradient * f64::from(x[input]);
            }
        });
        let case = format!("{geometry:?}");
        assert_near(&case, &shim.run(&programs::depthwise_input_gradient(geometry)?, &[&weight, &g]), &input_gradient);
        assert_near(&case, &shim.run(&programs::depthwise_weight_gradient(geometry)?, &[&x, &g]), &weight_gradient);
    }
    Ok(())
}

#[test]
fn conv_equals_the_cpu_in_chunks_of_any_size() -> Result<()> {
    let Some(mut shim) = Shim::start() else { return Ok(()) };
    let (mut random, cases) = cases(3, &[0, 1]);
    for (index, geometry) in cases.iter().enumerate() {
        let Geometry { channels, window, batch, out_height, out_width, .. } = *geometry;
        let (outputs, with_residual, activation) = (random.within(1, 7), index % 2 == 0, ACTIVATIONS[index % 9]);
        let x = random.values(positions(geometry).1 * channels);
        let weight = random.values(window.kernel * window.kernel * channels * outputs);
        let bias = random.values(outputs);
        let residual = random.values(positions(geometry).0 * outputs);
        let max_bytes = max_bytes(&mut random, geometry, outputs);
        let program = programs::conv(geometry, outputs, activation, with_residual, max_bytes)?;
        let mut inputs: Vec<&[f32]> = vec![&x, &weight, &bias];
        inputs.extend(with_residual.then_some(residual.as_slice()));
        let ours = shim.run(&program, &inputs);
        let weight = tensor(&weight, &[window.kernel, window.kernel, channels, outputs])?;
        let residual = tensor(&residual, &[batch, out_height, out_width, outputs])?;
        let x = tensor(&x, &input_dims(geometry))?;
        let residual = with_residual.then_some(&residual);
        let oracle = ops::conv(&x, &weight, &tensor(&bias, &[outputs])?, window, activation, residual)?;
        assert_equals(&format!("{activation:?} {geometry:?} in {max_bytes} bytes"), &ours, &oracle)?;
    }
    Ok(())
}

/// Room for one output row up to all of them.
fn max_bytes(random: &mut Random, geometry: &Geometry, outputs: usize) -> usize {
    let depth = geometry.window.kernel * geometry.window.kernel * geometry.channels;
    let rows = geometry.batch * geometry.out_height;
    geometry.out_width * (depth + outputs) * size_of::<f32>() * random.within(0, rows)
}

#[test]
fn conv_gradients_equal_plain_loops_in_chunks_of_any_size() -> Result<()> {
    let Some(mut shim) = Shim::start() else { return Ok(()) };
    let (mut random, cases) = cases(4, &[0, 1]);
    for geometry in &cases {
        let Geometry { channels, window, .. } = *geometry;
        let outputs = random.within(1, 7);
        let (out_positions, in_positions) = positions(geometry);
        let (x, g) = (random.values(in_positions * channels), random.values(out_positions * outputs));
        let weight = random.values(window.kernel * window.kernel * channels * outputs);
        let mut input_gradient = vec![0.0; x.len()];
        let mut weight_gradient = vec![0.0; weight.len()];
        taps(geometry, |output, place, input| {
            for channel in 0..channels {
                for out_channel in 0..outputs {
                    let gradient = f64::from(g[output * outputs + out_channel]);
                    let weight_index = (place * channels + channel) * outputs + out_channel;
                    input_gradient[input * channels + channel] += gradient * f64::from(weight[weight_index]);
                    weight_gradient[weight_index] += gradient * f64::from(x[input * channels + channel]);
                }
            }
        });
        let max_bytes = max_bytes(&mut random, geometry, outputs);
        let case = format!("{geometry:?} in {max_bytes} bytes");
        let program = programs::conv_input_gradient(geometry, outputs, max_bytes)?;
        assert_near(&case, &shim.run(&program, &[&weight, &g]), &input_gradient);
        let program = programs::conv_weight_gradient(geometry, outputs, max_bytes)?;
        assert_near(&case, &shim.run(&program, &[&x, &g]), &weight_gradient);
    }
    Ok(())
}

#[test]
fn max_pool_equals_the_cpu_and_its_gradient_goes_to_the_first_maximum() -> Result<()> {
    let Some(mut shim) = Shim::start() else { return Ok(()) };
    let (mut random, cases) = cases(5, &[0, 1, 2]);
    for geometry in &cases {
        let Geometry { channels, window, .. } = *geometry;
        let (outputs, inputs) = positions(geometry);
        // Few different values, so that windows hold equal ones.
        let x: Vec<f32> = random.values(inputs * channels).iter().map(|value| (value * 4.0).round()).collect();
        let g = random.values(outputs * channels);
        let case = format!("{geometry:?}");
        let ours = shim.run(&programs::max_pool(geometry)?, &[&x]);
        assert_equals(&case, &ours, &ops::max_pool(&tensor(&x, &input_dims(geometry))?, window)?)?;

        let mut winners = vec![usize::MAX; outputs * channels];
        taps(geometry, |output, _, input| {
            for channel in 0..channels {
                let (winner, candidate) = (&mut winners[output * channels + channel], input * channels + channel);
                if *winner == usize::MAX || x[candidate] > x[*winner] {
                    *winner = candidate;
                }
            }
        });
        let mut gradient = vec![0.0; x.len()];
        winners.iter().zip(&g).for_each(|(winner, g)| gradient[*winner] += f64::from(*g));
        assert_near(&case, &shim.run(&programs::max_pool_gradient(geometry)?, &[&x, &g]), &gradient);
    }
    Ok(())
}

#[test]
fn max_pool_keeps_nan_wherever_it_lies() -> Result<()> {
    let Some(mut shim) = Shim::start() else { return Ok(()) };
    let geometry = Window { kernel: 2, stride: 2, padding: Padding::Each(0) }.over(&[1, 2, 2, 1])?;
    for place in 0..4 {
        let mut x = [-1.0, 3.0, f32::NEG_INFINITY, 2.0];
        x[place] = f32::NAN;
        assert!(shim.run(&programs::max_pool(&geometry)?, &[&x])[0].is_nan(), "{place}");
    }
    Ok(())
}

#[test]
fn global_average_pool_equals_the_cpu() -> Result<()> {
    let Some(mut shim) = Shim::start() else { return Ok(()) };
    let mut random = Random(6);
    for _ in 0..CASES {
        let dims = [random.within(1, 3), random.within(1, 9), random.within(1, 9), random.within(1, 40)];
        let [batch, height, width, channels] = dims;
        let (x, g) = (random.values(dims.iter().product()), random.values(batch * channels));
        let ours = shim.run(&programs::global_average_pool(dims)?, &[&x]);
        assert_equals(&format!("{dims:?}"), &ours, &ops::global_average_pool(&tensor(&x, &dims)?)?)?;
        let ours = shim.run(&programs::global_average_pool_gradient(dims)?, &[&g]);
        let share = |index: usize| {
            let image = index / (height * width * channels);
            f64::from(g[image * channels + index % channels]) / (height * width) as f64
        };
        assert_near(&format!("{dims:?}"), &ours, &(0..x.len()).map(share).collect::<Vec<_>>());
    }
    Ok(())
}

#[test]
fn a_window_wholly_in_padding_convolves_to_its_bias() -> Result<()> {
    let Some(mut shim) = Shim::start() else { return Ok(()) };
    let geometry = Window { kernel: 1, stride: 1, padding: Padding::Each(2) }.over(&[1, 1, 1, 2])?;
    let (x, weight, bias) = ([3.0, 5.0], [7.0, 11.0], [0.25, 0.5]);
    let ours = shim.run(&programs::depthwise(&geometry, Activation::None)?, &[&x, &weight, &bias]);
    let oracle: Vec<f64> = (0..25).flat_map(|place| if place == 12 { [21.25, 55.5] } else { [0.25, 0.5] }).collect();
    assert_near("padding", &ours, &oracle);
    Ok(())
}
