//! What the parsers of names accept, what they reject and by which rule, and that canonical forms are canonical.

mod real_world;
mod rejected;

use std::fmt::{Debug, Display};
use std::str::FromStr;

use cdm_core::domain::{Actor, Digest, Hostname, IdempotencyKey, NameError, SiteId, SiteName, Theme, Uid};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

/// Runs the same cases each time, unless `PROPTEST_RNG_SEED` selects others.
fn seeded() -> ProptestConfig {
    let environment = ProptestConfig::default();
    let rng_seed = match environment.rng_seed {
        RngSeed::Random => RngSeed::Fixed(0x6e61_6d65),
        chosen @ RngSeed::Fixed(_) => chosen,
    };
    ProptestConfig { rng_seed, failure_persistence: None, ..environment }
}

/// Generates texts: of arbitrary characters, of characters with a meaning for the parsers, and texts that are almost a
/// name.
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

/// Parses a text, and checks the properties of every kind of name: an accepted text is `well_formed`, and its display
/// parses to the same value; the error for a rejected text is printable and short.
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
    (1..=100).contains(&text.len())
        && !text.starts_with(['.', '-'])
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}

fn is_site_name(text: &str) -> bool {
    let is_hidden = |c: char| {
        c.is_control()
            || (c.is_whitespace() && !matches!(c, ' ' | '\u{a0}' | '\u{2007}' | '\u{202f}'))
            || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{feff}' | '\u{3164}' | '\u{2800}')
            || matches!(c, '\u{200b}' | '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
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
    fn accepted_texts_follow_the_rules_and_no_text_panics(text in any_text()) {
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
    fn every_theme_of_the_pattern_is_accepted(text in "[A-Za-z0-9_][A-Za-z0-9._-]{0,99}") {
        prop_assert!(examine::<Theme>(&text, is_theme)?.is_some());
    }

    #[test]
    fn every_name_of_letters_digits_and_symbols_is_accepted(text in "[\\pL\\pN\\pP\\pS]{0,199}") {
        // Letters and symbols without a visible glyph.
        const BLANK: [char; 6] = ['\u{115f}', '\u{1160}', '\u{3164}', '\u{ffa0}', '\u{2800}', '\u{1d159}'];
        prop_assume!(!text.contains(BLANK));
        // Some letters, such as U+FF9E, combine with the preceding character.
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
    fn a_uid_contains_its_time(millis in 0_u64..1 << 48, random in any::<u128>()) {
        let uid = Uid::from_parts(millis, random);
        prop_assert_eq!(uid.millis(), millis);
        prop_assert_eq!(Uid::from_parts(millis, random % (1 << 80)), uid);
        prop_assert_eq!(examine::<Uid>(&uid.to_string(), is_uid)?, Some(uid));
    }

    #[test]
    fn every_text_of_the_uid_pattern_is_a_uid(text in "[0-7][0-9a-hjkmnp-tv-z]{25}") {
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

/// Returns other spellings of an ASCII hostname.
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

/// Decodes a name by IDNA only, without the project's own rules.
fn idna_to_unicode(ascii: &str) -> (String, bool) {
    let (unicode, verdict) = idna::domain_to_unicode(ascii);
    (unicode, verdict.is_ok())
}
