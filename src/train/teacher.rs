//! What a teacher answers to the photos of a batch, as a student sees these.
//!
//! A teacher was asked about each photo as it is and, where photos are mirrored, about its mirror image. A random part of a
//! photo, its changed colours and what is painted over are matched with the answer to the whole photo turned the same way,
//! and mixed photos with their answers' mixture: so a teacher is asked once, and not in every epoch.

use super::TrainError;
use crate::data::{Batch, Kept};

/// The answers to the training photos.
pub struct Teacher {
    /// By photo: logits, then features, of the photo and then of its mirror image if that was asked about.
    pub answers: Kept,
    pub classes: usize,
    /// The channels of its features; 0 for none.
    pub features: usize,
    pub mirrors: bool,
    pub temperature: f64,
}

/// What is learned from a teacher of one batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Lesson {
    /// The teacher's probabilities at its temperature, `(n, classes)`, row-major.
    pub probabilities: Vec<f32>,
    /// Its pooled features, `(n, channels)`; none when they are not learned from.
    pub features: Option<Vec<f32>>,
}

impl Teacher {
    /// A photo that the teacher could not read has its label as the answer, and no features of its batch are compared.
    pub fn teach(&self, batch: &Batch) -> Result<Lesson, TrainError> {
        let Self { answers, classes, features: channels, .. } = self;
        let mut probabilities = Vec::with_capacity(batch.indices.len() * classes);
        let mut features = (*channels > 0).then(Vec::new);
        for (row, photo) in batch.indices.iter().enumerate() {
            let read = answers.row(*photo);
            let read = read.map_err(|source| TrainError::Answers { path: answers.path().to_owned(), source })?;
            let Some(values) = read else {
                probabilities
                    .extend((0..*classes).map(|class| f32::from(u8::from(class == batch.labels[row] as usize))));
                features = None;
                continue;
            };
            let of_view = classes + channels;
            let view = usize::from(self.mirrors && batch.mirrored[row]);
            let (logits, of_photo) = values[view * of_view..][..of_view].split_at(*classes);
            probabilities.extend(cooled(logits, self.temperature));
            if let Some(features) = &mut features {
                features.extend_from_slice(of_photo);
            }
        }
        batch.mix_too(&mut probabilities);
        if let Some(features) = &mut features {
            batch.mix_too(features);
        }
        Ok(Lesson { probabilities, features })
    }
}

/// The softmax of logits that are divided by the temperature.
fn cooled(logits: &[f32], temperature: f64) -> impl Iterator<Item = f32> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let power = move |logit: &f32| ((f64::from(*logit) - f64::from(largest)) / temperature).exp();
    let sum: f64 = logits.iter().map(power).sum();
    logits.iter().map(move |logit| (power(logit) / sum) as f32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Answers, Photo, Split};

    #[test]
    fn each_row_has_the_answer_to_its_photo_turned_as_it_is_and_mixed_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let photo = |name: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, name).unwrap();
            Photo { path, class: 0, split: Split::Train }
        };
        let photos = [photo("a"), photo("b"), photo("c")];
        let mut answers = Answers::open(folder.path(), "t", 6, 1000).unwrap().unwrap();
        // Logits of two classes and one feature, and the same of the mirror image.
        answers.put(&photos[0].path, &[0.0, 0.0, 1.0, 0.0, 2.0, 3.0]).unwrap();
        answers.put(&photos[1].path, &[4.0, 0.0, 5.0, 1e30, -1e30, 7.0]).unwrap();
        let answers = answers.of(&photos).unwrap();
        let teacher = Teacher { answers, classes: 2, features: 1, mirrors: true, temperature: 2.0 };
        let batch = Batch {
            indices: vec![1, 0, 0],
            labels: vec![1, 0, 0],
            mirrored: vec![false, true, false],
            ..Batch::default()
        };
        let one = |logit: f64| (logit / (1.0 + logit)) as f32;
        let (b, a) = (one(2_f64.exp()), 1.0 - one(1_f64.exp()));
        let close = |lesson: &Lesson, expected: &[f32]| {
            let pairs = lesson.probabilities.iter().zip(expected);
            assert!(pairs.clone().all(|(ours, wanted)| (ours - wanted).abs() < 1e-6), "{lesson:?} {expected:?}");
            assert_eq!(lesson.probabilities.len(), expected.len());
        };
        let lesson = teacher.teach(&batch).unwrap();
        close(&lesson, &[b, 1.0 - b, a, 1.0 - a, 0.5, 0.5]);
        assert_eq!(lesson.features, Some(vec![5.0, 3.0, 1.0]));
        // Each with the one before it, the last before the first.
        let mixed = teacher.teach(&Batch { kept: Some(0.75), ..batch.clone() }).unwrap();
        let blend = |own: f32, other: f32| 0.75 * own + 0.25 * other;
        let first = [blend(b, 0.5), blend(a, b), blend(0.5, a)];
        close(&mixed, &first.map(|p| [p, 1.0 - p]).concat());
        assert_eq!(mixed.features, Some(vec![blend(5.0, 1.0), blend(3.0, 5.0), blend(1.0, 3.0)]));
        // The largest logits there are, and a photo that nobody answered.
        let batch = Batch { indices: vec![1, 2], labels: vec![0, 1], mirrored: vec![true, false], ..Batch::default() };
        let lesson = teacher.teach(&batch).unwrap();
        assert_eq!(lesson, Lesson { probabilities: vec![1.0, 0.0, 0.0, 1.0], features: None });
    }
}
