//! Classifies photos whose paths come in line by line, and answers in the same order as soon as it can: for programs that
//! keep Galley running and hand it work.
//!
//! A line is a path, or a JSON object with a `path`; its `id` and all its other fields come back with the answer. Batches
//! form from what is waiting: a single photo never waits for others. The journal is neither read nor written.

use std::collections::VecDeque;
use std::io::{self, BufRead, Read as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use rayon::{ThreadPool, ThreadPoolBuilder};
use serde_json::{Map, Value};

use super::run::{look_ahead, result_of, threads_of};
use super::{ClassifyConfig, ClassifyError, ClassifyEvent, Lent, ModelSummary, check_numbers, lend};
use crate::format::error_chain;
use crate::images::{ImageError, Input};
use crate::jobs::Places;
use crate::jobs::decoding::{Loader, Pending};
use crate::jobs::doctor::{self, Prepared};
use crate::jobs::models::{ModelKey, ModelLoan};
use crate::jobs::watched::Watched;
use crate::memory::heap;
use crate::predict::{Row, RowResult};
use crate::train::Pace as _;
use crate::worker::{self, BoxError, JobContext};

/// No path and no object is as long.
const LONGEST_LINE: usize = 1 << 20;

/// How often a stream at rest asks whether it is to end.
const PATIENCE: Duration = Duration::from_millis(200);

/// What a stream tells.
#[derive(Debug, Clone)]
pub enum StreamEvent {
    /// Before the first line is read: the model is loaded.
    Ready(ModelSummary),
    Notice(String),
    /// The next answers, in the order of their lines.
    Answers(Vec<Answer>),
}

/// What became of one line.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    Row(Echo, Row),
    /// The line asked for nothing that can be done; lines count from 1.
    BadLine {
        line: u64,
        echo: Echo,
        reason: String,
    },
}

/// What a line held besides the path.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Echo {
    pub id: Option<Value>,
    /// All other fields.
    pub fields: Map<String, Value>,
}

/// How many lines were answered, and how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StreamSummary {
    pub ok: u64,
    pub skipped: u64,
    pub bad_lines: u64,
}

/// A line that has been read.
struct Line {
    /// From 1.
    number: u64,
    echo: Echo,
    /// The photo it asks for, or why it asks for none.
    asked: Result<PathBuf, String>,
}

/// A line whose answer is on its way.
enum Waiting {
    Photo { echo: Echo, path: PathBuf, pending: Pending },
    Decoded { echo: Echo, path: PathBuf, decoded: Result<Input, String> },
    Bad { line: u64, echo: Echo, reason: String },
}

/// Runs on the calling thread until `lines` end. `inputs` of the configuration are not looked at.
pub fn stream(
    config: &ClassifyConfig,
    places: &Places,
    lines: Box<dyn BufRead + Send>,
    ctx: &JobContext,
    on_event: &mut dyn FnMut(StreamEvent) -> Result<(), BoxError>,
) -> Result<StreamSummary, BoxError> {
    check_numbers(config)?;
    let Prepared { chosen, notices } = doctor::prepare(config.device, &places.verdicts, ctx)?;
    for notice in notices {
        on_event(StreamEvent::Notice(notice))?;
    }
    let Lent { config, classifier, predicted } = lend(config, &chosen, places, ctx, &mut |event| match event {
        ClassifyEvent::Model(model) => on_event(StreamEvent::Ready(model)),
        ClassifyEvent::Notice(notice) | ClassifyEvent::DeviceNotice(notice) => on_event(StreamEvent::Notice(notice)),
        ClassifyEvent::Rows { .. } => Ok(()),
    })?;
    let threads = threads_of(&config);
    let transform = classifier.description.transform;
    let look_ahead = look_ahead(config.batch_size, transform.output_size(), threads);
    let (sender, arriving) = sync_channel(look_ahead);
    worker::background("lines", move || read_lines(lines, &sender))?;
    let stream = Stream {
        config: &config,
        places,
        key: classifier.key().clone(),
        loader: Loader::start(threads, transform, predicted.map_or(u64::MAX, |predicted| predicted.left))?,
        look_ahead,
        compute: ThreadPoolBuilder::new().num_threads(threads).build()?.into(),
        arriving,
        ctx,
    };
    stream.answer_all(classifier, on_event)
}

struct Stream<'a> {
    config: &'a ClassifyConfig,
    places: &'a Places,
    /// Of the model that answers from the first line to the last.
    key: ModelKey,
    loader: Loader,
    /// Photos that may be decoded before they are computed.
    look_ahead: usize,
    compute: Arc<ThreadPool>,
    arriving: Receiver<io::Result<Line>>,
    ctx: &'a JobContext,
}

impl Stream<'_> {
    fn answer_all(
        &self,
        classifier: ModelLoan,
        on_event: &mut dyn FnMut(StreamEvent) -> Result<(), BoxError>,
    ) -> Result<StreamSummary, BoxError> {
        let mut summary = StreamSummary::default();
        let lend_again = || self.lend_again();
        let watched = |classifier| {
            let Self { config, compute, .. } = self;
            Watched::new(classifier, config.batch_size, config.memory, compute.clone()).renewed_by(&lend_again)
        };
        let mut lent = Some(watched(classifier));
        let mut waiting = VecDeque::new();
        loop {
            let at_once = lent.as_ref().map_or(self.config.batch_size, |network| network.watch().at_once());
            let is_short = lent.as_ref().is_some_and(|network| network.watch().batches_ahead() == 0);
            let most = if is_short { at_once } else { self.look_ahead };
            while waiting.len() < most
                && let Ok(line) = self.arriving.try_recv()
            {
                waiting.push_back(self.begin(line?));
            }
            if waiting.is_empty() {
                // Others may need the room, and after the idle time so may the system.
                lent = None;
                match self.next_line()? {
                    Some(line) => waiting.push_back(self.begin(line)),
                    None => return Ok(summary),
                }
                continue;
            }
            self.ctx.check()?;
            let network = match &mut lent {
                Some(network) => network,
                None => lent.insert(watched(self.lend_again()?)),
            };
            let answers = self.answers(network, batch(&mut waiting, at_once))?;
            for notice in network.take_notices() {
                on_event(StreamEvent::Notice(notice))?;
            }
            answers.iter().for_each(|answer| summary.count(answer));
            on_event(StreamEvent::Answers(answers))?;
        }
    }

    /// Asks for a line's photo to be decoded.
    fn begin(&self, line: Line) -> Waiting {
        let Line { number, echo, asked } = line;
        match asked {
            Ok(path) => Waiting::Photo { echo, pending: self.loader.load(path.clone()), path },
            Err(reason) => Waiting::Bad { line: number, echo, reason },
        }
    }

    /// Waits for a line; none when there will be no more. What stays idle meanwhile is unloaded when its time is over.
    fn next_line(&self) -> Result<Option<Line>, BoxError> {
        let mut held = self.places.models.shelf.bytes();
        loop {
            match self.arriving.recv_timeout(PATIENCE) {
                Ok(line) => return Ok(Some(line?)),
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
                Err(RecvTimeoutError::Timeout) => self.ctx.check()?,
            }
            self.places.models.shelf.tidy(Instant::now());
            let left = self.places.models.shelf.bytes();
            if left < held {
                heap::release();
            }
            held = left;
        }
    }

    /// The same model as at first, read again when it was unloaded meanwhile or its device made anew.
    fn lend_again(&self) -> Result<ModelLoan, BoxError> {
        let classifier = self.config.to_load().lend_again(self.config.device, self.places, self.ctx)?;
        match classifier.key().is_same_model(&self.key) {
            true => Ok(classifier),
            // Answers of two models must not be taken for those of one.
            false => Err(ClassifyError::Replaced(self.key.source.name()).into()),
        }
    }

    fn answers(&self, network: &mut Watched<ModelLoan>, batch: Vec<Waiting>) -> Result<Vec<Answer>, BoxError> {
        let inputs: Vec<&Input> = batch
            .iter()
            .filter_map(|waiting| match waiting {
                Waiting::Decoded { decoded: Ok(input), .. } => Some(input),
                _ => None,
            })
            .collect();
        let mut logits = network.logits(&inputs)?.into_iter();
        let labels = &network.model().description.labels;
        let mut result = |decoded| match decoded {
            Ok(_) => result_of(logits.next().unwrap_or_default(), labels, self.config),
            Err(reason) => RowResult::Skipped { reason },
        };
        let answers = batch.into_iter().map(|waiting| match waiting {
            Waiting::Bad { line, echo, reason } => Answer::BadLine { line, echo, reason },
            Waiting::Decoded { echo, path, decoded } => Answer::Row(echo, Row { path, result: result(decoded) }),
            Waiting::Photo { echo, path, pending } => {
                let result = result(settled(pending.wait()));
                Answer::Row(echo, Row { path, result })
            }
        });
        Ok(answers.collect())
    }
}

/// The first that waits, and those behind it that are ready too, as far as they make one batch.
fn batch(waiting: &mut VecDeque<Waiting>, most: usize) -> Vec<Waiting> {
    let mut batch = Vec::with_capacity(most);
    while batch.len() < most
        && let Some(next) = waiting.pop_front()
    {
        match next {
            Waiting::Photo { echo, path, pending } if batch.is_empty() => {
                batch.push(Waiting::Decoded { echo, path, decoded: settled(pending.wait()) });
            }
            Waiting::Photo { echo, path, pending } => match pending.ready() {
                Ok(answer) => batch.push(Waiting::Decoded { echo, path, decoded: settled(answer) }),
                Err(pending) => {
                    waiting.push_front(Waiting::Photo { echo, path, pending });
                    break;
                }
            },
            other => batch.push(other),
        }
    }
    batch
}

fn settled(answer: Option<Result<Input, ImageError>>) -> Result<Input, String> {
    match answer {
        Some(decoded) => decoded.map_err(|error| error_chain(&error)),
        None => Err("decoding failed (an internal error)".to_owned()),
    }
}

impl StreamSummary {
    fn count(&mut self, answer: &Answer) {
        match answer {
            Answer::BadLine { .. } => self.bad_lines += 1,
            Answer::Row(_, Row { result: RowResult::Ok { .. }, .. }) => self.ok += 1,
            Answer::Row(_, Row { result: RowResult::Skipped { .. }, .. }) => self.skipped += 1,
        }
    }
}

/// Reads lines to their end, or until nobody wants them.
fn read_lines(mut lines: Box<dyn BufRead + Send>, arriving: &SyncSender<io::Result<Line>>) {
    for number in 1.. {
        let line = match read_line(&mut *lines) {
            Ok(None) => return,
            Ok(Some(line)) if line.trim_ascii().is_empty() => continue,
            Ok(Some(line)) => {
                let (echo, asked) = asked(&line);
                Ok(Line { number, echo, asked })
            }
            Err(error) => Err(error),
        };
        let is_over = line.is_err();
        if arriving.send(line).is_err() || is_over {
            return;
        }
    }
}

/// The next line without its end. Of one that is too long the beginning, one byte longer than allowed.
fn read_line(lines: &mut dyn BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    (&mut *lines).take(LONGEST_LINE as u64 + 2).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Ok(None);
    }
    if line.pop_if(|last| *last == b'\n').is_some() {
        line.pop_if(|last| *last == b'\r');
    } else if line.len() > LONGEST_LINE {
        lines.skip_until(b'\n')?;
    }
    Ok(Some(line))
}

/// What is to come back with the answer, and the photo that a line asks for or why it asks for none.
fn asked(line: &[u8]) -> (Echo, Result<PathBuf, String>) {
    if line.len() > LONGEST_LINE {
        return (Echo::default(), Err("the line is longer than 1 MiB".to_owned()));
    }
    if !line.trim_ascii_start().starts_with(b"{") {
        return (Echo::default(), path_of(line).ok_or_else(|| "the path is not UTF-8".to_owned()));
    }
    let mut fields: Map<String, Value> = match serde_json::from_slice(line) {
        Ok(fields) => fields,
        Err(error) => return (Echo::default(), Err(format!("the line is no JSON object: {error}"))),
    };
    let path = match fields.shift_remove("path") {
        Some(Value::String(path)) => Ok(path.into()),
        Some(_) => Err("its path is no text".to_owned()),
        None => Err("it has no path".to_owned()),
    };
    (Echo { id: fields.shift_remove("id"), fields }, path)
}

#[cfg(unix)]
fn path_of(line: &[u8]) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStrExt as _;
    Some(std::ffi::OsStr::from_bytes(line).into())
}

#[cfg(not(unix))]
fn path_of(line: &[u8]) -> Option<PathBuf> {
    std::str::from_utf8(line).ok().map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_path_or_an_object_whose_other_fields_come_back() {
        let (echo, path) = asked(b" a photo.jpg ");
        assert_eq!((path.unwrap().to_str(), echo), (Some(" a photo.jpg "), Echo::default()));
        let (echo, path) = asked(br#" {"path": "b.jpg", "id": 7, "status": "x", "deep": {"a": [1, null]}}"#);
        assert_eq!((path.unwrap().to_str(), &echo.id), (Some("b.jpg"), &Some(7.into())));
        assert_eq!(serde_json::to_string(&echo.fields).unwrap(), r#"{"status":"x","deep":{"a":[1,null]}}"#);
        for (line, reason) in [
            (&br#"{"path": 3, "id": "x"}"#[..], "no text"),
            (br#"{"id": "x"}"#, "no path"),
            (br#"{"path": "#, "no JSON object"),
        ] {
            assert!(asked(line).1.unwrap_err().contains(reason));
        }
        assert_eq!(asked(br#"{"id": "x"}"#).0.id, Some("x".into()));
    }

    #[test]
    fn lines_end_as_they_do_on_any_system_and_a_long_one_takes_no_more_memory_than_allowed() {
        let long = [&vec![b'x'; 3 * LONGEST_LINE][..], b"\nnext"].concat();
        let mut lines: &[u8] = &long;
        let line = read_line(&mut lines).unwrap().unwrap();
        assert!(line.len() > LONGEST_LINE && line.len() <= LONGEST_LINE + 2);
        assert_eq!(read_line(&mut lines).unwrap(), Some(b"next".to_vec()));
        assert_eq!(read_line(&mut lines).unwrap(), None);
        let mut lines: &[u8] = b"one\r\n\ntwo";
        let read: Vec<_> = std::iter::from_fn(|| read_line(&mut lines).unwrap()).collect();
        assert_eq!(read, [&b"one"[..], b"", b"two"]);
        let mut lines: &[u8] = &[&vec![b'x'; LONGEST_LINE][..], b"\n"].concat();
        assert!(asked(&read_line(&mut lines).unwrap().unwrap()).1.is_ok());
    }
}
