//! How good predictions of peaks were: from what jobs of a kind were predicted to take and did take, a factor for the next
//! prediction and an error band.

use serde::Serialize;

/// With fewer jobs nothing is said.
const FEWEST: usize = 3;

/// A factor outside of this would hide a wrong prediction instead of correcting it.
const FACTORS: [f64; 2] = [0.5, 2.0];

/// No band is narrower: the next job is never just like the last ones.
const NARROWEST: f64 = 0.02;

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Calibration {
    /// What a prediction is multiplied by.
    pub factor: f64,
    /// After that, jobs took at most this share more or less: 0.06 is "± 6 %".
    pub band: f64,
    pub jobs: usize,
}

impl Calibration {
    /// From pairs of predicted and measured bytes of jobs of one kind. None with too few that can be compared.
    pub fn of(peaks: &[(u64, u64)]) -> Option<Self> {
        let is_known = |(predicted, measured): &&(u64, u64)| *predicted > 0 && *measured > 0;
        let mut ratios: Vec<f64> =
            peaks.iter().filter(is_known).map(|(predicted, measured)| *measured as f64 / *predicted as f64).collect();
        if ratios.len() < FEWEST {
            return None;
        }
        ratios.sort_by(f64::total_cmp);
        let middle = ratios.len() / 2;
        let median =
            if ratios.len().is_multiple_of(2) { (ratios[middle - 1] + ratios[middle]) / 2.0 } else { ratios[middle] };
        let factor = median.clamp(FACTORS[0], FACTORS[1]);
        let band = ratios.iter().map(|ratio| (ratio / factor - 1.0).abs()).fold(NARROWEST, f64::max);
        Some(Self { factor, band, jobs: ratios.len() })
    }

    pub fn corrected(&self, predicted: u64) -> u64 {
        (predicted as f64 * self.factor) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_factor_is_the_median_ratio_and_the_band_holds_every_job() {
        let calibration = Calibration::of(&[(100, 110), (200, 240), (50, 60), (100, 126), (10, 0), (0, 10)]).unwrap();
        assert_eq!((calibration.factor, calibration.jobs), (1.2, 4));
        // 110 was predicted as 120.
        assert!((calibration.band - (1.0 - 1.1 / 1.2)).abs() < 1e-12);
        assert_eq!(calibration.corrected(1000), 1200);
    }

    #[test]
    fn too_few_jobs_say_nothing_and_bounds_hold() {
        assert_eq!(Calibration::of(&[(100, 110), (100, 120)]), None);
        let exact = Calibration::of(&[(100, 100); 5]).unwrap();
        assert_eq!((exact.factor, exact.band), (1.0, 0.02));
        let far = Calibration::of(&[(100, 900); 3]).unwrap();
        assert_eq!(far.factor, 2.0);
        assert!((far.band - 3.5).abs() < 1e-12, "what the factor may not correct is in the band");
    }
}
