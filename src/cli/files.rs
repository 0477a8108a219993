//! Local files on their way to and from a replica, in blocks, however large they are.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, Stream};
use reqwest::header::CONTENT_LENGTH;
use reqwest::{Body, RequestBuilder, Response};
use sha2::{Digest, Sha256};
use tokio::fs::File;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

use crate::cli::client::Client;
use crate::cli::error::{CliError, UploadFault, file_error};
use crate::cli::progress::Progress;
use crate::types::hash::{ContentHash, hex};

/// Bytes read from a file at once.
const BLOCK_BYTES: usize = 64 << 10;
/// Files up to this size are sent from memory, so that HTTP can send them again by itself.
const SMALL_BYTES: u64 = 256 << 10;

/// Reads a whole file, or standard input when it is `-`; `None` when there is more than `most`.
///
/// # Errors
/// The operating system's.
pub fn read_at_most(path: &Path, most: usize) -> io::Result<Option<Vec<u8>>> {
    let (mut bytes, one_more) = (Vec::new(), most as u64 + 1);
    if path == Path::new("-") {
        io::stdin().take(one_more).read_to_end(&mut bytes)?;
    } else {
        let file = std::fs::File::open(path)?;
        file.take(one_more).read_to_end(&mut bytes)?;
    }
    Ok((bytes.len() <= most).then_some(bytes))
}

/// The body of a request, with its length where that is known beforehand.
#[derive(Debug)]
pub struct Upload {
    body: Body,
    /// Bytes; `None` for a pipe.
    pub length: Option<u64>,
}

impl Upload {
    /// A file, or whatever else can be opened and read.
    ///
    /// # Errors
    /// [`CliError::File`].
    pub async fn of_file(path: &Path, progress: &Progress) -> Result<Self, CliError> {
        let file = File::open(path).await.map_err(file_error("open", path))?;
        let metadata = file.metadata().await.map_err(file_error("read", path))?;
        if metadata.is_dir() {
            let error = io::Error::new(io::ErrorKind::IsADirectory, "it is a folder; see `import`");
            return Err(file_error("read", path)(error));
        }
        if !metadata.is_file() {
            return Ok(Self::of_reader(file, path, None, progress));
        }
        let length = metadata.len();
        if length > SMALL_BYTES {
            // A file that grows meanwhile is sent up to the length that was announced.
            let reader = file.take(length);
            return Ok(Self::of_reader(reader, path, Some(length), progress));
        }
        let mut content = Vec::new();
        let mut reader = file.take(length);
        let read = reader.read_to_end(&mut content).await;
        read.map_err(file_error("read", path))?;
        progress.advance(content.len() as u64);
        Ok(Self {
            length: Some(content.len() as u64),
            body: content.into(),
        })
    }

    /// Standard input up to its end.
    pub fn of_stdin(progress: &Progress) -> Self {
        Self::of_reader(tokio::io::stdin(), Path::new("-"), None, progress)
    }

    fn of_reader(
        reader: impl AsyncRead + Unpin + Send + 'static,
        path: &Path,
        length: Option<u64>,
        progress: &Progress,
    ) -> Self {
        let blocks = blocks(reader, path.to_owned(), length, progress.clone());
        Self {
            body: Body::wrap_stream(blocks),
            length,
        }
    }

    /// The request with this body.
    pub fn attach(self, request: RequestBuilder) -> RequestBuilder {
        let request = match self.length {
            Some(length) => request.header(CONTENT_LENGTH, length),
            None => request,
        };
        request.body(self.body)
    }
}

/// Blocks of a file; an error if it ends before `length`.
fn blocks(
    reader: impl AsyncRead + Unpin + Send + 'static,
    path: PathBuf,
    length: Option<u64>,
    progress: Progress,
) -> impl Stream<Item = Result<Bytes, UploadFault>> + Send + 'static {
    stream::try_unfold((reader, 0_u64), move |(mut reader, sent)| {
        let fault = |path: &Path, source| UploadFault {
            path: path.to_owned(),
            source,
        };
        let (path, progress) = (path.clone(), progress.clone());
        async move {
            let mut block = BytesMut::with_capacity(BLOCK_BYTES);
            let read = reader.read_buf(&mut block).await;
            let read = read.map_err(|error| fault(&path, error))? as u64;
            if read > 0 {
                progress.advance(read);
                return Ok(Some((block.freeze(), (reader, sent + read))));
            }
            if length.is_some_and(|length| sent < length) {
                let error = io::Error::other("it became shorter while it was read");
                return Err(fault(&path, error));
            }
            Ok(None)
        }
    })
}

/// SHA-256 of a file, computed beside other work.
///
/// # Errors
/// [`CliError::File`].
pub async fn content_hash(path: &Path) -> Result<ContentHash, CliError> {
    let owned = path.to_owned();
    let hashed = tokio::task::spawn_blocking(move || {
        let mut file = std::fs::File::open(owned)?;
        let mut hash = Sha256::new();
        let mut block = vec![0; BLOCK_BYTES];
        loop {
            let read = file.read(&mut block)?;
            if read == 0 {
                return Ok(ContentHash(hash.finalize().into()));
            }
            hash.update(block.get(..read).unwrap_or_default());
        }
    });
    let hashed = hashed
        .await
        .unwrap_or_else(|error| Err(io::Error::other(error)));
    hashed.map_err(file_error("read", path))
}

/// What was written by [`save`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Saved {
    /// Of the bytes as they arrived.
    pub hash: ContentHash,
    /// How many.
    pub bytes: u64,
}

/// Writes the body of an answer into a file that has either its old or its whole new content.
///
/// `check` sees what arrived before the file gets its name, and may refuse it.
///
/// # Errors
/// [`CliError::File`], [`CliError::BrokenOff`], or that of `check`.
pub async fn save(
    client: &Client,
    response: Response,
    target: &Path,
    progress: &Progress,
    check: impl FnOnce(&Saved) -> Result<(), CliError>,
) -> Result<Saved, CliError> {
    let special = std::fs::metadata(target).is_ok_and(|metadata| !metadata.is_file());
    if special {
        // A pipe or a terminal cannot be replaced by renaming.
        let saved = receive(client, response, target, progress).await?;
        return check(&saved).map(|()| saved);
    }
    let partial = partial_path(target);
    let received = receive(client, response, &partial, progress).await;
    let finished = received.and_then(|saved| {
        check(&saved)?;
        std::fs::rename(&partial, target).map_err(file_error("write", target))?;
        Ok(saved)
    });
    if finished.is_err() {
        // The first error is the one to tell.
        let _ = std::fs::remove_file(&partial);
    }
    finished
}

async fn receive(
    client: &Client,
    mut response: Response,
    path: &Path,
    progress: &Progress,
) -> Result<Saved, CliError> {
    let mut file = File::create(path)
        .await
        .map_err(file_error("write", path))?;
    let mut hash = Sha256::new();
    let mut bytes = 0;
    while let Some(piece) = client.piece(&mut response).await? {
        hash.update(&piece);
        bytes += piece.len() as u64;
        let written = file.write_all(&piece).await;
        written.map_err(file_error("write", path))?;
        progress.advance(piece.len() as u64);
    }
    file.flush().await.map_err(file_error("write", path))?;
    Ok(Saved {
        hash: ContentHash(hash.finalize().into()),
        bytes,
    })
}

/// Where a file is written before it gets its name: in the same folder, so that renaming works,
/// and always the same, so that a repeated run leaves nothing behind.
fn partial_path(target: &Path) -> PathBuf {
    let name = target.file_name().unwrap_or_default();
    let hash = Sha256::digest(name.as_encoded_bytes());
    let short = hash.iter().take(8).copied().collect::<Vec<u8>>();
    target.with_file_name(format!(".samestate-{}.part", hex(&short)))
}

/// True for the name of a file that [`save`] did not finish.
pub fn is_partial(name: &str) -> bool {
    name.strip_prefix(".samestate-")
        .and_then(|rest| rest.strip_suffix(".part"))
        .is_some_and(|hash| hash.len() == 16 && hash.bytes().all(|b| b.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;

    use super::*;

    fn run<T>(work: impl Future<Output = T>) -> T {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().unwrap().block_on(work)
    }

    #[test]
    fn files_are_hashed_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        let content: Vec<u8> = (0..BLOCK_BYTES * 2 + 7).map(|i| (i % 251) as u8).collect();
        std::fs::write(&path, &content).unwrap();
        assert_eq!(run(content_hash(&path)).unwrap(), ContentHash::of(&content));
        assert!(run(content_hash(&folder.path().join("none"))).is_err());
    }

    #[test]
    fn a_file_that_shrinks_is_not_sent_as_if_it_were_whole() {
        let read = |length| {
            let blocks = blocks(&b"abc"[..], "x".into(), Some(length), Progress::none());
            run(blocks.collect::<Vec<_>>())
        };
        assert!(matches!(&read(3)[..], [Ok(block)] if &block[..] == b"abc"));
        assert!(matches!(&read(4)[..], [Ok(_), Err(_)]));
    }

    #[test]
    fn partial_files_are_recognised() {
        let partial = partial_path(Path::new("a/b/state.bin"));
        assert_eq!(partial.parent(), Some(Path::new("a/b")));
        assert!(is_partial(partial.file_name().unwrap().to_str().unwrap()));
        for other in [
            "state.part",
            ".samestate-.part",
            ".samestate-zzzzzzzzzzzzzzzz.part",
        ] {
            assert!(!is_partial(other), "{other}");
        }
    }
}
