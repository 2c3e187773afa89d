//! One change of one item, with the condition under which it is made; alone or as part of a transaction.

use std::collections::HashMap;

use aws_sdk_dynamodb::error::BuildError;
use aws_sdk_dynamodb::types::{
    AttributeValue, ConditionCheck, Delete, Put, ReturnValuesOnConditionCheckFailure, TransactWriteItem,
    Update,
};

use super::failure::{Failure, failed};
use super::item::{Item, Key};

/// Nothing lies there.
pub(super) const ABSENT: &str = "attribute_not_exists(#pk)";

/// What is done to an item.
#[derive(Clone, Debug)]
enum Doing {
    Put(Item),
    /// With an update expression.
    Update(Key, String),
    Delete(Key),
    /// Only the condition counts.
    Check(Key),
}

/// One change. In its expressions an attribute is written `#name`, a value `:name`.
#[derive(Clone, Debug)]
pub(super) struct Change {
    doing: Doing,
    condition: Option<String>,
    values: Item,
}

const ALL_OLD: ReturnValuesOnConditionCheckFailure = ReturnValuesOnConditionCheckFailure::AllOld;

impl Change {
    fn new(doing: Doing) -> Self {
        Self { doing, condition: None, values: Item::new() }
    }

    pub(super) fn put(item: Item) -> Self {
        Self::new(Doing::Put(item))
    }

    pub(super) fn update(key: Key, expression: impl Into<String>) -> Self {
        Self::new(Doing::Update(key, expression.into()))
    }

    pub(super) fn delete(key: Key) -> Self {
        Self::new(Doing::Delete(key))
    }

    pub(super) fn check(key: Key) -> Self {
        Self::new(Doing::Check(key))
    }

    pub(super) fn when(mut self, condition: impl Into<String>) -> Self {
        self.condition = Some(condition.into());
        self
    }

    /// What a value of the expressions is.
    pub(super) fn with(mut self, name: &str, value: AttributeValue) -> Self {
        self.values.insert(name.to_owned(), value);
        self
    }

    /// As one request.
    pub(super) async fn send(
        self,
        client: &aws_sdk_dynamodb::Client,
        table: &str,
    ) -> Result<Option<Item>, Failure> {
        let (names, values) = self.attributes();
        let Self { doing, condition, .. } = self;
        match doing {
            Doing::Put(item) => {
                let request = client.put_item().table_name(table).set_item(Some(item));
                let request =
                    request.set_condition_expression(condition).set_expression_attribute_names(names);
                let request = request.set_expression_attribute_values(values);
                let sent = request.return_values_on_condition_check_failure(ALL_OLD).send().await;
                sent.map(|_| None).map_err(failed)
            }
            Doing::Update(key, expression) => {
                let request = client.update_item().table_name(table).set_key(Some(key.item()));
                let request = request.update_expression(expression).set_condition_expression(condition);
                let request =
                    request.set_expression_attribute_names(names).set_expression_attribute_values(values);
                let request = request.return_values(aws_sdk_dynamodb::types::ReturnValue::AllNew);
                let sent = request.return_values_on_condition_check_failure(ALL_OLD).send().await;
                sent.map(|answer| answer.attributes).map_err(failed)
            }
            Doing::Delete(key) => {
                let request = client.delete_item().table_name(table).set_key(Some(key.item()));
                let request =
                    request.set_condition_expression(condition).set_expression_attribute_names(names);
                let request = request.set_expression_attribute_values(values);
                let sent = request.return_values_on_condition_check_failure(ALL_OLD).send().await;
                sent.map(|_| None).map_err(failed)
            }
            Doing::Check(_) => Ok(None),
        }
    }

    /// As part of a transaction.
    pub(super) fn part(self, table: &str) -> Result<TransactWriteItem, BuildError> {
        let (names, values) = self.attributes();
        let Self { doing, condition, .. } = self;
        let part = TransactWriteItem::builder();
        Ok(match doing {
            Doing::Put(item) => part.put(
                Put::builder()
                    .table_name(table)
                    .set_item(Some(item))
                    .set_condition_expression(condition)
                    .set_expression_attribute_names(names)
                    .set_expression_attribute_values(values)
                    .return_values_on_condition_check_failure(ALL_OLD)
                    .build()?,
            ),
            Doing::Update(key, expression) => part.update(
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
            Doing::Delete(key) => part.delete(
                Delete::builder()
                    .table_name(table)
                    .set_key(Some(key.item()))
                    .set_condition_expression(condition)
                    .set_expression_attribute_names(names)
                    .set_expression_attribute_values(values)
                    .return_values_on_condition_check_failure(ALL_OLD)
                    .build()?,
            ),
            Doing::Check(key) => part.condition_check(
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

    /// The names and values of the expressions; none rather than empty ones, which DynamoDB refuses.
    fn attributes(&self) -> (Option<HashMap<String, String>>, Option<Item>) {
        let update = match &self.doing {
            Doing::Update(_, expression) => expression.as_str(),
            Doing::Put(_) | Doing::Delete(_) | Doing::Check(_) => "",
        };
        let names = names([update, self.condition.as_deref().unwrap_or_default()]);
        (names, Some(self.values.clone()).filter(|values| !values.is_empty()))
    }
}

/// Every `#name` of expressions stands for the attribute of that name, whatever words DynamoDB reserves.
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
