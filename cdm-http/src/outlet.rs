//! The way from a stream to its reader: it ends when the reader takes nothing for too long, when the server stops, and
//! when whoever opened it may not see it any more.

use std::convert::Infallible;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use cdm_core::domain::MonotonicTime;
use futures_util::stream;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::app::Server;

/// After how long a silent stream says that it lives.
pub(crate) const ALIVE: Duration = Duration::from_secs(15);
/// How often it is asked whether a stream's holder may still see it: while it sends, waits, and is not read.
pub(crate) const CHECK: Duration = Duration::from_millis(900);
/// How long a reader may take nothing of what waits for it.
pub(crate) const STALL: Duration = Duration::from_secs(30);

/// Who holds a stream.
pub(crate) trait Holder: Send + Sync {
    /// Whether they may still see it; where the store does not answer, nothing is known against it.
    fn serves(&self, server: &Server) -> impl Future<Output = bool> + Send;

    /// What is said to them when they may not.
    fn last_words(&self) -> Option<String> {
        None
    }
}

/// A stream's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Closed;

/// Ends a body at once: what was sent and not read yet is dropped.
#[derive(Debug, Default)]
struct Cut {
    made: CancellationToken,
    last: OnceLock<String>,
}

/// Where a stream's frames go.
pub(crate) struct Outlet<'a, H> {
    server: &'a Server,
    holder: H,
    sender: mpsc::Sender<String>,
    cut: Arc<Cut>,
    checked: MonotonicTime,
    spoke: MonotonicTime,
}

/// A body, and what feeds it: at most `room` frames wait in between.
pub(crate) fn channel(room: usize) -> (Feed, Response) {
    let (sender, receiver) = mpsc::channel(room);
    let cut = Arc::new(Cut::default());
    (Feed { sender, cut: Arc::clone(&cut) }, body(receiver, cut))
}

/// What feeds a body.
pub(crate) struct Feed {
    sender: mpsc::Sender<String>,
    cut: Arc<Cut>,
}

impl Feed {
    /// Feeds it for `holder`, who was just let in.
    pub(crate) fn outlet<H: Holder>(self, server: &Server, holder: H) -> Outlet<'_, H> {
        let now = server.app.clock.monotonic();
        Outlet { server, holder, sender: self.sender, cut: self.cut, checked: now, spoke: now }
    }
}

/// A body of one frame.
pub(crate) fn once(frame: String) -> Response {
    let (sender, receiver) = mpsc::channel(1);
    // The channel has room for it.
    let _ = sender.try_send(frame);
    body(receiver, Arc::default())
}

fn body(receiver: mpsc::Receiver<String>, cut: Arc<Cut>) -> Response {
    let frames = stream::unfold(Some((receiver, cut)), |state| async {
        let (mut receiver, cut) = state?;
        tokio::select! {
            biased;
            () = cut.made.cancelled() => {
                let last = cut.last.get().cloned()?;
                Some((Ok::<_, Infallible>(Bytes::from(last)), None))
            }
            frame = receiver.recv() => Some((Ok(Bytes::from(frame?)), Some((receiver, cut)))),
        }
    });
    let headers = [
        (header::CONTENT_TYPE.as_str(), "text/event-stream"),
        (header::CACHE_CONTROL.as_str(), "no-store"),
        ("x-accel-buffering", "no"),
    ];
    (StatusCode::OK, headers, Body::from_stream(frames)).into_response()
}

impl<H: Holder> Outlet<'_, H> {
    /// Sends a frame once there is room for it.
    pub(crate) async fn send(&mut self, frame: String) -> Result<(), Closed> {
        let clock = &self.server.app.clock;
        let until = clock.monotonic().after(STALL);
        loop {
            let look = until.min(self.checked.after(CHECK));
            tokio::select! {
                biased;
                () = self.server.stopping.cancelled() => return Err(Closed),
                place = self.sender.reserve() => {
                    place.map_err(|_| Closed)?.send(frame);
                    self.spoke = clock.monotonic();
                    return Ok(());
                }
                () = clock.sleep_until(look) => {}
            }
            if clock.monotonic() >= until {
                self.cut.made.cancel();
                return Err(Closed);
            }
            self.check().await?;
        }
    }

    /// Asks, where that is due again, whether the holder may still see this.
    pub(crate) async fn check(&mut self) -> Result<(), Closed> {
        let now = self.server.app.clock.monotonic();
        if now.since(self.checked) < CHECK {
            return Ok(());
        }
        self.checked = now;
        if self.holder.serves(self.server).await { Ok(()) } else { self.refuse() }
    }

    /// Ends the stream of a holder who may not see it any more.
    pub(crate) fn refuse(&self) -> Result<(), Closed> {
        if let Some(last) = self.holder.last_words() {
            let _ = self.cut.last.set(last);
        }
        self.cut.made.cancel();
        Err(Closed)
    }

    /// Waits for `news`; asks meanwhile whether the holder may still see it.
    pub(crate) async fn wait(&mut self, news: impl Future<Output = ()>) -> Result<(), Closed> {
        let mut news = std::pin::pin!(news);
        loop {
            tokio::select! {
                () = self.sender.closed() => return Err(Closed),
                () = self.server.stopping.cancelled() => return Err(Closed),
                () = &mut news => return Ok(()),
                () = self.server.app.clock.sleep_until(self.checked.after(CHECK)) => self.check().await?,
            }
        }
    }

    /// Says that the stream lives, where it was silent for long.
    pub(crate) async fn keep_alive(&mut self) -> Result<(), Closed> {
        if self.server.app.clock.monotonic().since(self.spoke) < ALIVE {
            return Ok(());
        }
        self.send(": alive\n\n".to_owned()).await
    }
}
