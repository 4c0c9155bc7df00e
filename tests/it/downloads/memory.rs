//! A download takes the same memory whatever the size of the file. The server makes the bytes while it sends them.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use galley::jobs::download::{DownloadConfig, download};
use galley::memory::heap;
use galley::worker::JobContext;

use super::QUICK;
use crate::support::alone;

const BLOCK: usize = 1_000_000;
const BLOCKS: usize = 200;

/// Where the first connection breaks.
const BROKEN_AT: usize = 90;

/// What the download may hold at once, its 8 MB for the disk included.
const ALLOWED: u64 = 24_000_000;

/// Block by block, a safetensors file of one tensor. The first block is its table, padded with spaces.
fn fill(block: &mut [u8], number: usize) {
    if number > 0 {
        block.fill(number as u8);
        block[..8].copy_from_slice(&(number as u64).to_le_bytes());
        return;
    }
    let length = (BLOCKS - 1) * BLOCK;
    let table = format!(r#"{{"w":{{"dtype":"U8","shape":[{length}],"data_offsets":[0,{length}]}}}}"#);
    block.fill(b' ');
    block[..8].copy_from_slice(&(BLOCK as u64 - 8).to_le_bytes());
    block[8..8 + table.len()].copy_from_slice(table.as_bytes());
}

/// Answers two requests: one breaks off, the other begins there.
fn serve(listener: &TcpListener) {
    let mut block = vec![0; BLOCK];
    for (blocks, status) in [(0..BROKEN_AT, "200 OK"), (BROKEN_AT..BLOCKS, "206 Partial Content")] {
        let (mut stream, _) = listener.accept().unwrap();
        let range = range(&stream);
        let (all, first) = (BLOCKS * BLOCK, blocks.start * BLOCK);
        assert_eq!(range, (first > 0).then(|| format!("bytes={first}-")));
        let head = format!(
            "HTTP/1.1 {status}\r\nETag: \"1\"\r\nContent-Length: {}\r\nContent-Range: bytes {first}-{}/{all}\r\n\r\n",
            all - first,
            all - 1
        );
        stream.write_all(head.as_bytes()).unwrap();
        for number in blocks {
            fill(&mut block, number);
            stream.write_all(&block).unwrap();
        }
    }
}

fn range(stream: &TcpStream) -> Option<String> {
    let lines = BufReader::new(stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty());
    lines.filter_map(|line| Some(line.to_lowercase().strip_prefix("range: ")?.to_owned())).last()
}

#[test]
fn two_hundred_megabytes_arrive_in_the_memory_of_a_few() {
    alone("downloads::memory::two_hundred_megabytes_arrive_in_the_memory_of_a_few", || {
        let folder = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}/large.safetensors", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || serve(&listener));
        let config = DownloadConfig { patience: QUICK, ..DownloadConfig::new(address, folder.path()) };
        heap::reset_peak();
        let before = heap::live();
        let summary = download(&config, &JobContext::detached(), &mut |_| ()).unwrap();
        let grown = heap::peak() - before;
        server.join().unwrap();
        println!("{} bytes took {grown} of heap", summary.bytes);
        assert!(grown < ALLOWED, "{grown}");
        let (mut file, mut block, mut expected) = (File::open(summary.path).unwrap(), vec![0; BLOCK], vec![0; BLOCK]);
        for number in 0..BLOCKS {
            file.read_exact(&mut block).unwrap();
            fill(&mut expected, number);
            assert!(block == expected, "block {number}");
        }
        assert_eq!(summary.received, (BLOCKS * BLOCK) as u64);
    });
}
