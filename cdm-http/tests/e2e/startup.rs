//! Failing starts: their messages, and that nothing is printed or created before the server is certain to run.

use std::net::TcpListener;
use std::process::{Command, Output, Stdio};

use reqwest::{Method, StatusCode};
use serde_json::json;

use cdm_testkit::server::{ADMIN, QUICK, Server, command, directory};

fn run(command: &mut Command) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).output().expect("the server runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (status.code(), text(stdout), text(stderr))
}

/// A token that is shown once is not shown by a failing start.
#[test]
fn a_port_in_use_is_reported_before_a_token_is_printed() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let dir = directory();
    for variable in ["CDM_LISTEN", "CDM_ROUTER_LISTEN"] {
        let mut start = command(dir.path(), QUICK);
        let (code, out, err) = run(start.env_remove("CDM_ADMIN_TOKEN").env(variable, &address));
        assert_eq!((code, out.as_str()), (Some(1), ""), "{err}");
        assert!(err.contains(&address) && err.contains(&format!("({variable})")), "{err}");
    }
    let mut start = command(dir.path(), QUICK);
    let beyond = start.env_remove("CDM_ADMIN_TOKEN").env("CDM_LISTEN", "0.0.0.0:0");
    let (code, out, err) = run(beyond.env("CDM_ALLOW_PLAINTEXT", "true"));
    assert_eq!((code, out.as_str()), (Some(1), ""), "no token was printed: {err}");
    assert!(err.contains("set CDM_ADMIN_TOKEN"), "{err}");
}

#[test]
fn the_configuration_check_validates_the_log_filter_and_names_unknown_variables() {
    let dir = directory();
    for filter in ["cdm_http=loud", "verbose", "info,loud"] {
        let mut bad = command(dir.path(), QUICK);
        let (code, _, err) = run(bad.arg("--check-config").env("CDM_LOG", filter));
        assert_eq!(code, Some(1), "{filter}: {err}");
        assert!(err.contains("`CDM_LOG`"), "{filter}: {err}");
    }
    let mut good = command(dir.path(), QUICK);
    let unknown =
        [("CDM_LISTN", "127.0.0.1:1"), ("CDM_ALLOW_TAGS", "true"), ("CDM_SERVICE_HOST", "10.0.0.1")];
    let (code, out, err) = run(good.arg("--check-config").env("CDM_LOG", "").envs(unknown));
    assert_eq!((code, out.as_str()), (Some(0), "the configuration is valid\n"), "{err}");
    assert!(err.contains("`CDM_LISTN`") && err.contains("`CDM_ALLOW_TAGS`"), "{err}");
    assert!(!err.contains("CDM_SERVICE_HOST"), "{err}");
}

/// Asserts that every link of a page has the path prefix.
fn assert_links_are_below(page: &str) {
    for link in ["href", "action", "src", "hx-get", "hx-post", "hx-sse:connect"] {
        let wrong = page.split(&format!("{link}=\"/")).skip(1).find(|rest| !rest.starts_with("cdm/console/"));
        assert!(wrong.is_none(), "{link}: {wrong:?}");
    }
}

/// The console and the API below a path, with and without a proxy that strips it.
#[tokio::test]
async fn the_server_is_served_below_the_path_of_its_public_address() {
    let dir = directory();
    let server =
        Server::start_with(dir.path(), &format!("public_url = 'https://tools.example.com/cdm/'\n{QUICK}"));
    for path in ["/cdm/healthz", "/healthz"] {
        let response = server.ask_as(None, Method::GET, path, None).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
    }
    for path in ["/cdm/console/services", "/console/services"] {
        let response = server.ask_as(None, Method::GET, path, None).await;
        let location = response.headers()["location"].to_str().expect("text").to_owned();
        assert!(location.starts_with("/cdm/console/sign-in"), "{path}: {location}");
        let page = server.ask_as(None, Method::GET, &location, None).await.text().await.expect("a page");
        assert!(page.contains("action=\"/cdm/console/sign-in\""), "{page}");
        assert_links_are_below(&page);
        let style = page.split("href=\"").find(|part| part.contains("console.css")).expect("a style sheet");
        let style = style.split('"').next().expect("an address");
        let response = server.ask_as(None, Method::GET, style, None).await;
        assert_eq!(response.status(), StatusCode::OK, "{style}");
    }
    let site = json!({"id": "rrr", "name": "Roses", "theme": "plain", "hostnames": ["rrr.example.com"],
        "canonicalHostname": "rrr.example.com"});
    let made = server.ask_as(Some(ADMIN), Method::POST, "/cdm/sites/create", Some(&site)).await;
    assert_eq!(
        (made.status(), &made.headers()["location"]),
        (StatusCode::CREATED, &"/cdm/sites/rrr".parse().expect("a value"))
    );

    let ada = json!({"name": "ada", "role": "admin", "password": "correct horse battery"});
    let made = server.ask_as(Some(ADMIN), Method::POST, "/cdm/users", Some(&ada)).await;
    assert_eq!(made.status(), StatusCode::CREATED);
    let form = "name=ada&password=correct+horse+battery&next=%2Fconsole%2Fsites";
    let host = "tools.example.com";
    let request = server.client.post(format!("{}/cdm/console/sign-in", server.url)).header("host", host);
    let request = request.header("sec-fetch-site", "same-origin").body(form);
    let request = request.header("content-type", "application/x-www-form-urlencoded");
    let signed_in = request.send().await.expect("a response");
    assert_eq!(signed_in.headers()["location"], "/cdm/console/sites");
    let cookies = signed_in.headers().get_all("set-cookie").iter();
    let cookies: Vec<String> = cookies.map(|cookie| cookie.to_str().expect("text").to_owned()).collect();
    let session = cookies.iter().find(|cookie| cookie.starts_with("__Secure-cdm=")).expect("a session");
    assert!(
        cookies.iter().all(|cookie| cookie.contains("Path=/cdm;") || cookie.ends_with("Path=/cdm")),
        "{cookies:?}"
    );
    let pair = session.split(';').next().expect("a pair");
    for page in [
        "services",
        "sites",
        "sites/create",
        "sites/rrr",
        "sites/rrr/provision",
        "rollouts",
        "rollouts/start",
        "operations",
        "audit",
        "account",
        "services/green/deploy",
    ] {
        let request = server.client.get(format!("{}/cdm/console/{page}", server.url)).header("host", host);
        let response = request.header("cookie", pair).send().await.expect("a response");
        assert_eq!(response.status(), StatusCode::OK, "{page}");
        assert_links_are_below(&response.text().await.expect("a page"));
    }
}
