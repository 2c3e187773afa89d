//! One scenario that runs every command of `cdm`, and passes each to a callback that checks it.

use cdm_cli::{NamedService, headings};
use cdm_http::api::audit::AuditEntry;
use cdm_http::api::freeze::Freeze;
use cdm_http::api::health::Ready;
use cdm_http::api::operation::Operation;
use cdm_http::api::plan::Plan;
use cdm_http::api::rollout::Rollout;
use cdm_http::api::services::{Release, Selected, Services};
use cdm_http::api::site::Site;
use cdm_http::api::token::Token;
use cdm_http::api::user::User;
use cdm_http::api::webhook::Webhook;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::test_env::{TestEnv, image};

/// The kind of object that a command prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Site,
    Operation,
    Rollout,
    Plan,
    Freeze,
    Webhook,
    Token,
    User,
    Audit,
    Release,
    Services,
    Selection,
    Health,
    Done,
}

impl Shape {
    /// Asserts that a printed object is an object of the API, with the parts that a table shows.
    pub(crate) fn assert(self, json: &Value, name: &str) {
        fn parse<T: DeserializeOwned>(json: &Value, name: &str) -> T {
            serde_json::from_value(json.clone()).unwrap_or_else(|error| panic!("{name}: {error} in {json}"))
        }
        assert!(json.is_object(), "{name}: {json}");
        match self {
            Self::Site => drop(parse::<Site>(json, name)),
            Self::Operation => assert!(!parse::<Operation>(json, name).steps.is_empty(), "{name}: {json}"),
            Self::Rollout => assert!(!parse::<Rollout>(json, name).waves.is_empty(), "{name}: {json}"),
            Self::Plan => assert!(!parse::<Plan>(json, name).waves.is_empty(), "{name}: {json}"),
            Self::Freeze => drop(parse::<Freeze>(json, name)),
            Self::Webhook => drop(parse::<Webhook>(json, name)),
            Self::Token => drop(parse::<Token>(json, name)),
            Self::User => drop(parse::<User>(json, name)),
            Self::Audit => drop(parse::<AuditEntry>(json, name)),
            Self::Release => drop(parse::<Release>(json, name)),
            Self::Services => assert_eq!(parse::<Services>(json, name).services.len(), 2, "{name}: {json}"),
            Self::Selection => drop(parse::<Selected>(json, name)),
            Self::Health => {
                let ready = serde_json::json!({ "status": json["server"], "backends": json["backends"] });
                assert!(!parse::<Ready>(&ready, name).backends.is_empty(), "{name}: {json}");
            }
            Self::Done => {}
        }
    }

    /// Returns the headings of the list; none for an object that is never in a list.
    pub(crate) fn headings(self) -> Vec<&'static str> {
        match self {
            Self::Site => headings::<Site>(),
            Self::Operation => headings::<Operation>(),
            Self::Rollout => headings::<Rollout>(),
            Self::Freeze => headings::<Freeze>(),
            Self::Webhook => headings::<Webhook>(),
            Self::Token => headings::<Token>(),
            Self::User => headings::<User>(),
            Self::Audit => headings::<AuditEntry>(),
            Self::Release => headings::<Release>(),
            Self::Services => headings::<NamedService>(),
            Self::Plan | Self::Selection | Self::Health | Self::Done => Vec::new(),
        }
    }
}

/// What a command prints.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Printed {
    /// One object.
    One(Shape),
    /// A list.
    Many(Shape),
    /// Text for another program, independent of the format.
    Script,
}

/// Callback that runs and checks a command, given its name, its words, and what it prints.
pub(crate) type Check<'a> = &'a mut dyn FnMut(&str, &[&str], Printed);

use Printed::{Many, One};

/// Runs the scenario. Each command must exit with 0.
pub(crate) fn run(env: &TestEnv, check: Check<'_>) {
    a_site(env, check);
    images(env, check);
    fleets(env, check);
    stuck(env, check);
    platform(env, check);
    check("site delete", &["site", "delete", "shop", "--confirm", "shop"], One(Shape::Operation));
}

fn a_site(env: &TestEnv, check: Check<'_>) {
    let create = ["site", "create", "shop", "--theme", "plain", "--hostname", "shop.example.com"];
    check("site create", &create, One(Shape::Site));
    check("site list", &["site", "list"], Many(Shape::Site));
    check("site get", &["site", "get", "shop"], One(Shape::Site));
    check("site provision", &["site", "provision", "shop"], One(Shape::Operation));
    check("op list", &["op", "list", "--site", "shop"], Many(Shape::Operation));
    let provision = newest(env, &["op", "list", "--kind", "provision"]);
    check("op get", &["op", "get", &provision], One(Shape::Operation));
    check("op watch", &["op", "watch", &provision], One(Shape::Operation));
    check("op log", &["op", "log", &provision, "Install"], One(Shape::Done));
    check("services select", &["services", "select", "green"], One(Shape::Selection));
    check("site upgrade", &["site", "upgrade", "shop"], One(Shape::Operation));
    check("site promote", &["site", "promote", "shop"], One(Shape::Operation));
}

fn images(_: &TestEnv, check: Check<'_>) {
    let (a, b) = (image('a'), image('b'));
    check("services show", &["services", "show"], One(Shape::Services));
    check("services deploy", &["services", "deploy", &a], One(Shape::Operation));
    check("services deploy", &["services", "deploy", &b], One(Shape::Operation));
    let mark = ["services", "mark", &a, "healthy", "--reason", "tested"];
    check("services mark", &mark, Many(Shape::Release));
    check("services rollback", &["services", "rollback"], One(Shape::Operation));
    check("services history", &["services", "history", "green"], Many(Shape::Release));
}

fn fleets(env: &TestEnv, check: Check<'_>) {
    let plan = ["services", "rollout", "--promote", "--scope", "all", "--dry-run"];
    check("services rollout", &plan, One(Shape::Plan));
    let rollout = ["services", "rollout", "--promote", "--scope", "all"];
    check("services rollout", &rollout, One(Shape::Rollout));
    check("rollout list", &["rollout", "list"], Many(Shape::Rollout));
    let id = newest(env, &["rollout", "list"]);
    check("rollout get", &["rollout", "get", &id], One(Shape::Rollout));
    check("rollout watch", &["rollout", "watch", &id], One(Shape::Rollout));
}

/// A rollout that waits for an image that never becomes ready.
fn stuck(env: &TestEnv, check: Check<'_>) {
    let stuck = image('c');
    env.never_ready(&stuck);
    let start = ["services", "rollout", "--image", &stuck, "--promote", "--scope", "all", "--no-wait"];
    let rollout = env.json(&start)["id"].as_str().expect("an id").to_owned();
    check("rollout pause", &["rollout", "pause", &rollout], One(Shape::Rollout));
    check("rollout resume", &["rollout", "resume", &rollout, "--no-wait"], One(Shape::Rollout));
    check("rollout abort", &["rollout", "abort", &rollout], One(Shape::Rollout));
    let deploy = newest(env, &["op", "list", "--kind", "deploy"]);
    check("op cancel", &["op", "cancel", &deploy], One(Shape::Operation));
    check("op retry", &["op", "retry", &deploy, "--no-wait"], One(Shape::Operation));
    let again = newest(env, &["op", "list", "--kind", "deploy"]);
    assert_ne!(again, deploy);
    check("op cancel", &["op", "cancel", &again], One(Shape::Operation));
    check("rollout retry", &["rollout", "retry", &rollout, "--no-wait"], One(Shape::Rollout));
    let rollout = newest(env, &["rollout", "list"]);
    check("rollout abort", &["rollout", "abort", &rollout], One(Shape::Rollout));
    let deploy = newest(env, &["op", "list", "--kind", "deploy"]);
    env.run(&["op", "cancel", &deploy]);
}

fn platform(env: &TestEnv, check: Check<'_>) {
    let freeze = ["freeze", "create", "--reason", "a launch", "--sites", "shop", "--for", "1h"];
    check("freeze create", &freeze, One(Shape::Freeze));
    check("freeze list", &["freeze", "list"], Many(Shape::Freeze));
    let freeze = newest(env, &["freeze", "list"]);
    check("freeze remove", &["freeze", "remove", &freeze], One(Shape::Done));
    let create = ["webhook", "create", "https://hooks.example.com/cdm", "--events", "rollout.halted"];
    check("webhook create", &create, One(Shape::Webhook));
    check("webhook list", &["webhook", "list"], Many(Shape::Webhook));
    let webhook = newest(env, &["webhook", "list"]);
    check("webhook remove", &["webhook", "remove", &webhook], One(Shape::Done));
    let create = ["token", "create", "ci", "--role", "viewer", "--expires-in", "1h"];
    check("token create", &create, One(Shape::Token));
    check("token list", &["token", "list"], Many(Shape::Token));
    let tokens = env.json(&["token", "list"]);
    let token = tokens["items"].as_array().expect("a list").iter().find(|token| token["name"] == "ci");
    let token = token.expect("the new token")["id"].as_str().expect("an id").to_owned();
    check("token revoke", &["token", "revoke", &token], One(Shape::Token));
    let password = env.home().join("password");
    std::fs::write(&password, "correct horse battery\n").expect("a file");
    let password = ["--password-file", password.to_str().expect("a path")];
    let create = [["user", "create"], ["ada", "--role=viewer"], password].concat();
    check("user create", &create, One(Shape::User));
    check("user list", &["user", "list"], Many(Shape::User));
    check("user role", &["user", "role", "ada", "operator"], One(Shape::User));
    check(
        "user set-password",
        &[["user", "set-password"], ["ada", "-q"], password].concat(),
        One(Shape::User),
    );
    // The former name of the command is a hidden alias.
    env.run(&[["user", "passwd"], ["ada", "-q"], password].concat()).ends(0);
    check("user sign-out", &["user", "sign-out", "ada"], One(Shape::User));
    let reset = ["user", "reset-second-factor", "ada"];
    check("user reset-second-factor", &reset, One(Shape::User));
    check("user unbind", &["user", "unbind", "ada"], One(Shape::User));
    check("user remove", &["user", "remove", "ada"], One(Shape::User));
    check("audit", &["audit"], Many(Shape::Audit));
    check("doctor", &["doctor"], One(Shape::Health));
    let (data, pages) = (env.data().display().to_string(), env.home().join("man").display().to_string());
    let declare = ["local", "image", &image('d'), "--failing", "--data-dir", &data];
    check("local image", &declare, One(Shape::Done));
    check("man", &["man", "--dir", &pages], One(Shape::Done));
    check("completion", &["completion", "bash"], Printed::Script);
}

/// Returns the id of the first item of a list.
pub(crate) fn newest(env: &TestEnv, words: &[&str]) -> String {
    env.json(words)["items"][0]["id"].as_str().expect("at least one").to_owned()
}
