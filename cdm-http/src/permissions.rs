//! The table of routes with the action that each route requests. [`Action::role`] defines the role of an action. The
//! routers, the OpenAPI document and the tests use this table, and a route without an entry rejects every request.

use cdm_core::domain::Role;
use cdm_core::manager::Action;

/// A route and the action that it requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The HTTP method, in upper case.
    pub method: &'static str,
    /// The path; a segment in braces matches any text.
    pub path: &'static str,
    /// The requested action; `None` for a route without authentication.
    pub action: Option<Action>,
}

impl Route {
    const fn new(method: &'static str, path: &'static str, action: Action) -> Self {
        Self { method, path, action: Some(action) }
    }

    const fn open(method: &'static str, path: &'static str) -> Self {
        Self { method, path, action: None }
    }

    /// Returns the lowest role that may call the route; `None` for a route without authentication. For some stored objects
    /// a higher role is needed: see [`Action::role_on`].
    pub fn role(&self) -> Option<Role> {
        self.action.map(Action::role)
    }

    /// Returns the route of a request: the first route that matches.
    pub fn of(method: &str, path: &str) -> Option<&'static Self> {
        // HEAD uses the route of GET.
        let method = if method == "HEAD" { "GET" } else { method };
        ROUTES.iter().find(|route| route.method == method && matches_path(route.path, path))
    }

    /// Returns the target of a request: the text of the first segment in braces, or the path without one.
    pub(crate) fn target<'a>(&self, path: &'a str) -> &'a str {
        let parts = self.path.split('/').zip(path.split('/'));
        let parameters = parts.filter(|(pattern, _)| pattern.starts_with('{')).map(|(_, part)| part);
        parameters.into_iter().next().unwrap_or(path)
    }
}

pub(crate) fn matches_path(pattern: &str, path: &str) -> bool {
    let mut parts = path.split('/');
    for expected in pattern.split('/') {
        if expected.starts_with("{*") {
            return parts.next().is_some();
        }
        let Some(part) = parts.next() else { return false };
        if part != expected && !expected.starts_with('{') {
            return false;
        }
    }
    parts.next().is_none()
}

/// All routes of the API and the console.
pub const ROUTES: &[Route] = &[
    // The server itself.
    Route::open("GET", "/healthz"),
    Route::open("GET", "/readyz"),
    Route::open("GET", "/openapi.json"),
    Route::new("GET", "/metrics", Action::Read),
    // Sites.
    Route::new("POST", "/sites/create", Action::CreateSite),
    Route::new("GET", "/sites", Action::Read),
    Route::new("GET", "/sites/{id}", Action::Read),
    Route::new("DELETE", "/sites/{id}", Action::Terminate),
    Route::new("POST", "/sites/{id}/provision", Action::Provision),
    Route::new("PUT", "/sites/{id}/upgrade", Action::Upgrade),
    Route::new("PUT", "/sites/{id}/promote", Action::Promote),
    // Services.
    Route::new("GET", "/services", Action::Read),
    // Selects or deploys; both need the same role.
    Route::new("POST", "/services", Action::Deploy),
    // With an image in the body, the action is `StartRolloutWithImage`.
    Route::new("PUT", "/services", Action::StartRollout),
    Route::new("POST", "/services/rollback", Action::RollBack),
    Route::new("GET", "/services/{selector}/history", Action::Read),
    Route::new("POST", "/services/history/{digest}", Action::Mark),
    // Operations.
    Route::new("GET", "/operations", Action::Read),
    Route::new("GET", "/operations/{id}", Action::Read),
    Route::new("GET", "/operations/{id}/steps/{name}/log", Action::Read),
    Route::new("GET", "/operations/{id}/events", Action::Read),
    Route::new("POST", "/operations/{id}/retry", Action::RetryOperation),
    Route::new("POST", "/operations/{id}/cancel", Action::CancelOperation),
    // Rollouts.
    Route::new("GET", "/rollouts", Action::Read),
    Route::new("GET", "/rollouts/{id}", Action::Read),
    Route::new("GET", "/rollouts/{id}/events", Action::Read),
    Route::new("POST", "/rollouts/{id}/pause", Action::PauseRollout),
    Route::new("POST", "/rollouts/{id}/resume", Action::ResumeRollout),
    Route::new("POST", "/rollouts/{id}/abort", Action::AbortRollout),
    Route::new("POST", "/rollouts/{id}/retry", Action::RetryRollout),
    // Events and the audit log.
    Route::new("GET", "/events", Action::Read),
    Route::new("GET", "/audit", Action::Read),
    // Freezes.
    Route::new("GET", "/freezes", Action::Read),
    Route::new("POST", "/freezes", Action::CreateFreeze),
    Route::new("DELETE", "/freezes/{id}", Action::RemoveFreeze),
    // Webhooks.
    Route::new("GET", "/webhooks", Action::ReadWebhooks),
    Route::new("POST", "/webhooks", Action::CreateWebhook),
    Route::new("DELETE", "/webhooks/{id}", Action::RemoveWebhook),
    // Tokens.
    Route::new("GET", "/tokens", Action::ReadTokens),
    Route::new("POST", "/tokens", Action::CreateToken),
    Route::new("DELETE", "/tokens/{id}", Action::RevokeToken),
    // Users.
    Route::new("GET", "/users", Action::ReadUsers),
    Route::new("POST", "/users", Action::CreateUser),
    Route::new("PUT", "/users/{name}", Action::ChangeUser),
    Route::new("DELETE", "/users/{name}", Action::RemoveUser),
    Route::new("DELETE", "/users/{name}/sessions", Action::EndSessions),
    // The console, without a session.
    Route::open("GET", "/"),
    Route::open("GET", "/console/assets/{path}"),
    Route::open("GET", "/console/sign-in"),
    Route::open("POST", "/console/sign-in"),
    Route::open("POST", "/console/sign-in/code"),
    Route::open("GET", "/console/setup/{code}"),
    Route::open("POST", "/console/setup/{code}"),
    Route::open("GET", "/console/oidc/begin"),
    Route::open("GET", "/console/oidc/callback"),
    // The console: the user's own account.
    Route::new("GET", "/console/account", Action::Read),
    Route::new("POST", "/console/account/password", Action::ChangeOwnPassword),
    Route::new("GET", "/console/account/second-factor", Action::Read),
    Route::new("POST", "/console/account/second-factor", Action::EnrollSecondFactor),
    Route::new("POST", "/console/account/second-factor/remove", Action::RemoveOwnSecondFactor),
    Route::new("POST", "/console/account/sessions/{id}/end", Action::EndOwnSessions),
    Route::new("POST", "/console/sign-out", Action::EndOwnSessions),
    // The console: services.
    Route::new("GET", "/console", Action::Read),
    Route::new("GET", "/console/services", Action::Read),
    Route::new("GET", "/console/services/{selector}/select", Action::Select),
    Route::new("POST", "/console/services/{selector}/select", Action::Select),
    Route::new("GET", "/console/services/{selector}/deploy", Action::Deploy),
    Route::new("POST", "/console/services/{selector}/deploy", Action::Deploy),
    Route::new("GET", "/console/services/{selector}/rollback", Action::RollBack),
    Route::new("POST", "/console/services/{selector}/rollback", Action::RollBack),
    Route::new("GET", "/console/services/{selector}/mark/{digest}", Action::Mark),
    Route::new("POST", "/console/services/{selector}/mark/{digest}", Action::Mark),
    // The console: sites.
    Route::new("GET", "/console/sites", Action::Read),
    Route::new("GET", "/console/sites/create", Action::CreateSite),
    Route::new("POST", "/console/sites/create", Action::CreateSite),
    Route::new("GET", "/console/sites/{id}", Action::Read),
    Route::new("GET", "/console/sites/{id}/provision", Action::Provision),
    Route::new("POST", "/console/sites/{id}/provision", Action::Provision),
    Route::new("GET", "/console/sites/{id}/promote", Action::Promote),
    Route::new("POST", "/console/sites/{id}/promote", Action::Promote),
    Route::new("GET", "/console/sites/{id}/upgrade", Action::Upgrade),
    Route::new("POST", "/console/sites/{id}/upgrade", Action::Upgrade),
    Route::new("GET", "/console/sites/{id}/terminate", Action::Terminate),
    Route::new("POST", "/console/sites/{id}/terminate", Action::Terminate),
    // The console: rollouts.
    Route::new("GET", "/console/rollouts", Action::Read),
    Route::new("GET", "/console/rollouts/start", Action::StartRollout),
    Route::new("POST", "/console/rollouts/start", Action::StartRollout),
    Route::new("GET", "/console/rollouts/{id}", Action::Read),
    Route::new("POST", "/console/rollouts/{id}/pause", Action::PauseRollout),
    Route::new("GET", "/console/rollouts/{id}/resume", Action::ResumeRollout),
    Route::new("POST", "/console/rollouts/{id}/resume", Action::ResumeRollout),
    Route::new("GET", "/console/rollouts/{id}/abort", Action::AbortRollout),
    Route::new("POST", "/console/rollouts/{id}/abort", Action::AbortRollout),
    Route::new("POST", "/console/rollouts/{id}/retry", Action::RetryRollout),
    // The console: operations and the audit log.
    Route::new("GET", "/console/operations", Action::Read),
    Route::new("GET", "/console/operations/{id}", Action::Read),
    Route::new("GET", "/console/operations/{id}/steps/{step}", Action::Read),
    Route::new("POST", "/console/operations/{id}/retry", Action::RetryOperation),
    Route::new("GET", "/console/operations/{id}/cancel", Action::CancelOperation),
    Route::new("POST", "/console/operations/{id}/cancel", Action::CancelOperation),
    Route::new("GET", "/console/audit", Action::Read),
    // Unknown pages and forms return `not_found` to signed-in users.
    Route::new("GET", "/console/{*rest}", Action::Read),
    Route::new("POST", "/console/{*rest}", Action::Read),
];

/// Returns the printable characters of a path segment, at most 100, for the audit log.
pub(crate) fn printable(part: &str) -> String {
    part.chars().filter(|character| character.is_ascii_graphic()).take(100).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_the_first_matching_route() {
        for (method, path, action) in [
            ("GET", "/sites/rrr", Some(Action::Read)),
            ("HEAD", "/sites/rrr", Some(Action::Read)),
            ("DELETE", "/sites/rrr", Some(Action::Terminate)),
            ("GET", "/console/sites/create", Some(Action::CreateSite)),
            ("GET", "/console/sites/rrr/terminate", Some(Action::Terminate)),
            ("GET", "/console/nothing/like/that", Some(Action::Read)),
        ] {
            assert_eq!(Route::of(method, path).and_then(|route| route.action), action, "{method} {path}");
        }
        for (method, path) in
            [("GET", "/nope"), ("PATCH", "/sites"), ("GET", "/sites/rrr/"), ("GET", "sites")]
        {
            assert_eq!(Route::of(method, path), None, "{method} {path}");
        }
    }

    #[test]
    fn a_route_has_one_entry() {
        for (at, route) in ROUTES.iter().enumerate() {
            let same = |other: &&Route| (other.method, other.path) == (route.method, route.path);
            assert_eq!(
                ROUTES.iter().position(|other| same(&other)),
                Some(at),
                "{} {}",
                route.method,
                route.path
            );
        }
    }

    #[test]
    fn the_target_is_the_first_path_parameter() {
        let target = |method, path| Route::of(method, path).map(|route| route.target(path));
        assert_eq!(target("DELETE", "/sites/rrr"), Some("rrr"));
        assert_eq!(target("POST", "/operations/op-1-fleet/retry"), Some("op-1-fleet"));
        assert_eq!(target("POST", "/sites/create"), Some("/sites/create"));
    }
}
