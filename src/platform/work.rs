//! What the program works at, as the system shall know it.

/// A kind of job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Training,
    /// Of batch sizes or learning rates.
    Trying,
    Compressing,
    Evaluating,
    Classifying,
    Downloading,
}

/// A job that computes now; one that is paused is none.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Work {
    pub kind: Kind,
    /// How much of it is done, 0 to 1, where that is known.
    pub share: Option<f32>,
}

impl Kind {
    /// What is going on, in the words of the system's own lists: why it does not sleep.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Training => "Training",
            Self::Trying => "Trying settings",
            Self::Compressing => "Making a model smaller",
            Self::Evaluating => "Evaluating a model",
            Self::Classifying => "Classifying photos",
            Self::Downloading => "Downloading a model",
        }
    }
}
