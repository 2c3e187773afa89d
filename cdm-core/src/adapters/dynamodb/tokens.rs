//! Tokens: a record lies under its hash, so that a request is judged after one read; beside it lie its name, which is given
//! once, and its id, by which it is listed.

use async_trait::async_trait;

use super::change::{ABSENT, Change};
use super::failure::{Failure, Unmet, of_port};
use super::item::{Item, Key, Read, document, number, put, text};
use super::table::{Ask, DynamoTable};
use crate::domain::{Timestamp, Token, TokenHash, Uid};
use crate::ports::{CallContext, ErrorKind, Outcome, PortError, StoreError, TokenStore};

const PORT: &str = "tokens";

/// The records of tokens; clones share the table.
#[derive(Clone, Debug)]
pub struct DynamoTokens {
    table: DynamoTable,
}

impl DynamoTokens {
    /// The tokens in a table.
    pub const fn new(table: DynamoTable) -> Self {
        Self { table }
    }

    /// The keys under which the tokens of an answer of the list lie.
    fn record(listed: &Item) -> Result<Key, StoreError> {
        let read = Read(listed);
        Ok(Key { pk: read.text("token")?.to_owned(), sk: "TOKEN".to_owned() })
    }
}

fn token(item: &Item) -> Result<Token, StoreError> {
    let read = Read(item);
    let token: Token = read.document("document")?;
    let revoked_at = read.number_if("revokedAt").map(Timestamp::from_millis).or(token.revoked_at);
    Ok(Token { revoked_at, ..token })
}

fn refused<T>(failure: Failure) -> Outcome<T> {
    let lost = matches!(failure, Failure::Lost(_));
    let error = of_port(PORT, &failure.into_error());
    if lost { Outcome::Unknown(error) } else { Outcome::NotApplied(error) }
}

#[async_trait]
impl TokenStore for DynamoTokens {
    async fn create(&self, call: &CallContext, token: &Token) -> Outcome<()> {
        let (record, name) = (Key::token(&token.hash), Key::token_name(token.name.as_str()));
        let document = match document(token) {
            Ok(document) => document,
            Err(error) => return refused(error.into()),
        };
        let mut item = record.item();
        put(&mut item, "document", document);
        let mut listed = Key::token_of(&token.id.to_string()).item();
        put(&mut listed, "token", text(record.pk.clone()));
        let items = [item, listed, name.item()];
        let unmet = match self.table.write(call, &items.map(|item| Change::put(item).when(ABSENT))).await {
            Ok(_) => return Outcome::Applied(()),
            Err(Failure::Cancelled(unmet)) => unmet,
            Err(failure) => return refused(failure),
        };
        let lies = match unmet.into_iter().next() {
            Some(Unmet::Condition(Some(item))) => Ok(Some(item)),
            Some(Unmet::Condition(None) | Unmet::Nothing) | None => {
                self.table.get(&record, call.deadline).await
            }
        };
        match lies.and_then(|item| item.as_ref().map(self::token).transpose()) {
            Ok(Some(known)) if known == *token => Outcome::Applied(()),
            Ok(_) => {
                let message = "another token has, or had, that name";
                Outcome::NotApplied(PortError::new(PORT, ErrorKind::Exists, message))
            }
            // This request did nothing; whether one before it did could not be read.
            Err(error) => refused(Failure::Lost(error)),
        }
    }

    async fn by_hash(&self, hash: &TokenHash) -> Result<Option<Token>, PortError> {
        let item = self.table.get(&Key::token(hash), self.table.soon()).await;
        item.and_then(|item| item.as_ref().map(token).transpose()).map_err(|error| of_port(PORT, &error))
    }

    async fn tokens(&self) -> Result<Vec<Token>, PortError> {
        let all = async {
            let values = vec![(":tokens", text("T"))];
            let ask = Ask { index: None, keys: "#pk = :tokens", values, backwards: false, limit: 1_000 };
            let listed = self.table.ask(ask).all().await?;
            let keys = listed.iter().map(Self::record).collect::<Result<Vec<_>, _>>()?;
            let items = self.table.get_many(&keys).await?;
            keys.iter().filter_map(|key| items.get(key)).map(token).collect::<Result<Vec<_>, StoreError>>()
        };
        all.await.map_err(|error| of_port(PORT, &error))
    }

    async fn revoke(&self, call: &CallContext, id: Uid, at: Timestamp) -> Outcome<Token> {
        let none =
            || Outcome::NotApplied(PortError::new(PORT, ErrorKind::NotFound, "there is no such token"));
        let listed = match self.table.get(&Key::token_of(&id.to_string()), call.deadline).await {
            Ok(Some(listed)) => listed,
            Ok(None) => return none(),
            Err(error) => return refused(error.into()),
        };
        let key = match Self::record(&listed) {
            Ok(key) => key,
            Err(error) => return refused(error.into()),
        };
        let change = Change::update(key, "SET #revokedAt = if_not_exists(#revokedAt, :at)")
            .when("attribute_exists(#pk)")
            .with(":at", number(at.millis()));
        match self.table.write(call, &[change]).await {
            Ok(item) => match token(&item.unwrap_or_default()) {
                Ok(token) => Outcome::Applied(token),
                Err(error) => refused(Failure::Lost(error)),
            },
            Err(Failure::Unmet(_)) => none(),
            Err(failure) => refused(failure),
        }
    }
}
