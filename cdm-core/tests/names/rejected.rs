//! Hostile and nearly valid texts, each with the rule that it violates, and equivalent spellings.

use std::fmt::Debug;

use cdm_core::domain::{
    Actor, Digest, Hostname, Hostnames, IdempotencyKey, NameError, SiteId, SiteName, Theme, Uid,
};

/// Asserts that every text is rejected by the rule in the same row, and that the message names the rule.
#[track_caller]
fn assert_rejected<T: Debug>(parse: impl Fn(&str) -> Result<T, NameError>, table: &[(&str, &str)]) {
    for (text, rule) in table {
        match parse(text) {
            Ok(accepted) => panic!("{text:?} was accepted as {accepted:?}"),
            Err(error) => {
                assert!(error.rule().contains(rule), "{text:?} was rejected by another rule: {error}");
                assert!(error.to_string().contains(rule), "{error}");
            }
        }
    }
}

#[test]
fn hostile_site_ids_are_rejected_by_rule() {
    let (at_most, too_long, far_too_long) = ("a".repeat(32), "a".repeat(33), "a".repeat(64));
    assert!(SiteId::parse(&at_most).is_ok());
    const CHARACTERS: &str = "only lower-case ASCII letters, digits and hyphens";
    assert_rejected(
        SiteId::parse,
        &[
            ("", "must not be empty"),
            ("../x", CHARACTERS),
            ("..", CHARACTERS),
            ("%2e%2e", CHARACTERS),
            ("a/b", CHARACTERS),
            ("a--b", "two hyphens in a row"),
            (&too_long, "at most 32 characters"),
            (&far_too_long, "at most 32 characters"),
            ("Acme", CHARACTERS),
            ("ACME", CHARACTERS),
            ("a\0", CHARACTERS),
            ("a\0b", CHARACTERS),
            ("a\n", CHARACTERS),
            (" a", CHARACTERS),
            ("a_b", CHARACTERS),
            ("a.b", CHARACTERS),
            ("\u{430}cme", CHARACTERS),
            ("\u{ff41}cme", CHARACTERS),
            ("a\u{200b}b", CHARACTERS),
            ("a\u{661}", CHARACTERS),
            ("-a", "must begin with a letter"),
            ("-", "must begin with a letter"),
            ("1a", "must begin with a letter"),
            ("a-", "must not end with a hyphen"),
        ],
    );
}

#[test]
fn hostile_themes_are_rejected_by_rule() {
    let too_long = "a".repeat(101);
    const CHARACTERS: &str = "ASCII letters, digits, dots, underscores and hyphens";
    const FIRST: &str = "must begin with a letter, a digit or an underscore";
    assert_rejected(
        Theme::parse,
        &[
            ("", "must not be empty"),
            ("../x", CHARACTERS),
            ("a/../b", CHARACTERS),
            (".", FIRST),
            ("..", FIRST),
            (".hidden", FIRST),
            ("--exec=x", CHARACTERS),
            ("--require", FIRST),
            ("-", FIRST),
            ("@alias", CHARACTERS),
            ("Twenty Ten", CHARACTERS),
            ("a\0", CHARACTERS),
            ("a\n", CHARACTERS),
            ("th\u{435}me", CHARACTERS),
            (&too_long, "at most 100 characters"),
        ],
    );
    assert!(Theme::parse(&too_long[..100]).is_ok());
    assert_ne!(Theme::parse("Divi"), Theme::parse("divi"), "case is kept");
    assert!(Theme::parse("2024_child-theme.v1").is_ok());
}

#[test]
fn hostile_site_names_are_rejected_by_rule() {
    let too_long = "é".repeat(201);
    const PRINTABLE: &str = "only printable characters";
    const ENDS: &str = "must neither begin nor end with white space";
    const JOINER: &str = "a joiner (U+200C, U+200D)";
    assert_rejected(
        SiteName::parse,
        &[
            ("", "must not be empty"),
            (&too_long, "at most 200 characters"),
            (" a", ENDS),
            ("a\n", ENDS),
            ("\u{a0}a", ENDS),
            ("\u{301}a", "combining mark"),
            ("a\0b", PRINTABLE),
            ("a\nb", PRINTABLE),
            ("a\u{1b}[31mb", PRINTABLE),
            ("a\u{85}b", PRINTABLE),
            ("a\u{2009}b", PRINTABLE),
            ("a\u{2060}b", PRINTABLE),
            ("a\u{2028}b", PRINTABLE),
            ("a\u{ad}b", PRINTABLE),
            ("a\u{200b}b", PRINTABLE),
            ("a\u{200c}b", JOINER),
            ("a\u{200d}b", JOINER),
            ("\u{200c}\u{6cc}", JOINER),
            ("\u{6cc}\u{200c}", JOINER),
            ("\u{6cc}\u{200c} \u{6cc}", JOINER),
            ("\u{6cc}\u{200c}\u{200c}\u{6cc}", JOINER),
            ("\u{6cc}\u{200d}\u{200d}", JOINER),
            ("\u{1f469}\u{200d}", JOINER),
            ("\u{1f469}\u{200d}a", JOINER),
            ("\u{1f469}\u{200c}\u{1f680}", JOINER),
            ("a\u{200e}b", PRINTABLE),
            ("a\u{202e}b", PRINTABLE),
            ("a\u{2066}b", PRINTABLE),
            ("\u{feff}a", PRINTABLE),
            ("a\u{e0041}", PRINTABLE),
            ("a\u{e000}", PRINTABLE),
            ("a\u{378}", PRINTABLE),
            ("\u{3164}", PRINTABLE),
            ("a\u{ffff}", PRINTABLE),
        ],
    );
    for name in ["A", "Bücher & Café \"O'Hara\" \\ 1", "東京の店", "متجر", "Cafe\u{301}", "☕ 100 %", "दुकान"]
    {
        assert_eq!(SiteName::parse(name).as_ref().map(SiteName::as_str), Ok(name));
    }
    assert!(SiteName::parse(&"é".repeat(200)).is_ok());
}

#[test]
fn hostile_actors_and_keys_are_rejected_by_rule() {
    let (long_actor, long_key) = ("a".repeat(101), "k".repeat(256));
    assert_rejected(
        Actor::parse,
        &[
            ("", "must not be empty"),
            (" ", "white space"),
            ("ada ", "white space"),
            ("a\nlevel=info", "printable ASCII"),
            ("a\0", "printable ASCII"),
            ("\u{430}da", "printable ASCII"),
            (&long_actor, "at most 100 characters"),
        ],
    );
    assert_rejected(
        IdempotencyKey::parse,
        &[
            ("", "must not be empty"),
            ("a b", "visible ASCII"),
            ("a\r\nb", "visible ASCII"),
            ("a\0", "visible ASCII"),
            ("a\u{7f}", "visible ASCII"),
            ("cl\u{e9}", "visible ASCII"),
            (&long_key, "at most 255 characters"),
        ],
    );
}

/// Returns a hostname with `length` characters, whose labels have at most 63 characters.
fn hostname_of(length: usize) -> String {
    let mut text = format!("{}.", "a".repeat(59)).repeat(length / 60);
    text.push_str(&"b".repeat(length - text.len()));
    text
}

#[test]
fn hostile_hostnames_are_rejected_by_rule() {
    let (longest, too_long, endless) = (hostname_of(253), hostname_of(254), hostname_of(64 * 1024));
    let (longest_label, long_label) =
        (format!("{}.example", "a".repeat(63)), format!("{}.example", "a".repeat(64)));
    let invisible = format!("{}example.com", "\u{ad}".repeat(600));
    let wide_unicode = format!("{}.example", "ü".repeat(64));
    for accepted in [&longest, &format!("{longest}."), &longest_label] {
        assert!(Hostname::parse(accepted).is_ok(), "{accepted}");
    }
    const ADDRESS: &str = "must not be an IP address";
    const CHARACTERS: &str = "only letters, digits, hyphens and dots";
    const EMPTY_LABEL: &str = "must not have an empty label";
    const HYPHEN: &str = "must neither begin nor end with a hyphen";
    const IDNA: &str = "valid in IDNA (UTS 46)";
    const TWO_LABELS: &str = "at least two labels";
    const WILDCARD: &str = "must not be a wildcard";
    assert_rejected(
        Hostname::parse,
        &[
            ("", "must not be empty"),
            (".", EMPTY_LABEL),
            ("..", EMPTY_LABEL),
            ("a..b", EMPTY_LABEL),
            (".example.com", EMPTY_LABEL),
            ("example.com..", EMPTY_LABEL),
            ("example.com.\u{3002}", EMPTY_LABEL),
            ("\u{ad}.example", EMPTY_LABEL),
            ("localhost", TWO_LABELS),
            ("localhost.", TWO_LABELS),
            ("*.example.com", WILDCARD),
            ("*", WILDCARD),
            ("\u{ff0a}.example.com", WILDCARD),
            ("127.0.0.1", ADDRESS),
            ("127.0.0.1.", ADDRESS),
            ("\u{ff11}\u{ff12}\u{ff17}\u{3002}0.0.1", ADDRESS),
            ("127.1", ADDRESS),
            ("2130706433", ADDRESS),
            ("0x7f.1", ADDRESS),
            ("0x7f000001", ADDRESS),
            ("1.0X7F", ADDRESS),
            ("1.0x", ADDRESS),
            ("017700000001", ADDRESS),
            ("example.09", ADDRESS),
            ("[::1]", ADDRESS),
            ("::1", ADDRESS),
            ("fe80::1", ADDRESS),
            ("[v1.a]", ADDRESS),
            ("example.com:80", "must not have a port"),
            ("example.com\u{ff1a}80", "must not have a port"),
            ("exa mple.com", CHARACTERS),
            ("exa\u{a0}mple.com", CHARACTERS),
            (" example.com", CHARACTERS),
            ("example.com\n", CHARACTERS),
            ("example\0.com", CHARACTERS),
            ("example.com\0", CHARACTERS),
            ("user@example.com", CHARACTERS),
            ("example.com/..", "must not have a path"),
            ("example.com/", "must not have a path"),
            ("example.com?a", "must not have a path"),
            ("example.com:8080/a", "must not have a path"),
            ("https://example.com", "must not have a scheme"),
            ("https://example.com:8443/a:b", "must not have a scheme"),
            ("\u{2100}.example", CHARACTERS),
            ("a_b.example", CHARACTERS),
            ("a%2eb.example", CHARACTERS),
            ("a\\b.example", CHARACTERS),
            ("-a.example", HYPHEN),
            ("a-.example", HYPHEN),
            ("ab--\u{fc}.example", IDNA),
            (&too_long, "at most 253 characters"),
            (&endless, "at most 1024 bytes"),
            (&invisible, "at most 1024 bytes"),
            (&long_label, "at most 63 characters"),
            (&wide_unicode, "at most 63 characters"),
            ("xn--a", IDNA),
            ("xn--a.example", IDNA),
            ("xn--.example", IDNA),
            ("xn--example-.com", IDNA),
            ("xn--bcher-kva-.example", IDNA),
            ("xn--bcher-.example", IDNA),
            ("xn--0.example", IDNA),
            ("xn--zzzzzzzzz.example", IDNA),
            ("xn----eha.example", IDNA),
            ("xn----dha.example", IDNA),
            ("xn--ab---3ra.example", IDNA),
            ("xn--a-ecp.ru", IDNA),
            ("a\u{202e}b.example", IDNA),
            ("a\u{378}b.example", IDNA),
            ("\u{301}a.example", IDNA),
            ("a\u{5d0}.example", IDNA),
            ("\u{fffd}.example", IDNA),
        ],
    );
}

#[test]
fn spellings_of_one_hostname_are_equal() {
    for (spelling, canonical) in [
        ("ExAmple.COM.", "example.com"),
        ("example.com\u{3002}", "example.com"),
        ("example\u{3002}com", "example.com"),
        ("example\u{ff0e}com", "example.com"),
        ("example\u{ff61}com", "example.com"),
        ("\u{ff25}xample.com", "example.com"),
        ("exam\u{ad}ple.com", "example.com"),
        ("exam\u{200b}ple.com", "example.com"),
        ("\u{212a}elvin.example", "kelvin.example"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER.example", "xn--bcher-kva.example"),
        ("bu\u{308}cher.example", "xn--bcher-kva.example"),
        ("XN--BCHER-KVA.example", "xn--bcher-kva.example"),
        ("faß.example", "xn--fa-hia.example"),
        ("例え.テスト", "xn--r8jz45g.xn--zckzah"),
        ("a--b.example", "a--b.example"),
        ("ab--c.example", "ab--c.example"),
        ("R3---SN.example", "r3---sn.example"),
        ("1.example", "1.example"),
        ("0x7f.example", "0x7f.example"),
        ("example.0xyz", "example.0xyz"),
    ] {
        let hostname = Hostname::parse(spelling);
        assert_eq!(hostname.as_ref().map(Hostname::as_str), Ok(canonical), "{spelling}");
        assert_eq!(hostname, Hostname::parse(canonical));
    }
    let look_alike = Hostname::parse("ex\u{430}mple.com");
    assert_ne!(look_alike, Hostname::parse("example.com"));
}

#[test]
fn hostnames_are_one_to_sixteen_distinct_and_contain_the_canonical_one() {
    let sixteen: Vec<String> = (0..16).map(|n| format!("n{n}.example")).collect();
    let seventeen: Vec<String> = (0..17).map(|n| format!("n{n}.example")).collect();
    let hostnames = Hostnames::parse(&sixteen, "N3.Example.").expect("sixteen are allowed");
    assert_eq!(hostnames.all().iter().map(Hostname::as_str).collect::<Vec<_>>(), sixteen);
    assert_eq!(hostnames.canonical().as_str(), "n3.example");

    let second = Hostnames::parse(&["a.example", "https://b.example"], "a.example").expect_err("a URL");
    assert_eq!((second.place(), second.value()), (Some(1), "https://b.example"));
    assert!(
        second.to_string().starts_with("a hostname \"https://b.example\" (number 2) is refused: "),
        "{second}"
    );

    let refused = |names: &[&str], canonical: &str| match Hostnames::parse(names, canonical) {
        Ok(accepted) => panic!("{accepted:?} was accepted"),
        Err(error) => (error.what(), error.rule()),
    };
    let excess = Hostnames::parse(&seventeen, "n0.example").map_err(|error| error.to_string());
    assert_eq!(
        excess,
        Err("a list of hostnames \"n16.example\" is refused: a site must have at most 16 hostnames".into())
    );
    assert_eq!(refused(&[], "a.example"), ("a list of hostnames", "a site must have at least one hostname"));
    assert_eq!(
        refused(&["a.example", "A.example."], "a.example"),
        ("a hostname", "a site has each hostname once")
    );
    assert_eq!(
        refused(&["bücher.example", "xn--bcher-kva.example"], "bücher.example"),
        ("a hostname", "a site has each hostname once")
    );
    assert_eq!(
        refused(&["a.example"], "b.example"),
        ("a canonical hostname", "a canonical hostname must be one of the site's hostnames")
    );
    assert_eq!(refused(&["a.example"], "10.0.0.1").0, "a canonical hostname");
    assert_eq!(refused(&["a.example", "*.b.example"], "a.example").1, "a hostname must not be a wildcard");
}

#[test]
fn hostile_digests_are_rejected_by_rule() {
    let hex = "0123456789abcdef".repeat(4);
    const SHAPE: &str = "64 hexadecimal digits";
    const CASE: &str = "lower case";
    assert_rejected(
        Digest::parse,
        &[
            ("", SHAPE),
            ("sha256:", SHAPE),
            ("latest", SHAPE),
            (&hex[1..], SHAPE),
            (&format!("{hex}0"), SHAPE),
            (&format!("sha256:sha256:{hex}"), SHAPE),
            (&format!("sha512:{hex}"), SHAPE),
            (&format!("SHA256:{hex}"), SHAPE),
            (&format!("{hex}\n"), SHAPE),
            (&format!("{}g", &hex[1..]), SHAPE),
            (&format!("{}\u{430}", &hex[2..]), SHAPE),
            (&format!("{}\0", &hex[1..]), SHAPE),
            (&hex.to_uppercase(), CASE),
            (&format!("sha256:{}", hex.to_uppercase()), CASE),
        ],
    );
    let digest = Digest::parse(&hex).expect("64 digits are a digest");
    assert_eq!(format!("{digest:?}"), format!("Digest(sha256:{hex})"));
    assert_eq!(digest.short(), "0123456789ab");
}

#[test]
fn hostile_uids_are_rejected_by_rule() {
    assert_rejected(
        Uid::parse,
        &[
            ("", "exactly 26 characters"),
            ("0123456789abcdefghjkmnpqr", "exactly 26 characters"),
            ("0123456789abcdefghjkmnpqrst", "exactly 26 characters"),
            ("0123456789abcdefghjkmnpqri", "only digits and lower-case letters"),
            ("0123456789abcdefghjkmnpqrl", "only digits and lower-case letters"),
            ("0123456789abcdefghjkmnpqro", "only digits and lower-case letters"),
            ("0123456789abcdefghjkmnpqru", "only digits and lower-case letters"),
            ("0123456789ABCDEFGHJKMNPQRS", "only digits and lower-case letters"),
            ("0123456789abcdefghjkmnpqr\n", "only digits and lower-case letters"),
            ("0123456789abcdefghjkmnpq\u{430}", "only digits and lower-case letters"),
            ("8zzzzzzzzzzzzzzzzzzzzzzzzz", "must begin with a digit from 0 to 7"),
            ("a0000000000000000000000000", "must begin with a digit from 0 to 7"),
        ],
    );
    assert_eq!(Uid::from_parts(0, 0).to_string(), "00000000000000000000000000");
    assert_eq!(Uid::from_parts(u64::MAX, u128::MAX).to_string(), "7zzzzzzzzzzzzzzzzzzzzzzzzz");
    // The time in the example of the ULID specification, 01ARZ3NDEKTSV4RRFFQ69G5FAV.
    assert_eq!(Uid::parse("01arz3ndektsv4rrffq69g5fav").map(Uid::millis), Ok(1_469_922_850_259));
}

#[test]
fn an_error_shows_the_input_escaped_and_truncated() {
    let error = SiteId::parse("a\n\u{202e}\"").expect_err("not an id");
    assert_eq!(
        error.to_string(),
        r#"a site id "a\n\u{202e}\"" is refused: a site id must contain only lower-case ASCII letters, digits and hyphens"#
    );
    assert_eq!(error.what(), "a site id");

    let shown = |text: &str| match SiteId::parse(text) {
        Ok(accepted) => panic!("{accepted:?} was accepted"),
        Err(error) => error.to_string().split('"').nth(1).unwrap_or_default().to_owned(),
    };
    assert_eq!(shown(&"a".repeat(80)), "a".repeat(80));
    assert_eq!(shown(&"a".repeat(81)), format!("{}…", "a".repeat(79)));
    assert_eq!(shown(&"\u{202e}".repeat(1000)), format!("{}…", r"\u{202e}".repeat(9)));
    assert_eq!(shown(&"\u{202e}".repeat(10)), r"\u{202e}".repeat(10));
}
