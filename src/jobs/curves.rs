//! The course of a run as curves of a few hundred points, however many steps it had.

use crate::train::{EpochRecord, Record, StepRecord};

/// Most points of a curve; with one more, neighbours are averaged.
const MOST_POINTS: usize = 1000;

/// Points whose number is bounded: each is the mean of as many neighbours as is needed.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    points: Vec<[f64; 2]>,
    /// How many samples make a point.
    stride: usize,
    /// Samples of the point that is not full yet, and their sums.
    open: (usize, [f64; 2]),
}

impl Default for Curve {
    fn default() -> Self {
        Self { points: Vec::new(), stride: 1, open: (0, [0.0; 2]) }
    }
}

impl Curve {
    /// Adds a sample; they come in the order of `x`.
    pub fn push(&mut self, x: f64, y: f64) {
        let (count, [sum_x, sum_y]) = self.open;
        self.open = (count + 1, [sum_x + x, sum_y + y]);
        if count + 1 < self.stride {
            return;
        }
        self.points.push(self.open.1.map(|sum| sum / self.stride as f64));
        self.open = (0, [0.0; 2]);
        if self.points.len() > MOST_POINTS {
            let pairs = self.points.chunks_exact(2);
            let rest = pairs.remainder().to_vec();
            let mean = |pair: &[[f64; 2]]| [0, 1].map(|axis| (pair[0][axis] + pair[1][axis]) / 2.0);
            self.points = pairs.map(mean).collect();
            // The one that is left over begins the next point.
            if let [one] = rest.as_slice() {
                self.open = (self.stride, one.map(|mean| mean * self.stride as f64));
            }
            self.stride *= 2;
        }
    }

    pub fn points(&self) -> &[[f64; 2]] {
        &self.points
    }

    /// Takes away what lies at `x` and behind it.
    fn cut(&mut self, x: f64) {
        self.points.retain(|point| point[0] < x);
        self.open = (0, [0.0; 2]);
    }
}

/// What the metrics of a run say.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Curves {
    /// Of the training batches, by step.
    pub loss: Curve,
    pub accuracy: Curve,
    pub rate: Curve,
    pub epochs: Vec<EpochRecord>,
    pub last: Option<StepRecord>,
}

impl Curves {
    pub fn of(records: &[Record]) -> Self {
        let mut curves = Self::default();
        records.iter().for_each(|record| curves.add(record));
        curves
    }

    /// Adds the next record. One that comes again takes the place of all that followed it: a run that is continued
    /// repeats what came after its last snapshot.
    pub fn add(&mut self, record: &Record) {
        match record {
            Record::Step(step) => {
                let x = step.step as f64;
                if self.last.is_some_and(|last| last.step >= step.step) {
                    for curve in [&mut self.loss, &mut self.accuracy, &mut self.rate] {
                        curve.cut(x);
                    }
                    self.epochs.retain(|epoch| epoch.epoch < step.epoch);
                }
                self.loss.push(x, step.loss);
                self.accuracy.push(x, step.accuracy);
                self.rate.push(x, step.lr);
                self.last = Some(*step);
            }
            Record::Epoch(epoch) => {
                self.epochs.retain(|other| other.epoch < epoch.epoch);
                self.epochs.push(*epoch);
            }
            Record::Guard(_) => {}
        }
    }

    /// Steps of the optimizer in an epoch, once one is over.
    pub fn steps_per_epoch(&self) -> Option<f64> {
        self.epochs.last().map(|epoch| epoch.step as f64 / (epoch.epoch + 1) as f64).filter(|steps| *steps > 0.0)
    }

    /// The best epoch so far: of its weights is `best.safetensors`.
    pub fn best(&self) -> Option<&EpochRecord> {
        self.epochs.iter().rev().find(|epoch| epoch.best)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(step: u64, epoch: u64) -> Record {
        let loss = (step as f64).sin();
        Record::Step(StepRecord { step, epoch, loss, accuracy: 0.5, lr: 1e-3, gradient_norm: 1.0 })
    }

    #[test]
    fn a_long_curve_keeps_its_mean_and_its_ends_in_few_points() {
        let mut curve = Curve::default();
        (0..100_000).for_each(|x| curve.push(f64::from(x), f64::from(x) * 2.0));
        let points = curve.points();
        assert!(points.len() > MOST_POINTS / 3 && points.len() <= MOST_POINTS, "{}", points.len());
        assert!(points.windows(2).all(|pair| pair[0][0] < pair[1][0]));
        assert!(points.iter().all(|[x, y]| (y - 2.0 * x).abs() < 1e-6));
        assert!(points[0][0] < 200.0 && points[points.len() - 1][0] > 99_500.0);
    }

    #[test]
    fn what_is_trained_again_replaces_what_was_there() {
        let mut curves = Curves::of(&(0..30).map(|at| step(at, at / 10)).collect::<Vec<_>>());
        assert_eq!(curves.loss.points().len(), 30);
        curves.add(&step(20, 2));
        assert_eq!(curves.loss.points().len(), 21);
        assert_eq!(curves, Curves::of(&(0..21).map(|at| step(at, at / 10)).collect::<Vec<_>>()));
    }
}
