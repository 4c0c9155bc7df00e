//! Devices that failed for good: how often a job goes on with one made anew.

use crate::{device, ops};

/// A job goes on after a failure, but not if it comes no further than it did before the last one. `P` says how far it came.
#[derive(Default)]
pub struct DeviceFailures<P>(Option<P>);

impl<P: PartialEq> DeviceFailures<P> {
    /// Whether the job goes on, on a device made anew: then all that the one before kept for reuse is given up. `failure` as in
    /// [`Self::may_go_on`].
    pub fn renew_device(&mut self, failure: Option<P>) -> bool {
        let before = if self.may_go_on(failure) { device::renew() } else { None };
        before.iter().for_each(ops::forget);
        before.is_some()
    }

    /// `failure` is how far the job came, if it was the device that failed.
    fn may_go_on(&mut self, failure: Option<P>) -> bool {
        let comes_further = failure.is_some() && failure != self.0;
        self.0 = failure;
        comes_further
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_goes_on_after_its_device_failed_while_it_comes_further_each_time() {
        let mut failures = DeviceFailures::default();
        for (photos, goes_on) in [(Some(3), true), (Some(9), true), (Some(9), false), (None, false), (Some(9), true)] {
            assert_eq!(failures.may_go_on(photos), goes_on, "{photos:?}");
        }
    }
}
