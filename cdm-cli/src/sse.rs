//! The events of a response body in the format of Server-Sent Events, independent of where its bytes are split.

use std::error::Error;
use std::future::ready;
use std::io;

use axum::body::Bytes;
use futures_util::stream::{BoxStream, StreamExt};
use sse_stream::SseByteStream;

use crate::transport::{Event, Events, TransportError, TransportErrorKind};

/// Maximum length of a line in bytes that is kept until its end arrives; the API sends none that is longer.
const MAX_LINE: usize = 1 << 20;

/// Returns the events of a response body; `server` is the address for errors. An error ends the stream.
pub fn events<E>(body: BoxStream<'static, Result<Bytes, E>>, server: String) -> Events
where
    E: Error + Send + Sync + 'static,
{
    let mut last_id = None;
    let events = SseByteStream::new(limit_lines(body)).filter_map(move |block| {
        ready(match block {
            Ok(block) => {
                if block.id.is_some() {
                    last_id = block.id;
                }
                let event = block.event.unwrap_or_default();
                // A block without both has an id or a retry time only.
                (block.data.is_some() || !event.is_empty())
                    .then(|| Ok(Event { id: last_id.clone(), event, data: block.data.unwrap_or_default() }))
            }
            Err(error) => Some(Err(TransportError {
                server: server.clone(),
                kind: TransportErrorKind::Unreachable,
                source: match error {
                    sse_stream::Error::Body(source) => source,
                    error => Box::new(error),
                },
            })),
        })
    });
    events.boxed()
}

/// Returns an error for an incomplete line that is longer than [`MAX_LINE`]; the parser would store it up to its end.
fn limit_lines<E>(body: BoxStream<'static, Result<Bytes, E>>) -> BoxStream<'static, io::Result<Bytes>>
where
    E: Error + Send + Sync + 'static,
{
    let mut length = 0;
    let limited = body.map(move |bytes| {
        let bytes = bytes.map_err(io::Error::other)?;
        let end = bytes.iter().rposition(|byte| matches!(byte, b'\n' | b'\r'));
        length = end.map_or(length + bytes.len(), |end| bytes.len() - end - 1);
        if length > MAX_LINE {
            return Err(io::Error::other(format!("a line of an event is longer than {MAX_LINE} bytes")));
        }
        Ok(bytes)
    });
    limited.boxed()
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    const TEXT: &str = ": hello\r\nid: 7\r\nevent: step\r\ndata: {\"a\":1}\r\n\r\ndata: x\ndata: ü\n\nevent: end\ndata\n\nretry: 9\n\n";

    fn expected() -> Vec<Event> {
        let event =
            |event: &str, data: &str| Event { id: Some("7".into()), event: event.into(), data: data.into() };
        vec![event("step", "{\"a\":1}"), event("", "x\nü"), event("end", "")]
    }

    /// Returns the events of a body that arrives in pieces of `size` bytes.
    async fn read(body: &[u8], size: usize) -> Vec<Result<Event, TransportError>> {
        let pieces: Vec<_> =
            body.chunks(size).map(|piece| io::Result::Ok(Bytes::copy_from_slice(piece))).collect();
        events(stream::iter(pieces).boxed(), "server".into()).collect().await
    }

    #[tokio::test]
    async fn events_do_not_depend_on_where_the_bytes_are_split() {
        for size in 1..TEXT.len() {
            let events: Vec<_> =
                read(TEXT.as_bytes(), size).await.into_iter().map(|event| event.expect("an event")).collect();
            assert_eq!(events, expected(), "pieces of {size}");
        }
    }

    #[tokio::test]
    async fn an_incomplete_event_is_not_returned() {
        assert!(read(b"id: 1\ndata: half", 5).await.is_empty());
    }

    #[tokio::test]
    async fn an_event_inherits_the_id_of_a_block_without_data() {
        let events = read(b"id: 9\n\ndata\n\n", 4).await;
        let [Ok(event)] = &events[..] else { panic!("{events:?}") };
        assert_eq!(event.id.as_deref(), Some("9"));
    }

    #[tokio::test]
    async fn a_line_without_an_end_is_an_error() {
        let body = format!("data: {}", "a".repeat(2 * MAX_LINE));
        let events = read(body.as_bytes(), MAX_LINE / 4).await;
        let [Err(error)] = &events[..] else { panic!("{events:?}") };
        assert!(error.source.to_string().contains("longer than"), "{error:?}");
    }
}
