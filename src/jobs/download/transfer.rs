//! One file from a server into its part: streamed, and tried again from where it broke off.

use std::hash::{BuildHasher as _, RandomState};
use std::io::Read;
use std::time::{Duration, Instant};

use super::error::{DownloadError, Fault};
use super::part::{Part, Validators};
use super::source::{Answer, Ask, Reply, Source};
use super::verify::{Checksum, web_page};
use super::{DownloadEvent, Patience};
use crate::format::{bytes, duration};
use crate::jobs::pace::Pace;
use crate::worker::{BoxError, JobContext, Progress};

/// Bytes that wait in memory for the disk, at most.
const CHUNK: usize = 8_000_000;

/// Bytes wait for the disk no longer than this, so that a slow connection loses little to a crash.
const WRITE_AFTER: Duration = Duration::from_secs(1);

const REPORT_EVERY: Duration = Duration::from_millis(100);

/// What is looked at before the old part is given up for a new answer.
const START: usize = 4096;

/// A download of one file.
pub struct Transfer<'a> {
    pub source: &'a dyn Source,
    /// The address, for messages.
    pub address: String,
    pub part: &'a mut Part,
    pub patience: Patience,
    pub ctx: &'a JobContext,
    pub tell: &'a mut dyn FnMut(DownloadEvent),
    /// What the server published on the way.
    pub checksum: Option<Checksum>,
    /// Bytes that came through the network.
    pub received: u64,
    /// Without it, an answer is only known to go on with the part by the server's word.
    pub is_checked: bool,
}

/// How a try that did not fail ended.
enum Try {
    Whole,
    Paused,
}

impl Transfer<'_> {
    /// Fetches what is missing. `first` is an answer that is there already, to a request for the whole file.
    pub fn run(&mut self, first: Option<Answer>) -> Result<(), BoxError> {
        let (mut first, mut furthest, mut failures) = (first, self.part.length(), 0);
        loop {
            self.ctx.check()?;
            let (reason, wait) = match self.attempt(first.take()) {
                Ok(Try::Whole) => return Ok(()),
                // The connection is let go of meanwhile; `check` waits.
                Ok(Try::Paused) => continue,
                Err(_) if self.ctx.is_canceled() => return Err(crate::worker::Canceled.into()),
                Err(Fault::Lasting(error)) => return Err(error),
                Err(Fault::Passing { reason, wait }) => (reason, wait),
            };
            // A server that sends the same beginning again and again makes no progress.
            failures = if self.part.length() > furthest { 1 } else { failures + 1 };
            furthest = furthest.max(self.part.length());
            if failures >= self.patience.tries {
                return Err(DownloadError::GaveUp { tries: failures, reason, kept: self.part.length() }.into());
            }
            self.wait(failures, reason, wait)?;
        }
    }

    fn attempt(&mut self, first: Option<Answer>) -> Result<Try, Fault> {
        if let Some(answer) = first {
            return self.receive(answer);
        }
        let kept = self.part.length();
        if kept > 0 && self.part.total() == Some(kept) {
            return Ok(Try::Whole);
        }
        let validators = self.part.validators().clone();
        // Without validators only a checksum can tell whether the rest is of the same file.
        let can_go_on = kept > 0 && (validators.can_tell() || self.is_checked);
        self.report("Connecting", None);
        match self.source.get(if can_go_on { Ask::From(kept, &validators) } else { Ask::All })? {
            Reply::Body(answer) => self.receive(answer),
            Reply::Beyond { total } if can_go_on && total > Some(kept) => {
                Err(Fault::passing(format!("the server sends no more than the first {}", bytes(kept))))
            }
            // A file of the same length may be another one, which a checksum tells.
            Reply::Beyond { total } if can_go_on && total == Some(kept) && self.is_checked => Ok(Try::Whole),
            Reply::Beyond { .. } if can_go_on => {
                self.part.begin(Validators::default(), None)?;
                Err(Fault::passing("the server has nothing that goes on from what was kept"))
            }
            Reply::Beyond { .. } | Reply::Unchanged => {
                Err(Fault::passing("the server's answer does not fit the request"))
            }
        }
    }

    fn receive(&mut self, mut answer: Answer) -> Result<Try, Fault> {
        self.checksum = self.checksum.take().or(answer.checksum.take());
        let kept = self.part.length();
        if answer.from != 0 && (answer.from != kept || !self.is_same_file(&answer)) {
            self.part.begin(Validators::default(), None)?;
            return Err(Fault::passing("the file at the server is another one by now"));
        }
        // Looked at before the part is emptied: an error page is no reason to lose it.
        let mut start = vec![0; START];
        let length = fill(&mut answer.body, &mut start).map_err(|error| self.source.broken(&error))?;
        start.truncate(length);
        if answer.from == 0 {
            if let Some(title) = web_page(&start) {
                return Err(DownloadError::WebPage { title, address: self.address.clone() }.into());
            }
            self.check_space(answer.total)?;
            if kept > 0 {
                self.notice(format!(
                    "the server sends the file from its beginning; the {} kept are dropped",
                    bytes(kept)
                ));
            }
            self.part.begin(answer.validators.clone(), answer.total)?;
        } else {
            self.check_space(answer.total.map(|total| total.saturating_sub(kept)))?;
        }
        self.stream(start.chain(answer.body))
    }

    /// True when nothing says that the answer is of another file than the part.
    fn is_same_file(&self, answer: &Answer) -> bool {
        let (known, new) = (self.part.validators(), &answer.validators);
        let agree = |a: &Option<String>, b: &Option<String>| a.is_none() || b.is_none() || a == b;
        let lengths_agree = match (self.part.total(), answer.total) {
            (Some(known), Some(new)) => known == new,
            _ => true,
        };
        agree(&known.etag, &new.etag) && agree(&known.last_modified, &new.last_modified) && lengths_agree
    }

    /// Fails before the disk is full, where the system tells how full it is.
    fn check_space(&self, needed: Option<u64>) -> Result<(), DownloadError> {
        let folder = self.part.folder();
        let (Some(needed), Ok(disk)) = (needed, rustix::fs::statvfs(folder)) else { return Ok(()) };
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        if free < needed {
            return Err(DownloadError::NoSpace { needed, free, folder: folder.to_owned() });
        }
        Ok(())
    }

    fn stream(&mut self, mut body: impl Read) -> Result<Try, Fault> {
        let mut chunk = vec![0; CHUNK];
        let (mut filled, mut since, mut reported) = (0, Instant::now(), Instant::now());
        let mut pace = Pace::from(self.part.length());
        let ended = loop {
            if self.ctx.is_canceled() || self.ctx.is_paused() {
                break Ok(Try::Paused);
            }
            match body.read(&mut chunk[filled..]) {
                Ok(0) => break Ok(Try::Whole),
                Ok(read) => filled += read,
                Err(error) => break Err(self.source.broken(&error)),
            }
            if filled == CHUNK || since.elapsed() > WRITE_AFTER {
                self.write(&chunk[..filled])?;
                (filled, since) = (0, Instant::now());
            }
            if reported.elapsed() > REPORT_EVERY {
                reported = Instant::now();
                let done = self.part.length() + filled as u64;
                self.report_at("Downloading", done, pace.at(done));
            }
        };
        self.write(&chunk[..filled])?;
        match (ended?, self.part.total()) {
            (Try::Whole, Some(total)) if self.part.length() < total => Err(Fault::passing(format!(
                "the connection ended at {} of {}",
                bytes(self.part.length()),
                bytes(total)
            ))),
            (Try::Whole, Some(total)) if self.part.length() > total => {
                self.part.begin(Validators::default(), None)?;
                Err(Fault::passing("the server sent more than the file is long"))
            }
            (end, _) => Ok(end),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), DownloadError> {
        self.received += bytes.len() as u64;
        self.part.write(bytes)
    }

    /// Waits longer after each failure, and never as long as others that failed at the same moment.
    fn wait(&mut self, failures: u32, reason: String, asked: Option<Duration>) -> Result<(), BoxError> {
        if let Some(wait) = asked.filter(|wait| *wait > self.patience.longest_asked) {
            return Err(DownloadError::Later { reason, wait }.into());
        }
        let doubled = self.patience.first_wait.saturating_mul(1 << (failures - 1).min(16));
        let random = (RandomState::new().hash_one(failures) % 1024) as f64 / 1024.0;
        let own = doubled.min(self.patience.longest_wait).mul_f64(0.5 + 0.5 * random);
        let wait = own.max(asked.unwrap_or_default());
        let (tries, next) = (self.patience.tries, failures + 1);
        self.notice(format!("{reason}; try {next} of {tries} in {}", duration(wait + Duration::from_millis(999))));
        let until = Instant::now() + wait;
        while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            self.ctx.check()?;
            self.report("Waiting for the next try", None);
            std::thread::sleep(left.min(REPORT_EVERY));
        }
        Ok(())
    }

    fn notice(&mut self, text: String) {
        (self.tell)(DownloadEvent::Notice(text));
    }

    fn report(&self, phase: &str, per_second: Option<f64>) {
        self.report_at(phase, self.part.length(), per_second);
    }

    fn report_at(&self, phase: &str, done: u64, per_second: Option<f64>) {
        self.ctx.report(Progress { phase: phase.to_owned(), done, total: self.part.total(), per_second });
    }
}

/// Reads until the buffer is full or the body ends.
fn fill(body: &mut dyn Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match body.read(&mut buffer[filled..])? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}
