//! A DynamoDB for tests: dynoxide in memory, on one port of loopback, until the process ends.

use std::error::Error;

use dynoxide::Database;
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let port = std::env::args().nth(1).ok_or("usage: dynoxide-part PORT")?.parse::<u16>()?;
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    dynoxide::server::serve_with_shutdown(listener, Database::memory()?, std::future::pending()).await?;
    Ok(())
}
