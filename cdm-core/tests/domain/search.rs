//! Case folding, and the forms in which hostnames are searched.

use cdm_core::domain::search::{SearchTerm, SearchText};

/// Pairs that Unicode's `CaseFolding.txt` folds by status C or S, and pairs that it does not fold.
#[test]
fn names_are_compared_by_simple_case_folding() {
    for (one, other, same) in [
        ("ABC", "abc", true),
        ("ΣΊΣΥΦΟΣ", "σίσυφος", true),
        ("\u{17f}", "s", true),
        ("\u{212a}", "k", true),
        ("\u{b5}", "\u{3bc}", true),
        ("\u{1e9e}", "ß", true),
        ("\u{1c4}", "\u{1c5}", true),
        ("Ж", "ж", true),
        ("Ա", "ա", true),
        ("\u{10400}", "\u{10428}", true),
        ("É", "e\u{301}", true),
        ("ß", "ss", false),
        ("ı", "i", false),
        ("\u{130}", "i", false),
        ("É", "E", false),
    ] {
        let found = |term: &str, name: &str| {
            SearchTerm::of(term).matches(&SearchText::from_parts("x", name, ["0.q"]))
        };
        assert_eq!((found(one, other), found(other, one)), (same, same), "{one} {other}");
    }
}

#[test]
fn a_part_of_a_hostname_is_found_in_every_spelling() {
    let text = SearchText::from_parts("shop", "The shop", ["xn--mnchen-3ya.example", "r3---sn.example"]);
    for term in [
        "münch",
        "MÜNCHEN.EX",
        "mu\u{308}nchen",
        "XN--MNCHEN",
        "example.",
        "München\u{3002}example",
        "R3---",
        "",
    ] {
        assert!(SearchTerm::of(term).matches(&text), "{term}");
    }
    for term in ["munchen", "nchen.test", "*", "shop the"] {
        assert!(!SearchTerm::of(term).matches(&text), "{term}");
    }
}
