//! The confirmation page of an action: the effect of the action, and the form that requests it.

use askama::Template;
use axum::http::StatusCode;
use axum::response::Response;

use super::format;
use super::page::{Section, View, page, render};
use super::session::CurrentUser;
use crate::app::AppState;
use crate::error::ApiError;

/// The content of a confirmation page.
#[derive(Clone, Debug, Default)]
pub(crate) struct Confirmation {
    pub(crate) title: String,
    /// Paragraphs that state the effect of the action.
    pub(crate) lines: Vec<String>,
    /// Reasons not to request the action now, such as a freeze.
    pub(crate) warnings: Vec<String>,
    /// Input fields, in addition to the hidden ones.
    pub(crate) fields: Vec<Field>,
    /// The label of the button; the page has no button if the label is empty.
    pub(crate) button: String,
    /// Whether the action cannot be undone.
    pub(crate) danger: bool,
    /// The URL to which the form is posted.
    pub(crate) action: String,
    /// The URL of the link `Back`.
    pub(crate) back: String,
    /// The error of the previous attempt, unless it belongs to a field.
    pub(crate) problem: Option<String>,
}

/// A field of a form, with the error of the previous attempt.
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

/// The input control of a field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum FieldKind {
    #[default]
    Line,
    Code,
    /// Read-only text, which is sent with the form.
    Fixed,
    Lines,
    Number,
    Check,
    /// A selection among pairs of value and label.
    Choice(Vec<(String, String)>),
}

impl Field {
    /// Sets the error of each field that the API error names. Returns the error's detail if it names no field of the
    /// form.
    pub(crate) fn assign_errors(fields: &mut [Self], error: &ApiError) -> Option<String> {
        let mut found = false;
        for field_error in &error.problem.errors {
            for field in fields.iter_mut().filter(|field| field_error.field.starts_with(field.name)) {
                field.problem = Some(field_error.message.clone());
                found = true;
            }
        }
        (!found).then(|| error.problem.detail.clone())
    }
}

/// Returns whether other input or a second attempt can resolve the error, so the form is shown again instead of an
/// error page.
pub(crate) fn is_correctable(error: &ApiError) -> bool {
    matches!(error.status, StatusCode::UNPROCESSABLE_ENTITY | StatusCode::CONFLICT)
}

#[derive(Template)]
#[template(path = "confirm.html")]
struct Confirm<'a> {
    confirmation: &'a Confirmation,
    csrf: &'a str,
    key: String,
}

/// Renders a confirmation page.
pub(crate) fn confirmation_page(
    server: &AppState,
    current_user: &CurrentUser,
    section: Section,
    status: StatusCode,
    confirmation: &Confirmation,
) -> Result<Response, ApiError> {
    let confirm = Confirm { confirmation, csrf: &current_user.csrf, key: server.request_ids.form_key() };
    page(status, Some(current_user), &View::fixed(confirmation.title.clone(), section, render(&confirm)?))
}

/// Renders a confirmation page again with the error of the request.
///
/// # Errors
/// The error itself, if the user cannot correct it; it becomes an error page.
pub(crate) fn confirmation_error(
    server: &AppState,
    current_user: &CurrentUser,
    section: Section,
    mut confirmation: Confirmation,
    error: ApiError,
) -> Result<Response, ApiError> {
    if !is_correctable(&error) {
        return Err(error);
    }
    confirmation.problem = Field::assign_errors(&mut confirmation.fields, &error);
    confirmation_page(server, current_user, section, error.status, &confirmation)
}
