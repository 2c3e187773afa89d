//! Piece by piece, whatever is spoken.

use std::io;
use std::sync::{Arc, Mutex};

use cdm_core::ports::Clock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::{Ledger, Trouble, next};

/// The longest piece.
const PIECE: usize = 64 * 1024;

pub(super) async fn serve(
    listener: TcpListener,
    upstream: String,
    ledger: Arc<Mutex<Ledger>>,
    clock: Arc<dyn Clock>,
) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (upstream, ledger, clock) = (upstream.clone(), Arc::clone(&ledger), Arc::clone(&clock));
        connections.spawn(async move {
            // A connection that breaks is what this is for.
            drop(pass(stream, &upstream, &ledger, &*clock).await);
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn pass(
    mut client: TcpStream,
    upstream: &str,
    ledger: &Mutex<Ledger>,
    clock: &dyn Clock,
) -> io::Result<()> {
    let mut server = TcpStream::connect(upstream).await?;
    let (mut asked, mut told) = (vec![0; PIECE], vec![0; PIECE]);
    loop {
        tokio::select! {
            read = client.read(&mut asked) => {
                let piece = &asked[..read?];
                if piece.is_empty() {
                    return server.shutdown().await;
                }
                match next(ledger) {
                    None => {}
                    Some(Trouble::Refused | Trouble::Answer(..) | Trouble::Throttled) => return Ok(()),
                    Some(Trouble::Delay(span)) => clock.sleep_until(clock.monotonic().after(span)).await,
                    Some(Trouble::LostAnswer) => {
                        server.write_all(piece).await?;
                        // Whatever it says, and however much, nobody hears it.
                        let _lost = server.read(&mut told).await?;
                        return Ok(());
                    }
                }
                server.write_all(piece).await?;
            }
            read = server.read(&mut told) => {
                let piece = &told[..read?];
                if piece.is_empty() {
                    return client.shutdown().await;
                }
                client.write_all(piece).await?;
            }
        }
    }
}
