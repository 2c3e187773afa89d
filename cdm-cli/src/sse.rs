//! Parses Server-Sent Events from bytes, independent of where the bytes are split.

use std::collections::VecDeque;

use futures_util::stream::{self, BoxStream, StreamExt};

use crate::transport::{Event, Events, TransportError, TransportErrorKind};

/// Maximum length of a line in bytes; the API sends none that is longer.
const MAX_LINE: usize = 1 << 20;

/// Incremental parser of Server-Sent Events.
#[derive(Debug, Default)]
pub struct Parser {
    line: Vec<u8>,
    after_return: Follows,
    event: Event,
    has_data: Data,
    last_id: Option<String>,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Follows {
    #[default]
    Anything,
    /// A line feed here belongs to the carriage return before it.
    Feed,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Data {
    #[default]
    None,
    Some,
}

impl Parser {
    /// Consumes bytes and returns the events that they complete.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<Event> {
        let mut events = Vec::new();
        for &byte in bytes {
            let feed_of_return = byte == b'\n' && self.after_return == Follows::Feed;
            self.after_return = if byte == b'\r' { Follows::Feed } else { Follows::Anything };
            match byte {
                b'\n' if feed_of_return => {}
                b'\n' | b'\r' => {
                    let line = std::mem::take(&mut self.line);
                    events.extend(self.line(&String::from_utf8_lossy(&line)));
                }
                _ if self.line.len() < MAX_LINE => self.line.push(byte),
                _ => {}
            }
        }
        events
    }

    fn line(&mut self, line: &str) -> Option<Event> {
        if line.is_empty() {
            let mut event = std::mem::take(&mut self.event);
            let has_data = std::mem::take(&mut self.has_data) == Data::Some;
            event.id = self.last_id.clone();
            return (has_data || !event.event.is_empty()).then_some(event);
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" if !value.contains('\0') => self.last_id = Some(value.to_owned()),
            "event" => value.clone_into(&mut self.event.event),
            "data" => {
                if std::mem::replace(&mut self.has_data, Data::Some) == Data::Some {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
            }
            // A comment, a retry time, or a field that is not supported.
            _ => {}
        }
        None
    }
}

/// Returns the events of a response body; `server` is the address for errors.
pub fn events<B, E>(body: BoxStream<'static, Result<B, E>>, server: String) -> Events
where
    B: AsRef<[u8]> + Send + 'static,
    E: std::error::Error + Send + Sync + 'static,
{
    let start = (body, Parser::default(), VecDeque::new());
    stream::unfold(start, move |(mut body, mut parser, mut ready)| {
        let server = server.clone();
        async move {
            loop {
                if let Some(event) = ready.pop_front() {
                    return Some((Ok(event), (body, parser, ready)));
                }
                match body.next().await? {
                    Ok(bytes) => ready.extend(parser.push(bytes.as_ref())),
                    Err(source) => {
                        let error = TransportError {
                            server,
                            kind: TransportErrorKind::Unreachable,
                            source: Box::new(source),
                        };
                        return Some((Err(error), (stream::empty().boxed(), parser, ready)));
                    }
                }
            }
        }
    })
    .boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = ": hello\r\nid: 7\r\nevent: step\r\ndata: {\"a\":1}\r\n\r\ndata: x\ndata: ü\n\nevent: end\ndata\n\nid: 9\n\n";

    fn expected() -> Vec<Event> {
        let event =
            |event: &str, data: &str| Event { id: Some("7".into()), event: event.into(), data: data.into() };
        vec![event("step", "{\"a\":1}"), event("", "x\nü"), event("end", "")]
    }

    #[test]
    fn events_do_not_depend_on_where_the_bytes_are_split() {
        for size in 1..TEXT.len() {
            let mut parser = Parser::default();
            let events: Vec<_> = TEXT.as_bytes().chunks(size).flat_map(|piece| parser.push(piece)).collect();
            assert_eq!(events, expected(), "pieces of {size}");
        }
    }

    #[test]
    fn an_incomplete_event_is_not_returned() {
        assert_eq!(Parser::default().push(b"id: 1\ndata: half"), []);
    }
}
