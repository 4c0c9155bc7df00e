//! What a job will take of the memory at its most, item by item, before it starts.

use serde::{Deserialize, Serialize};

use super::Peak;

/// What a process comes to take beside its heap for any job: pages of the program that are used first, stacks, and what
/// threads and the allocator keep. Measured with `galley bench --memory`, as the number below.
const PROGRAM: u64 = 10_000_000;

/// Blocks lie a little differently in the heap each time, for threads take and free them in no fixed order: one part in so
/// many is added for that.
const SCATTER: u64 = 32;

/// Bytes that a job adds to what the process holds already.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// As they will sit in memory.
    pub weights: u64,
    pub gradients: u64,
    /// What optimizer and average remember of the weights.
    pub optimizer: u64,
    /// What blocks keep for backward.
    pub activations: u64,
    /// What operations hold while they compute, in inference with what goes from block to block.
    pub workspace: u64,
    /// Photos that wait for their turn.
    pub photos: u64,
    /// What frozen blocks made of every photo.
    pub features: u64,
    /// A teacher's answers to the photos.
    #[serde(default)]
    pub answers: u64,
    /// By how much a teacher, which is asked and gone before all else comes, takes more than that.
    #[serde(default)]
    pub teacher: u64,
    /// The largest single buffer, which is part of one of these: a device may refuse it although all would fit.
    pub largest_buffer: u64,
    /// How much the heap grows by: more than all items together, for between blocks of many sizes some of it stays unused.
    pub heap: u64,
}

impl Plan {
    /// All items together.
    pub fn bytes(&self) -> u64 {
        self.items().iter().map(|(_, bytes)| bytes).sum()
    }

    /// How much the process grows by.
    pub fn process_bytes(&self) -> u64 {
        self.process_items().iter().map(|(_, bytes)| bytes).sum()
    }

    /// The items, what lies unused between them, and what a process takes for any job.
    pub fn process_items(&self) -> Vec<(&'static str, u64)> {
        let unused = self.heap.saturating_sub(self.bytes()) + self.heap / SCATTER;
        self.items().into_iter().chain([("unused", unused), ("program", PROGRAM)]).collect()
    }

    /// The items by their names for people, in a fixed order.
    pub fn items(&self) -> [(&'static str, u64); 9] {
        [
            ("weights", self.weights),
            ("gradients", self.gradients),
            ("optimizer", self.optimizer),
            ("activations", self.activations),
            ("workspace", self.workspace),
            ("photos", self.photos),
            ("features", self.features),
            ("answers", self.answers),
            ("teacher", self.teacher),
        ]
    }

    /// With what a whole job takes at its most, these items among it: the rest is gradients and activations, which are there
    /// whole at one time of it each, and workspace.
    pub fn with_peak(self, peak: Peak, gradients: u64, activations: u64) -> Self {
        let rest = peak.bytes().saturating_sub(self.bytes());
        let activations = activations.min(rest);
        let gradients = gradients.min(rest - activations);
        let workspace = rest - activations - gradients;
        let largest_buffer = self.largest_buffer.max(peak.largest_buffer);
        let heap = peak.heap.max(peak.bytes());
        Self { gradients, activations, workspace, largest_buffer, heap, ..self }
    }

    /// With what a teacher takes, which is gone when these items come: the larger of both is the peak.
    pub fn after_teacher(self, teacher: &Self) -> Self {
        Self {
            teacher: teacher.bytes().saturating_sub(self.bytes()),
            largest_buffer: self.largest_buffer.max(teacher.largest_buffer),
            heap: self.heap.max(teacher.heap),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_add_up_to_the_peak() {
        let peak = Peak { tensors: 900, workspace: 100, largest_buffer: 64, heap: 1200 };
        let plan = Plan { weights: 5, optimizer: 10, ..Plan::default() }.with_peak(peak, 200, 300);
        assert_eq!((plan.bytes(), plan.workspace, plan.largest_buffer, plan.heap), (1000, 485, 64, 1200));
        // Activations are gone when the last gradients are there.
        // And what the process grows by, to more than the heap.
        let items = plan.process_items();
        assert_eq!((items[4], items[9], items[10]), (("workspace", 485), ("unused", 237), ("program", PROGRAM)));
        assert_eq!(plan.process_bytes(), 1237 + PROGRAM);
        // A teacher that takes less changes nothing, and of one that takes more the process takes what that does.
        let teacher = |bytes| Plan { weights: bytes, heap: bytes + 100, largest_buffer: bytes, ..Plan::default() };
        assert_eq!(plan.after_teacher(&teacher(60)), plan);
        let taught = plan.after_teacher(&teacher(5000));
        assert_eq!((taught.teacher, taught.bytes(), taught.largest_buffer), (4000, 5000, 5000));
        assert_eq!(taught.process_bytes(), teacher(5000).process_bytes());
        let plan = Plan::default().with_peak(peak, 600, 700);
        assert_eq!((plan.bytes(), plan.activations, plan.gradients, plan.workspace), (1000, 700, 300, 0));
        let plan = Plan::default().with_peak(peak, 600, 1700);
        assert_eq!((plan.bytes(), plan.activations, plan.gradients, plan.workspace), (1000, 1000, 0, 0));
    }
}
