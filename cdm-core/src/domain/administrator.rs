//! What WordPress accepts as the administrator of a new site.
//!
//! It refuses a wrong email address in the middle of an installation, and makes no user where the name is too long, with
//! `Success` as its last word. So both are judged before. The rules are those of `is_email()`, `sanitize_user()` and
//! `wp_insert_user()` in WordPress 6.1, `wp-includes/formatting.php` and `user.php`.

use super::name::NameError;

const NAME: &str = "an administrator's name";
const EMAIL: &str = "an administrator's email address";
/// The most characters of a name, and of an address: the columns of the table `users`.
const LONGEST_NAME: usize = 60;
const LONGEST_EMAIL: usize = 100;

/// Judges the name of a site's administrator.
///
/// # Errors
/// The rule that is broken.
pub fn judge_name(name: &str) -> Result<(), NameError> {
    let refuse = |rule| Err(NameError::new(NAME, rule, name));
    let kept = |byte: u8| byte.is_ascii_alphanumeric() || b" _.-@".contains(&byte);
    if name.is_empty() {
        return refuse("it is not empty");
    }
    if name.len() > LONGEST_NAME {
        return refuse("WordPress takes at most 60 characters");
    }
    if !name.bytes().all(kept) {
        return refuse("WordPress takes letters a to z, digits, spaces and `_.-@`, and drops anything else");
    }
    if name.trim() != name || name.contains("  ") {
        return refuse("WordPress drops spaces at its ends, and all but one of several");
    }
    if name.starts_with(['-', '@']) {
        return refuse("`wp` reads what begins with `-` or `@` as an option or an alias");
    }
    if name.bytes().all(|byte| byte.is_ascii_digit()) {
        return refuse("`wp` reads a number as a user's id");
    }
    Ok(())
}

/// Judges the email address of a site's administrator.
///
/// # Errors
/// The rule that is broken.
pub fn judge_email(email: &str) -> Result<(), NameError> {
    let refuse = |rule| Err(NameError::new(EMAIL, rule, email));
    let of_local = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+/=?^_`{|}~.-".contains(&byte);
    if email.len() < 6 {
        return refuse("WordPress takes no address of fewer than 6 characters");
    }
    if email.len() > LONGEST_EMAIL {
        return refuse("WordPress takes at most 100 characters");
    }
    let Some((local, domain)) = email.split_once('@').filter(|(local, _)| !local.is_empty()) else {
        return refuse("it is a name, an `@` and a domain");
    };
    if !local.bytes().all(of_local) {
        return refuse("before the `@` are ASCII letters, digits and !#$%&'*+/=?^_`{|}~.- only");
    }
    let labels: Vec<&str> = domain.split('.').collect();
    let is_label = |label: &&str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    if labels.len() < 2 {
        return refuse("its domain has a dot: WordPress refuses `ops@localhost`");
    }
    if !labels.iter().all(is_label) {
        return refuse(
            "its domain is of ASCII letters, digits and hyphens, with dots between; write an IDN as `xn--…`",
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_judged_as_wordpress_takes_them() {
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
    fn addresses_are_judged_as_wordpress_takes_them() {
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
