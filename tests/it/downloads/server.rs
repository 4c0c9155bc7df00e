//! A server on this machine that answers as a test tells it to. It knows ranges as RFC 9110 describes them.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

#[derive(Debug, Clone)]
pub struct Request {
    /// How many came before it.
    pub number: usize,
    pub path: String,
    headers: BTreeMap<String, String>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// The same request without a header, for servers that do not know it.
    pub fn without(&self, name: &str) -> Self {
        let mut request = self.clone();
        request.headers.remove(name);
        request
    }

    /// Of `Range: bytes=5-`.
    pub fn range_start(&self) -> Option<u64> {
        self.header("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }

    fn read(number: usize, stream: &TcpStream) -> Option<Self> {
        let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
        let path = lines.next()?.split(' ').nth(1)?.to_owned();
        let fields = lines.take_while(|line| !line.is_empty());
        let fields =
            fields.filter_map(|line| Some(line.split_once(": ")?).map(|(a, b)| (a.to_lowercase(), b.to_owned())));
        Some(Self { number, path, headers: fields.collect() })
    }
}

/// What happens in the middle of a body.
enum Mishap {
    None,
    Cut(usize),
    Stall(usize),
    Then(usize, Box<dyn Fn() + Send>),
}

pub struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    claimed: Option<usize>,
    is_chunked: bool,
    mishap: Mishap,
}

impl Reply {
    pub fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new(), claimed: None, is_chunked: false, mishap: Mishap::None }
    }

    pub fn page(body: &str) -> Self {
        Self { body: body.into(), ..Self::status(200).header("Content-Type", "text/html") }
    }

    /// What an orderly server answers. An empty `etag` is none.
    pub fn file(request: &Request, file: &[u8], etag: &str) -> Self {
        let with_etag = |reply: Self| if etag.is_empty() { reply } else { reply.header("ETag", etag) };
        if request.header("if-none-match") == Some(etag) {
            return with_etag(Self::status(304));
        }
        let is_same = request.header("if-range").is_none_or(|known| known == etag);
        match request.range_start().filter(|_| is_same) {
            None => with_etag(Self { body: file.to_vec(), ..Self::status(200) }),
            Some(start) if start >= file.len() as u64 => {
                Self::status(416).header("Content-Range", &format!("bytes */{}", file.len()))
            }
            Some(start) => {
                let range = format!("bytes {start}-{}/{}", file.len() - 1, file.len());
                let body = file[start as usize..].to_vec();
                with_etag(Self { body, ..Self::status(206).header("Content-Range", &range) })
            }
        }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The connection breaks after so many bytes of the body.
    pub fn cut_after(self, bytes: usize) -> Self {
        Self { mishap: Mishap::Cut(bytes), ..self }
    }

    /// Silence after so many bytes of the body.
    pub fn stall_after(self, bytes: usize) -> Self {
        Self { mishap: Mishap::Stall(bytes), ..self }
    }

    /// Something is done after so many bytes of the body, and the rest comes in small pieces.
    pub fn then_after(self, bytes: usize, act: impl Fn() + Send + 'static) -> Self {
        Self { mishap: Mishap::Then(bytes, Box::new(act)), ..self }
    }

    /// The header speaks of a file of so many bytes; a part of it, of what is then missing.
    pub fn claiming(mut self, file: usize) -> Self {
        let range = self.headers.iter_mut().find(|(name, _)| name == "Content-Range");
        let start = match range {
            Some((_, range)) if self.status == 206 => {
                let start: usize = range["bytes ".len()..].split('-').next().unwrap().parse().unwrap();
                *range = format!("bytes {start}-{}/{file}", file - 1);
                start
            }
            Some((_, range)) => {
                *range = format!("bytes */{file}");
                return self;
            }
            None => 0,
        };
        self.claimed = Some(file - start);
        self
    }

    /// In chunks, without a length.
    pub fn chunked(self) -> Self {
        Self { is_chunked: true, ..self }
    }

    fn write(self, stream: &mut TcpStream, is_over: &AtomicBool) -> std::io::Result<()> {
        let mut head = format!("HTTP/1.1 {} Reply\r\nConnection: close\r\n", self.status);
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        match self.is_chunked {
            true => head += "Transfer-Encoding: chunked\r\n",
            false => head += &format!("Content-Length: {}\r\n", self.claimed.unwrap_or(self.body.len())),
        }
        stream.write_all((head + "\r\n").as_bytes())?;
        if self.is_chunked {
            for piece in self.body.chunks(70_000) {
                stream.write_all(format!("{:x}\r\n", piece.len()).as_bytes())?;
                stream.write_all(piece)?;
                stream.write_all(b"\r\n")?;
            }
            return stream.write_all(b"0\r\n\r\n");
        }
        match self.mishap {
            Mishap::None => stream.write_all(&self.body[..self.claimed.unwrap_or(usize::MAX).min(self.body.len())]),
            Mishap::Cut(at) => stream.write_all(&self.body[..at.min(self.body.len())]),
            Mishap::Stall(at) => {
                stream.write_all(&self.body[..at])?;
                while !is_over.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Ok(())
            }
            Mishap::Then(at, act) => {
                stream.write_all(&self.body[..at])?;
                std::thread::sleep(Duration::from_millis(50));
                act();
                for piece in self.body[at..].chunks(10_000) {
                    std::thread::sleep(Duration::from_millis(5));
                    stream.write_all(piece)?;
                }
                Ok(())
            }
        }
    }
}

/// Serves until it is dropped, each connection on a thread of its own.
pub struct Server {
    address: String,
    requests: Arc<Mutex<Vec<Request>>>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub fn new(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (requests, is_over) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let thread = std::thread::spawn({
            let (requests, is_over, answer) = (Arc::clone(&requests), Arc::clone(&is_over), Arc::new(answer));
            move || {
                for stream in listener.incoming().map_while(Result::ok) {
                    if is_over.load(Ordering::Relaxed) {
                        return;
                    }
                    let (requests, is_over) = (Arc::clone(&requests), Arc::clone(&is_over));
                    let answer = Arc::clone(&answer);
                    std::thread::spawn(move || serve(stream, &requests, &is_over, &*answer));
                }
            }
        });
        Self { address, requests, is_over, thread: Some(thread) }
    }

    pub fn at(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

fn serve(
    mut stream: TcpStream,
    requests: &Mutex<Vec<Request>>,
    is_over: &AtomicBool,
    answer: &dyn Fn(&Request) -> Reply,
) {
    let mut seen = requests.lock().unwrap();
    let Some(request) = Request::read(seen.len(), &stream) else { return };
    seen.push(request.clone());
    drop(seen);
    // A client that has gone is its own affair.
    let _ = answer(&request).write(&mut stream, is_over);
}

impl Drop for Server {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        // Wakes the listener.
        drop(TcpStream::connect(&self.address));
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}
