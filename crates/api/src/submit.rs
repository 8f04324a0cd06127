//! The content of a message that comes by the API: a stream that is checked line by line for what must not travel.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Frame;

/// Why the content of a message could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// The caller: a CR or LF that is not part of a CRLF, which two servers could read differently.
    #[error("the message has a bare CR or LF; every line has to end in CRLF")]
    BareNewline,
    /// The caller: a NUL, which no mail may hold.
    #[error("the message holds a NUL byte")]
    Nul,
    /// The caller went away.
    #[error("the caller went away before the end of the message")]
    Gone,
}

/// The content of a message while it comes in. Lines end in CRLF, there are no bare CR or LF and no NUL.
#[derive(Debug)]
pub struct Upload {
    first: Bytes,
    body: Option<Body>,
    last_was_cr: bool,
    length: u64,
}

impl Upload {
    /// The whole content at once.
    pub fn whole(content: Bytes) -> Self {
        Self { first: content, body: None, last_was_cr: false, length: 0 }
    }

    /// What is left of a body of which `first` was read already.
    pub(crate) fn rest(first: Bytes, body: Body) -> Self {
        Self { first, body: Some(body), last_was_cr: false, length: 0 }
    }

    /// Octets handed out so far.
    pub fn len(&self) -> u64 {
        self.length
    }

    /// Whether nothing was handed out yet.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The next piece; none at the end.
    ///
    /// # Errors
    /// [`UploadError`]: the message is not to be accepted.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, UploadError> {
        let next = loop {
            if !self.first.is_empty() {
                break std::mem::take(&mut self.first);
            }
            let Some(body) = &mut self.body else {
                return if self.last_was_cr { Err(UploadError::BareNewline) } else { Ok(None) };
            };
            match next_data(body).await {
                Some(Ok(data)) => self.first = data,
                Some(Err(_)) => return Err(UploadError::Gone),
                None => self.body = None,
            }
        };
        self.inspect(&next)?;
        self.length += next.len() as u64;
        Ok(Some(next))
    }

    fn inspect(&mut self, chunk: &[u8]) -> Result<(), UploadError> {
        for &byte in chunk {
            match (self.last_was_cr, byte) {
                (_, 0) => return Err(UploadError::Nul),
                (true, b'\n') => self.last_was_cr = false,
                (true, _) | (false, b'\n') => return Err(UploadError::BareNewline),
                (false, b'\r') => self.last_was_cr = true,
                (false, _) => {}
            }
        }
        Ok(())
    }
}

/// The next data of a body; trailers are passed over.
pub(crate) async fn next_data(body: &mut Body) -> Option<Result<Bytes, axum::Error>> {
    loop {
        match body.frame().await? {
            Ok(frame) => match frame.into_data() {
                Ok(data) => return Some(Ok(data)),
                Err(_trailers) => {}
            },
            Err(error) => return Some(Err(error)),
        }
    }
}

/// A stored message as a response body.
pub(crate) struct Stored {
    content: store::Content,
    offset: u64,
    pending: Option<Pin<Box<dyn Future<Output = std::io::Result<Bytes>> + Send>>>,
}

/// Octets read from the disk at a time.
const PIECE: usize = 64 * 1024;

impl Stored {
    pub(crate) fn new(content: store::Content) -> Self {
        Self { content, offset: 0, pending: None }
    }
}

impl hyper::body::Body for Stored {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        if self.offset >= self.content.len() {
            return Poll::Ready(None);
        }
        let (content, offset) = (self.content.clone(), self.offset);
        let pending =
            self.pending.get_or_insert_with(|| Box::pin(async move { content.chunk(offset, PIECE).await }));
        let read = std::task::ready!(pending.as_mut().poll(cx));
        self.pending = None;
        match read {
            Ok(bytes) if bytes.is_empty() => Poll::Ready(None),
            Ok(bytes) => {
                self.offset += bytes.len() as u64;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Err(error) => Poll::Ready(Some(Err(error))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.offset >= self.content.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn take(pieces: &[&str]) -> Result<String, String> {
        let stream = pieces.iter().map(|p| Bytes::copy_from_slice(p.as_bytes())).collect::<Vec<_>>();
        let mut upload = Upload::rest(Bytes::new(), Body::new(Pieces(stream.into())));
        let mut all = Vec::new();
        while let Some(piece) = upload.chunk().await.map_err(|e| e.to_string())? {
            all.extend_from_slice(&piece);
        }
        Ok(String::from_utf8(all).unwrap())
    }

    struct Pieces(std::collections::VecDeque<Bytes>);

    impl hyper::body::Body for Pieces {
        type Data = Bytes;
        type Error = std::convert::Infallible;
        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            Poll::Ready(self.0.pop_front().map(|p| Ok(Frame::data(p))))
        }
    }

    #[tokio::test]
    async fn only_whole_line_ends_pass_however_they_are_cut() {
        assert_eq!(take(&["a: b\r", "\n\r\n", "c\r\n"]).await.unwrap(), "a: b\r\n\r\nc\r\n");
        for bad in ["a\nb", "a\rb", "\n", "\r\r\n", "\r\n.\n", "a\r", "a\0b", "\n.\r\n"] {
            assert!(take(&[bad]).await.is_err(), "{bad:?}");
            for cut in 1..bad.len() {
                assert!(take(&[&bad[..cut], &bad[cut..]]).await.is_err(), "{bad:?} cut at {cut}");
            }
        }
    }
}
