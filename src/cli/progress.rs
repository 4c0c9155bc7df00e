//! A progress bar on stderr when that is a terminal, and nothing otherwise.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::format::{bytes, count, duration};
use crate::worker::Progress;

pub struct Bar(ProgressBar);

impl Bar {
    /// Begins with a phase whose length is not known.
    pub fn start(phase: &'static str) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        bar.set_style(style("{spinner} {msg}"));
        bar.set_message(phase);
        bar.enable_steady_tick(Duration::from_millis(200));
        Self(bar)
    }

    pub fn show(&self, progress: &Progress) {
        self.show_units(progress, "photos");
    }

    pub fn show_steps(&self, progress: &Progress) {
        self.show_units(progress, "steps");
    }

    pub fn show_bytes(&self, progress: &Progress) {
        let mut message = format!("{}: {}", progress.phase, bytes(progress.done));
        if let Some(total) = progress.total {
            self.show_share(progress.done, total);
            message += &format!(" of {}", bytes(total));
        }
        if let Some(rate) = progress.per_second {
            message += &format!(", {}/s", bytes(rate as u64));
        }
        if let Some(left) = progress.time_left() {
            message += &format!(", {} left", duration(left));
        }
        self.0.set_message(message);
    }

    fn show_share(&self, done: u64, total: u64) {
        if self.0.length() != Some(total) {
            self.0.set_style(style("{wide_bar} {msg}"));
            self.0.set_length(total);
        }
        self.0.set_position(done);
    }

    fn show_units(&self, progress: &Progress, units: &str) {
        let mut message = count(progress.done);
        if let Some(total) = progress.total {
            self.show_share(progress.done, total);
            message += &format!(" of {}", count(total));
        }
        message += &format!(" {units}");
        if let Some(rate) = progress.per_second {
            message += &format!(", {rate:.1} per second");
        }
        if let Some(left) = progress.time_left() {
            message += &format!(", {} left", duration(left));
        }
        self.0.set_message(message);
    }

    /// Does something that prints, without the bar in its way.
    pub fn aside<T>(&self, print: impl FnOnce() -> T) -> T {
        self.0.suspend(print)
    }

    pub fn finish(&self) {
        self.0.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the templates are written in this file")
}
