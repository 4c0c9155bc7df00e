//! Devices that failed for good: how often a job goes on with one made anew.

/// A job goes on after a failure, but not if it comes no further than it did before the last one. `P` says how far it came.
#[derive(Default)]
pub struct DeviceFailures<P>(Option<P>);

impl<P: PartialEq> DeviceFailures<P> {
    /// `failure` is how far the job came, if it was the device that failed.
    pub fn may_go_on(&mut self, failure: Option<P>) -> bool {
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
