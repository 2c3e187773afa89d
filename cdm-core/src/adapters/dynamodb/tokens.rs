//! Tokens. A token's record is stored under the token's hash, so that one read authenticates a request; two more items
//! reserve its name, which is never reused, and map its ID to the record.

use async_trait::async_trait;

use super::change::{ABSENT, Change};
use super::failure::{ChangeOutcome, Failure, of_port};
use super::item::{Item, ItemReader, Key, document, number, put, text};
use super::table::{DynamoTable, KeyRange};
use crate::domain::{Timestamp, Token, TokenHash, Uid};
use crate::ports::{CallContext, ErrorKind, Outcome, PortError, StoreError, TokenStore};

const PORT: &str = "tokens";

/// The records of tokens. Clones share the table.
#[derive(Clone, Debug)]
pub struct DynamoTokens {
    table: DynamoTable,
}

impl DynamoTokens {
    /// Creates the store of the tokens in a table.
    pub const fn new(table: DynamoTable) -> Self {
        Self { table }
    }

    /// Returns the key of the record that a list entry refers to.
    fn record(listed: &Item) -> Result<Key, StoreError> {
        let read = ItemReader(listed);
        Ok(Key { pk: read.text("token")?.to_owned(), sk: "TOKEN".to_owned() })
    }
}

fn token(item: &Item) -> Result<Token, StoreError> {
    let read = ItemReader(item);
    let token: Token = read.document("document")?;
    let revoked_at = read.number_if("revokedAt").map(Timestamp::from_millis).or(token.revoked_at);
    Ok(Token { revoked_at, ..token })
}

fn outcome_of<T>(failure: Failure) -> Outcome<T> {
    let maybe_applied = matches!(failure, Failure::Unknown(_));
    let error = of_port(PORT, &failure.into_error());
    if maybe_applied { Outcome::Unknown(error) } else { Outcome::NotApplied(error) }
}

#[async_trait]
impl TokenStore for DynamoTokens {
    async fn create(&self, call: &CallContext, token: &Token) -> Outcome<()> {
        let (record, name) = (Key::token(&token.hash), Key::token_name(token.name.as_str()));
        let document = match document(token) {
            Ok(document) => document,
            Err(error) => return outcome_of(error.into()),
        };
        let mut item = record.item();
        put(&mut item, "document", document);
        let mut listed = Key::token_id(&token.id.to_string()).item();
        put(&mut listed, "token", text(record.pk.clone()));
        let items = [item, listed, name.item()];
        let unmet = match self.table.write(call, &items.map(|item| Change::put(item).when(ABSENT))).await {
            Ok(_) => return Outcome::Applied(()),
            Err(Failure::Canceled(unmet)) => unmet,
            Err(failure) => return outcome_of(failure),
        };
        let stored = match unmet.into_iter().next() {
            Some(ChangeOutcome::ConditionFailed(Some(item))) => Ok(Some(item)),
            Some(ChangeOutcome::ConditionFailed(None) | ChangeOutcome::Passed) | None => {
                self.table.get(&record, call.deadline).await
            }
        };
        match stored.and_then(|item| item.as_ref().map(self::token).transpose()) {
            Ok(Some(known)) if known == *token => Outcome::Applied(()),
            Ok(_) => {
                let message = "a token with this name exists or existed; choose another name";
                Outcome::NotApplied(PortError::new(PORT, ErrorKind::Exists, message))
            }
            // This request changed nothing. Whether an earlier request of the same write did could not be read.
            Err(error) => outcome_of(Failure::Unknown(error)),
        }
    }

    async fn by_hash(&self, hash: &TokenHash) -> Result<Option<Token>, PortError> {
        let item = self.table.get(&Key::token(hash), self.table.read_deadline()).await;
        item.and_then(|item| item.as_ref().map(token).transpose()).map_err(|error| of_port(PORT, &error))
    }

    async fn tokens(&self) -> Result<Vec<Token>, PortError> {
        let all = async {
            let values = vec![(":tokens", text("T"))];
            let range =
                KeyRange { index: None, keys: "#pk = :tokens", values, backwards: false, limit: 1_000 };
            let listed = self.table.pages(range).all().await?;
            let keys = listed.iter().map(Self::record).collect::<Result<Vec<_>, _>>()?;
            let items = self.table.get_many(&keys).await?;
            keys.iter().filter_map(|key| items.get(key)).map(token).collect::<Result<Vec<_>, StoreError>>()
        };
        all.await.map_err(|error| of_port(PORT, &error))
    }

    async fn revoke(&self, call: &CallContext, id: Uid, at: Timestamp) -> Outcome<Token> {
        let none =
            || Outcome::NotApplied(PortError::new(PORT, ErrorKind::NotFound, "the token does not exist"));
        let listed = match self.table.get(&Key::token_id(&id.to_string()), call.deadline).await {
            Ok(Some(listed)) => listed,
            Ok(None) => return none(),
            Err(error) => return outcome_of(error.into()),
        };
        let key = match Self::record(&listed) {
            Ok(key) => key,
            Err(error) => return outcome_of(error.into()),
        };
        let change = Change::update(key, "SET #revokedAt = if_not_exists(#revokedAt, :at)")
            .when("attribute_exists(#pk)")
            .with(":at", number(at.millis()));
        match self.table.write(call, &[change]).await {
            Ok(item) => match token(&item.unwrap_or_default()) {
                Ok(token) => Outcome::Applied(token),
                Err(error) => outcome_of(Failure::Unknown(error)),
            },
            Err(Failure::ConditionFailed(_)) => none(),
            Err(failure) => outcome_of(failure),
        }
    }
}
