//! How good a classifier is: its answers against the photos' true classes.

use std::path::PathBuf;

use serde::Serialize;

/// A photo, its class, and what the network answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    pub path: PathBuf,
    /// Index of the true class.
    pub class: usize,
    /// Per class of the network.
    pub logits: Vec<f32>,
}

/// One photo, judged.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Judged {
    pub path: PathBuf,
    pub class: usize,
    pub predicted: usize,
    /// Of the predicted class, 0–1.
    pub confidence: f64,
    /// The cross entropy: high where the label is likely wrong.
    pub loss: f64,
    /// How many classes were likelier than the true one.
    pub rank: usize,
}

/// How one class fared. A share of nothing is none.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClassScore {
    pub name: String,
    pub photos: usize,
    /// Of the photos called so, those that are.
    pub precision: Option<f64>,
    /// Of the photos that are, those called so.
    pub recall: Option<f64>,
    /// Harmonic mean of the two.
    pub f1: Option<f64>,
}

/// Photos whose confidence lies in one tenth, the upper end left out but for the last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Bin {
    pub photos: usize,
    /// Means over the bin, 0–1.
    pub confidence: f64,
    pub accuracy: f64,
}

/// What is left and how good that is when photos below a confidence are called unsure.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ThresholdPoint {
    pub threshold: f64,
    /// Share of photos answered.
    pub answered: f64,
    /// Accuracy among these; none when there are none.
    pub accuracy: Option<f64>,
}

/// Everything about a classifier's answers to some photos.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Evaluation {
    pub photos: usize,
    /// Shares from 0 to 1.
    pub top1: f64,
    pub top5: f64,
    /// The mean cross entropy.
    pub loss: f64,
    /// The expected calibration error: over the bins, the mean distance of mean confidence and accuracy, weighted by photos
    /// (Guo et al. 2017, "On calibration of modern neural networks", equation 3).
    pub calibration_error: f64,
    /// In the order of the network's classes.
    pub classes: Vec<ClassScore>,
    /// By true class, then predicted class: photos.
    pub confusion: Vec<Vec<usize>>,
    pub calibration: Vec<Bin>,
    pub thresholds: Vec<ThresholdPoint>,
    /// The highest loss first.
    pub judged: Vec<Judged>,
}

/// Bins of the calibration curve, and steps of the threshold curve.
const BINS: usize = 10;
const STEPS: usize = 100;

impl Evaluation {
    /// `labels` are the network's classes.
    pub fn new(answers: Vec<Answer>, labels: &[impl AsRef<str>]) -> Self {
        let mut judged: Vec<Judged> = answers.into_iter().map(judge).collect();
        let count = judged.len();
        let share = |hits: usize| hits as f64 / count.max(1) as f64;
        let mut confusion = vec![vec![0; labels.len()]; labels.len()];
        for one in &judged {
            confusion[one.class][one.predicted] += 1;
        }
        let calibration = calibration(&judged);
        let gap = |bin: &Bin| share(bin.photos) * (bin.confidence - bin.accuracy).abs();
        judged.sort_by(|a, b| b.loss.total_cmp(&a.loss).then_with(|| a.path.cmp(&b.path)));
        Self {
            photos: count,
            top1: share(judged.iter().filter(|one| one.rank == 0).count()),
            top5: share(judged.iter().filter(|one| one.rank < 5).count()),
            loss: judged.iter().map(|one| one.loss).sum::<f64>() / count.max(1) as f64,
            calibration_error: calibration.iter().map(gap).sum(),
            classes: labels
                .iter()
                .enumerate()
                .map(|(class, name)| class_score(&confusion, class, name.as_ref()))
                .collect(),
            thresholds: (0..STEPS).map(|step| threshold_point(&judged, step as f64 / STEPS as f64)).collect(),
            confusion,
            calibration,
            judged,
        }
    }

    /// Which classes were taken for which others, and in how many photos: true class, called class, photos. The most
    /// frequent first.
    pub fn mistakes(&self) -> Vec<(usize, usize, usize)> {
        let mut mistakes = Vec::new();
        for (class, row) in self.confusion.iter().enumerate() {
            let wrong = row.iter().enumerate().filter(|(called, photos)| *called != class && **photos > 0);
            mistakes.extend(wrong.map(|(called, photos)| (class, called, *photos)));
        }
        mistakes.sort_by_key(|(class, called, photos)| (std::cmp::Reverse(*photos), *class, *called));
        mistakes
    }

    /// The classes that photos are of or were called.
    pub fn seen(&self) -> Vec<usize> {
        let is_called = |class: usize| self.confusion.iter().any(|row| row[class] > 0);
        (0..self.classes.len()).filter(|&class| self.classes[class].photos > 0 || is_called(class)).collect()
    }

    /// Places among the judged photos of those of a class that were called so.
    pub fn photos(&self, class: usize, called: usize) -> Vec<usize> {
        let is_wanted = |one: &Judged| one.class == class && one.predicted == called;
        self.judged.iter().enumerate().filter(|(_, one)| is_wanted(one)).map(|(place, _)| place).collect()
    }

    /// The lowest threshold whose answers are right as often as wanted; none when no threshold's are.
    pub fn threshold_for(&self, accuracy: f64) -> Option<&ThresholdPoint> {
        self.thresholds.iter().find(|point| point.accuracy.is_some_and(|share| share >= accuracy))
    }
}

fn judge(Answer { path, class, logits }: Answer) -> Judged {
    let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let above = |logit: f32| f64::from(logit) - f64::from(highest);
    let sum: f64 = logits.iter().map(|logit| above(*logit).exp()).sum();
    // Of equal ones the first, as everywhere.
    let predicted = logits.iter().position(|logit| *logit == highest).unwrap_or_default();
    let own = logits[class];
    let rank =
        logits.iter().enumerate().filter(|(other, logit)| **logit > own || (**logit == own && *other < class)).count();
    Judged { path, class, predicted, confidence: 1.0 / sum, loss: sum.ln() - above(own), rank }
}

fn class_score(confusion: &[Vec<usize>], class: usize, name: &str) -> ClassScore {
    let hits = confusion[class][class];
    let photos: usize = confusion[class].iter().sum();
    let called: usize = confusion.iter().map(|row| row[class]).sum();
    let share = |of: usize| (of > 0).then(|| hits as f64 / of as f64);
    // 2 tp / (2 tp + fp + fn)
    let f1 = (photos + called > 0).then(|| 2.0 * hits as f64 / (photos + called) as f64);
    ClassScore { name: name.to_owned(), photos, precision: share(called), recall: share(photos), f1 }
}

fn calibration(judged: &[Judged]) -> Vec<Bin> {
    let mut bins = vec![Bin::default(); BINS];
    for one in judged {
        let bin = &mut bins[((one.confidence * BINS as f64) as usize).min(BINS - 1)];
        bin.photos += 1;
        bin.confidence += one.confidence;
        bin.accuracy += f64::from(u8::from(one.rank == 0));
    }
    for bin in bins.iter_mut().filter(|bin| bin.photos > 0) {
        bin.confidence /= bin.photos as f64;
        bin.accuracy /= bin.photos as f64;
    }
    bins
}

fn threshold_point(judged: &[Judged], threshold: f64) -> ThresholdPoint {
    let (mut answered, mut hits) = (0_usize, 0_usize);
    for one in judged.iter().filter(|one| one.confidence >= threshold) {
        answered += 1;
        hits += usize::from(one.rank == 0);
    }
    let accuracy = (answered > 0).then(|| hits as f64 / answered as f64);
    ThresholdPoint { threshold, answered: answered as f64 / judged.len().max(1) as f64, accuracy }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(path: &str, class: usize, logits: [f32; 3]) -> Answer {
        Answer { path: path.into(), class, logits: logits.to_vec() }
    }

    fn evaluation() -> Evaluation {
        // Classes a and b are right twice and once, b once called c; c never occurs.
        let answers = vec![
            answer("1", 0, [4.0, 0.0, 0.0]),
            answer("2", 0, [1.0, 0.5, 0.0]),
            answer("3", 1, [0.0, 2.0, 0.0]),
            answer("4", 1, [0.0, 1.0, 3.0]),
        ];
        Evaluation::new(answers, &["a", "b", "c"])
    }

    #[test]
    fn scores_follow_their_definitions() {
        let Evaluation { photos, top1, top5, classes, confusion, .. } = evaluation();
        assert_eq!((photos, top1, top5), (4, 0.75, 1.0));
        assert_eq!(confusion, [[2, 0, 0], [0, 1, 1], [0, 0, 0]]);
        let scores = |class: &ClassScore| (class.photos, class.precision, class.recall, class.f1);
        assert_eq!(scores(&classes[0]), (2, Some(1.0), Some(1.0), Some(1.0)));
        assert_eq!(scores(&classes[1]), (2, Some(1.0), Some(0.5), Some(2.0 / 3.0)));
        assert_eq!(scores(&classes[2]), (0, Some(0.0), None, Some(0.0)));
    }

    #[test]
    fn the_likely_mislabelled_photo_comes_first() {
        let Evaluation { judged, loss, .. } = evaluation();
        assert_eq!(judged[0].path, PathBuf::from("4"));
        // -ln(e¹ / (e⁰ + e¹ + e³))
        assert!((judged[0].loss - ((1.0 + 1_f64.exp() + 3_f64.exp()).ln() - 1.0)).abs() < 1e-9);
        assert_eq!((judged[0].class, judged[0].predicted, judged[0].rank), (1, 2, 1));
        assert!((loss - judged.iter().map(|one| one.loss).sum::<f64>() / 4.0).abs() < 1e-12);
    }

    #[test]
    fn a_threshold_leaves_the_sure_ones_and_bins_hold_every_photo() {
        let Evaluation { thresholds, calibration, calibration_error, judged, .. } = evaluation();
        assert_eq!((thresholds[0].answered, thresholds[0].accuracy), (1.0, Some(0.75)));
        let sure = judged.iter().filter(|one| one.confidence >= 0.95).count() as f64 / 4.0;
        assert_eq!((thresholds[95].threshold, thresholds[95].answered), (0.95, sure));
        assert_eq!(calibration.iter().map(|bin| bin.photos).sum::<usize>(), 4);
        let expected: f64 =
            calibration.iter().map(|bin| bin.photos as f64 / 4.0 * (bin.confidence - bin.accuracy).abs()).sum();
        assert_eq!(calibration_error, expected);
    }

    #[test]
    fn mistakes_are_counted_and_a_threshold_is_found_for_an_accuracy() {
        let evaluation = evaluation();
        assert_eq!(evaluation.mistakes(), [(1, 2, 1)]);
        assert_eq!(evaluation.judged[evaluation.photos(1, 2)[0]].path, PathBuf::from("4"));
        assert_eq!((evaluation.photos(0, 0).len(), evaluation.photos(2, 2).len()), (2, 0));
        assert_eq!(evaluation.seen(), [0, 1, 2]);
        // The wrong answer is sure to e³ / (e⁰ + e¹ + e³) = 0.84; two right ones are less sure.
        let point = evaluation.threshold_for(1.0).unwrap();
        assert_eq!((point.threshold, point.answered), (0.85, 0.25));
        assert_eq!(evaluation.threshold_for(0.75).unwrap().threshold, 0.0);
        assert_eq!(evaluation.threshold_for(1.1), None);
    }

    #[test]
    fn no_photos_make_an_empty_evaluation_and_equal_scores_take_the_first_class() {
        let empty = Evaluation::new(Vec::new(), &["a"]);
        assert_eq!((empty.photos, empty.top1, empty.loss), (0, 0.0, 0.0));
        let tie = Evaluation::new(vec![answer("1", 1, [1.0, 1.0, 1.0])], &["a", "b", "c"]);
        assert_eq!((tie.judged[0].predicted, tie.judged[0].rank), (0, 1));
    }
}
