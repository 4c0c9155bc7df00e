//! What a compression did to a model, and what that cost: plain data, which lies beside the smaller model as JSON.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::quantize::BlockNoise;
use crate::predict::top_k;

/// A smaller model and the one it was made from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The network as people call it.
    pub network: String,
    pub source: String,
    /// Of the source's file.
    pub source_sha256: String,
    pub output: PathBuf,
    /// What was done, a few words each, in order: `mixed to fit in 90 MB`.
    pub steps: Vec<String>,
    pub before: Figures,
    pub after: Figures,
    /// Bytes of the source that no prediction needs, such as an optimizer's state.
    pub training_state_bytes: u64,
    /// Photos whose answers decided how weights are rounded; 0 when none were looked at.
    pub calibration_photos: usize,
    pub blocks: Vec<BlockNoise>,
    /// None when no photos were there to compare on.
    pub proof: Option<Proof>,
    /// What a person should know besides.
    pub notices: Vec<String>,
}

/// A model as it is used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Learnable numbers.
    pub parameters: u64,
    pub file_bytes: u64,
    /// Its weights in memory.
    pub resident_bytes: u64,
    /// Through the network, without decoding. None where the model does not fit in memory.
    pub photos_per_second: Option<f64>,
}

/// The answers of both models to the same photos.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Proof {
    pub folder: PathBuf,
    pub photos: usize,
    /// Photos whose likeliest class is the true one, before and after; none when their classes are not known.
    pub right: Option<[usize; 2]>,
    /// Photos whose likeliest class stayed.
    pub same: usize,
    /// By class, in the model's order, where classes are known.
    pub classes: Vec<ClassChange>,
    /// Photos whose likeliest class changed, the surest answers first.
    pub changed: Vec<ChangedPhoto>,
    /// Photos that could not be read, and why.
    pub skipped: Vec<(PathBuf, String)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassChange {
    pub name: String,
    pub photos: usize,
    /// Those judged right, before and after.
    pub right: [usize; 2],
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChangedPhoto {
    pub path: PathBuf,
    /// Its true class, where that is known.
    pub class: Option<String>,
    /// The likeliest class and its probability, before and after.
    pub answers: [(String, f32); 2],
}

/// A photo, its true class where that is known, and its logits.
pub struct Judged {
    pub path: PathBuf,
    pub class: Option<usize>,
    pub logits: Vec<f32>,
}

impl Proof {
    /// Compares the answers to the same photos: those that only one of the two lists has are left out.
    pub fn new(
        folder: PathBuf,
        [before, after]: [&[Judged]; 2],
        labels: &[Arc<str>],
        skipped: Vec<(PathBuf, String)>,
    ) -> Self {
        let first = |judged: &Judged| top_k(&judged.logits, labels, 1).pop();
        let mut classes: Vec<ClassChange> =
            labels.iter().map(|name| ClassChange { name: name.to_string(), photos: 0, right: [0; 2] }).collect();
        let (mut photos, mut same, mut changed) = (0, 0, Vec::new());
        let after: HashMap<&Path, &Judged> = after.iter().map(|other| (other.path.as_path(), other)).collect();
        for one in before {
            let Some(other) = after.get(one.path.as_path()) else { continue };
            let (Some(was), Some(is)) = (first(one), first(other)) else { continue };
            photos += 1;
            if let Some(class) = one.class.and_then(|class| classes.get_mut(class)) {
                class.photos += 1;
                class.right[0] += usize::from(Some(was.index) == one.class);
                class.right[1] += usize::from(Some(is.index) == one.class);
            }
            if was.index == is.index {
                same += 1;
                continue;
            }
            let class = one.class.and_then(|class| labels.get(class)).map(|name| name.to_string());
            let answers = [was, is].map(|answer| (answer.label.to_string(), answer.probability));
            changed.push(ChangedPhoto { path: one.path.clone(), class, answers });
        }
        changed.sort_by(|one, other| other.answers[0].1.total_cmp(&one.answers[0].1));
        classes.retain(|class| class.photos > 0);
        let right = |of: usize| classes.iter().map(|class| class.right[of]).sum();
        let right = (!classes.is_empty()).then(|| [right(0), right(1)]);
        Self { folder, photos, right, same, classes, changed, skipped }
    }

    /// The share of photos that keep their likeliest class.
    pub fn agreement(&self) -> f64 {
        self.same as f64 / self.photos.max(1) as f64
    }

    /// The share of photos that are judged right no more, or, without labels, differently; below 0 where more are right.
    pub fn loss(&self) -> f64 {
        match self.right {
            Some([before, after]) => (before as f64 - after as f64) / self.photos.max(1) as f64,
            None => 1.0 - self.agreement(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(answers: &[(usize, Option<usize>)]) -> Vec<Judged> {
        let one = |(index, (answer, class)): (usize, &(usize, Option<usize>))| Judged {
            path: format!("{index}.jpg").into(),
            class: *class,
            logits: (0..3).map(|place| if place == *answer { 2.0 + index as f32 } else { 0.0 }).collect(),
        };
        answers.iter().enumerate().map(one).collect()
    }

    #[test]
    fn a_proof_counts_what_changed() {
        let labels: Vec<Arc<str>> = ["a", "b", "c"].map(Arc::from).into();
        let classes = [Some(0), Some(0), Some(1), Some(1), Some(1)];
        let with = |answers: [usize; 5]| judged(&std::array::from_fn::<_, 5, _>(|i| (answers[i], classes[i])));
        let (before, mut after) = (with([0, 0, 1, 2, 1]), with([0, 1, 1, 1, 2]));
        let proof = Proof::new("folder".into(), [&before, &after], &labels, vec![]);
        assert_eq!((proof.photos, proof.same, proof.right), (5, 2, Some([4, 3])));
        assert_eq!(proof.classes[0], ClassChange { name: "a".to_owned(), photos: 2, right: [2, 1] });
        assert_eq!(proof.classes.len(), 2);
        // The surest first.
        let names: Vec<_> = proof.changed.iter().map(|photo| photo.path.to_str().unwrap()).collect();
        assert_eq!(names, ["4.jpg", "3.jpg", "1.jpg"]);
        assert_eq!(proof.changed[1].answers[0].0, "c");
        assert!((proof.loss() - 0.2).abs() < 1e-12 && (proof.agreement() - 0.4).abs() < 1e-12);
        // A photo that only one could read is no part of it.
        after.remove(1);
        assert_eq!(Proof::new("folder".into(), [&before, &after], &labels, vec![]).photos, 4);
    }

    #[test]
    fn without_labels_a_changed_answer_is_a_loss() {
        let labels: Vec<Arc<str>> = ["a", "b", "c"].map(Arc::from).into();
        let [before, after] = [[0, 1, 2, 2], [0, 1, 2, 1]].map(|answers| judged(&answers.map(|answer| (answer, None))));
        let proof = Proof::new("folder".into(), [&before, &after], &labels, vec![]);
        assert_eq!((proof.right, proof.loss(), proof.classes.len()), (None, 0.25, 0));
    }
}
