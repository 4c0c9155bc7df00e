//! Files from `s3://` and `gs://` addresses. The one place with an asynchronous runtime, which works on the download's own
//! thread and only while it is asked for bytes.
//!
//! Keys, regions and endpoints come from the environment, under the names that `object_store` knows: `AWS_ACCESS_KEY_ID`,
//! `AWS_SECRET_ACCESS_KEY`, `AWS_REGION`, `AWS_ENDPOINT`, `GOOGLE_APPLICATION_CREDENTIALS` and so on.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use object_store::path::Path;
use object_store::{Error, GetOptions, GetRange, GetResult, ObjectStore, ObjectStoreExt as _, parse_url_opts};
use tokio::runtime::{Builder, Runtime};

use super::Patience;
use super::address::Address;
use super::error::{DownloadError, Fault};
use super::part::Validators;
use super::source::{Answer, Ask, Reply, Source};
use crate::worker::JobContext;

/// How soon a stalled read notices that it is no longer wanted.
const NOTICE: Duration = Duration::from_millis(100);

/// What the environment may say, by how its variables begin.
const SETTINGS: [&str; 3] = ["AWS_", "GOOGLE_", "GCS_"];

pub struct Cloud {
    store: Arc<dyn ObjectStore>,
    path: Path,
    address: String,
    runtime: Arc<Runtime>,
    patience: Patience,
    ctx: JobContext,
}

impl Cloud {
    pub fn new(address: &Address, patience: &Patience, ctx: &JobContext) -> Result<Self, DownloadError> {
        // Fails when there is one already: then it is used.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let connect = format!("{} seconds", patience.connect.as_secs().max(1));
        // A large file takes its time; what has fallen silent is noticed here.
        let limits = [("timeout".to_owned(), "30 days".to_owned()), ("connect_timeout".to_owned(), connect)];
        let variables = std::env::vars().filter(|(name, _)| SETTINGS.iter().any(|start| name.starts_with(start)));
        let options = variables.map(|(name, value)| (name.to_lowercase(), value)).chain(limits);
        let failed = |error: Error| DownloadError::Cloud(address.shown(), error.to_string());
        let (store, path) = parse_url_opts(address.url(), options).map_err(failed)?;
        Self::over(store.into(), path, address.shown(), patience, ctx)
    }

    fn over(
        store: Arc<dyn ObjectStore>,
        path: Path,
        address: String,
        patience: &Patience,
        ctx: &JobContext,
    ) -> Result<Self, DownloadError> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| DownloadError::Cloud(address.clone(), error.to_string()))?;
        Ok(Self { store, path, address, runtime: Arc::new(runtime), patience: *patience, ctx: ctx.clone() })
    }

    fn request(&self, options: GetOptions) -> Result<GetResult, Error> {
        self.runtime.block_on(self.store.get_opts(&self.path, options))
    }

    fn reply(&self, result: GetResult) -> Reply {
        let (from, total) = (result.range.start, Some(result.meta.size));
        let validators = Validators { etag: result.meta.e_tag.clone(), last_modified: None };
        let body = Body {
            stream: result.into_stream(),
            rest: bytes::Bytes::new(),
            runtime: Arc::clone(&self.runtime),
            stall: self.patience.stall,
            ctx: self.ctx.clone(),
        };
        Reply::Body(Answer { from, total, validators, checksum: None, body: Box::new(body) })
    }

    fn fault(&self, error: Error) -> Fault {
        match error {
            Error::NotFound { .. } => DownloadError::Refused { status: 404, address: self.address.clone() }.into(),
            Error::PermissionDenied { .. } => {
                DownloadError::Refused { status: 403, address: self.address.clone() }.into()
            }
            Error::Unauthenticated { .. } => {
                DownloadError::Refused { status: 401, address: self.address.clone() }.into()
            }
            error => Fault::passing(format!("the store cannot be reached ({error})")),
        }
    }
}

impl Source for Cloud {
    fn get(&self, ask: Ask) -> Result<Reply, Fault> {
        let options = match ask {
            Ask::All => GetOptions::default(),
            Ask::IfChanged(same) => GetOptions { if_none_match: same.etag.clone(), ..GetOptions::default() },
            Ask::From(first, same) => {
                let size = self.runtime.block_on(self.store.head(&self.path)).map_err(|error| self.fault(error))?.size;
                if first >= size {
                    return Ok(Reply::Beyond { total: Some(size) });
                }
                let range = Some(GetRange::Offset(first));
                GetOptions { range, if_match: same.etag.clone(), ..GetOptions::default() }
            }
        };
        match self.request(options) {
            Ok(result) => Ok(self.reply(result)),
            Err(Error::NotModified { .. }) => Ok(Reply::Unchanged),
            // Another file by now: all of it.
            Err(Error::Precondition { .. }) => {
                self.request(GetOptions::default()).map(|result| self.reply(result)).map_err(|error| self.fault(error))
            }
            Err(error) => Err(self.fault(error)),
        }
    }
}

/// The pieces of an answer, one after the other.
struct Body {
    stream: BoxStream<'static, Result<bytes::Bytes, Error>>,
    rest: bytes::Bytes,
    runtime: Arc<Runtime>,
    stall: Duration,
    ctx: JobContext,
}

impl Body {
    /// The next piece, or `None` at the end. Ends when the download is canceled, and when nothing comes for too long.
    fn next(&mut self) -> io::Result<Option<bytes::Bytes>> {
        let since = Instant::now();
        loop {
            let next = async { tokio::time::timeout(NOTICE, self.stream.next()).await };
            match self.runtime.block_on(next) {
                Ok(piece) => return piece.transpose().map_err(io::Error::other),
                Err(_) if self.ctx.is_canceled() => return Err(io::ErrorKind::ConnectionAborted.into()),
                Err(_) if since.elapsed() > self.stall => return Err(io::ErrorKind::TimedOut.into()),
                Err(_) => {}
            }
        }
    }
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.next()? {
                Some(piece) => self.rest = piece,
                None => return Ok(0),
            }
        }
        let length = self.rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&self.rest.split_to(length));
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::super::part::{self, Part};
    use super::super::{DownloadConfig, DownloadEvent, DownloadSummary, Fetch};
    use super::*;

    /// A safetensors file of one tensor.
    fn model(length: usize, fill: u8) -> Vec<u8> {
        let table = format!(r#"{{"w":{{"dtype":"U8","shape":[{length}],"data_offsets":[0,{length}]}}}}"#);
        let mut file = (table.len() as u64).to_le_bytes().to_vec();
        file.extend(table.bytes());
        file.resize(file.len() + length, fill);
        file
    }

    struct Bucket {
        store: Arc<InMemory>,
        folder: tempfile::TempDir,
    }

    impl Bucket {
        fn put(&self, file: &[u8]) -> Validators {
            let path = Path::from("food.safetensors");
            let put = self.store.put(&path, file.to_vec().into());
            let etag = Builder::new_current_thread().build().unwrap().block_on(put).unwrap().e_tag;
            Validators { etag, last_modified: None }
        }

        fn address(&self) -> Address {
            Address::parse("s3://models/food.safetensors").unwrap()
        }

        fn fetch(&self) -> Result<DownloadSummary, String> {
            let (ctx, target) = (JobContext::detached(), self.folder.path().join("food.safetensors"));
            let config = DownloadConfig::new("s3://models/food.safetensors", self.folder.path());
            let config = DownloadConfig { patience: Patience { tries: 1, ..Patience::default() }, ..config };
            let (store, path) = (self.store.clone() as Arc<dyn ObjectStore>, Path::from("food.safetensors"));
            let source = Cloud::over(store, path, self.address().shown(), &config.patience, &ctx).unwrap();
            let (address, tell) = (self.address(), &mut |_: DownloadEvent| ());
            let mut fetch =
                Fetch { config: &config, address, target, checksums: vec![], source: &source, ctx: &ctx, tell };
            fetch.run().map_err(|error| crate::format::error_chain(&*error))
        }

        fn file(&self) -> Vec<u8> {
            std::fs::read(self.folder.path().join("food.safetensors")).unwrap()
        }
    }

    #[test]
    fn a_model_comes_from_a_bucket_goes_on_from_its_part_and_follows_changes() {
        let bucket = Bucket { store: Arc::default(), folder: tempfile::tempdir().unwrap() };
        assert!(bucket.fetch().unwrap_err().contains("no file at this address"));
        let (old, new) = (model(300_000, 1), model(200_000, 2));
        let target = bucket.folder.path().join("food.safetensors");

        let validators = bucket.put(&old);
        let mut part = Part::open(&target, &bucket.address()).unwrap();
        part.begin(validators, Some(old.len() as u64)).unwrap();
        part.write(&old[..100_000]).unwrap();
        drop(part);
        let summary = bucket.fetch().unwrap();
        assert!(bucket.file() == old);
        assert_eq!((summary.resumed, summary.received), (100_000, old.len() as u64 - 100_000));
        assert_eq!(bucket.fetch().unwrap().received, 0);

        let validators = bucket.put(&new);
        assert_eq!(bucket.fetch().unwrap().received, new.len() as u64);
        assert!(bucket.file() == new);

        // The part is of a file that is no longer there.
        let mut part = Part::open(&target, &bucket.address()).unwrap();
        part.begin(validators, Some(new.len() as u64)).unwrap();
        part.write(&new[..50_000]).unwrap();
        drop(part);
        bucket.put(&old);
        bucket.fetch().unwrap();
        assert!(bucket.file() == old && !part::path_of(&target).exists());
    }
}
