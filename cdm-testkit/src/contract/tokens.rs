//! Guarantees of a token store: each token is found by its hash, and each name is used once.

use cdm_core::domain::{Actor, Role, Timestamp, Token, TokenHash, Uid};
use cdm_core::ports::{ErrorKind, TokenStore};

use super::SuiteContext;
use super::context::{applied, read_value, rejected};

/// Tests every guarantee of the port.
pub async fn suite(port: &dyn TokenStore, cx: &SuiteContext<'_>) {
    a_token_is_found_by_its_hash(port, cx).await;
    a_name_and_a_hash_are_used_once(port, cx).await;
    a_repeated_create_is_applied(port, cx).await;
    a_revoked_token_stays_revoked(port, cx).await;
    tokens_are_listed_by_creation(port, cx).await;
}

/// A token is found by its own hash only.
pub async fn a_token_is_found_by_its_hash(port: &dyn TokenStore, cx: &SuiteContext<'_>) {
    const PROMISE: &str = "a token is found by its hash";
    let (token, other) = (token(cx), token(cx));
    assert_eq!(read_value(PROMISE, port.by_hash(&token.hash).await), None, "broken promise: {PROMISE}");
    applied(PROMISE, port.create(&cx.call(), &token).await);
    assert_eq!(read_value(PROMISE, port.by_hash(&other.hash).await), None, "broken promise: {PROMISE}");
    assert_eq!(
        read_value(PROMISE, port.by_hash(&token.hash).await),
        Some(token),
        "broken promise: {PROMISE}"
    );
}

/// No name and no hash is used twice, even after a revocation.
pub async fn a_name_and_a_hash_are_used_once(port: &dyn TokenStore, cx: &SuiteContext<'_>) {
    const PROMISE: &str = "a name and a hash are used once";
    let first = token(cx);
    applied(PROMISE, port.create(&cx.call(), &first).await);
    applied(PROMISE, port.revoke(&cx.call(), first.id, Timestamp::from_millis(1)).await);
    let same_name = Token { name: first.name.clone(), ..token(cx) };
    let same_hash = Token { hash: first.hash, ..token(cx) };
    for second in [same_name, same_hash] {
        rejected(PROMISE, ErrorKind::Exists, port.create(&cx.call(), &second).await);
    }
}

/// Repeating a creation succeeds.
pub async fn a_repeated_create_is_applied(port: &dyn TokenStore, cx: &SuiteContext<'_>) {
    const PROMISE: &str = "a repeated create is applied";
    let token = token(cx);
    let call = cx.call();
    applied(PROMISE, port.create(&call, &token).await);
    applied(PROMISE, port.create(&call, &token).await);
}

/// The first revocation counts.
pub async fn a_revoked_token_stays_revoked(port: &dyn TokenStore, cx: &SuiteContext<'_>) {
    const PROMISE: &str = "a revoked token keeps the time of its first revocation";
    let token = token(cx);
    applied(PROMISE, port.create(&cx.call(), &token).await);
    for at in [5, 9] {
        let revoked = applied(PROMISE, port.revoke(&cx.call(), token.id, Timestamp::from_millis(at)).await);
        assert_eq!(revoked.revoked_at, Some(Timestamp::from_millis(5)), "broken promise: {PROMISE}");
    }
    let seen = read_value(PROMISE, port.by_hash(&token.hash).await);
    assert_eq!(
        seen.and_then(|token| token.revoked_at),
        Some(Timestamp::from_millis(5)),
        "broken promise: {PROMISE}"
    );
    let unknown = port.revoke(&cx.call(), cx.uid(), Timestamp::from_millis(1)).await;
    rejected(PROMISE, ErrorKind::NotFound, unknown);
}

/// The list has every token once, oldest first.
pub async fn tokens_are_listed_by_creation(port: &dyn TokenStore, cx: &SuiteContext<'_>) {
    const PROMISE: &str = "tokens are listed in the order of their creation";
    let token = token(cx);
    applied(PROMISE, port.create(&cx.call(), &token).await);
    let listed: Vec<Uid> = read_value(PROMISE, port.tokens().await).iter().map(|token| token.id).collect();
    assert!(listed.is_sorted() && listed.contains(&token.id), "broken promise: {PROMISE}");
}

fn token(cx: &SuiteContext<'_>) -> Token {
    let id = cx.uid();
    let name = |text: &str| match Actor::parse(text) {
        Ok(actor) => actor,
        Err(error) => panic!("a name with a uid must be valid: {error}"),
    };
    let mut hash = [0; 32];
    hash[..26].copy_from_slice(id.to_string().as_bytes());
    Token {
        id,
        name: name(&format!("token-{id}")),
        role: Role::Operator,
        hash: TokenHash(hash),
        loopback_only: false,
        created_by: name("someone"),
        created_at: Timestamp::from_millis(id.millis()),
        expires_at: None,
        revoked_at: None,
    }
}
