//! Gates: a hostname that an operator chose leads to no connection inside, whatever its resolver says.

use cdm_core::adapters::outbound::probe::{HttpProbe, ProbeSettings};
use cdm_core::domain::{Color, Hostname, Uid};
use cdm_core::ports::{HealthProbe, Inconclusive, ProbeRequest, Via};
use hyper::header::HeaderName;

use super::webhooks::{Scripted, listener, nobody_came};
use super::*;

/// Addresses of this machine, its link and its provider, in every form that a resolver may answer with.
const NEVER: &str =
    "0.0.0.0 0.1.2.3 127.0.0.1 127.255.255.254 168.63.129.16 169.254.0.1 169.254.169.254 169.254.170.2
    100.100.100.200 192.0.0.8 192.0.2.1 192.88.99.1 198.18.0.1 198.51.100.7 203.0.113.9 224.0.0.1 240.0.0.1
    255.255.255.255 :: ::1 ::127.0.0.1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 64:ff9b::7f00:1
    64:ff9b::a9fe:a9fe 100::1 2001::1 2001:db8::1 2002:7f00:1:: 3fff::1 5f00::1 fd00:ec2::254 fd00:ec2::23
    fd20:ce::254 fe80::1 febf::1 fec0::1 ff02::1";

/// Addresses of networks inside, which are asked where the configuration says so.
const PRIVATE: &str =
    "10.0.0.1 10.255.255.255 100.64.0.1 100.127.255.255 172.16.0.1 172.31.255.255 192.168.0.1
    192.168.255.255 fc00::1 fd00::1 fdff::1";

fn settings() -> ProbeSettings {
    let service = || ("service.invalid".to_owned(), 80);
    ProbeSettings {
        https: true,
        route: None,
        private: false,
        services: [service(), service()],
        header: HeaderName::from_static("x-cdm-service"),
    }
}

fn probe(settings: ProbeSettings, lookup: &Arc<Scripted>) -> HttpProbe {
    HttpProbe::with(settings, outbound(), Arc::clone(lookup) as _, Arc::new(SystemClock::new()))
}

fn check(host: &str, timeout: Duration) -> ProbeRequest {
    ProbeRequest {
        uid: Uid::from_parts(1, 1),
        host: Hostname::parse(host).expect("a hostname"),
        via: Via::Route,
        path: "/up".to_owned(),
        text: Some("secret".to_owned()),
        timeout,
    }
}

fn at(ip: &str) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap_or_else(|error| panic!("{ip}: {error}")), 443)
}

fn refused(asked: Result<cdm_core::domain::rollout::ProbeResponse, Inconclusive>, hint: &str) {
    let Err(Inconclusive(why)) = asked else { panic!("{asked:?}") };
    assert!(why.contains(hint), "{why}");
}

#[tokio::test]
async fn no_address_inside_is_asked() {
    let check = check("shop.example.com", LONG);
    for ip in NEVER.split_whitespace().chain(PRIVATE.split_whitespace()) {
        let lookup = Scripted::new(&[&[at(ip)]]);
        refused(probe(settings(), &lookup).probe(&check).await, "not public");
        assert_eq!(lookup.asked(), 1, "{ip}");
    }
    for ip in NEVER.split_whitespace() {
        let private = ProbeSettings { private: true, ..settings() };
        refused(probe(private, &Scripted::new(&[&[at(ip)]])).probe(&check).await, "not public");
    }
}

#[tokio::test]
async fn a_private_address_is_asked_where_the_configuration_says_so() {
    // There is no time to connect in, so that nothing leaves: what is said is of the connection.
    let check = check("shop.example.com", Duration::ZERO);
    for ip in PRIVATE.split_whitespace() {
        let private = ProbeSettings { private: true, ..settings() };
        let asked = probe(private, &Scripted::new(&[&[at(ip)]])).probe(&check).await;
        let Err(Inconclusive(why)) = asked else { panic!("{asked:?}") };
        assert!(!why.contains("not public"), "{ip}: {why}");
    }
}

#[tokio::test]
async fn one_address_inside_among_public_ones_leads_to_no_connection() {
    let (listener, inside) = listener();
    for found in [[at("1.1.1.1"), inside], [inside, at("1.1.1.1")]] {
        let lookup = Scripted::new(&[&found]);
        refused(probe(settings(), &lookup).probe(&check("shop.example.com", LONG)).await, "not public");
        assert_eq!(lookup.asked(), 1, "what was judged is not looked up again");
        assert!(nobody_came(&listener));
    }
}

#[tokio::test]
async fn a_hostname_that_is_rebound_is_judged_each_time() {
    let (listener, inside) = listener();
    let lookup = Scripted::new(&[&[at("1.1.1.1")], &[inside]]);
    let probe = probe(settings(), &lookup);
    // The public address gets no time; the next look-up leads inside.
    assert!(probe.probe(&check("shop.example.com", Duration::ZERO)).await.is_err());
    refused(probe.probe(&check("shop.example.com", LONG)).await, "not public");
    assert!(nobody_came(&listener));
}

#[tokio::test]
async fn without_tls_only_a_configured_address_is_asked() {
    let lookup = Scripted::new(&[&[at("1.1.1.1")]]);
    let plain = ProbeSettings { https: false, ..settings() };
    refused(probe(plain, &lookup).probe(&check("shop.example.com", LONG)).await, "gate.address");
    assert_eq!(lookup.asked(), 0, "it is not even looked up");
}

#[tokio::test]
async fn a_configured_address_is_asked_wherever_it_is() {
    for via in [Via::Route, Via::Service(Color::Blue)] {
        let (address, served) = peer(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nsecret").await;
        let place = ("127.0.0.1".to_owned(), address.port());
        let services = [place.clone(), place.clone()];
        let configured = ProbeSettings { https: false, route: Some(place), services, ..settings() };
        let check = ProbeRequest { via, ..check("shop.example.com", LONG) };
        let answer = probe(configured, &Scripted::new(&[&[address]])).probe(&check).await.expect("an answer");
        assert_eq!((answer.status, answer.contains), (200, true));
        let request = served.await.expect("the peer ends").to_lowercase();
        assert!(request.contains("host: shop.example.com\r\n"), "{request}");
    }
}

/// Every hostname of the spellings by which an address inside is written is either no hostname of a site, or is judged
/// by what it resolves to.
#[tokio::test]
async fn no_spelling_of_a_hostname_leads_to_a_connection() {
    let (listener, inside) = listener();
    let (mut refused_names, mut judged) = (0, 0);
    for url in super::webhooks::EVASIONS.split_whitespace() {
        let authority =
            url.split("://").nth(1).unwrap_or(url).split(['/', '?', '#']).next().unwrap_or_default();
        let host = authority.replace(":PORT", "");
        let Ok(host) = Hostname::parse(&host) else {
            refused_names += 1;
            continue;
        };
        judged += 1;
        let lookup = Scripted::new(&[&[inside]]);
        let check = ProbeRequest { host, ..check("shop.example.com", LONG) };
        for https in [true, false] {
            let asked = probe(ProbeSettings { https, ..settings() }, &lookup).probe(&check).await;
            assert!(asked.is_err(), "{url}: {asked:?}");
        }
        assert!(nobody_came(&listener), "{url}");
    }
    assert!(refused_names >= 40 && judged >= 10, "{refused_names} {judged}");
}
