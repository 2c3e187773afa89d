//! Webhooks: no spelling of an address inside and no trick of a resolver leads to a connection.

use std::sync::Mutex;

use cdm_core::adapters::outbound::webhook::{HttpPostman, Lookup};
use cdm_core::domain::webhook::{Allowed, SigningKey, Topic};
use cdm_core::domain::{Subject, Timestamp};
use cdm_core::ports::{DeliveryError, FeedEvent, Message, WebhookSender};

use super::*;

/// `PORT` is that of a listener on loopback, and every name has the address 127.0.0.1.
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

/// What [`message`] says.
const BODY: &str = r#"{"type":"operation.step","timestamp":"2021-02-25T15:02:09.123Z","data":{"subject":"fleet","operation":null,"rollout":"rollout-7","what":"step Set \"it\" succeeded"}}"#;

/// Answers each look-up with the next list, and the last one for ever.
#[derive(Debug)]
pub(crate) struct Scripted(Mutex<Vec<Vec<SocketAddr>>>, Mutex<usize>);

impl Scripted {
    pub(crate) fn new(answers: &[&[SocketAddr]]) -> Arc<Self> {
        Arc::new(Self(Mutex::new(answers.iter().rev().map(|list| list.to_vec()).collect()), Mutex::new(0)))
    }

    pub(crate) fn asked(&self) -> usize {
        *self.1.lock().expect("no panic meanwhile")
    }
}

#[async_trait::async_trait]
impl Lookup for Scripted {
    async fn look_up(&self, _: &str, _: u16, _: Duration) -> Result<Vec<SocketAddr>, OutboundError> {
        *self.1.lock().expect("no panic meanwhile") += 1;
        let mut answers = self.0.lock().expect("no panic meanwhile");
        let next = if answers.len() > 1 { answers.pop() } else { answers.last().cloned() };
        next.ok_or(OutboundError::NoAddress)
    }
}

fn postman(lookup: Arc<Scripted>, allowed: &[String]) -> HttpPostman {
    let allowed = allowed.iter().map(|text| Allowed::parse(text).expect("an entry")).collect();
    HttpPostman::new(outbound(), lookup, allowed, Arc::new(SystemClock::new()))
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
    listener.set_nonblocking(true).expect("a listener that does not wait");
    let address = listener.local_addr().expect("an address");
    (listener, address)
}

/// A connection is there to be accepted once its other side has it, so whoever looks after a request has ended sees it.
pub(crate) fn nobody_came(listener: &std::net::TcpListener) -> bool {
    listener.accept().is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
}

#[tokio::test]
async fn no_spelling_of_an_internal_address_leads_to_a_connection() {
    let (listener, address) = listener();
    let postman = postman(Scripted::new(&[&[address]]), &[]);
    let urls: Vec<_> = EVASIONS.split_whitespace().collect();
    assert!(urls.len() >= 60, "{}", urls.len());
    for url in urls {
        let url = url.replace("PORT", &address.port().to_string());
        let posted = postman.post(&message(&url)).await;
        assert!(
            matches!(posted, Err(DeliveryError::NotAllowed | DeliveryError::PrivateAddress)),
            "{url}: {posted:?}"
        );
        assert!(nobody_came(&listener), "{url}");
    }
}

#[tokio::test]
async fn one_internal_address_among_public_ones_leads_to_no_connection() {
    let (listener, address) = listener();
    let public = SocketAddr::from(([1, 1, 1, 1], address.port()));
    for found in [[public, address], [address, public]] {
        let lookup = Scripted::new(&[&found]);
        let url = format!("https://hooks.example.com:{}/", address.port());
        let posted = postman(Arc::clone(&lookup), &[]).post(&message(&url)).await;
        assert_eq!((posted, lookup.asked()), (Err(DeliveryError::PrivateAddress), 1));
        assert!(nobody_came(&listener));
    }
}

#[tokio::test]
async fn what_was_judged_is_what_is_connected_to() {
    let (other, address) = listener();
    let (judged, served) = peer(b"HTTP/1.1 204 No Content\r\n\r\n").await;
    let place = format!("http://rebinding.example:{}", judged.port());
    let lookup = Scripted::new(&[&[judged], &[address]]);
    let postman = postman(Arc::clone(&lookup), std::slice::from_ref(&place));
    let url = format!("{place}/hook?a=b");
    assert_eq!((postman.post(&message(&url)).await, lookup.asked()), (Ok(()), 1));
    assert!(nobody_came(&other));
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
    // Asked again, the name leads elsewhere, where the port is not the receiver's.
    assert_eq!((postman.post(&message(&url)).await, lookup.asked()), (Err(DeliveryError::PrivateAddress), 2));
    assert!(nobody_came(&other));
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let (other, address) = listener();
    for status in [301, 302, 303, 307, 308] {
        let answer = format!(
            "HTTP/1.1 {status} Elsewhere\r\nlocation: http://{address}/\r\ncontent-length: 0\r\n\r\n"
        );
        let (at, served) = peer(answer.leak().as_bytes()).await;
        let place = format!("http://{at}");
        let postman = postman(Scripted::new(&[&[at]]), std::slice::from_ref(&place));
        assert_eq!(
            postman.post(&message(&place)).await,
            Err(DeliveryError::Rejected { status, retry_after: None })
        );
        served.await.expect("the peer ends");
        assert!(nobody_came(&other));
    }
}

/// A receiver that answers 2xx has the message, whatever becomes of the body that it announced.
#[tokio::test]
async fn the_status_decides() {
    let (at, served) = peer(b"HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\n").await;
    let place = format!("http://{at}");
    let postman = postman(Scripted::new(&[&[at]]), std::slice::from_ref(&place));
    assert_eq!(postman.post(&message(&place)).await, Ok(()));
    drop(served);
}

#[tokio::test]
async fn a_receiver_says_when_to_come_again() {
    // The message is of 2021-02-25T15:02:10Z.
    for (said, expected) in [
        ("30", Some(30)),
        ("Thu, 25 Feb 2021 15:04:10 GMT", Some(120)),
        ("Thu, 25 Feb 2021 15:00:00 GMT", Some(0)),
        ("soon", None),
        ("-5", None),
    ] {
        let answer = format!("HTTP/1.1 503 Away\r\nretry-after: {said}\r\ncontent-length: 0\r\n\r\n");
        let (at, served) = peer(answer.leak().as_bytes()).await;
        let place = format!("http://{at}");
        let postman = postman(Scripted::new(&[&[at]]), std::slice::from_ref(&place));
        let retry_after = expected.map(Duration::from_secs);
        let refused = Err(DeliveryError::Rejected { status: 503, retry_after });
        assert_eq!(postman.post(&message(&place)).await, refused, "{said}");
        drop(served);
    }
}

#[tokio::test]
async fn an_answer_that_does_not_end_is_cut() {
    let endless: &[u8] = &[b'x'; 100_000];
    let answer = [b"HTTP/1.1 200 OK\r\ncontent-length: 999999999\r\n\r\n", endless].concat();
    let (at, served) = peer(answer.leak()).await;
    let place = format!("http://{at}");
    let postman = postman(Scripted::new(&[&[at]]), std::slice::from_ref(&place));
    assert_eq!(postman.post(&message(&place)).await, Ok(()));
    drop(served);
}
