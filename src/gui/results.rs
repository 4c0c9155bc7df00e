//! A run's rows, kept small: a hundred thousand take tens of megabytes. Cloning shares the rows, so a snapshot for
//! sorting away from the window is cheap.

use std::path::Path;
use std::sync::Arc;

use crate::export::{Row, RowResult};
use crate::predict::Prediction;

/// Rows per shared chunk: a snapshot shares chunks, and at most one is copied when rows arrive afterwards.
const CHUNK: usize = 1024;

/// One class and how likely it is; the label is in [`Results::labels`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scored {
    pub class: u32,
    pub probability: f32,
}

/// What became of one photo.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// The most likely classes, best first.
    Ok(Box<[Scored]>),
    Skipped(Box<str>),
}

#[derive(Debug, Clone)]
pub struct Entry {
    pub path: Box<Path>,
    pub verdict: Verdict,
    /// The best of `verdict`, beside the path so that counting and filtering follow no pointer.
    pub best: Option<Scored>,
}

impl Entry {
    /// The file name as text, or the whole path where there is none.
    pub fn name(&self) -> std::borrow::Cow<'_, str> {
        self.path.file_name().unwrap_or(self.path.as_os_str()).to_string_lossy()
    }

    /// The group a photo belongs to while photos below `threshold` count as unsure.
    pub fn group(&self, threshold: f32) -> Group {
        match self.best {
            None => Group::Skipped,
            Some(best) if best.probability < threshold => Group::Unsure,
            Some(best) => Group::Class(best.class),
        }
    }
}

/// Where a photo is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    Class(u32),
    Unsure,
    Skipped,
}

/// How many photos each group has.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Counts {
    pub classes: Vec<u64>,
    pub unsure: u64,
    pub skipped: u64,
}

impl Counts {
    fn add(&mut self, group: Group) {
        match group {
            Group::Class(class) => {
                let class = class as usize;
                if self.classes.len() <= class {
                    self.classes.resize(class + 1, 0);
                }
                self.classes[class] += 1;
            }
            Group::Unsure => self.unsure += 1,
            Group::Skipped => self.skipped += 1,
        }
    }
}

/// Every row of a run, in the order of the run.
#[derive(Debug, Clone, Default)]
pub struct Results {
    chunks: Vec<Arc<Vec<Entry>>>,
    labels: Vec<Arc<str>>,
    counts: Counts,
    threshold: f32,
}

impl Results {
    pub fn new(threshold: f32) -> Self {
        Self { threshold, ..Self::default() }
    }

    pub fn len(&self) -> usize {
        self.chunks.last().map_or(0, |last| (self.chunks.len() - 1) * CHUNK + last.len())
    }

    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    pub fn get(&self, index: usize) -> Option<&Entry> {
        self.chunks.get(index / CHUNK)?.get(index % CHUNK)
    }

    /// Entries from `start` on, in order.
    pub fn from(&self, start: usize) -> impl Iterator<Item = &Entry> {
        let chunks = self.chunks.iter().skip(start / CHUNK);
        chunks.flat_map(|chunk| chunk.iter()).skip(start % CHUNK)
    }

    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    pub fn threshold(&self) -> f32 {
        self.threshold
    }

    pub fn labels(&self) -> &[Arc<str>] {
        &self.labels
    }

    /// The label of a class; its number where the model gives none.
    pub fn label(&self, class: u32) -> Arc<str> {
        self.labels.get(class as usize).cloned().unwrap_or_else(|| format!("class {class}").into())
    }

    /// The name of a group, for people.
    pub fn group_name(&self, group: Group) -> Arc<str> {
        match group {
            Group::Class(class) => self.label(class),
            Group::Unsure => "unsure".into(),
            Group::Skipped => "skipped".into(),
        }
    }

    pub fn set_labels(&mut self, labels: &[Arc<str>]) {
        self.labels = labels.to_vec();
    }

    /// Counts anew with another threshold. Touches only the inline best scores: about a millisecond per 100,000 rows.
    pub fn set_threshold(&mut self, threshold: f32) {
        if threshold == self.threshold {
            return;
        }
        let mut counts = Counts::default();
        self.from(0).for_each(|entry| counts.add(entry.group(threshold)));
        (self.counts, self.threshold) = (counts, threshold);
    }

    pub fn push(&mut self, row: Row) {
        let entry = compact(row);
        self.counts.add(entry.group(self.threshold));
        match self.chunks.last_mut() {
            Some(last) if last.len() < CHUNK => Arc::make_mut(last).push(entry),
            _ => {
                let mut chunk = Vec::with_capacity(CHUNK);
                chunk.push(entry);
                self.chunks.push(Arc::new(chunk));
            }
        }
    }

    /// The row at `index` as it came, without logits.
    pub fn row(&self, index: usize) -> Option<Row> {
        let entry = self.get(index)?;
        let result = match &entry.verdict {
            Verdict::Skipped(reason) => RowResult::Skipped { reason: reason.to_string() },
            Verdict::Ok(scores) => RowResult::Ok {
                predictions: scores
                    .iter()
                    .map(|score| Prediction {
                        index: score.class as usize,
                        label: self.label(score.class),
                        probability: score.probability,
                    })
                    .collect(),
                logits: None,
            },
        };
        Some(Row { path: entry.path.to_path_buf(), result })
    }
}

fn compact(row: Row) -> Entry {
    let verdict = match row.result {
        RowResult::Skipped { reason } => Verdict::Skipped(reason.into()),
        RowResult::Ok { predictions, .. } => {
            let score = |p: &Prediction| Scored { class: p.index as u32, probability: p.probability };
            Verdict::Ok(predictions.iter().map(score).collect())
        }
    };
    let best = match &verdict {
        Verdict::Ok(scores) => scores.first().copied(),
        Verdict::Skipped(_) => None,
    };
    Entry { path: row.path.into(), verdict, best }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn row(path: &str, class: usize, probability: f32) -> Row {
        let prediction = Prediction { index: class, label: format!("c{class}").into(), probability };
        Row { path: path.into(), result: RowResult::Ok { predictions: vec![prediction], logits: None } }
    }

    pub fn skipped(path: &str) -> Row {
        Row { path: path.into(), result: RowResult::Skipped { reason: "truncated".into() } }
    }

    #[test]
    fn rows_come_back_in_order_across_chunks_and_snapshots_do_not_change() {
        let mut results = Results::default();
        results.set_labels(&["c0".into(), "c1".into(), "c2".into()]);
        let rows: Vec<Row> = (0..2500).map(|i| row(&format!("{i}.jpg"), i % 3, 0.5)).collect();
        rows[..1500].iter().for_each(|row| results.push(row.clone()));
        let snapshot = results.clone();
        rows[1500..].iter().for_each(|row| results.push(row.clone()));
        assert_eq!((snapshot.len(), results.len()), (1500, 2500));
        assert!((0..2500).all(|i| results.row(i).as_ref() == Some(&rows[i])));
        assert!(snapshot.row(1500).is_none());
        assert_eq!(results.from(1030).count(), 1470);
        assert_eq!(results.from(1030).next().unwrap().name(), "1030.jpg");
    }

    #[test]
    fn a_new_threshold_counts_the_doubtful_as_unsure() {
        let mut results = Results::default();
        for row in [row("a", 0, 0.9), row("b", 1, 0.4), row("c", 1, 0.6), skipped("d")] {
            results.push(row);
        }
        assert_eq!(*results.counts(), Counts { classes: vec![1, 2], unsure: 0, skipped: 1 });
        results.set_threshold(0.5);
        assert_eq!(*results.counts(), Counts { classes: vec![1, 1], unsure: 1, skipped: 1 });
    }
}
