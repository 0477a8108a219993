//! As little of an HTTP/1.1 client as it takes to put and get states, so that the load costs the
//! machine little beside the server that is measured: one buffer out, one in, no task of its own.

use std::io;

use httparse::{EMPTY_HEADER, Response, Status};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::cli::bench::error::BenchError;

/// Headers of an answer; a replica sends about ten.
const HEADERS_MAX: usize = 32;
/// Largest head of an answer in bytes.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// Largest body in bytes: more than any state that is written here.
const BODY_BYTES_MAX: usize = 4 << 20;
/// How much of a refusal is shown, in bytes.
const SAID_MAX: usize = 300;

/// A connection to a replica that is kept open, for one request at a time.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    address: String,
    outgoing: Vec<u8>,
    incoming: Vec<u8>,
}

/// Where in the buffer an answer's parts are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Head {
    status: u16,
    head_bytes: usize,
    body_bytes: usize,
}

impl Connection {
    /// Connects to `HOST:PORT`.
    ///
    /// # Errors
    /// The system's.
    pub async fn open(address: &str) -> Result<Self, BenchError> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            address: address.to_owned(),
            outgoing: Vec::new(),
            incoming: Vec::new(),
        })
    }

    /// Stores a state in the default namespace, and waits until that is acknowledged.
    ///
    /// # Errors
    /// [`BenchError`] when it is not.
    pub async fn put(&mut self, id: &str, bytes: &[u8]) -> Result<(), BenchError> {
        self.begin("PUT", id);
        let length = format!("content-length: {}\r\n\r\n", bytes.len());
        self.outgoing.extend_from_slice(length.as_bytes());
        self.outgoing.extend_from_slice(bytes);
        self.exchange().await.map(drop)
    }

    /// Reads a state in the default namespace.
    ///
    /// # Errors
    /// [`BenchError`], also when there is none.
    pub async fn get(&mut self, id: &str) -> Result<&[u8], BenchError> {
        self.begin("GET", id);
        self.outgoing.extend_from_slice(b"\r\n");
        self.exchange().await
    }

    fn begin(&mut self, method: &str, id: &str) {
        let address = &self.address;
        let head = format!("{method} /v1/ns/default/states/{id} HTTP/1.1\r\nhost: {address}\r\n");
        self.outgoing.clear();
        self.outgoing.extend_from_slice(head.as_bytes());
    }

    /// Sends what is in the buffer and returns the body of a successful answer.
    async fn exchange(&mut self) -> Result<&[u8], BenchError> {
        self.stream.write_all(&self.outgoing).await?;
        self.incoming.clear();
        let head = loop {
            self.more().await?;
            if let Some(head) = parse_head(&self.incoming)? {
                break head;
            }
            if self.incoming.len() > HEAD_BYTES_MAX {
                return Err(BenchError::Unreadable("its head does not end"));
            }
        };
        let end = head.head_bytes + head.body_bytes;
        while self.incoming.len() < end {
            self.more().await?;
        }
        let body = self.incoming.get(head.head_bytes..end).unwrap_or_default();
        if (200..300).contains(&head.status) {
            return Ok(body);
        }
        let said = body.get(..SAID_MAX.min(body.len())).unwrap_or_default();
        Err(BenchError::Refused {
            status: head.status,
            said: String::from_utf8_lossy(said).into_owned(),
        })
    }

    async fn more(&mut self) -> Result<(), BenchError> {
        match self.stream.read_buf(&mut self.incoming).await? {
            0 => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            _ => Ok(()),
        }
    }
}

/// The head at the beginning of what has arrived; `None` until it is there as a whole.
fn parse_head(bytes: &[u8]) -> Result<Option<Head>, BenchError> {
    let mut headers = [EMPTY_HEADER; HEADERS_MAX];
    let mut response = Response::new(&mut headers);
    let parsed = response.parse(bytes);
    let parsed = parsed.map_err(|_| BenchError::Unreadable("it is no HTTP/1.1"))?;
    let (Status::Complete(head_bytes), Some(status)) = (parsed, response.code) else {
        return Ok(None);
    };
    let length = response
        .headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("content-length"))
        .ok_or(BenchError::Unreadable("it does not say how long it is"))?;
    let body_bytes = std::str::from_utf8(length.value).ok();
    let body_bytes = body_bytes.and_then(|text| text.trim().parse().ok());
    match body_bytes.filter(|bytes| *bytes <= BODY_BYTES_MAX) {
        Some(body_bytes) => Ok(Some(Head {
            status,
            head_bytes,
            body_bytes,
        })),
        None => Err(BenchError::Unreadable("it is longer than any state here")),
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn heads_are_read_once_they_are_whole_and_say_how_long_the_body_is() {
        let text = b"HTTP/1.1 201 Created\r\nContent-Length: 12\r\netag: \"a\"\r\n\r\nbody";
        for cut in 0..text.len() - 4 {
            assert_eq!(parse_head(&text[..cut]).unwrap(), None, "{cut}");
        }
        let head = Head {
            status: 201,
            head_bytes: text.len() - 4,
            body_bytes: 12,
        };
        assert_eq!(parse_head(text).unwrap(), Some(head));
        for bad in [
            "SSH-2.0-x\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n",
        ] {
            assert!(parse_head(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    /// A server that answers one connection with these pieces, whatever it is asked.
    async fn answering(pieces: &'static [&'static str]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            for piece in pieces {
                if piece.starts_with("HTTP") {
                    let _ = stream.read(&mut request).await;
                }
                stream.write_all(piece.as_bytes()).await.unwrap();
                tokio::task::yield_now().await;
            }
        });
        address
    }

    #[tokio::test]
    async fn answers_arrive_in_any_pieces_one_after_the_other() {
        let address = answering(&[
            "HTTP/1.1 200 OK\r\ncontent-le",
            "ngth: 5\r\n\r\nhel",
            "lo",
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi",
            "HTTP/1.1 404 Not Found\r\ncontent-length: 4\r\n\r\nnone",
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhel",
        ])
        .await;
        let mut connection = Connection::open(&address).await.unwrap();
        assert_eq!(connection.get("a").await.unwrap(), b"hello");
        assert_eq!(connection.get("a").await.unwrap(), b"hi");
        let refused = connection.put("a", b"x").await.unwrap_err();
        let refusal = "the server refused with 404: none";
        assert_eq!(refused.to_string(), refusal);
        let cut = connection.get("a").await.unwrap_err();
        assert!(matches!(cut, BenchError::Broken(_)), "{cut}");
    }
}
