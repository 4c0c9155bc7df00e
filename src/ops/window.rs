//! The sliding window that convolutions and pools share: where each output position reads its input.

use candle_core::Result;

/// What surrounds an image before a window slides over it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Padding {
    /// The same number of rows and columns on every side.
    Each(usize),
    /// As much as makes the output `⌈input / stride⌉` long, the odd one at the end: TensorFlow's `SAME`.
    Same,
    /// None, but a window may hang over the end: PyTorch's `ceil_mode`. For pools only.
    Ceil,
}

/// A square window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    pub kernel: usize,
    pub stride: usize,
    pub padding: Padding,
}

impl Window {
    /// The padding `kernel / 2` on every side: output as large as input at stride 1.
    pub fn centered(kernel: usize, stride: usize) -> Self {
        Self { kernel, stride, padding: Padding::Each(kernel / 2) }
    }

    /// The window over an input of shape `(batch, height, width, channels)`.
    pub fn over(self, dims: &[usize]) -> Result<Geometry> {
        let &[batch, height, width, channels] = dims else {
            candle_core::bail!("an image batch has four axes, not shape {dims:?}");
        };
        let (top, out_height) = self.along(height)?;
        let (left, out_width) = self.along(width)?;
        Ok(Geometry { window: self, batch, height, width, channels, top, left, out_height, out_width })
    }

    /// Padding before the first element and number of outputs along one axis.
    fn along(self, length: usize) -> Result<(usize, usize)> {
        let Self { kernel, stride, padding } = self;
        match padding {
            Padding::Each(padding) if length + 2 * padding >= kernel && length > 0 => {
                Ok((padding, (length + 2 * padding - kernel) / stride + 1))
            }
            Padding::Same if length > 0 => {
                let outputs = length.div_ceil(stride);
                Ok((((outputs - 1) * stride + kernel).saturating_sub(length) / 2, outputs))
            }
            Padding::Ceil if length >= kernel => Ok((0, (length - kernel).div_ceil(stride) + 1)),
            _ => candle_core::bail!("an image side of {length} is too small for a window of {kernel}"),
        }
    }
}

/// A window over one input shape.
#[derive(Debug, Clone, Copy)]
pub struct Geometry {
    pub window: Window,
    pub batch: usize,
    pub height: usize,
    pub width: usize,
    pub channels: usize,
    /// Padding above and to the left.
    pub top: usize,
    pub left: usize,
    pub out_height: usize,
    pub out_width: usize,
}

impl Geometry {
    /// Output positions of the whole batch.
    pub fn positions(&self) -> usize {
        self.batch * self.out_height * self.out_width
    }

    /// The part of the window at output row `y` that lies inside the image: the first input row, and window rows.
    pub fn rows(&self, y: usize) -> (usize, std::ops::Range<usize>) {
        inside(y * self.window.stride, self.top, self.window.kernel, self.height)
    }

    /// The same for output column `x`.
    pub fn columns(&self, x: usize) -> (usize, std::ops::Range<usize>) {
        inside(x * self.window.stride, self.left, self.window.kernel, self.width)
    }
}

/// `start` counts in the padded input. Returns the first input index and the window's range over it.
fn inside(start: usize, before: usize, kernel: usize, length: usize) -> (usize, std::ops::Range<usize>) {
    let skipped = before.saturating_sub(start).min(kernel);
    let first = (start + skipped).saturating_sub(before);
    let end = (length + before).saturating_sub(start).min(kernel);
    (first, skipped..end.max(skipped))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_sizes_are_those_of_pytorch_and_tensorflow() {
        let along = |kernel, stride, padding, length| Window { kernel, stride, padding }.along(length).ok();
        assert_eq!(along(3, 2, Padding::Each(1), 224), Some((1, 112)));
        assert_eq!(along(3, 2, Padding::Same, 224), Some((0, 112)));
        assert_eq!(along(5, 2, Padding::Same, 7), Some((2, 4)));
        assert_eq!(along(3, 2, Padding::Ceil, 109), Some((0, 54)));
        assert_eq!(along(3, 2, Padding::Ceil, 54), Some((0, 27)));
        assert_eq!(along(7, 1, Padding::Each(0), 6), None);
        assert_eq!(along(3, 1, Padding::Each(1), 0), None);
    }

    #[test]
    fn windows_are_cut_at_the_edges() {
        assert_eq!(inside(0, 1, 3, 5), (0, 1..3));
        assert_eq!(inside(4, 1, 3, 5), (3, 0..2));
        assert_eq!(inside(2, 0, 3, 4), (2, 0..2));
        assert_eq!(inside(0, 3, 7, 2), (0, 3..5));
    }
}
