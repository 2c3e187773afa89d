//! The cookie of a device from which somebody has signed in before (OWASP's "device cookie"): attempts from there are
//! counted apart, so that strangers who guess at a name do not lock its owner out.
//!
//! It proves nothing beyond that. Its key is the person's password hash, which is secret and random: the cookie serves
//! for one person alone, and no longer than the password that they signed in with.

use std::time::Duration;

use axum::http::HeaderMap;
use axum_extra::extract::cookie::{Cookie, CookieJar, SameSite};
use cdm_core::domain::Timestamp;
use cdm_core::domain::user::User;
use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::guard::is_plain;
use crate::client::Client;
use crate::input::unhex_bytes;
use crate::password;

/// How long a device is known after the last sign-in.
const LASTS: Duration = Duration::from_hours(180 * 24);

fn cookie_name(headers: &HeaderMap, client: Client) -> &'static str {
    if is_plain(headers, client) { "cdm-device" } else { "__Host-cdm-device" }
}

/// What signs the id of a device of `user`.
fn signature(user: &User, id: &str, until: &str) -> Option<Hmac<Sha256>> {
    let key = Some(&user.password).filter(|hash| **hash != password::none())?;
    let mac = Hmac::<Sha256>::new_from_slice(key.as_str().as_bytes()).ok()?;
    Some(
        mac.chain_update("device\0")
            .chain_update(user.name.as_str())
            .chain_update(format!("\0{id}\0{until}")),
    )
}

/// The device that the request comes from, where `user` has signed in from it.
pub(super) fn known(headers: &HeaderMap, client: Client, user: &User, now: Timestamp) -> Option<String> {
    let jar = CookieJar::from_headers(headers);
    let mut parts = jar.get(cookie_name(headers, client))?.value().splitn(3, '.');
    let (id, until, signed) = (parts.next()?, parts.next()?, parts.next()?);
    signature(user, id, until)?.verify_slice(&unhex_bytes(signed)?).ok()?;
    let lasts = until.parse::<u64>().is_ok_and(|until| until > now.millis());
    lasts.then(|| id.to_owned())
}

/// The cookie that makes the browser a known device of `user`, under its id of before where it has one.
pub(super) fn cookie(
    headers: &HeaderMap,
    client: Client,
    (user, id): (&User, &str),
    now: Timestamp,
) -> CookieJar {
    let until = now.after(LASTS).millis().to_string();
    let Some(mac) = signature(user, id, &until) else { return CookieJar::new() };
    let signed: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    let text = format!("{}={id}.{until}.{signed}; Max-Age={}", cookie_name(headers, client), LASTS.as_secs());
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
    fn a_device_is_known_for_one_person_one_password_and_so_long() {
        let (ada, now) = (user("ada", "$argon2id$one"), Timestamp::from_millis(1_000));
        let made = cookie(&headers(""), Client::INSIDE, (&ada, "id"), now);
        let made = made.iter().next().expect("a cookie").to_string();
        assert!(made.contains("HttpOnly") && made.contains("Max-Age=15552000"), "{made}");
        let (pair, _) = made.split_once(';').expect("attributes");
        let browser = headers(pair);
        assert_eq!(known(&browser, Client::INSIDE, &ada, now), Some("id".to_owned()));
        assert_eq!(
            known(&browser, Client::INSIDE, &user("bob", "$argon2id$one"), now),
            None,
            "for her alone"
        );
        assert_eq!(
            known(&browser, Client::INSIDE, &user("ada", "$argon2id$two"), now),
            None,
            "another password ends it"
        );
        assert_eq!(known(&browser, Client::INSIDE, &user("ada", "none"), now), None);
        assert_eq!(known(&browser, Client::INSIDE, &ada, now.after(LASTS)), None, "it has ended");
        for (from, to) in [("id", "ie"), (".1555", ".2555"), ("cdm-device", "cdm-devise")] {
            let spoiled = pair.replacen(from, to, 1);
            assert_ne!(spoiled, pair);
            assert_eq!(known(&headers(&spoiled), Client::INSIDE, &ada, now), None, "{spoiled}");
        }
        assert!(
            cookie(&headers(""), Client::INSIDE, (&user("ada", "none"), "id"), now).iter().next().is_none()
        );
    }
}
