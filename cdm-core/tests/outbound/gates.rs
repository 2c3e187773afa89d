//! Gates: a hostname that an operator chose never leads to a connection to a private address, even if its resolver
//! returns one.

use cdm_core::adapters::outbound::probe::{HttpProbe, ProbeSettings};
use cdm_core::domain::{Color, Hostname, Uid};
use cdm_core::ports::{HealthProbe, Inconclusive, ProbeRequest, Via};
use hyper::header::HeaderName;

use super::webhooks::{ScriptedResolver, listener, no_connection};
use super::*;

/// Loopback, link-local and provider addresses, in every form that a resolver may return.
const NEVER: &str =
    "0.0.0.0 0.1.2.3 127.0.0.1 127.255.255.254 168.63.129.16 169.254.0.1 169.254.169.254 169.254.170.2
    100.100.100.200 192.0.0.8 192.0.2.1 192.88.99.1 198.18.0.1 198.51.100.7 203.0.113.9 224.0.0.1 240.0.0.1
    255.255.255.255 :: ::1 ::127.0.0.1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 64:ff9b::7f00:1
    64:ff9b::a9fe:a9fe 100::1 2001::1 2001:db8::1 2002:7f00:1:: 3fff::1 5f00::1 fd00:ec2::254 fd00:ec2::23
    fd20:ce::254 fe80::1 febf::1 fec0::1 ff02::1";

/// Private addresses, which are probed only if the configuration permits it.
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

fn probe(settings: ProbeSettings, resolver: &Arc<ScriptedResolver>) -> HttpProbe {
    HttpProbe::with(settings, outbound(), Arc::clone(resolver) as _, Arc::new(SystemClock::new()))
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

fn assert_rejected(result: Result<cdm_core::domain::rollout::ProbeResponse, Inconclusive>, hint: &str) {
    let Err(Inconclusive(why)) = result else { panic!("{result:?}") };
    assert!(why.contains(hint), "{why}");
}

#[tokio::test]
async fn no_internal_address_is_probed() {
    let check = check("shop.example.com", LONG);
    for ip in NEVER.split_whitespace().chain(PRIVATE.split_whitespace()) {
        let resolver = ScriptedResolver::new(&[&[at(ip)]]);
        assert_rejected(probe(settings(), &resolver).probe(&check).await, "not public");
        assert_eq!(resolver.lookups(), 1, "{ip}");
    }
    for ip in NEVER.split_whitespace() {
        let private = ProbeSettings { private: true, ..settings() };
        assert_rejected(
            probe(private, &ScriptedResolver::new(&[&[at(ip)]])).probe(&check).await,
            "not public",
        );
    }
}

#[tokio::test]
async fn a_private_address_is_probed_if_the_configuration_permits_it() {
    // The timeout of zero prevents a connection; the error then comes from connecting.
    let check = check("shop.example.com", Duration::ZERO);
    for ip in PRIVATE.split_whitespace() {
        let private = ProbeSettings { private: true, ..settings() };
        let result = probe(private, &ScriptedResolver::new(&[&[at(ip)]])).probe(&check).await;
        let Err(Inconclusive(why)) = result else { panic!("{result:?}") };
        assert!(!why.contains("not public"), "{ip}: {why}");
    }
}

#[tokio::test]
async fn one_internal_address_among_public_ones_prevents_the_connection() {
    let (listener, private_address) = listener();
    for addresses in [[at("1.1.1.1"), private_address], [private_address, at("1.1.1.1")]] {
        let resolver = ScriptedResolver::new(&[&addresses]);
        assert_rejected(
            probe(settings(), &resolver).probe(&check("shop.example.com", LONG)).await,
            "not public",
        );
        assert_eq!(resolver.lookups(), 1, "a checked address is not resolved again");
        assert!(no_connection(&listener));
    }
}

#[tokio::test]
async fn a_rebound_hostname_is_checked_each_time() {
    let (listener, private_address) = listener();
    let resolver = ScriptedResolver::new(&[&[at("1.1.1.1")], &[private_address]]);
    let probe = probe(settings(), &resolver);
    // The timeout prevents a connection to the public address; the next lookup returns a private address.
    assert!(probe.probe(&check("shop.example.com", Duration::ZERO)).await.is_err());
    assert_rejected(probe.probe(&check("shop.example.com", LONG)).await, "not public");
    assert!(no_connection(&listener));
}

#[tokio::test]
async fn without_tls_only_a_configured_address_is_probed() {
    let resolver = ScriptedResolver::new(&[&[at("1.1.1.1")]]);
    let plain = ProbeSettings { https: false, ..settings() };
    assert_rejected(probe(plain, &resolver).probe(&check("shop.example.com", LONG)).await, "gate.address");
    assert_eq!(resolver.lookups(), 0, "the name is not resolved");
}

#[tokio::test]
async fn a_configured_address_may_be_private() {
    for via in [Via::Route, Via::Service(Color::Blue)] {
        let (address, served) = peer(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nsecret").await;
        let loopback = ("127.0.0.1".to_owned(), address.port());
        let services = [loopback.clone(), loopback.clone()];
        let configured = ProbeSettings { https: false, route: Some(loopback), services, ..settings() };
        let check = ProbeRequest { via, ..check("shop.example.com", LONG) };
        let response =
            probe(configured, &ScriptedResolver::new(&[&[address]])).probe(&check).await.expect("a response");
        assert_eq!((response.status, response.contains), (200, true));
        let request = served.await.expect("the peer ends").to_lowercase();
        assert!(request.contains("host: shop.example.com\r\n"), "{request}");
    }
}

/// Every spelling of a private address is either not a valid hostname, or is checked by the addresses that it resolves
/// to.
#[tokio::test]
async fn no_spelling_of_a_hostname_leads_to_a_connection() {
    let (listener, private_address) = listener();
    let (mut rejected_names, mut resolved) = (0, 0);
    for url in super::webhooks::EVASIONS.split_whitespace() {
        let authority =
            url.split("://").nth(1).unwrap_or(url).split(['/', '?', '#']).next().unwrap_or_default();
        let host = authority.replace(":PORT", "");
        let Ok(host) = Hostname::parse(&host) else {
            rejected_names += 1;
            continue;
        };
        resolved += 1;
        let resolver = ScriptedResolver::new(&[&[private_address]]);
        let check = ProbeRequest { host, ..check("shop.example.com", LONG) };
        for https in [true, false] {
            let result = probe(ProbeSettings { https, ..settings() }, &resolver).probe(&check).await;
            assert!(result.is_err(), "{url}: {result:?}");
        }
        assert!(no_connection(&listener), "{url}");
    }
    assert!(rejected_names >= 40 && resolved >= 10, "{rejected_names} {resolved}");
}
