//! Which rows are shown, in which order. Filtering and sorting run as a job on a snapshot of the rows, so a frame
//! never pays for them; new rows join the order that is there instead of sorting everything again.

use std::cmp::Ordering;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::results::{Entry, Group, Results};
use crate::worker::{Job, Outcome};

/// While rows stream in, the order is refreshed this often.
const REFRESH: Duration = Duration::from_millis(250);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sort {
    /// The order of the run: folders walked by name.
    #[default]
    Scan,
    Name,
    Confidence,
    Class,
}

impl Sort {
    pub const ALL: [Self; 4] = [Self::Scan, Self::Name, Self::Confidence, Self::Class];

    pub fn label(self) -> &'static str {
        match self {
            Self::Scan => "Scan order",
            Self::Name => "Name",
            Self::Confidence => "Confidence",
            Self::Class => "Class",
        }
    }
}

/// What a person asked to see.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    pub group: Option<Group>,
    /// Confidence of the best class, 0–1, both ends included. Skipped photos have none and pass only the full range.
    pub confidence: (f32, f32),
    /// Part of the path or of the best label, in any case.
    pub text: String,
    pub sort: Sort,
    pub descending: bool,
}

impl Default for Query {
    fn default() -> Self {
        Self { group: None, confidence: (0.0, 1.0), text: String::new(), sort: Sort::Scan, descending: false }
    }
}

impl Query {
    /// True when some photos may be hidden.
    pub fn filters(&self) -> bool {
        self.group.is_some() || self.confidence != (0.0, 1.0) || !self.text.trim().is_empty()
    }

    /// Shows everything again; the sort stays.
    pub fn clear(&mut self) {
        *self = Self { sort: self.sort, descending: self.descending, ..Self::default() };
    }
}

/// What an order was made from: with the same key, rows that were in it stay in it.
type Key = (Query, f32);

struct Ordered {
    key: Key,
    seen: usize,
    order: Arc<Vec<u32>>,
}

/// The rows to show, by their number in the run.
#[derive(Default)]
pub struct View {
    shown: Option<Ordered>,
    job: Option<Job<Ordered, ()>>,
    last_start: Option<Instant>,
}

impl View {
    pub fn order(&self) -> &[u32] {
        self.shown.as_ref().map_or(&[], |shown| &shown.order)
    }

    /// Takes a finished order, and starts the next one when the rows or the wishes have changed since. Returns true
    /// while an order is being made or is due.
    pub fn update(&mut self, results: &Results, query: &Query, wake: impl Fn() + Send + Sync + 'static) -> bool {
        if let Some(Outcome::Finished(ordered)) = self.job.as_mut().and_then(Job::take_outcome) {
            self.shown = Some(ordered);
        }
        if self.job.as_ref().is_some_and(|job| !job.is_done()) {
            return true;
        }
        self.job = None;
        let key = (query.clone(), results.threshold());
        let same_key = self.shown.as_ref().is_some_and(|shown| shown.key == key);
        let current = same_key && self.shown.as_ref().is_some_and(|shown| shown.seen == results.len());
        if current {
            return false;
        }
        let too_soon = self.last_start.is_some_and(|start| start.elapsed() < REFRESH);
        if same_key && too_soon {
            return true;
        }
        let (order, seen) = match &self.shown {
            Some(shown) if same_key && shown.seen <= results.len() => (shown.order.clone(), shown.seen),
            _ => (Arc::default(), 0),
        };
        let rows = results.clone();
        let work = move |_: &_, _: &_| Ok(extended(order, seen, &rows, key));
        self.job = Job::start("arrange", wake, work).ok();
        self.last_start = Some(Instant::now());
        true
    }

    /// True when the order shows all of `results` as `query` asks.
    pub fn is_current(&self, results: &Results, query: &Query) -> bool {
        let up_to_date = |shown: &Ordered| {
            shown.seen == results.len() && shown.key.0 == *query && shown.key.1 == results.threshold()
        };
        self.shown.as_ref().is_some_and(up_to_date)
    }

    /// Forgets everything, for a new run.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

/// The order `before`, made from the first `seen` rows, extended to all of them.
fn extended(before: Arc<Vec<u32>>, seen: usize, rows: &Results, key: Key) -> Ordered {
    let filter = Filter::new(&key.0, rows);
    let mut order = Arc::unwrap_or_clone(before);
    let passing = rows.from(seen).zip(seen as u32..).filter(|(entry, _)| filter.admits(entry));
    order.extend(passing.map(|(_, index)| index));
    // The standard sort finds the run that is sorted already, so adding a few rows costs one pass.
    sort(&mut order, rows, &key.0);
    Ordered { key, seen: rows.len(), order: Arc::new(order) }
}

struct Filter<'a> {
    query: &'a Query,
    threshold: f32,
    text: String,
    /// Per class, whether its label holds the text.
    labels: Vec<bool>,
}

impl<'a> Filter<'a> {
    fn new(query: &'a Query, rows: &Results) -> Self {
        let text = query.text.trim().to_lowercase();
        let labels = rows.labels().iter().map(|label| label.to_lowercase().contains(&text)).collect();
        Self { query, threshold: rows.threshold(), text, labels }
    }

    fn admits(&self, entry: &Entry) -> bool {
        let (low, high) = self.query.confidence;
        let confident = match entry.best {
            Some(best) => (low..=high).contains(&best.probability),
            None => (low, high) == (0.0, 1.0),
        };
        confident
            && self.query.group.is_none_or(|group| group == entry.group(self.threshold))
            && (self.text.is_empty() || self.names(entry))
    }

    fn names(&self, entry: &Entry) -> bool {
        let labelled = entry.best.and_then(|best| self.labels.get(best.class as usize).copied());
        labelled.unwrap_or(false) || entry.path.to_string_lossy().to_lowercase().contains(&self.text)
    }
}

fn sort(order: &mut [u32], rows: &Results, query: &Query) {
    let (threshold, sort) = (rows.threshold(), query.sort);
    let compare = |a: &Entry, b: &Entry| match sort {
        Sort::Scan => Ordering::Equal,
        Sort::Name => a.name().cmp(&b.name()),
        Sort::Confidence => confidence(a).total_cmp(&confidence(b)),
        Sort::Class => {
            let best_first = || confidence(b).total_cmp(&confidence(a));
            a.group(threshold).cmp(&b.group(threshold)).then_with(best_first)
        }
    };
    order.sort_by(|&a, &b| {
        let (Some(left), Some(right)) = (rows.get(a as usize), rows.get(b as usize)) else { return a.cmp(&b) };
        // Equal rows keep the order of the run, whichever way the sort goes.
        let scan = if sort == Sort::Scan && query.descending { b.cmp(&a) } else { a.cmp(&b) };
        let compared = compare(left, right);
        let compared = if query.descending { compared.reverse() } else { compared };
        compared.then(scan)
    });
}

/// Skipped photos sort below every probability.
fn confidence(entry: &Entry) -> f32 {
    entry.best.map_or(-1.0, |best| best.probability)
}

#[cfg(test)]
mod tests {
    use super::super::results::tests::{row, skipped};
    use super::*;

    fn results() -> Results {
        let mut results = Results::default();
        results.set_labels(&["soup".into(), "Pizza".into()]);
        for row in [row("x/b.jpg", 1, 0.9), row("x/A.jpg", 0, 0.3), skipped("y/c.jpg"), row("y/d.jpg", 1, 0.6)] {
            results.push(row);
        }
        results
    }

    fn order(results: &Results, query: Query) -> Vec<u32> {
        let key = (query, results.threshold());
        extended(Arc::default(), 0, results, key).order.to_vec()
    }

    #[test]
    fn each_filter_hides_the_others() {
        let mut results = results();
        let by = |results: &Results, change: &dyn Fn(&mut Query)| {
            let mut query = Query::default();
            change(&mut query);
            order(results, query)
        };
        assert_eq!(by(&results, &|_| ()), [0, 1, 2, 3]);
        assert_eq!(by(&results, &|query| query.group = Some(Group::Class(1))), [0, 3]);
        assert_eq!(by(&results, &|query| query.group = Some(Group::Skipped)), [2]);
        assert_eq!(by(&results, &|query| query.confidence = (0.3, 0.6)), [1, 3]);
        assert_eq!(by(&results, &|query| query.text = " PIZZ".into()), [0, 3]);
        assert_eq!(by(&results, &|query| query.text = "Y/".into()), [2, 3]);
        results.set_threshold(0.5);
        assert_eq!(by(&results, &|query| query.group = Some(Group::Unsure)), [1]);
    }

    #[test]
    fn sorts_are_total_and_reversible() {
        let results = results();
        let by = |sort, descending| order(&results, Query { sort, descending, ..Query::default() });
        assert_eq!(by(Sort::Scan, true), [3, 2, 1, 0]);
        assert_eq!(by(Sort::Name, false), [1, 0, 2, 3]);
        assert_eq!(by(Sort::Confidence, true), [0, 3, 1, 2]);
        assert_eq!(by(Sort::Class, false), [1, 0, 3, 2]);
    }

    #[test]
    fn rows_that_arrive_later_join_the_same_order_as_a_sort_from_scratch() {
        let mut results = Results::default();
        let probability = |i: u32| (i * 37 % 101) as f32 / 101.0;
        (0..700).for_each(|i| results.push(row(&format!("{}.jpg", i * 53 % 997), 0, probability(i))));
        for sort in Sort::ALL {
            let query = Query { sort, descending: true, confidence: (0.2, 0.9), ..Query::default() };
            let first = extended(Arc::default(), 0, &results.clone(), (query.clone(), 0.0));
            let mut more = results.clone();
            (700..1900).for_each(|i| more.push(row(&format!("{}.jpg", i * 53 % 997), 0, probability(i))));
            let joined = extended(first.order, first.seen, &more, (query.clone(), 0.0));
            assert_eq!(*joined.order, order(&more, query));
        }
    }
}
