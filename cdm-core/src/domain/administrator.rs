//! Rules of WordPress for the administrator of a new site.
//!
//! WordPress rejects an invalid email address in the middle of an installation. It creates no user if the name is too
//! long, and still prints `Success`. For these reasons CDM checks both first. The rules are those of `is_email()`,
//! `sanitize_user()` and `wp_insert_user()` in WordPress 6.1, `wp-includes/formatting.php` and `user.php`.

use super::name::NameError;

const NAME: &str = "an administrator's name";
const EMAIL: &str = "an administrator's email address";
/// The maximum length of a name and of an address, given by the columns of the table `users`.
const MAX_NAME_LENGTH: usize = 60;
const MAX_EMAIL_LENGTH: usize = 100;

/// Checks the name of a site's administrator.
///
/// # Errors
/// Returns the broken rule.
pub fn judge_name(name: &str) -> Result<(), NameError> {
    let refuse = |rule| Err(NameError::new(NAME, rule, name));
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b" _.-@".contains(&byte);
    if name.is_empty() {
        return refuse("the name is empty");
    }
    if name.len() > MAX_NAME_LENGTH {
        return refuse("WordPress accepts at most 60 characters");
    }
    if !name.bytes().all(is_allowed) {
        return refuse(
            "WordPress accepts letters a to z, digits, spaces and `_.-@`, and drops other characters",
        );
    }
    if name.trim() != name || name.contains("  ") {
        return refuse("WordPress drops leading and trailing spaces and combines repeated spaces");
    }
    if name.starts_with(['-', '@']) {
        return refuse(
            "`wp` reads a name that begins with `-` as an option and one that begins with `@` as an alias",
        );
    }
    if name.bytes().all(|byte| byte.is_ascii_digit()) {
        return refuse("`wp` reads a number as a user id");
    }
    Ok(())
}

/// Checks the email address of a site's administrator.
///
/// # Errors
/// Returns the broken rule.
pub fn judge_email(email: &str) -> Result<(), NameError> {
    let refuse = |rule| Err(NameError::new(EMAIL, rule, email));
    let of_local = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+/=?^_`{|}~.-".contains(&byte);
    if email.len() < 6 {
        return refuse("WordPress accepts no address of fewer than 6 characters");
    }
    if email.len() > MAX_EMAIL_LENGTH {
        return refuse("WordPress accepts at most 100 characters");
    }
    let Some((local, domain)) = email.split_once('@').filter(|(local, _)| !local.is_empty()) else {
        return refuse("an address is a name, an `@` and a domain");
    };
    if !local.bytes().all(of_local) {
        return refuse("before the `@`, only ASCII letters, digits and !#$%&'*+/=?^_`{|}~.- are allowed");
    }
    let labels: Vec<&str> = domain.split('.').collect();
    let is_label = |label: &&str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    if labels.len() < 2 {
        return refuse("the domain has no dot; WordPress rejects addresses such as `ops@localhost`");
    }
    if !labels.iter().all(is_label) {
        return refuse(
            "the domain consists of ASCII letters, digits and hyphens, separated by dots; write an IDN as `xn--…`",
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rules_of_wordpress() {
        for name in ["admin", "Jane Roe", "ops@example.com", "a.b_c-d", &"a".repeat(60), "7of9"] {
            assert_eq!(judge_name(name), Ok(()), "{name}");
        }
        for name in
            ["", &"a".repeat(61), "j\u{f6}rg", "a  b", " a", "a ", "-x", "@all", "42", "a'b", "a%20b", "a\tb"]
        {
            assert!(judge_name(name).is_err(), "{name}");
        }
    }

    #[test]
    fn email_addresses_follow_the_rules_of_wordpress() {
        for email in ["a@b.co", "ops+cdm@example.com", "o'hara@mail.example.co.uk", "a@xn--bcher-kva.example"]
        {
            assert_eq!(judge_email(email), Ok(()), "{email}");
        }
        for email in [
            "",
            "a@b.c",
            "ops@localhost",
            "ops",
            "@example.com",
            "a b@example.com",
            "j\u{f6}rg@example.com",
            "a@b\u{fc}cher.example",
            "a@example..com",
            "a@.example.com",
            "a@example.com.",
            "a@-example.com",
            "a@exam_ple.com",
            "a@b@example.com",
            "\"a\"@example.com",
            &format!("{}@example.com", "a".repeat(100)),
        ] {
            assert!(judge_email(email).is_err(), "{email}");
        }
    }
}
