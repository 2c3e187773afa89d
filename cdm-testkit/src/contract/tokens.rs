//! What a store of tokens promises: each found by its hash as long as there is a store, each name given once.

use cdm_core::domain::{Actor, Role, Timestamp, Token, TokenHash, Uid};
use cdm_core::ports::{ErrorKind, TokenStore};

use super::Cx;
use super::cx::{answered, applied, refused};

/// Every promise of the port.
pub async fn suite(port: &dyn TokenStore, cx: &Cx<'_>) {
    a_token_is_found_by_its_hash(port, cx).await;
    a_name_and_a_hash_are_given_once(port, cx).await;
    a_repeated_create_is_applied(port, cx).await;
    a_revoked_token_stays_revoked(port, cx).await;
    tokens_come_in_the_order_of_their_birth(port, cx).await;
}

/// A token is found by its hash, and by no other.
pub async fn a_token_is_found_by_its_hash(port: &dyn TokenStore, cx: &Cx<'_>) {
    const PROMISE: &str = "a token is found by its hash";
    let (token, other) = (token(cx), token(cx));
    assert_eq!(answered(PROMISE, port.by_hash(&token.hash).await), None, "broken promise: {PROMISE}");
    applied(PROMISE, port.create(&cx.call(), &token).await);
    assert_eq!(answered(PROMISE, port.by_hash(&other.hash).await), None, "broken promise: {PROMISE}");
    assert_eq!(answered(PROMISE, port.by_hash(&token.hash).await), Some(token), "broken promise: {PROMISE}");
}

/// Neither a name nor a hash is given twice, also after a revocation.
pub async fn a_name_and_a_hash_are_given_once(port: &dyn TokenStore, cx: &Cx<'_>) {
    const PROMISE: &str = "a name and a hash are given once";
    let first = token(cx);
    applied(PROMISE, port.create(&cx.call(), &first).await);
    applied(PROMISE, port.revoke(&cx.call(), first.id, Timestamp::from_millis(1)).await);
    let same_name = Token { name: first.name.clone(), ..token(cx) };
    let same_hash = Token { hash: first.hash, ..token(cx) };
    for second in [same_name, same_hash] {
        refused(PROMISE, ErrorKind::Exists, port.create(&cx.call(), &second).await);
    }
}

/// Creating what was created is no error.
pub async fn a_repeated_create_is_applied(port: &dyn TokenStore, cx: &Cx<'_>) {
    const PROMISE: &str = "a repeated create is applied";
    let token = token(cx);
    let call = cx.call();
    applied(PROMISE, port.create(&call, &token).await);
    applied(PROMISE, port.create(&call, &token).await);
}

/// The first revocation counts.
pub async fn a_revoked_token_stays_revoked(port: &dyn TokenStore, cx: &Cx<'_>) {
    const PROMISE: &str = "a revoked token stays revoked since the first time";
    let token = token(cx);
    applied(PROMISE, port.create(&cx.call(), &token).await);
    for at in [5, 9] {
        let revoked = applied(PROMISE, port.revoke(&cx.call(), token.id, Timestamp::from_millis(at)).await);
        assert_eq!(revoked.revoked_at, Some(Timestamp::from_millis(5)), "broken promise: {PROMISE}");
    }
    let seen = answered(PROMISE, port.by_hash(&token.hash).await);
    assert_eq!(
        seen.and_then(|token| token.revoked_at),
        Some(Timestamp::from_millis(5)),
        "broken promise: {PROMISE}"
    );
    let unknown = port.revoke(&cx.call(), cx.uid(), Timestamp::from_millis(1)).await;
    refused(PROMISE, ErrorKind::NotFound, unknown);
}

/// The list has every token once, the oldest first.
pub async fn tokens_come_in_the_order_of_their_birth(port: &dyn TokenStore, cx: &Cx<'_>) {
    const PROMISE: &str = "tokens are listed in the order of their birth";
    let token = token(cx);
    applied(PROMISE, port.create(&cx.call(), &token).await);
    let listed: Vec<Uid> = answered(PROMISE, port.tokens().await).iter().map(|token| token.id).collect();
    assert!(listed.is_sorted() && listed.contains(&token.id), "broken promise: {PROMISE}");
}

fn token(cx: &Cx<'_>) -> Token {
    let id = cx.uid();
    let name = |text: &str| match Actor::parse(text) {
        Ok(actor) => actor,
        Err(error) => panic!("a uid is a name: {error}"),
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
