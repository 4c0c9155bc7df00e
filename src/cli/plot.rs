//! A plot of letters, for terminals.

/// The plot's size in letters.
const COLUMNS: usize = 64;
const ROWS: usize = 12;

/// A curve through `points`, whose first numbers grow; `mark` is a vertical line. Whole numbers on the horizontal axis get
/// the label that `name` gives them.
pub fn plot(points: &[(f64, f64)], mark: Option<f64>, name: impl Fn(i64) -> String) -> String {
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return String::new() };
    let width = (last.0 - first.0).max(f64::MIN_POSITIVE);
    let column = |x: f64| (((x - first.0) / width * (COLUMNS - 1) as f64).round().max(0.0) as usize).min(COLUMNS - 1);
    let low = points.iter().map(|point| point.1).fold(f64::INFINITY, f64::min);
    let high = points.iter().map(|point| point.1).fold(f64::NEG_INFINITY, f64::max);
    let height = (high - low).max(f64::MIN_POSITIVE);
    let row = |y: f64| (((high - y) / height * (ROWS - 1) as f64).round().max(0.0) as usize).min(ROWS - 1);
    let mut letters = vec![[' '; COLUMNS]; ROWS];
    if let Some(mark) = mark {
        letters.iter_mut().for_each(|row| row[column(mark)] = '|');
    }
    for (x, y) in points {
        letters[row(*y)][column(*x)] = '*';
    }
    let mut text = String::new();
    for (number, letters) in letters.iter().enumerate() {
        let value = high - height * number as f64 / (ROWS - 1) as f64;
        let line: String = letters.iter().collect();
        text += &format!("{value:>9.3} |{}\n", line.trim_end());
    }
    text += &format!("{:>9} +{}\n", "", "-".repeat(COLUMNS));
    let mut labels = String::new();
    for number in first.0.ceil() as i64..=last.0.floor() as i64 {
        let at = column(number as f64);
        if at >= labels.len() {
            labels += &" ".repeat(at - labels.len());
            labels += &name(number);
            labels.push(' ');
        }
    }
    text + &format!("{:>9}  {}\n", "", labels.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_goes_from_its_highest_to_its_lowest_point_and_the_mark_stands_at_its_place() {
        let points: Vec<(f64, f64)> = (0..=100).map(|x| (f64::from(x) / 10.0, f64::from(100 - x))).collect();
        let text = plot(&points, Some(5.0), |number| format!("e{number}"));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), ROWS + 2);
        assert!(lines[0].starts_with("  100.000 |*") && lines[ROWS - 1].ends_with('*'));
        assert_eq!(lines[0].find('|'), Some(10));
        assert!(lines[0].contains("|*") && lines[0].ends_with('|'));
        assert!(lines[ROWS + 1].trim_start().starts_with("e0") && lines[ROWS + 1].ends_with("e10"));
    }

    #[test]
    fn one_point_or_none_is_no_reason_to_fail() {
        assert_eq!(plot(&[], None, |number| number.to_string()), "");
        assert!(plot(&[(1.0, 2.0)], Some(7.0), |number| number.to_string()).contains('*'));
    }
}
