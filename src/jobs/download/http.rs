//! Files from https and http servers.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::crypto::ring;
use ureq::http::{HeaderMap, Response, StatusCode, header};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Body};
use url::Url;

use super::Patience;
use super::address::{self, Address};
use super::error::{DownloadError, Fault};
use super::part::Validators;
use super::source::{Answer, Ask, Reply, Source};
use super::verify::Checksum;
use crate::worker::{Job, JobContext};

const MOST_REDIRECTS: u32 = 10;

/// How soon a stalled read notices that it is no longer wanted.
const NOTICE: Duration = Duration::from_millis(100);

pub struct Http {
    address: Address,
    agent: Agent,
    /// Ends reads when the download is canceled.
    _watch: Option<Job<(), ()>>,
}

impl Http {
    pub fn new(address: Address, patience: &Patience, ctx: &JobContext) -> Self {
        let agent = agent(patience);
        let _watch = watch(agent.clone(), ctx.clone()).ok();
        Self { address, agent, _watch }
    }

    /// Follows redirects by hand: what is said on the way counts, and https never leads down to http.
    fn arrive(&self, ask: Ask) -> Result<(Response<Body>, Option<Checksum>), Fault> {
        let (mut url, mut checksum) = (self.address.url().clone(), None);
        for _ in 0..=MOST_REDIRECTS {
            let response = self.request(&url, ask)?;
            checksum = checksum.or_else(|| published_checksum(&url, response.headers()));
            if !is_redirect(response.status()) {
                return Ok((response, checksum));
            }
            url = next(&url, response.headers())?;
        }
        Err(DownloadError::Redirects(MOST_REDIRECTS, self.address.shown()).into())
    }

    fn request(&self, url: &Url, ask: Ask) -> Result<Response<Body>, Fault> {
        // A packed body would have other bytes, another length, and other ranges than the file.
        let mut request = self.agent.get(url.as_str()).header(header::ACCEPT_ENCODING, "identity");
        match ask {
            Ask::All => {}
            Ask::IfChanged(Validators { etag, last_modified }) => {
                let etag = etag.iter().map(|etag| (header::IF_NONE_MATCH, etag));
                let date = last_modified.iter().map(|date| (header::IF_MODIFIED_SINCE, date));
                request = etag.chain(date).fold(request, |request, (name, value)| request.header(name, value));
            }
            Ask::From(first, Validators { etag, last_modified }) => {
                request = request.header(header::RANGE, format!("bytes={first}-"));
                if let Some(same) = etag.as_ref().or(last_modified.as_ref()) {
                    request = request.header(header::IF_RANGE, same);
                }
            }
        }
        request.call().map_err(|error| fault(error, url))
    }
}

impl Source for Http {
    fn get(&self, ask: Ask) -> Result<Reply, Fault> {
        let (response, checksum) = self.arrive(ask)?;
        let headers = response.headers();
        let (from, total) = match response.status() {
            StatusCode::OK => (0, number(headers, header::CONTENT_LENGTH)),
            StatusCode::PARTIAL_CONTENT => {
                content_range(headers).ok_or_else(|| Fault::passing("the server does not say which part it sent"))?
            }
            StatusCode::NOT_MODIFIED => return Ok(Reply::Unchanged),
            StatusCode::RANGE_NOT_SATISFIABLE => {
                let total =
                    text(headers, header::CONTENT_RANGE).and_then(|range| range.rsplit_once('/')?.1.parse().ok());
                return Ok(Reply::Beyond { total });
            }
            status => return Err(refusal(status, headers, self.address.shown())),
        };
        if let Some(encoding) = text(headers, header::CONTENT_ENCODING).filter(|name| *name != "identity") {
            let (encoding, address) = (encoding.to_owned(), self.address.shown());
            return Err(DownloadError::Packed { encoding, address }.into());
        }
        let validators = validators(headers);
        Ok(Reply::Body(Answer {
            from,
            total,
            validators,
            checksum,
            body: Box::new(response.into_body().into_reader()),
        }))
    }

    fn broken(&self, error: &io::Error) -> Fault {
        let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<ureq::Error>());
        match cause {
            Some(ureq::Error::Timeout(_)) => Fault::passing("the server fell silent"),
            _ => Fault::passing(format!("the connection broke ({error})")),
        }
    }
}

/// Certificates are checked as the system does, so that a company's own are good here too.
fn agent(patience: &Patience) -> Agent {
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::PlatformVerifier)
        .unversioned_rustls_crypto_provider(Arc::new(ring::default_provider()));
    let config = Agent::config_builder()
        .tls_config(tls.build())
        .user_agent(concat!("galley/", env!("CARGO_PKG_VERSION")))
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .timeout_resolve(Some(patience.connect))
        .timeout_connect(Some(patience.connect))
        .timeout_per_read(Some(patience.stall))
        .timeout_per_write(Some(patience.stall));
    config.build().new_agent()
}

/// A read that waits for a silent server ends as soon as the download is canceled.
fn watch(agent: Agent, download: JobContext) -> io::Result<Job<(), ()>> {
    Job::start(
        "end reads",
        || (),
        move |own, _| {
            while !download.is_canceled() {
                own.check()?;
                std::thread::sleep(NOTICE);
            }
            agent.shutdown();
            Ok(())
        },
    )
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

fn next(url: &Url, headers: &HeaderMap) -> Result<Url, DownloadError> {
    let location = text(headers, header::LOCATION).unwrap_or_default();
    let bad = || DownloadError::BadRedirect(address::shown(url));
    let next = url.join(location).ok().filter(|next| next.has_host() && !location.is_empty()).ok_or_else(bad)?;
    match (url.scheme(), next.scheme()) {
        (_, "https") | ("http", "http") => Ok(next),
        ("https", "http") => Err(DownloadError::Downgrade(address::shown(url))),
        _ => Err(bad()),
    }
}

/// Hugging Face answers for a large file with its SHA-256 before it leads on to where the file lies.
fn published_checksum(url: &Url, headers: &HeaderMap) -> Option<Checksum> {
    let is_theirs = url.scheme() == "https" && url.host_str() == Some("huggingface.co");
    let etag = headers.get("x-linked-etag").filter(|_| is_theirs)?.to_str().ok()?;
    let digits = etag.trim_matches('"');
    let checksum = (digits.len() == 64).then(|| Checksum::parse(digits).ok()).flatten()?;
    Some(checksum.said_by("huggingface.co"))
}

fn validators(headers: &HeaderMap) -> Validators {
    let own = |name| text(headers, name).map(str::to_owned);
    // RFC 9110, 8.8.2.2 and 13.1.5: neither a weak ETag nor a date of this very second can tell two files apart.
    let etag = own(header::ETAG).filter(|etag| !etag.starts_with("W/"));
    let last_modified = own(header::LAST_MODIFIED).filter(|date| text(headers, header::DATE) != Some(date));
    Validators { etag, last_modified }
}

/// `bytes 5-9/10` or `bytes 5-9/*`: the first byte, and the length of the whole file.
fn content_range(headers: &HeaderMap) -> Option<(u64, Option<u64>)> {
    let (range, total) = text(headers, header::CONTENT_RANGE)?.trim().strip_prefix("bytes ")?.split_once('/')?;
    Some((range.split_once('-')?.0.trim().parse().ok()?, total.trim().parse().ok()))
}

fn refusal(status: StatusCode, headers: &HeaderMap, address: String) -> Fault {
    let code = status.as_u16();
    match code {
        408 | 425 | 429 | 500 | 502..=504 => {
            let busy = if code == 429 { "the server has too many requests" } else { "the server is in trouble" };
            Fault::Passing { reason: format!("{busy} (HTTP {code})"), wait: retry_after(headers) }
        }
        _ => DownloadError::Refused { status: code, address }.into(),
    }
}

/// Seconds, or a date.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = text(headers, header::RETRY_AFTER)?.trim();
    let date = || httpdate::parse_http_date(value).ok()?.duration_since(SystemTime::now()).ok();
    value.parse().map(Duration::from_secs).ok().or_else(date)
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

fn number(headers: &HeaderMap, name: header::HeaderName) -> Option<u64> {
    text(headers, name)?.trim().parse().ok()
}

fn fault(error: ureq::Error, url: &Url) -> Fault {
    let host = url.host_str().unwrap_or_default();
    match error {
        ureq::Error::HostNotFound => Fault::passing(format!("no machine is known under the name {host}")),
        ureq::Error::Timeout(_) => Fault::passing(format!("{host} does not answer")),
        // A certificate that is not good does not become so in seconds.
        ureq::Error::Io(error) if error.kind() != io::ErrorKind::InvalidData => {
            Fault::passing(format!("{host} cannot be reached ({error})"))
        }
        ureq::Error::ConnectionFailed => Fault::passing(format!("{host} cannot be reached")),
        ureq::Error::Protocol(error) => Fault::passing(format!("{host} broke off its answer ({error})")),
        error => DownloadError::Unreachable { address: address::shown(url), source: error.into() }.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (header::HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn https_never_leads_down_and_relative_addresses_lead_on() {
        let lead = |from: &str, to: &str| {
            let from = Url::parse(from).unwrap();
            next(&from, &headers(&[("location", to)])).map(String::from)
        };
        assert_eq!(lead("https://a.org/x/y", "../z?q").unwrap(), "https://a.org/z?q");
        assert_eq!(lead("http://a.org/x", "https://b.org/y").unwrap(), "https://b.org/y");
        assert!(matches!(lead("https://a.org/x", "http://a.org/x"), Err(DownloadError::Downgrade(_))));
        for bad in ["file:///etc/passwd", "", "https://"] {
            assert!(matches!(lead("http://a.org/x", bad), Err(DownloadError::BadRedirect(_))), "{bad}");
        }
    }

    #[test]
    fn only_what_can_tell_files_apart_is_kept() {
        let now = "Sat, 01 Jan 2000 00:00:00 GMT";
        let found = |pairs: &[(&'static str, &str)]| validators(&headers(pairs));
        let weak = found(&[("etag", "W/\"1\""), ("last-modified", now), ("date", now)]);
        assert!(!weak.can_tell(), "{weak:?}");
        let strong = found(&[("etag", "\"1\""), ("last-modified", now)]);
        assert_eq!((strong.etag.as_deref(), strong.last_modified.as_deref()), (Some("\"1\""), Some(now)));
    }

    #[test]
    fn a_wait_is_seconds_or_a_date() {
        assert_eq!(retry_after(&headers(&[("retry-after", "120")])), Some(Duration::from_secs(120)));
        let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(3600));
        let wait = retry_after(&headers(&[("retry-after", &date)])).unwrap();
        assert!((3500..=3600).contains(&wait.as_secs()), "{wait:?}");
        assert_eq!(retry_after(&headers(&[("retry-after", "soon")])), None);
    }

    #[test]
    fn a_checksum_counts_from_its_publisher_alone() {
        let digits = "ab".repeat(32);
        let quoted = format!("\"{digits}\"");
        let found = |url: &str| published_checksum(&Url::parse(url).unwrap(), &headers(&[("x-linked-etag", &quoted)]));
        assert_eq!(found("https://huggingface.co/o/r/resolve/main/x").unwrap().digits(), digits);
        assert_eq!(found("http://huggingface.co/o/r/resolve/main/x"), None);
        assert_eq!(found("https://a.org/x"), None);
    }
}
