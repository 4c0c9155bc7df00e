//! Plots as SVG: lines, dots and bars over two axes, in the colours of the page's style.

use super::page::escape;
use crate::format;

/// The picture, and the room for labels around the plot.
const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 26.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 46.0;

/// How far beyond the plot a line on its edge reaches.
const EDGE: f64 = 3.0;

/// A line has at most so many points; of more, means of neighbours are drawn.
const MOST_POINTS: usize = 600;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    Linear,
    /// Powers of ten are equally far apart.
    Log,
}

/// What an axis' numbers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Number,
    /// Shares from 0 to 1, shown in percent.
    Share,
    Bytes,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Axis {
    pub label: &'static str,
    pub scale: Scale,
    pub unit: Unit,
    /// From where to where; none follows the points.
    pub range: Option<[f64; 2]>,
}

impl Axis {
    pub const fn new(label: &'static str, unit: Unit) -> Self {
        Self { label, scale: Scale::Linear, unit, range: None }
    }

    pub const fn with_range(self, from: f64, to: f64) -> Self {
        Self { range: Some([from, to]), ..self }
    }

    pub const fn logarithmic(self) -> Self {
        Self { scale: Scale::Log, ..self }
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Shape {
    Line,
    /// A thin line, for what jumps.
    Faint,
    Dashed,
    /// A line with its points.
    Dots,
    /// From 0 up, so wide on the axis.
    Bars(f64),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    pub name: &'static str,
    /// One of the style's colours, 0 to 3, or 4 for grey.
    pub color: usize,
    pub shape: Shape,
    /// In the order of the axis; what is no number is left out.
    pub points: Vec<(f64, f64)>,
}

/// A vertical line with its name.
#[derive(Debug, Clone, PartialEq)]
pub struct Mark {
    pub x: f64,
    pub label: String,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Plot {
    pub title: &'static str,
    pub x: Axis,
    pub y: Axis,
    pub series: Vec<Series>,
    pub marks: Vec<Mark>,
}

/// An axis with its ends, both on its scale.
struct Ruler {
    axis: Axis,
    low: f64,
    high: f64,
}

impl Plot {
    /// The plot with its title and legend.
    pub fn figure(&self) -> String {
        let legend: String = match self.series.as_slice() {
            [_] => String::new(),
            many => {
                many.iter().map(|one| format!("<b class=\"k{}\"><span>{}</span></b>", one.color, one.name)).collect()
            }
        };
        format!("<figure>\n<h3>{}</h3>\n{}<figcaption>{legend}</figcaption>\n</figure>\n", self.title, self.svg())
    }

    fn svg(&self) -> String {
        let points = || self.series.iter().flat_map(|series| series.points.iter().copied());
        // What jumps may leave the plot, unless there is nothing else.
        let steady = self.series.iter().filter(|series| series.shape != Shape::Faint && !series.points.is_empty());
        let heights: Vec<f64> = match steady.clone().next() {
            Some(_) => steady.flat_map(|series| series.points.iter().map(|point| point.1)).collect(),
            None => points().map(|point| point.1).collect(),
        };
        let has_bars = self.series.iter().any(|series| matches!(series.shape, Shape::Bars(_)));
        let x = Ruler::new(self.x, points().map(|point| point.0), false);
        let y = Ruler::new(self.y, heights.into_iter(), has_bars);
        let (width, height) = (WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM);
        let mut svg = format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">\n",
            escape(&format!("{}: {} by {}", self.title, self.y.label, self.x.label))
        );
        let mut put = |text: String| svg += &text;
        for (value, text) in y.ticks() {
            let at = TOP + height * (1.0 - y.place(value));
            put(format!("<path class=\"grid\" d=\"M{LEFT} {at:.1}h{width}\"/>"));
            put(format!("<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>\n", LEFT - 7.0, at + 4.0));
        }
        for (value, text) in x.ticks() {
            let (at, below) = (LEFT + width * x.place(value), TOP + height);
            put(format!("<path class=\"grid\" d=\"M{at:.1} {below}v5\"/>"));
            put(format!("<text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{text}</text>\n", below + 19.0));
        }
        put(format!(
            "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n",
            LEFT + width / 2.0,
            HEIGHT - 8.0,
            escape(self.x.label)
        ));
        // A picture within the picture, which cuts off what lies outside, but for the width of a line.
        let (out_x, out_y, wide, high) = (LEFT - EDGE, TOP - EDGE, width + 2.0 * EDGE, height + 2.0 * EDGE);
        put(format!(
            "<svg x=\"{out_x}\" y=\"{out_y}\" width=\"{wide}\" height=\"{high}\" viewBox=\"-{EDGE} -{EDGE} {wide} {high}\">\n"
        ));
        let place = |(px, py): (f64, f64)| (width * x.place(px), height * (1.0 - y.place(py)));
        for series in &self.series {
            put(series.svg(&place, &|point| x.holds(point.0) && y.holds(point.1)));
        }
        for mark in &self.marks {
            let at = width * x.place(mark.x);
            let (anchor, aside) = if at > width * 0.7 { ("end", -6.0) } else { ("start", 6.0) };
            put(format!("<path class=\"mark\" d=\"M{at:.1} 0v{height}\"/>"));
            let text = escape(&mark.label);
            put(format!("<text x=\"{:.1}\" y=\"14\" text-anchor=\"{anchor}\">{text}</text>\n", at + aside));
        }
        svg + "</svg>\n</svg>\n"
    }
}

impl Series {
    fn svg(&self, place: &dyn Fn((f64, f64)) -> (f64, f64), is_drawable: &dyn Fn((f64, f64)) -> bool) -> String {
        let points: Vec<(f64, f64)> = self.points.iter().copied().filter(|point| is_drawable(*point)).collect();
        let class = match self.shape {
            Shape::Line | Shape::Dots => "series",
            Shape::Faint => "series faint",
            Shape::Dashed => "series dashed",
            Shape::Bars(_) => "bars",
        };
        let mut text = format!("<g class=\"k{}\">", self.color);
        if let Shape::Bars(wide) = self.shape {
            text += "<g class=\"bars\">";
            for (px, py) in points {
                let ((left, top), (right, base)) = (place((px - wide / 2.0, py)), place((px + wide / 2.0, 0.0)));
                let (width, height) = (right - left, base - top);
                text += &format!(
                    "<rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{height:.1}\">{}</rect>",
                    self.hint((px, py))
                );
            }
            return text + "</g></g>\n";
        }
        text += &format!("<path class=\"{class}\" d=\"");
        for (number, point) in thinned(&points).into_iter().enumerate() {
            let (px, py) = place(point);
            text += &format!("{}{px:.1} {py:.1}", if number == 0 { 'M' } else { 'L' });
        }
        text += "\"/>";
        if self.shape == Shape::Dots && points.len() <= MOST_POINTS {
            text += "<g class=\"dots\">";
            for point in points {
                let (px, py) = place(point);
                text += &format!("<circle cx=\"{px:.1}\" cy=\"{py:.1}\" r=\"3\">{}</circle>", self.hint(point));
            }
            text += "</g>";
        }
        text + "</g>\n"
    }

    /// What is shown when the pointer rests on a point.
    fn hint(&self, (px, py): (f64, f64)) -> String {
        format!("<title>{}: {} at {}</title>", self.name, plain(py), plain(px))
    }
}

/// Few enough points for a line: means of equally many neighbours.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let size = points.len().div_ceil(MOST_POINTS).max(1);
    let mean = |part: &[(f64, f64)]| {
        let sum = part.iter().fold((0.0, 0.0), |sum, point| (sum.0 + point.0, sum.1 + point.1));
        (sum.0 / part.len() as f64, sum.1 / part.len() as f64)
    };
    points.chunks(size).map(mean).collect()
}

impl Ruler {
    /// `from_zero` has 0 on the axis whatever the values are.
    fn new(axis: Axis, values: impl Iterator<Item = f64>, from_zero: bool) -> Self {
        let on_scale = |value: f64| if axis.scale == Scale::Log { value.log10() } else { value };
        if let Some([low, high]) = axis.range {
            return Self { axis, low: on_scale(low), high: on_scale(high) };
        }
        let values = values.map(on_scale).filter(|value| value.is_finite());
        let (mut low, mut high) =
            values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
        if low > high {
            (low, high) = (0.0, 1.0);
        }
        let is_linear = axis.scale == Scale::Linear;
        let starts_at_zero = is_linear && (from_zero || (0.0..0.4 * high).contains(&low));
        let room = if high > low { 0.03 * (high - low) } else { 0.5 * high.abs().max(1e-9) };
        low = if starts_at_zero { 0.0 } else { low - room };
        Self { axis, low, high: high + room }
    }

    /// Whether a value can be drawn at all; one beyond the ends can.
    fn holds(&self, value: f64) -> bool {
        value.is_finite() && (self.axis.scale == Scale::Linear || value > 0.0)
    }

    /// From 0 to 1 between the ends.
    fn place(&self, value: f64) -> f64 {
        let value = if self.axis.scale == Scale::Log { value.log10() } else { value };
        (value - self.low) / (self.high - self.low)
    }

    fn ticks(&self) -> Vec<(f64, String)> {
        if self.axis.scale == Scale::Log {
            let powers = (self.low.ceil() as i32)..=(self.high.floor() as i32);
            return powers.map(|power| (10_f64.powi(power), format!("1e{power}"))).collect();
        }
        let step = round_step((self.high - self.low) / 5.0);
        let numbers = ((self.low / step - 1e-9).ceil() as i64)..=((self.high / step + 1e-9).floor() as i64);
        numbers.map(|number| number as f64 * step).map(|value| (value, self.text(value, step))).collect()
    }

    fn text(&self, value: f64, step: f64) -> String {
        let decimals = |step: f64| (-(step.log10() + 1e-9).floor()).max(0.0) as usize;
        match self.axis.unit {
            Unit::Share => format!("{:.*} %", decimals(100.0 * step), 100.0 * value),
            Unit::Bytes => format::bytes(value.max(0.0) as u64),
            Unit::Number if value == 0.0 => "0".to_owned(),
            Unit::Number if step < 1e-3 => format!("{value:.1e}").replace(".0e", "e"),
            Unit::Number if step >= 1.0 => format::count(value.max(0.0) as u64),
            Unit::Number => format!("{value:.*}", decimals(step)),
        }
    }
}

/// The next of 1, 2, 5, 10, … that is not below.
fn round_step(least: f64) -> f64 {
    let power = 10_f64.powf(least.log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|factor| factor * power >= least * (1.0 - 1e-9));
    power * factor.unwrap_or(10.0)
}

/// A number with as many digits as tell something.
fn plain(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if !(1e-3..1e7).contains(&size) => format!("{value:.2e}"),
        size if size < 10.0 => format!("{value:.4}"),
        _ => format!("{value:.1}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ruler(axis: Axis, values: &[f64]) -> Vec<String> {
        Ruler::new(axis, values.iter().copied(), false).ticks().into_iter().map(|(_, text)| text).collect()
    }

    #[test]
    fn ticks_are_round_and_in_the_axis_unit() {
        let number = Axis::new("", Unit::Number);
        assert_eq!(ruler(number.with_range(0.0, 1.0), &[]), ["0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(ruler(number.with_range(0.0, 2e-4), &[]), ["0", "5e-5", "1e-4", "1.5e-4", "2e-4"]);
        assert_eq!(ruler(number.with_range(0.0, 5000.0), &[]), ["0", "1,000", "2,000", "3,000", "4,000", "5,000"]);
        assert_eq!(ruler(Axis::new("", Unit::Share).with_range(0.9, 1.0), &[]).first().unwrap(), "90 %");
        assert_eq!(ruler(number.logarithmic().with_range(1e-7, 1.0), &[]).len(), 8);
        assert_eq!(ruler(Axis::new("", Unit::Bytes), &[0.0, 1.9e9])[1], "500 MB");
    }

    #[test]
    fn nothing_constant_or_not_a_number_draws_numbers_all_the_same() {
        for points in [vec![], vec![(1.0, 2.0)], vec![(0.0, 0.0), (1.0, f64::NAN)], vec![(0.0, f64::INFINITY)]] {
            let series = vec![Series { name: "a", color: 0, shape: Shape::Dots, points }];
            let axis = Axis::new("x", Unit::Number);
            let text = Plot { title: "t", x: axis, y: axis, series, marks: Vec::new() }.figure();
            assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
        }
    }

    #[test]
    fn long_lines_are_thinned_to_means() {
        let points: Vec<(f64, f64)> = (0..10_000).map(|x| (f64::from(x), f64::from(x % 2))).collect();
        let thin = thinned(&points);
        assert!(thin.len() <= MOST_POINTS && thin.len() > MOST_POINTS / 2);
        assert!(thin.iter().all(|point| (point.1 - 0.5).abs() < 0.1));
    }
}
