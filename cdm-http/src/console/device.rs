//! The cookie of a device from which a user has signed in before (OWASP's "device cookie"). Attempts from such a device
//! are counted separately, so an attacker who guesses passwords for a user name does not lock out the user.
//!
//! The cookie grants no access. Its signature uses the user's password hash as the key, which is secret and random: the
//! cookie is valid for one user, and until the password changes.

use std::time::Duration;

use axum::http::HeaderMap;
use axum_extra::extract::cookie::{Cookie, CookieJar, SameSite};
use cdm_core::domain::Timestamp;
use cdm_core::domain::user::User;
use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::session::is_plain;
use crate::client::Client;
use crate::extract::unhex_bytes;
use crate::password;

/// How long a device is known after its last sign-in.
const LIFETIME: Duration = Duration::from_hours(180 * 24);

fn cookie_name(headers: &HeaderMap, client: Client) -> &'static str {
    if is_plain(headers, client) { "cdm-device" } else { "__Host-cdm-device" }
}

/// Returns the MAC over a device id of `user` and its expiry in milliseconds; `None` for a user without a password.
fn signature(user: &User, id: &str, until: &str) -> Option<Hmac<Sha256>> {
    let key = Some(&user.password).filter(|hash| **hash != password::unusable())?;
    let mac = Hmac::<Sha256>::new_from_slice(key.as_str().as_bytes()).ok()?;
    Some(
        mac.chain_update("device\0")
            .chain_update(user.name.as_str())
            .chain_update(format!("\0{id}\0{until}")),
    )
}

/// Returns the id of the device that sent the request, if the device is known for `user`.
pub(super) fn known_device(
    headers: &HeaderMap,
    client: Client,
    user: &User,
    now: Timestamp,
) -> Option<String> {
    let jar = CookieJar::from_headers(headers);
    let mut parts = jar.get(cookie_name(headers, client))?.value().splitn(3, '.');
    let (id, until, mac) = (parts.next()?, parts.next()?, parts.next()?);
    signature(user, id, until)?.verify_slice(&unhex_bytes(mac)?).ok()?;
    let is_valid = until.parse::<u64>().is_ok_and(|until| until > now.millis());
    is_valid.then(|| id.to_owned())
}

/// Returns the cookie that makes the browser the known device `id` of `user`; no cookie for a user without a password.
pub(super) fn cookie(
    headers: &HeaderMap,
    client: Client,
    (user, id): (&User, &str),
    now: Timestamp,
) -> CookieJar {
    let until = now.after(LIFETIME).millis().to_string();
    let Some(mac) = signature(user, id, &until) else { return CookieJar::new() };
    let signed = hex::encode(mac.finalize().into_bytes());
    let text =
        format!("{}={id}.{until}.{signed}; Max-Age={}", cookie_name(headers, client), LIFETIME.as_secs());
    let Ok(mut cookie) = Cookie::parse(text) else { return CookieJar::new() };
    cookie.set_path("/");
    cookie.set_http_only(true);
    cookie.set_secure(!is_plain(headers, client));
    cookie.set_same_site(SameSite::Lax);
    CookieJar::new().add(cookie)
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderValue, header};
    use cdm_core::domain::{Actor, PasswordHash, Role, UserName};

    use super::*;

    fn user(name: &str, hash: &str) -> User {
        User {
            name: UserName::parse(name).expect("a user name"),
            role: Role::Viewer,
            password: PasswordHash::new(hash.to_owned()),
            second: None,
            identity: None,
            by: Actor::parse("ops").expect("an actor"),
            at: Timestamp::from_millis(1),
            removed: None,
        }
    }

    fn headers(cookie: &str) -> HeaderMap {
        let pairs = [(header::HOST, "127.0.0.1:8080"), (header::COOKIE, cookie)];
        pairs
            .into_iter()
            .map(|(name, value)| (name, HeaderValue::from_str(value).expect("a value")))
            .collect()
    }

    #[test]
    fn a_device_is_known_for_one_user_one_password_and_180_days() {
        let (ada, now) = (user("ada", "$argon2id$one"), Timestamp::from_millis(1_000));
        let jar = cookie(&headers(""), Client::IN_PROCESS, (&ada, "id"), now);
        let text = jar.iter().next().expect("a cookie").to_string();
        assert!(text.contains("HttpOnly") && text.contains("Max-Age=15552000"), "{text}");
        let (pair, _) = text.split_once(';').expect("attributes");
        let browser = headers(pair);
        assert_eq!(known_device(&browser, Client::IN_PROCESS, &ada, now), Some("id".to_owned()));
        assert_eq!(
            known_device(&browser, Client::IN_PROCESS, &user("bob", "$argon2id$one"), now),
            None,
            "the cookie is valid for ada only"
        );
        assert_eq!(
            known_device(&browser, Client::IN_PROCESS, &user("ada", "$argon2id$two"), now),
            None,
            "a new password invalidates the cookie"
        );
        assert_eq!(known_device(&browser, Client::IN_PROCESS, &user("ada", "none"), now), None);
        assert_eq!(
            known_device(&browser, Client::IN_PROCESS, &ada, now.after(LIFETIME)),
            None,
            "the cookie has expired"
        );
        for (from, to) in [("id", "ie"), (".1555", ".2555"), ("cdm-device", "cdm-devise")] {
            let changed = pair.replacen(from, to, 1);
            assert_ne!(changed, pair);
            assert_eq!(known_device(&headers(&changed), Client::IN_PROCESS, &ada, now), None, "{changed}");
        }
        assert!(
            cookie(&headers(""), Client::IN_PROCESS, (&user("ada", "none"), "id"), now)
                .iter()
                .next()
                .is_none()
        );
    }
}
