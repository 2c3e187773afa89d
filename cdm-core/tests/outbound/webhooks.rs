//! Webhooks: no spelling of an internal address and no behavior of a resolver leads to a connection.

use std::sync::Mutex;

use cdm_core::adapters::outbound::webhook::{HttpWebhookSender, Resolver};
use cdm_core::domain::webhook::{Allowed, SigningKey, Topic};
use cdm_core::domain::{Subject, Timestamp};
use cdm_core::ports::{DeliveryError, FeedEvent, Message, WebhookSender};

use super::*;

/// `PORT` stands for the port of a listener on loopback; every name resolves to 127.0.0.1.
pub(crate) const EVASIONS: &str = r"
    http://127.0.0.1:PORT/ https://127.0.0.1:PORT/ http://localhost:PORT/ https://localhost:PORT/
    https://LOCALHOST:PORT/ https://localhost.:PORT/ https://localhost.localdomain:PORT/ https://127.1:PORT/
    https://127.0.1:PORT/ https://127.0.0.1.:PORT/ https://127.000.000.001:PORT/ https://0127.0.0.1:PORT/
    https://0177.0.0.1:PORT/ https://0177.0.0.01:PORT/ https://017700000001:PORT/ https://00000177.1:PORT/
    https://0x7f.0.0.1:PORT/ https://0x7f.1:PORT/ https://0x7f000001:PORT/ https://0X7F000001:PORT/
    https://0x7f.0x0.0x0.0x1:PORT/ https://2130706433:PORT/ https://2130706433.:PORT/ https://0:PORT/
    https://0.0.0.0:PORT/ https://00:PORT/ https://0x0:PORT/ https://127.0.0.0x1:PORT/ https://127.0.0.2:PORT/
    https://127.127.127.127:PORT/ https://10.0.0.1:PORT/ https://192.168.0.1:PORT/ https://172.16.0.1:PORT/
    https://100.64.0.1:PORT/ https://169.254.169.254:PORT/ https://0xa9fea9fe:PORT/ https://2852039166:PORT/
    https://0251.0376.0251.0376:PORT/ https://425.510.425.510:PORT/ https://8.8.8.8:PORT/ https://[::1]:PORT/
    https://[::]:PORT/ https://[0:0:0:0:0:0:0:1]:PORT/ https://[::ffff:127.0.0.1]:PORT/
    https://[::ffff:7f00:1]:PORT/ https://[0:0:0:0:0:ffff:7f00:1]:PORT/ https://[::127.0.0.1]:PORT/
    https://[64:ff9b::7f00:1]:PORT/ https://[2002:7f00:1::]:PORT/ https://[fd00:ec2::254]:PORT/
    https://[fe80::1%25eth0]:PORT/ https://[fe80::1%lo]:PORT/ https://[::1%lo]:PORT/ https://[::1:PORT/
    https://::1:PORT/ https://[v1.x]:PORT/ https://hooks.example.com@127.0.0.1:PORT/
    https://hooks.example.com:443@127.0.0.1:PORT/ https://user:word@hooks.example.com:PORT/
    https://@hooks.example.com:PORT/ https://127.0.0.1:PORT@hooks.example.com/
    https://127.0.0.1:PORT\@hooks.example.com/ https://127.0.0.1:PORT#@hooks.example.com/
    https://hooks.example.com:PORT/#fragment https://hooks.example.com:PORT\.example.org/
    https://hooks.example.com.:PORT/ https://HOOKS.example.com:PORT/ https://hooks..example.com:PORT/
    https://%31%32%37.0.0.1:PORT/ https://127%2e0%2e0%2e1:PORT/ https://hooks%2eexample.com:PORT/
    https://①②⑦.⓪.⓪.①:PORT/ https://127。0。0。1:PORT/ https://１２７.0.0.1:PORT/ https://localhoſt:PORT/
    https://hooks.example.com:0/ https://hooks.example.com:+PORT/ https://hooks.example.com:0PORT/
    https://hooks.example.com:99999/ https://hooks.example.com:/ https:///127.0.0.1:PORT/ https://
    https:/127.0.0.1:PORT/ https:127.0.0.1:PORT //127.0.0.1:PORT/ 127.0.0.1:PORT HTTPS://127.0.0.1:PORT/
    file:///etc/passwd gopher://127.0.0.1:PORT/ ftp://127.0.0.1:PORT/ dict://127.0.0.1:PORT/
    ldap://127.0.0.1:PORT/ unix:///run/docker.sock jar:https://127.0.0.1:PORT!/ data:text/plain,x
    wss://hooks.example.com:PORT/ http://hooks.example.com:PORT/ https://hooks.example.com:PORT/
    https://localtest.example.com:PORT/ https://127.0.0.1.nip.example:PORT/ https://a.b.c.d.example:PORT/
    https://metadata.google.internal:PORT/ https://kubernetes.default.svc:PORT/ https://*.example.com:PORT/";

/// The body of [`message`].
const BODY: &str = r#"{"type":"operation.step","timestamp":"2021-02-25T15:02:09.123Z","data":{"subject":"fleet","operation":null,"rollout":"rollout-7","what":"step Set \"it\" succeeded"}}"#;

/// Returns the next list for each lookup, and the last list for all later ones.
#[derive(Debug)]
pub(crate) struct ScriptedResolver(Mutex<Vec<Vec<SocketAddr>>>, Mutex<usize>);

impl ScriptedResolver {
    pub(crate) fn new(results: &[&[SocketAddr]]) -> Arc<Self> {
        Arc::new(Self(Mutex::new(results.iter().rev().map(|list| list.to_vec()).collect()), Mutex::new(0)))
    }

    pub(crate) fn lookups(&self) -> usize {
        *self.1.lock().expect("no panic meanwhile")
    }
}

#[async_trait::async_trait]
impl Resolver for ScriptedResolver {
    async fn resolve(&self, _: &str, _: u16, _: Duration) -> Result<Vec<SocketAddr>, OutboundError> {
        *self.1.lock().expect("no panic meanwhile") += 1;
        let mut results = self.0.lock().expect("no panic meanwhile");
        let next = if results.len() > 1 { results.pop() } else { results.last().cloned() };
        next.ok_or(OutboundError::NoAddress)
    }
}

fn postman(resolver: Arc<ScriptedResolver>, allowed: &[String]) -> HttpWebhookSender {
    let allowed = allowed.iter().map(|text| Allowed::parse(text).expect("an entry")).collect();
    HttpWebhookSender::new(outbound(), resolver, allowed, Arc::new(SystemClock::new()))
}

fn message(url: &str) -> Message {
    Message {
        url: url.to_owned(),
        id: "msg-1-2".to_owned(),
        at: Timestamp::from_millis(1_614_265_330_000),
        key: SigningKey::new(&[7; 32]),
        topic: Topic::parse("operation.step").expect("a topic"),
        event: FeedEvent {
            at: Timestamp::from_millis(1_614_265_329_123),
            subject: Some(Subject::Fleet),
            operation: None,
            rollout: Some(7),
            what: "step Set \"it\" succeeded".to_owned(),
        },
    }
}

pub(crate) fn listener() -> (std::net::TcpListener, SocketAddr) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("a non-blocking listener");
    let address = listener.local_addr().expect("an address");
    (listener, address)
}

/// Returns whether no connection was accepted. A connection is in the listener's queue as soon as it is established,
/// so a check after the end of a request is reliable.
pub(crate) fn no_connection(listener: &std::net::TcpListener) -> bool {
    listener.accept().is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
}

#[tokio::test]
async fn no_spelling_of_an_internal_address_leads_to_a_connection() {
    let (listener, address) = listener();
    let postman = postman(ScriptedResolver::new(&[&[address]]), &[]);
    let urls: Vec<_> = EVASIONS.split_whitespace().collect();
    assert!(urls.len() >= 60, "{}", urls.len());
    for url in urls {
        let url = url.replace("PORT", &address.port().to_string());
        let posted = postman.post(&message(&url)).await;
        assert!(
            matches!(posted, Err(DeliveryError::NotAllowed | DeliveryError::PrivateAddress)),
            "{url}: {posted:?}"
        );
        assert!(no_connection(&listener), "{url}");
    }
}

#[tokio::test]
async fn one_internal_address_among_public_ones_leads_to_no_connection() {
    let (listener, address) = listener();
    let public = SocketAddr::from(([1, 1, 1, 1], address.port()));
    for found in [[public, address], [address, public]] {
        let resolver = ScriptedResolver::new(&[&found]);
        let url = format!("https://hooks.example.com:{}/", address.port());
        let posted = postman(Arc::clone(&resolver), &[]).post(&message(&url)).await;
        assert_eq!((posted, resolver.lookups()), (Err(DeliveryError::PrivateAddress), 1));
        assert!(no_connection(&listener));
    }
}

#[tokio::test]
async fn the_checked_address_is_the_connected_address() {
    let (other, address) = listener();
    let (checked, served) = peer(b"HTTP/1.1 204 No Content\r\n\r\n").await;
    let base_url = format!("http://rebinding.example:{}", checked.port());
    let resolver = ScriptedResolver::new(&[&[checked], &[address]]);
    let postman = postman(Arc::clone(&resolver), std::slice::from_ref(&base_url));
    let url = format!("{base_url}/hook?a=b");
    assert_eq!((postman.post(&message(&url)).await, resolver.lookups()), (Ok(()), 1));
    assert!(no_connection(&other));
    let request = served.await.expect("the peer ends");
    let signature = message(&url).key.sign("msg-1-2", message(&url).at, BODY.as_bytes());
    for part in [
        "POST /hook?a=b HTTP/1.1\r\n",
        "webhook-id: msg-1-2\r\n",
        "webhook-timestamp: 1614265330\r\n",
        &format!("webhook-signature: {signature}\r\n"),
        &format!("\r\n\r\n{BODY}"),
    ] {
        assert!(request.contains(part), "{part} in {request}");
    }
    // The second lookup returns another address, on whose port the receiver does not listen.
    assert_eq!(
        (postman.post(&message(&url)).await, resolver.lookups()),
        (Err(DeliveryError::PrivateAddress), 2)
    );
    assert!(no_connection(&other));
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let (other, address) = listener();
    for status in [301, 302, 303, 307, 308] {
        let response =
            format!("HTTP/1.1 {status} Redirect\r\nlocation: http://{address}/\r\ncontent-length: 0\r\n\r\n");
        let (at, served) = peer(response.leak().as_bytes()).await;
        let url = format!("http://{at}");
        let postman = postman(ScriptedResolver::new(&[&[at]]), std::slice::from_ref(&url));
        assert_eq!(
            postman.post(&message(&url)).await,
            Err(DeliveryError::Rejected { status, retry_after: None })
        );
        served.await.expect("the peer ends");
        assert!(no_connection(&other));
    }
}

/// A 2xx status means that the message was delivered, even if the announced body does not arrive.
#[tokio::test]
async fn the_status_decides() {
    let (at, served) = peer(b"HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\n").await;
    let url = format!("http://{at}");
    let postman = postman(ScriptedResolver::new(&[&[at]]), std::slice::from_ref(&url));
    assert_eq!(postman.post(&message(&url)).await, Ok(()));
    drop(served);
}

#[tokio::test]
async fn retry_after_is_read_from_the_response() {
    // The message is dated 2021-02-25T15:02:10Z.
    for (header, expected) in [
        ("30", Some(30)),
        ("Thu, 25 Feb 2021 15:04:10 GMT", Some(120)),
        ("Thu, 25 Feb 2021 15:00:00 GMT", Some(0)),
        ("soon", None),
        ("-5", None),
    ] {
        let response = format!("HTTP/1.1 503 Away\r\nretry-after: {header}\r\ncontent-length: 0\r\n\r\n");
        let (at, served) = peer(response.leak().as_bytes()).await;
        let url = format!("http://{at}");
        let postman = postman(ScriptedResolver::new(&[&[at]]), std::slice::from_ref(&url));
        let retry_after = expected.map(Duration::from_secs);
        let refused = Err(DeliveryError::Rejected { status: 503, retry_after });
        assert_eq!(postman.post(&message(&url)).await, refused, "{header}");
        drop(served);
    }
}

#[tokio::test]
async fn an_endless_response_is_truncated() {
    let endless: &[u8] = &[b'x'; 100_000];
    let response = [b"HTTP/1.1 200 OK\r\ncontent-length: 999999999\r\n\r\n", endless].concat();
    let (at, served) = peer(response.leak()).await;
    let url = format!("http://{at}");
    let postman = postman(ScriptedResolver::new(&[&[at]]), std::slice::from_ref(&url));
    assert_eq!(postman.post(&message(&url)).await, Ok(()));
    drop(served);
}
