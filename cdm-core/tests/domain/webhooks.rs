//! Webhook receivers: which addresses are valid, which addresses are private, and how a message is signed.

use std::net::{IpAddr, SocketAddr};

use cdm_core::domain::Timestamp;
use cdm_core::domain::webhook::{Allowed, Receiver, SigningKey, is_private, is_public, message_id};

const NON_PUBLIC: &str = "0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 100.64.0.1 100.127.255.255 100.100.100.200 127.0.0.1
    127.255.255.254 168.63.129.16 169.254.0.1 169.254.169.254 169.254.170.2 172.16.0.1 172.31.255.255 192.0.0.8
    192.0.2.1 192.88.99.1 192.168.0.1 198.18.0.1 198.19.255.255 198.51.100.7 203.0.113.9 224.0.0.1 239.255.255.255
    240.0.0.1 255.255.255.255 :: ::1 ::127.0.0.1 ::8.8.8.8 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:169.254.169.254
    ::ffff:8.8.8.8 ::ffff:0:127.0.0.1 64:ff9b::7f00:1 64:ff9b::a9fe:a9fe 64:ff9b:1::a00:1 100::1 2001::1
    2001:2::1 2001:10::1 2001:20::1 2001:db8::1 2002:7f00:1:: 2002:a9fe:a9fe::1 3fff::1 5f00::1 fc00::1 fd00::1
    fd00:ec2::254 fd20:ce::254 fe80::1 febf::1 fec0::1 ff02::1 ff0e::1";

const PUBLIC: &str = "1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.1 100.63.255.255 100.128.0.1 126.255.255.255 128.0.0.1
    169.253.255.255 169.255.0.1 172.15.255.255 172.32.0.1 192.0.1.1 192.167.255.255 192.169.0.1 198.17.255.255
    198.20.0.1 223.255.255.255 2001:200::1 2001:4860:4860::8888 2400:cb00::1 2606:4700:4700::1111 2a00:1450::1";

fn address(text: &str) -> IpAddr {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn addresses_are_private_or_public() {
    for text in NON_PUBLIC.split_whitespace() {
        assert!(!is_public(address(text)), "{text}");
    }
    for text in PUBLIC.split_whitespace() {
        assert!(is_public(address(text)), "{text}");
    }
}

#[test]
fn private_addresses_exclude_loopback_and_metadata() {
    let private = "10.0.0.1 100.64.0.1 172.16.0.1 172.31.255.255 192.168.0.1 fc00::1 fd00::1";
    for text in private.split_whitespace() {
        assert!(is_private(address(text)) && !is_public(address(text)), "{text}");
    }
    let other =
        "127.0.0.1 169.254.169.254 100.100.100.200 168.63.129.16 0.0.0.0 172.32.0.1 ::1 fe80::1 fd00:ec2::254
        fd00:ec2::23 fd20:ce::254 ::ffff:10.0.0.1 64:ff9b::a00:1 1.1.1.1 2606:4700::1";
    for text in other.split_whitespace() {
        assert!(!is_private(address(text)), "{text}");
    }
}

#[test]
fn receiver_urls_are_parsed() {
    let parts = |text: &str| {
        let receiver = Receiver::parse(text, &[]).expect("an address");
        (receiver.host().to_owned(), receiver.port(), receiver.target().to_owned(), receiver.tls())
    };
    let of = |port, target: &str| ("hooks.example.com".to_owned(), port, target.to_owned(), true);
    assert_eq!(parts("https://hooks.example.com"), of(443, "/"));
    assert_eq!(parts("https://hooks.example.com:8443/a/b?c=d@e:f"), of(8443, "/a/b?c=d@e:f"));
    assert_eq!(parts("https://hooks.example.com?c"), of(443, "/?c"));
}

#[test]
fn one_private_address_rejects_the_receiver() {
    let receiver = Receiver::parse("https://hooks.example.com", &[]).expect("an address");
    let at = |text: &str| SocketAddr::new(address(text), 443);
    assert_eq!(receiver.choose(&[at("1.1.1.1"), at("2606:4700::1")]), Some(at("1.1.1.1")));
    assert_eq!(receiver.choose(&[at("1.1.1.1"), at("10.0.0.1")]), None);
    assert_eq!(receiver.choose(&[at("::ffff:1.1.1.1")]), None);
    assert_eq!(receiver.choose(&[SocketAddr::new(address("1.1.1.1"), 22)]), None);
    assert_eq!(receiver.choose(&[]), None);
}

#[test]
fn allowed_receivers_may_be_private_and_no_others() {
    let entries = ["hooks.internal:8443", "127.0.0.1:9000", "http://127.0.0.1:9001", "[fd00::7]:443"];
    let allowed = entries.map(|text| Allowed::parse(text).expect("an entry"));
    let inside = SocketAddr::new(address("10.0.0.1"), 8443);
    let parsed = |text: &str| Receiver::parse(text, &allowed);
    assert_eq!(parsed("https://hooks.internal:8443/x").expect("allowed").choose(&[inside]), Some(inside));
    assert_eq!(parsed("https://[fd00::7]/x").expect("allowed").host(), "fd00::7");
    assert!(!parsed("http://127.0.0.1:9001").expect("allowed").tls());
    for not_allowed in [
        "http://hooks.internal:8443",
        "http://127.0.0.1:9000",
        "https://127.0.0.1:9001",
        "https://127.0.0.1",
        "https://127.1:9000",
        "https://127.0.0.1.:9000",
        "https://2130706433:9000",
        "https://[fd00:0::7]",
    ] {
        assert!(parsed(not_allowed).is_err(), "{not_allowed}");
    }
    // Another port of an allowed name is resolved and checked as any other address.
    assert_eq!(
        parsed("https://hooks.internal")
            .expect("a name")
            .choose(&[SocketAddr::new(address("10.0.0.1"), 443)]),
        None
    );
    for wrong in [
        "",
        "a",
        "a:",
        ":1",
        "a:0",
        "a:01",
        "a:65536",
        "A:1",
        "https://a:1",
        "a:1/x",
        "[::01]:1",
        "u@a:1",
        "*:1",
    ] {
        assert!(Allowed::parse(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn errors_and_debug_output_contain_no_secrets() {
    let text = "https://user:hunter2@hooks.example.com/hunter2?hunter2#hunter2";
    assert!(!Receiver::parse(text, &[]).expect_err("a user").to_string().contains("hunter2"));
    let receiver = Receiver::parse("https://hooks.example.com/hunter2", &[]).expect("an address");
    assert!(!format!("{receiver:?}").contains("hunter2"));
    assert_eq!(format!("{:?}", SigningKey::new(&[7; 32])), "SigningKey(…)");
}

/// The example that the libraries of the specification are tested with.
#[test]
fn a_signature_matches_the_specification() {
    let key = SigningKey::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned().into()).expect("a key");
    let at = Timestamp::from_millis(1_614_265_330_999);
    let signature = key.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", at, br#"{"test": 2432232314}"#);
    assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
}

#[test]
fn a_key_has_24_to_64_bytes() {
    let made = SigningKey::new(&[7; 32]);
    SigningKey::parse(made.text().clone()).expect("a key that was made");
    for wrong in [
        "",
        "whsec_",
        "whsec_AAAA",
        "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS*",
    ] {
        assert!(SigningKey::parse(wrong.to_owned().into()).is_err(), "{wrong}");
    }
}

#[test]
fn a_message_id_consists_of_webhook_and_event() {
    assert_eq!(message_id(3, 41), "msg-3-41");
    assert_ne!(message_id(1, 11), message_id(11, 1));
}
