//! The stream proxy: forwards chunks of any protocol.

use std::io;
use std::sync::Arc;

use cdm_core::ports::Clock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::{HttpFault, Shared};

/// Maximum size of a chunk, in bytes.
const MAX_CHUNK: usize = 64 * 1024;

pub(super) async fn serve(
    listener: TcpListener,
    upstream: String,
    shared: Arc<Shared>,
    clock: Arc<dyn Clock>,
) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (upstream, shared, clock) = (upstream.clone(), Arc::clone(&shared), Arc::clone(&clock));
        connections.spawn(async move {
            // The proxy breaks connections on purpose.
            drop(handle(stream, &upstream, &shared, &*clock).await);
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn handle(mut client: TcpStream, upstream: &str, shared: &Shared, clock: &dyn Clock) -> io::Result<()> {
    let mut server = TcpStream::connect(upstream).await?;
    let (mut request_buffer, mut response_buffer) = (vec![0; MAX_CHUNK], vec![0; MAX_CHUNK]);
    loop {
        tokio::select! {
            read = client.read(&mut request_buffer) => {
                let chunk = &request_buffer[..read?];
                if chunk.is_empty() {
                    return server.shutdown().await;
                }
                match shared.chunk_fault() {
                    None => {}
                    Some(
                        HttpFault::LoseRequest
                        | HttpFault::NeverRespond
                        | HttpFault::Respond(_)
                        | HttpFault::Throttle,
                    ) => return Ok(()),
                    Some(HttpFault::Delay(span)) => clock.sleep_until(clock.monotonic().after(span)).await,
                    Some(HttpFault::Hold(permits)) => match permits.acquire().await {
                        Ok(permit) => permit.forget(),
                        Err(_closed) => return Ok(()),
                    },
                    Some(HttpFault::LoseResponse) => {
                        server.write_all(chunk).await?;
                        // The response is discarded, regardless of its content and length.
                        let _lost = server.read(&mut response_buffer).await?;
                        return Ok(());
                    }
                }
                server.write_all(chunk).await?;
            }
            read = server.read(&mut response_buffer) => {
                let chunk = &response_buffer[..read?];
                if chunk.is_empty() {
                    return client.shutdown().await;
                }
                client.write_all(chunk).await?;
            }
        }
    }
}
