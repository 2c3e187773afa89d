//! A question before something is done: what will happen, to how much, and a form that does it.

use askama::Template;
use axum::http::StatusCode;
use axum::response::Response;

use super::guard::Visitor;
use super::page::{Section, View, page, rendered};
use super::shape;
use crate::app::Server;
use crate::error::Refusal;

/// What is asked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Question {
    pub(crate) title: String,
    /// What will happen.
    pub(crate) lines: Vec<String>,
    /// What speaks against it.
    pub(crate) warnings: Vec<String>,
    /// Further fields.
    pub(crate) fields: Vec<Field>,
    /// What the button says.
    pub(crate) button: String,
    /// Whether it cannot be undone.
    pub(crate) danger: bool,
    /// Where the form goes.
    pub(crate) action: String,
    /// Where else one may go.
    pub(crate) back: String,
    /// Why it was not taken the last time.
    pub(crate) problem: Option<String>,
}

/// A field of a form, and what is wrong with it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) label: String,
    pub(crate) hint: String,
    pub(crate) kind: FieldKind,
    pub(crate) value: String,
    pub(crate) problem: Option<String>,
    pub(crate) required: bool,
}

/// How a field is filled in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum FieldKind {
    #[default]
    Line,
    Code,
    /// Shown and sent as it is.
    Fixed,
    Lines,
    Number,
    Check,
    Choice(Vec<(String, String)>),
}

impl Field {
    /// What is wrong with the fields, beside each; what is wrong with no field is answered.
    pub(crate) fn blame(fields: &mut [Self], refusal: &Refusal) -> Option<String> {
        let mut found = false;
        for error in &refusal.problem.errors {
            for field in fields.iter_mut().filter(|field| error.field.starts_with(field.name)) {
                field.problem = Some(error.message.clone());
                found = true;
            }
        }
        (!found).then(|| refusal.problem.detail.clone())
    }
}

/// Whether a form is shown again for that, with what is wrong, rather than a page of its own.
pub(crate) fn mends(refusal: &Refusal) -> bool {
    matches!(refusal.status, StatusCode::UNPROCESSABLE_ENTITY | StatusCode::CONFLICT)
}

#[derive(Template)]
#[template(path = "confirm.html")]
struct Confirm<'a> {
    question: &'a Question,
    csrf: &'a str,
    key: String,
}

/// The question as a page.
pub(crate) fn asked(
    server: &Server,
    visitor: &Visitor,
    section: Section,
    status: StatusCode,
    question: &Question,
) -> Result<Response, Refusal> {
    let confirm = Confirm { question, csrf: &visitor.csrf, key: server.ids.key() };
    page(status, Some(visitor), &View::still(question.title.clone(), section, rendered(&confirm)?))
}

/// The same again with what was wrong; refusals that no other answer mends are pages of their own.
pub(crate) fn asked_again(
    server: &Server,
    visitor: &Visitor,
    section: Section,
    mut question: Question,
    refusal: Refusal,
) -> Result<Response, Refusal> {
    if !mends(&refusal) {
        return Err(refusal);
    }
    question.problem = Field::blame(&mut question.fields, &refusal);
    asked(server, visitor, section, refusal.status, &question)
}
