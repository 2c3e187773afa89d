//! What the parsers of names accept, what they refuse and with which rule, and that a canonical form is one.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use cdm_core::domain::{
    Actor, Digest, Hostname, Hostnames, IdempotencyKey, NameError, SiteId, SiteName, Theme, Uid,
};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

/// The same cases in every run, unless `PROPTEST_RNG_SEED` asks for others.
fn seeded() -> ProptestConfig {
    let environment = ProptestConfig::default();
    let rng_seed = match environment.rng_seed {
        RngSeed::Random => RngSeed::Fixed(0x6e61_6d65),
        chosen @ RngSeed::Fixed(_) => chosen,
    };
    ProptestConfig { rng_seed, failure_persistence: None, ..environment }
}

/// Any text: of any characters, of those that parsers care about, and almost a name.
fn any_text() -> impl Strategy<Value = String> {
    let telling = prop::sample::select(
        "abcxyz019AZ.-_:/@* %\\\"'\n\t\0[]~\u{ad}\u{301}\u{430}\u{e9}ßſ\u{200b}\u{200d}\u{202e}\u{2066}\
         \u{3002}\u{ff0e}\u{ff11}\u{ff21}\u{3164}\u{e000}\u{378}\u{1f600}\u{10ffff}"
            .chars()
            .collect::<Vec<_>>(),
    );
    prop_oneof![
        prop::collection::vec(any::<char>(), 0..40).prop_map(String::from_iter),
        prop::collection::vec(telling, 0..12).prop_map(String::from_iter),
        "[a-z][a-z0-9.-]{0,34}",
        "(xn--)?[a-z0-9-]{1,9}\\.(xn--)?[a-z0-9-]{1,9}",
        ("[a-z0-9]{0,9}", any::<char>(), "[a-z0-9.]{0,9}").prop_map(|(a, b, c)| format!("{a}{b}{c}")),
    ]
}

/// Parses, and checks what holds for every kind of name: an accepted text is `well_formed` and its display
/// parses to the same value; a refusal is printable and short.
fn examine<T>(text: &str, well_formed: impl Fn(&str) -> bool) -> Result<Option<T>, TestCaseError>
where
    T: FromStr<Err = NameError> + Display + Debug + Clone + Eq,
{
    match text.parse::<T>() {
        Ok(name) => {
            let shown = name.to_string();
            prop_assert!(well_formed(&shown), "{text:?} became {shown:?}");
            prop_assert_eq!(&shown.parse::<T>(), &Ok(name.clone()));
            Ok(Some(name))
        }
        Err(error) => {
            let shown = error.to_string();
            prop_assert!(shown.contains(error.rule()) && shown.starts_with(error.what()), "{shown}");
            prop_assert!(
                shown.chars().count() <= 80 + error.rule().len() + error.what().len() + 20,
                "{shown}"
            );
            let quoted = shown.replace(['\\', '"', '\''], "");
            prop_assert_eq!(quoted.escape_debug().to_string(), quoted.as_str());
            Ok(None)
        }
    }
}

fn is_lower_or_digit(c: char) -> bool {
    matches!(c, 'a'..='z' | '0'..='9')
}

fn is_site_id(text: &str) -> bool {
    let labels: Vec<&str> = text.split('-').collect();
    text.len() <= 32
        && labels.iter().all(|label| !label.is_empty() && label.chars().all(is_lower_or_digit))
        && !text.starts_with(|c: char| c.is_ascii_digit())
}

fn is_theme(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.starts_with(is_lower_or_digit)
        && text.chars().all(|c| is_lower_or_digit(c) || matches!(c, '.' | '_' | '-'))
        && !text.contains("..")
}

fn is_site_name(text: &str) -> bool {
    let is_hidden = |c: char| {
        c.is_control()
            || (c.is_whitespace() && c != ' ')
            || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{feff}' | '\u{3164}' | '\u{2800}')
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
            || matches!(c, '\u{e000}'..='\u{f8ff}' | '\u{fff0}'..='\u{fffb}' | '\u{fffe}'..='\u{ffff}')
            || matches!(c, '\u{e0000}'..='\u{e007f}' | '\u{f0000}'..)
    };
    (1..=200).contains(&text.chars().count()) && text == text.trim() && !text.chars().any(is_hidden)
}

fn is_actor(text: &str) -> bool {
    (1..=100).contains(&text.len()) && text.chars().all(|c| matches!(c, ' '..='~')) && text == text.trim()
}

fn is_idempotency_key(text: &str) -> bool {
    (1..=255).contains(&text.len()) && text.chars().all(|c| matches!(c, '!'..='~'))
}

fn is_hostname(text: &str) -> bool {
    let labels: Vec<&str> = text.split('.').collect();
    let is_label = |label: &&str| {
        (1..=63).contains(&label.len())
            && label.chars().all(|c| is_lower_or_digit(c) || c == '-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let is_number =
        |label: &str| label.parse::<u128>().is_ok() || label.starts_with("0x") && label.len() == 2;
    text.len() <= 253
        && labels.len() >= 2
        && labels.iter().all(is_label)
        && !is_number(labels[labels.len() - 1])
}

fn is_digest(text: &str) -> bool {
    text.len() == 71
        && text.starts_with("sha256:")
        && text.chars().skip(7).all(|c| matches!(c, '0'..='9' | 'a'..='f'))
}

fn is_uid(text: &str) -> bool {
    text.len() == 26
        && text.starts_with(|c| matches!(c, '0'..='7'))
        && text.chars().all(|c| is_lower_or_digit(c) && !matches!(c, 'i' | 'l' | 'o' | 'u'))
}

proptest! {
    #![proptest_config(seeded())]

    #[test]
    fn no_text_is_accepted_against_the_rules_or_panics(text in any_text()) {
        let verbatim = |shown: Option<String>| shown.is_none_or(|shown| shown == text);
        prop_assert!(verbatim(examine::<SiteId>(&text, is_site_id)?.map(|n| n.as_str().to_owned())));
        prop_assert!(verbatim(examine::<Theme>(&text, is_theme)?.map(|n| n.as_str().to_owned())));
        prop_assert!(verbatim(examine::<SiteName>(&text, is_site_name)?.map(|n| n.as_str().to_owned())));
        prop_assert!(verbatim(examine::<Actor>(&text, is_actor)?.map(|n| n.as_str().to_owned())));
        prop_assert!(verbatim(
            examine::<IdempotencyKey>(&text, is_idempotency_key)?.map(|n| n.as_str().to_owned())
        ));
        examine::<Hostname>(&text, is_hostname)?;
        examine::<Digest>(&text, is_digest)?;
        examine::<Uid>(&text, is_uid)?;
    }

    #[test]
    fn every_site_id_of_the_pattern_without_two_hyphens_is_accepted(
        text in "[a-z]([a-z0-9-]{0,30}[a-z0-9])?",
    ) {
        let accepted = examine::<SiteId>(&text, is_site_id)?.is_some();
        prop_assert_eq!(accepted, !text.contains("--"));
    }

    #[test]
    fn every_theme_of_the_pattern_without_two_dots_is_accepted(text in "[a-z0-9][a-z0-9._-]{0,63}") {
        let accepted = examine::<Theme>(&text, is_theme)?.is_some();
        prop_assert_eq!(accepted, !text.contains(".."));
    }

    #[test]
    fn every_name_of_letters_digits_and_symbols_is_accepted(text in "[\\pL\\pN\\pP\\pS]{0,199}") {
        // Letters and symbols that draw nothing.
        const BLANK: [char; 6] = ['\u{115f}', '\u{1160}', '\u{3164}', '\u{ffa0}', '\u{2800}', '\u{1d159}'];
        prop_assume!(!text.contains(BLANK));
        // Some letters, such as U+FF9E, combine with what is before them.
        let text = format!("a{text}");
        prop_assert!(examine::<SiteName>(&text, is_site_name)?.is_some());
    }

    #[test]
    fn every_actor_and_every_key_of_visible_ascii_is_accepted(
        text in "[!-~]([ -~]{0,98}[!-~])?",
        key in "[!-~]{1,255}",
    ) {
        prop_assert!(examine::<Actor>(&text, is_actor)?.is_some());
        prop_assert!(examine::<IdempotencyKey>(&key, is_idempotency_key)?.is_some());
    }

    #[test]
    fn every_spelling_of_a_plain_hostname_is_the_same_hostname(
        text in "([a-z0-9]{1,9}(-[a-z0-9]{1,5})?\\.){1,9}[a-z]{2,9}",
    ) {
        let hostname = examine::<Hostname>(&text, is_hostname)?;
        prop_assert_eq!(hostname.as_ref().map(Hostname::as_str), Some(text.as_str()));
        for spelling in spellings(&text) {
            prop_assert_eq!(Hostname::parse(&spelling).ok(), hostname.clone(), "{}", spelling);
        }
    }

    #[test]
    fn a_canonical_hostname_is_its_own_canonical_form(label in "[\\PC]{1,12}", other in any_text()) {
        for text in [format!("{label}.example"), format!("{other}.example"), other] {
            let Ok(once) = Hostname::parse(&text) else { continue };
            let twice = Hostname::parse(once.as_str());
            prop_assert_eq!(twice.as_ref().map(Hostname::as_str), Ok(once.as_str()));
            let (unicode, sound) = idna_to_unicode(once.as_str());
            prop_assert!(sound);
            prop_assert_eq!(Hostname::parse(&unicode), Ok(once));
        }
    }

    #[test]
    fn a_digest_has_one_value_with_or_without_its_algorithm(hex in "[0-9a-f]{64}") {
        let digest = examine::<Digest>(&hex, is_digest)?;
        prop_assert_eq!(digest.map(|digest| digest.to_string()), Some(format!("sha256:{hex}")));
        prop_assert_eq!(digest.map(|digest| digest.short()), Some(hex[..12].to_owned()));
        let upper = hex.to_uppercase();
        prop_assert_eq!(Digest::parse(&upper).is_ok(), upper == hex);
    }

    #[test]
    fn a_uid_gives_its_time_back(millis in 0_u64..1 << 48, random in any::<u128>()) {
        let uid = Uid::from_parts(millis, random);
        prop_assert_eq!(uid.millis(), millis);
        prop_assert_eq!(Uid::from_parts(millis, random % (1 << 80)), uid);
        prop_assert_eq!(examine::<Uid>(&uid.to_string(), is_uid)?, Some(uid));
    }

    #[test]
    fn every_text_of_a_uids_shape_is_one(text in "[0-7][0-9a-hjkmnp-tv-z]{25}") {
        let uid = examine::<Uid>(&text, is_uid)?;
        prop_assert_eq!(uid.map(|uid| uid.to_string()), Some(text));
    }

    #[test]
    fn uids_sort_by_time_as_values_and_as_texts(
        (a, b) in prop_oneof![(0_u64..1 << 48, 0_u64..1 << 48), (0_u64..3, 0_u64..3)],
        one in any::<u128>(),
        other in any::<u128>(),
    ) {
        let (early, late) = (a.min(b), a.max(b));
        let (first, second) = (Uid::from_parts(early, one), Uid::from_parts(late, other));
        if early < late {
            prop_assert!(first < second);
        }
        prop_assert_eq!(first.cmp(&second), first.to_string().cmp(&second.to_string()));
    }
}

/// Other ways to write an ASCII hostname.
fn spellings(text: &str) -> Vec<String> {
    let full_width = |c: char| match c {
        '!'..='~' => char::from_u32(u32::from(c) + 0xfee0).unwrap_or(c),
        _ => c,
    };
    vec![
        format!("{text}."),
        format!("{text}\u{3002}"),
        text.to_uppercase(),
        text.replace('.', "\u{3002}"),
        text.replace('.', "\u{ff0e}"),
        text.replace('.', "\u{ff61}"),
        text.chars().map(full_width).collect(),
        text.replace('.', "\u{ad}."),
    ]
}

/// Decodes a name with no rule of ours in the way.
fn idna_to_unicode(ascii: &str) -> (String, bool) {
    let (unicode, verdict) = idna::domain_to_unicode(ascii);
    (unicode, verdict.is_ok())
}

/// Asserts that every text is refused for the rule that stands beside it, and that the message names it.
#[track_caller]
fn assert_refused<T: Debug>(parse: impl Fn(&str) -> Result<T, NameError>, table: &[(&str, &str)]) {
    for (text, rule) in table {
        match parse(text) {
            Ok(accepted) => panic!("{text:?} was accepted as {accepted:?}"),
            Err(error) => {
                assert!(error.rule().contains(rule), "{text:?} was refused for another rule: {error}");
                assert!(error.to_string().contains(rule), "{error}");
            }
        }
    }
}

#[test]
fn hostile_site_ids_are_refused_by_rule() {
    let (at_most, too_long, far_too_long) = ("a".repeat(32), "a".repeat(33), "a".repeat(64));
    assert!(SiteId::parse(&at_most).is_ok());
    const CHARACTERS: &str = "only lower-case ASCII letters, digits and hyphens";
    assert_refused(
        SiteId::parse,
        &[
            ("", "not empty"),
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
            ("-a", "begins with a letter"),
            ("-", "begins with a letter"),
            ("1a", "begins with a letter"),
            ("a-", "does not end with a hyphen"),
        ],
    );
}

#[test]
fn hostile_themes_are_refused_by_rule() {
    let too_long = "a".repeat(65);
    const CHARACTERS: &str = "only lower-case ASCII letters, digits, dots, underscores and hyphens";
    assert_refused(
        Theme::parse,
        &[
            ("", "not empty"),
            ("../x", CHARACTERS),
            ("a/../b", CHARACTERS),
            ("..", "begins with a letter or a digit"),
            ("a..b", "two dots in a row"),
            (".hidden", "begins with a letter or a digit"),
            ("--exec=x", CHARACTERS),
            ("--require", "begins with a letter or a digit"),
            ("@alias", CHARACTERS),
            ("Twenty", CHARACTERS),
            ("a\0", CHARACTERS),
            ("a\n", CHARACTERS),
            ("th\u{435}me", CHARACTERS),
            (&too_long, "at most 64 characters"),
        ],
    );
    assert!(Theme::parse(&too_long[..64]).is_ok());
    assert!(Theme::parse("2024_child-theme.v1").is_ok());
}

#[test]
fn hostile_site_names_are_refused_by_rule() {
    let too_long = "é".repeat(201);
    const PRINTABLE: &str = "only printable characters";
    const ENDS: &str = "neither begins nor ends with white space";
    assert_refused(
        SiteName::parse,
        &[
            ("", "not empty"),
            (&too_long, "at most 200 characters"),
            (" a", ENDS),
            ("a\n", ENDS),
            ("\u{a0}a", ENDS),
            ("\u{301}a", "combining mark"),
            ("a\0b", PRINTABLE),
            ("a\nb", PRINTABLE),
            ("a\u{1b}[31mb", PRINTABLE),
            ("a\u{85}b", PRINTABLE),
            ("a\u{a0}b", PRINTABLE),
            ("a\u{2028}b", PRINTABLE),
            ("a\u{ad}b", PRINTABLE),
            ("a\u{200b}b", PRINTABLE),
            ("a\u{200c}b", PRINTABLE),
            ("a\u{200d}b", PRINTABLE),
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
fn hostile_actors_and_keys_are_refused_by_rule() {
    let (long_actor, long_key) = ("a".repeat(101), "k".repeat(256));
    assert_refused(
        Actor::parse,
        &[
            ("", "not empty"),
            (" ", "white space"),
            ("ada ", "white space"),
            ("a\nlevel=info", "printable ASCII"),
            ("a\0", "printable ASCII"),
            ("\u{430}da", "printable ASCII"),
            (&long_actor, "at most 100 characters"),
        ],
    );
    assert_refused(
        IdempotencyKey::parse,
        &[
            ("", "not empty"),
            ("a b", "visible ASCII"),
            ("a\r\nb", "visible ASCII"),
            ("a\0", "visible ASCII"),
            ("a\u{7f}", "visible ASCII"),
            ("cl\u{e9}", "visible ASCII"),
            (&long_key, "at most 255 characters"),
        ],
    );
}

/// A hostname of as many characters as asked for, all its labels at most 63 long.
fn hostname_of(length: usize) -> String {
    let mut text = format!("{}.", "a".repeat(59)).repeat(length / 60);
    text.push_str(&"b".repeat(length - text.len()));
    text
}

#[test]
fn hostile_hostnames_are_refused_by_rule() {
    let (longest, too_long, endless) = (hostname_of(253), hostname_of(254), hostname_of(64 * 1024));
    let (longest_label, long_label) =
        (format!("{}.example", "a".repeat(63)), format!("{}.example", "a".repeat(64)));
    let invisible = format!("{}example.com", "\u{ad}".repeat(600));
    let wide_unicode = format!("{}.example", "ü".repeat(64));
    for accepted in [&longest, &format!("{longest}."), &longest_label] {
        assert!(Hostname::parse(accepted).is_ok(), "{accepted}");
    }
    const ADDRESS: &str = "not an IP address";
    const CHARACTERS: &str = "only letters, digits, hyphens and dots";
    const EMPTY_LABEL: &str = "no empty label";
    const HYPHEN: &str = "neither begins nor ends with a hyphen";
    const IDNA: &str = "valid in IDNA (UTS 46)";
    const TWO_LABELS: &str = "at least two labels";
    const WILDCARD: &str = "not a wildcard";
    assert_refused(
        Hostname::parse,
        &[
            ("", "not empty"),
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
            ("example.com:80", "no port"),
            ("example.com\u{ff1a}80", "no port"),
            ("exa mple.com", CHARACTERS),
            ("exa\u{a0}mple.com", CHARACTERS),
            (" example.com", CHARACTERS),
            ("example.com\n", CHARACTERS),
            ("example\0.com", CHARACTERS),
            ("example.com\0", CHARACTERS),
            ("user@example.com", CHARACTERS),
            ("example.com/..", CHARACTERS),
            ("\u{2100}.example", CHARACTERS),
            ("a_b.example", CHARACTERS),
            ("a%2eb.example", CHARACTERS),
            ("a\\b.example", CHARACTERS),
            ("-a.example", HYPHEN),
            ("a-.example", HYPHEN),
            ("ab--c.example", "third and fourth characters only after xn"),
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
fn hostnames_are_one_to_sixteen_distinct_and_hold_the_canonical_one() {
    let sixteen: Vec<String> = (0..16).map(|n| format!("n{n}.example")).collect();
    let seventeen: Vec<String> = (0..17).map(|n| format!("n{n}.example")).collect();
    let hostnames = Hostnames::parse(&sixteen, "N3.Example.").expect("sixteen are allowed");
    assert_eq!(hostnames.all().iter().map(Hostname::as_str).collect::<Vec<_>>(), sixteen);
    assert_eq!(hostnames.canonical().as_str(), "n3.example");

    let refused = |names: &[&str], canonical: &str| match Hostnames::parse(names, canonical) {
        Ok(accepted) => panic!("{accepted:?} was accepted"),
        Err(error) => (error.what(), error.rule()),
    };
    let excess = Hostnames::parse(&seventeen, "n0.example").map_err(|error| error.to_string());
    assert_eq!(
        excess,
        Err("a list of hostnames \"n16.example\" is refused: a site has at most 16 hostnames".into())
    );
    assert_eq!(refused(&[], "a.example"), ("a list of hostnames", "a site has at least one hostname"));
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
        ("a canonical hostname", "a canonical hostname is one of the site's hostnames")
    );
    assert_eq!(refused(&["a.example"], "10.0.0.1").0, "a canonical hostname");
    assert_eq!(refused(&["a.example", "*.b.example"], "a.example").1, "a hostname is not a wildcard");
}

#[test]
fn hostile_digests_are_refused_by_rule() {
    let hex = "0123456789abcdef".repeat(4);
    const SHAPE: &str = "64 hexadecimal digits";
    const CASE: &str = "lower case";
    assert_refused(
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
fn hostile_uids_are_refused_by_rule() {
    assert_refused(
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
            ("8zzzzzzzzzzzzzzzzzzzzzzzzz", "begins with a digit from 0 to 7"),
            ("a0000000000000000000000000", "begins with a digit from 0 to 7"),
        ],
    );
    assert_eq!(Uid::from_parts(0, 0).to_string(), "00000000000000000000000000");
    assert_eq!(Uid::from_parts(u64::MAX, u128::MAX).to_string(), "7zzzzzzzzzzzzzzzzzzzzzzzzz");
    // The time of the ULID specification's own example, 01ARZ3NDEKTSV4RRFFQ69G5FAV.
    assert_eq!(Uid::parse("01arz3ndektsv4rrffq69g5fav").map(Uid::millis), Ok(1_469_922_850_259));
}

#[test]
fn a_refusal_shows_the_input_escaped_and_cut() {
    let error = SiteId::parse("a\n\u{202e}\"").expect_err("not an id");
    assert_eq!(
        error.to_string(),
        r#"a site id "a\n\u{202e}\"" is refused: a site id holds only lower-case ASCII letters, digits and hyphens"#
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
