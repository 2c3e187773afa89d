//! One conditional change of one item, sent alone or as part of a transaction.

use std::collections::HashMap;

use aws_sdk_dynamodb::error::BuildError;
use aws_sdk_dynamodb::types::{
    AttributeValue, ConditionCheck, Delete, Put, ReturnValuesOnConditionCheckFailure, TransactWriteItem,
    Update,
};

use super::failure::{Failure, failed};
use super::item::{Item, Key};

/// The condition that the item does not exist.
pub(super) const ABSENT: &str = "attribute_not_exists(#pk)";

/// The write of an item.
#[derive(Clone, Debug)]
enum Action {
    Put(Item),
    /// Changes the attributes in the update expression; other attributes stay.
    Update(Key, String),
    Delete(Key),
    /// No write; only the condition counts.
    Check(Key),
}

/// One change. Its expressions refer to an attribute as `#name` and to a value as `:name`.
#[derive(Clone, Debug)]
pub(super) struct Change {
    action: Action,
    condition: Option<String>,
    values: Item,
}

const ALL_OLD: ReturnValuesOnConditionCheckFailure = ReturnValuesOnConditionCheckFailure::AllOld;

impl Change {
    fn new(action: Action) -> Self {
        Self { action, condition: None, values: Item::new() }
    }

    pub(super) fn put(item: Item) -> Self {
        Self::new(Action::Put(item))
    }

    pub(super) fn update(key: Key, expression: impl Into<String>) -> Self {
        Self::new(Action::Update(key, expression.into()))
    }

    pub(super) fn delete(key: Key) -> Self {
        Self::new(Action::Delete(key))
    }

    pub(super) fn check(key: Key) -> Self {
        Self::new(Action::Check(key))
    }

    pub(super) fn when(mut self, condition: impl Into<String>) -> Self {
        self.condition = Some(condition.into());
        self
    }

    /// Binds a value of the expressions.
    pub(super) fn with(mut self, name: &str, value: AttributeValue) -> Self {
        self.values.insert(name.to_owned(), value);
        self
    }

    /// Sends the change as one request. Returns the new item for an update, otherwise `None`.
    pub(super) async fn send(
        self,
        client: &aws_sdk_dynamodb::Client,
        table: &str,
    ) -> Result<Option<Item>, Failure> {
        let (names, values) = self.attributes();
        let Self { action, condition, .. } = self;
        match action {
            Action::Put(item) => {
                let request = client.put_item().table_name(table).set_item(Some(item));
                let request =
                    request.set_condition_expression(condition).set_expression_attribute_names(names);
                let request = request.set_expression_attribute_values(values);
                let sent = request.return_values_on_condition_check_failure(ALL_OLD).send().await;
                sent.map(|_| None).map_err(failed)
            }
            Action::Update(key, expression) => {
                let request = client.update_item().table_name(table).set_key(Some(key.item()));
                let request = request.update_expression(expression).set_condition_expression(condition);
                let request =
                    request.set_expression_attribute_names(names).set_expression_attribute_values(values);
                let request = request.return_values(aws_sdk_dynamodb::types::ReturnValue::AllNew);
                let sent = request.return_values_on_condition_check_failure(ALL_OLD).send().await;
                sent.map(|output| output.attributes).map_err(failed)
            }
            Action::Delete(key) => {
                let request = client.delete_item().table_name(table).set_key(Some(key.item()));
                let request =
                    request.set_condition_expression(condition).set_expression_attribute_names(names);
                let request = request.set_expression_attribute_values(values);
                let sent = request.return_values_on_condition_check_failure(ALL_OLD).send().await;
                sent.map(|_| None).map_err(failed)
            }
            Action::Check(_) => Ok(None),
        }
    }

    pub(super) fn part(self, table: &str) -> Result<TransactWriteItem, BuildError> {
        let (names, values) = self.attributes();
        let Self { action, condition, .. } = self;
        let part = TransactWriteItem::builder();
        Ok(match action {
            Action::Put(item) => part.put(
                Put::builder()
                    .table_name(table)
                    .set_item(Some(item))
                    .set_condition_expression(condition)
                    .set_expression_attribute_names(names)
                    .set_expression_attribute_values(values)
                    .return_values_on_condition_check_failure(ALL_OLD)
                    .build()?,
            ),
            Action::Update(key, expression) => part.update(
                Update::builder()
                    .table_name(table)
                    .set_key(Some(key.item()))
                    .update_expression(expression)
                    .set_condition_expression(condition)
                    .set_expression_attribute_names(names)
                    .set_expression_attribute_values(values)
                    .return_values_on_condition_check_failure(ALL_OLD)
                    .build()?,
            ),
            Action::Delete(key) => part.delete(
                Delete::builder()
                    .table_name(table)
                    .set_key(Some(key.item()))
                    .set_condition_expression(condition)
                    .set_expression_attribute_names(names)
                    .set_expression_attribute_values(values)
                    .return_values_on_condition_check_failure(ALL_OLD)
                    .build()?,
            ),
            Action::Check(key) => part.condition_check(
                ConditionCheck::builder()
                    .table_name(table)
                    .set_key(Some(key.item()))
                    .set_condition_expression(condition)
                    .set_expression_attribute_names(names)
                    .set_expression_attribute_values(values)
                    .return_values_on_condition_check_failure(ALL_OLD)
                    .build()?,
            ),
        }
        .build())
    }

    /// Returns the names and values of the expressions; `None` instead of empty maps, which DynamoDB rejects.
    fn attributes(&self) -> (Option<HashMap<String, String>>, Option<Item>) {
        let update = match &self.action {
            Action::Update(_, expression) => expression.as_str(),
            Action::Put(_) | Action::Delete(_) | Action::Check(_) => "",
        };
        let names = names([update, self.condition.as_deref().unwrap_or_default()]);
        (names, Some(self.values.clone()).filter(|values| !values.is_empty()))
    }
}

/// Maps every `#name` in the expressions to the attribute of that name, so that a reserved word of DynamoDB can be a
/// name.
pub(super) fn names<const N: usize>(expressions: [&str; N]) -> Option<HashMap<String, String>> {
    let mut names = HashMap::new();
    for expression in expressions {
        for rest in expression.split('#').skip(1) {
            let name: String = rest.chars().take_while(char::is_ascii_alphanumeric).collect();
            names.insert(format!("#{name}"), name);
        }
    }
    Some(names).filter(|names| !names.is_empty())
}
