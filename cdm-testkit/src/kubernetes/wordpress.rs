//! Containers that behave like `wp` in an image of the tenant contract: strict about options, without output of
//! secrets, and with one site per database.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::containers::{Container, Containers, Exit};
use crate::installation::{InstallResult, Installation};

/// The global options of `wp`, and whether they have a value.
const GLOBAL: &[(&str, Value)] = &[
    ("url", Value::Required),
    ("path", Value::Required),
    ("require", Value::Required),
    ("allow-root", Value::None),
    ("quiet", Value::None),
    ("no-color", Value::None),
    ("skip-plugins", Value::None),
    ("skip-themes", Value::None),
    ("skip-packages", Value::None),
];
/// Options that run code or connect elsewhere. Injecting one of them would allow arbitrary code.
const FORBIDDEN: &[&str] = &["exec", "ssh", "http", "prompt", "user", "context"];
/// The only file that may be loaded before WordPress.
const PRELUDE: &str = "/run/cdm/wp-cli.php";
/// The theme of a new installation.
const FIRST_THEME: &str = "twentytwentyfive";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value {
    None,
    Required,
}

/// Sites by database, and the themes of the image.
#[derive(Debug, Default)]
pub struct WordPress {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    sites: BTreeMap<String, Site>,
    themes: BTreeSet<String>,
    violations: Vec<String>,
    down: bool,
    /// Numbers of writes after which the next installations are interrupted.
    interrupts: VecDeque<usize>,
    /// Whether the image's own code ends each command before it did anything, without an error.
    quits: bool,
    /// Directory of WordPress, if it is not the working directory.
    path: Option<String>,
    /// Number of HTTP requests by installations to their own hostname.
    requests: usize,
}

/// The WordPress installation in one database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Site {
    /// Address of the site.
    pub home: String,
    /// Title of the site.
    pub title: String,
    /// User name of the administrator.
    pub user: String,
    /// Email address of the administrator.
    pub email: String,
    /// The active theme.
    pub theme: String,
    /// Number of installations; more than one is an error.
    pub installations: usize,
    /// Number of cache flushes.
    pub flushes: usize,
    /// Progress of the installation.
    pub contents: Installation,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("sites", &self.sites)
            .field("violations", &self.violations)
            .finish_non_exhaustive()
    }
}

/// A parsed command: words and options.
struct Command<'a> {
    words: Vec<&'a str>,
    options: BTreeMap<&'a str, &'a str>,
}

impl WordPress {
    /// Creates an image with these themes in addition to the default theme.
    pub fn with_themes(themes: &[&str]) -> Self {
        let wordpress = Self::default();
        wordpress.lock().themes.extend(themes.iter().map(|theme| (*theme).to_owned()));
        wordpress
    }

    /// Returns the site in a database.
    pub fn site(&self, database: &str) -> Option<Site> {
        self.lock().sites.get(database).cloned()
    }

    /// Returns the number of sites.
    pub fn sites(&self) -> usize {
        self.lock().sites.len()
    }

    /// Returns violations of the contract, such as a visible secret or an option that runs code. The texts
    /// never contain the secret.
    pub fn violations(&self) -> Vec<String> {
        self.lock().violations.clone()
    }

    /// Makes the databases unreachable, or reachable again.
    pub fn set_databases(&self, availability: Availability) {
        self.lock().down = availability == Availability::Down;
    }

    /// Interrupts the next installations after these numbers of writes; see
    /// [`crate::installation::Installation`].
    pub fn interrupt_installs(&self, interrupts: impl IntoIterator<Item = usize>) {
        self.lock().interrupts.extend(interrupts);
    }

    /// Removes the site of a database, as if the database had been created again.
    pub fn renew(&self, database: &str) {
        self.lock().sites.remove(database);
    }

    /// Makes the image's own code, such as `wp-config.php`, end each command immediately and without an error.
    pub fn quit_early(&self) {
        self.lock().quits = true;
    }

    /// Moves WordPress to this directory, which is not the working directory.
    pub fn put_at(&self, path: &str) {
        self.lock().path = Some(path.to_owned());
    }

    /// Returns the number of HTTP requests by installations to their own hostnames.
    pub fn requests(&self) -> usize {
        self.lock().requests
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the databases are reachable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Availability {
    /// `wp` can connect to the databases.
    Up,
    /// `wp` cannot connect to the databases.
    Down,
}

impl Containers for WordPress {
    fn run(&self, container: &Container) -> Exit {
        let mut state = self.lock();
        if let Some(violation) = violation(container) {
            let text = format!("{}: {violation}", container.pod);
            state.violations.push(text);
            return error(&violation);
        }
        match state.wp(container) {
            // The prelude writes this output as the container's termination message.
            Ok(log) if log == FLUSHED && is_loaded(container) => {
                Exit { message: log.clone(), ..Exit::success(log) }
            }
            Ok(log) => Exit::success(log),
            Err(exit) => exit,
        }
    }
}

const FLUSHED: &str = "Success: The cache was flushed.\n";

/// Returns whether the prelude is loaded.
fn is_loaded(container: &Container) -> bool {
    container.argv.iter().any(|argument| argument.strip_prefix("--require=") == Some(PRELUDE))
}

fn error(message: &str) -> Exit {
    Exit::failure(1, format!("Error: {message}\n"))
}

/// Returns the credentials that a container received as files.
fn secrets(container: &Container) -> Vec<&str> {
    let password = container.setting("WORDPRESS_DB_PASSWORD");
    let files = container.files.iter().filter(|(path, _)| path.ends_with(".yml") || path.ends_with(".yaml"));
    let lines = files.flat_map(|(_, text)| text.lines());
    let of_files = lines.filter_map(|line| line.trim().strip_prefix("admin_password:"));
    let of_files = of_files.map(|value| value.trim().trim_matches(['"', '\'']));
    password.into_iter().chain(of_files).filter(|secret| !secret.is_empty()).collect()
}

/// Returns a violation of the contract, without the secret that it is about.
fn violation(container: &Container) -> Option<String> {
    for secret in secrets(container) {
        if container.argv.iter().any(|argument| argument.contains(secret)) {
            return Some("a credential is in the arguments".to_owned());
        }
        if let Some((name, _)) = container.env.iter().find(|(_, value)| value.contains(secret)) {
            return Some(format!("a credential is in the variable {name}"));
        }
        if container.annotations.values().chain(container.labels.values()).any(|value| value.contains(secret))
        {
            return Some("a credential is in the pod's metadata".to_owned());
        }
    }
    let program = container.argv.first().map(String::as_str).unwrap_or_default();
    let named = program.rsplit('/').next().unwrap_or_default();
    if named != "wp" {
        return Some(format!("{program:?} is started instead of wp"));
    }
    for argument in container.argv.iter().skip(1) {
        let option = argument.strip_prefix("--").map(|option| option.split('=').next().unwrap_or_default());
        if let Some(option) = option.filter(|option| FORBIDDEN.contains(option)) {
            return Some(format!("the option --{option} is used"));
        }
        if argument.strip_prefix("--require=").is_some_and(|path| path != PRELUDE) {
            return Some("a file other than the job's own is loaded".to_owned());
        }
        if option == Some("admin_password") {
            return Some("the option --admin_password is used".to_owned());
        }
        if argument.starts_with('@') {
            return Some("an alias is used".to_owned());
        }
    }
    None
}

impl State {
    fn wp(&mut self, container: &Container) -> Result<String, Exit> {
        let mut command = Command::parse(&container.argv)?;
        if is_loaded(container) && !container.files.contains_key(PRELUDE) {
            return Err(error("Required file 'wp-cli.php' doesn't exist (from runtime argument)."));
        }
        if self.path.as_deref().is_some_and(|path| command.options.get("path") != Some(&path)) {
            return Err(error("This does not seem to be a WordPress installation."));
        }
        if self.quits {
            let message = "Error: the command ended before it did its work\n";
            return if is_loaded(container) { Err(Exit::failure(3, message)) } else { Ok(String::new()) };
        }
        let configuration = configuration(container)?;
        let of_file = configuration.get("url").and_then(serde_json::Value::as_str);
        if let Some(url) = of_file {
            command.options.entry("url").or_insert(url);
        }
        let words: Vec<&str> = command.words.clone();
        let plain: &[(&str, Value)] = &[];
        match words.as_slice() {
            ["core", "is-installed"] => {
                command.check_options(plain)?;
                // Like the real command: no output, and exit code 1 also if the database does not respond.
                let database = self.database(container)?;
                self.site(&database, &command).map(|_| String::new()).map_err(|_| Exit::failure(1, ""))
            }
            ["user", "get", login] => {
                command.check_options(&[("field", Value::Required)])?;
                let database = self.database(container)?;
                let site = self.site(&database, &command)?;
                let roles = site.contents.roles().filter(|_| site.user == *login);
                let none = || error(&format!("Invalid user ID, email or login: '{login}'"));
                roles.map(|roles| format!("{roles}\n")).ok_or_else(none)
            }
            ["core", "install"] => self.install(container, &command, &configuration),
            ["theme", "activate", theme] => {
                command.check_options(plain)?;
                let database = self.database(container)?;
                let existing = *theme == FIRST_THEME || self.themes.contains(*theme);
                let site = self.site(&database, &command)?;
                if !existing {
                    return Err(error(&format!("The '{theme}' theme could not be found.")));
                }
                if site.theme == *theme {
                    return Ok(format!("Warning: The '{theme}' theme is already active.\n"));
                }
                site.theme = (*theme).to_owned();
                Ok(format!("Success: Switched to '{theme}' theme.\n"))
            }
            ["theme", "is-installed" | "is-active", theme] => {
                command.check_options(plain)?;
                let database = self.database(container)?;
                let installed = *theme == FIRST_THEME || self.themes.contains(*theme);
                let site = self.site(&database, &command)?;
                let holds = if words[1] == "is-active" { site.theme == *theme } else { installed };
                if holds { Ok(String::new()) } else { Err(Exit::failure(1, "")) }
            }
            ["cache", "flush"] => {
                command.check_options(plain)?;
                let database = self.database_by_url(container, &command)?;
                self.site(&database, &command)?.flushes += 1;
                Ok(FLUSHED.to_owned())
            }
            ["option", "get", name] => {
                command.check_options(plain)?;
                let database = self.database(container)?;
                let site = self.site(&database, &command)?;
                let value = match *name {
                    "home" | "siteurl" => site.home.as_str(),
                    "blogname" => &site.title,
                    "admin_email" => &site.email,
                    "stylesheet" | "template" => &site.theme,
                    "cdm_installed" if site.contents.is_complete() => "complete",
                    _ => return Err(error(&format!("Could not get '{name}' option. Does it exist?"))),
                };
                Ok(format!("{value}\n"))
            }
            words => Err(error(&format!("'{}' is not a registered wp command.", words.join(" ")))),
        }
    }

    fn install(
        &mut self,
        container: &Container,
        command: &Command<'_>,
        configuration: &serde_json::Value,
    ) -> Result<String, Exit> {
        let needed = ["title", "admin_user", "admin_email"];
        let mut known = needed.map(|name| (name, Value::Required)).to_vec();
        known.extend([("skip-email", Value::None), ("locale", Value::Required)]);
        command.check_options(&known)?;
        let option = |name: &'static str| {
            let value = command.options.get(name).filter(|value| !value.is_empty());
            value.ok_or_else(|| error(&format!("Parameter errors:\n missing --{name} parameter")))
        };
        let home = option("url")?.trim_end_matches('/').to_owned();
        let [title, user, email] = [option(needed[0])?, option(needed[1])?, option(needed[2])?];
        if cdm_core::domain::administrator::judge_email(email).is_err() {
            return Err(error(&format!("The '{email}' email address is invalid.")));
        }
        let database = self.database(container)?;
        let password =
            configuration.pointer("/core install/admin_password").and_then(serde_json::Value::as_str);
        if password.is_none_or(str::is_empty) {
            // The real command generates a password and prints it, which would put it into the log.
            let text = format!("{}: core install without a password prints one", container.pod);
            self.violations.push(text);
            return Err(error("core install without a password prints one"));
        }
        if !command.options.contains_key("skip-email") {
            return Err(error("core install without --skip-email sends mail"));
        }
        let theme = FIRST_THEME.to_owned();
        let [title, user, email] = [title, user, email].map(|text| (*text).to_owned());
        let mut contents = self.sites.get(&database).map(|site| site.contents.clone()).unwrap_or_default();
        match contents.install(None) {
            InstallResult::AlreadyInstalled => return Ok("WordPress is already installed.\n".to_owned()),
            InstallResult::TablesUnavailable => return Err(error(Installation::UNAVAILABLE)),
            InstallResult::Installed | InstallResult::Interrupted => {}
        }
        let prelude = container.files.get(PRELUDE).filter(|_| is_loaded(container));
        let has = |word: &str| prelude.is_some_and(|text| text.contains(word));
        let interrupt = self.interrupts.pop_front();
        let mut contents = Installation::default();
        // Only the job's own file writes the marker.
        contents.install(interrupt.or((!has("cdm_installed")).then_some(Installation::WRITES - 1)));
        let site = Site { home, title, user, email, theme, installations: 1, flushes: 0, contents };
        if site.contents.writes() > 0 {
            self.sites.insert(database, site);
        }
        if interrupt.is_some() {
            return Err(Exit::failure(137, ""));
        }
        if !has("pre_http_request") {
            self.requests += 2;
        }
        Ok("Success: WordPress installed successfully.\n".to_owned())
    }

    /// Returns the name of the database for which the container has credentials.
    fn database(&self, container: &Container) -> Result<String, Exit> {
        let names = ["HOST", "NAME", "USER", "PASSWORD"].map(|name| format!("WORDPRESS_DB_{name}"));
        let [host, name, user, password] =
            names.each_ref().map(|name| container.setting(name).unwrap_or_default());
        if self.down || [host, name, user, password].contains(&"") {
            return Err(error("Error establishing a database connection."));
        }
        Ok(name.to_owned())
    }

    /// Returns the name of the database of the site at the command's URL. The image looks the database up in
    /// the table, as it does for a visitor.
    fn database_by_url(&mut self, container: &Container, command: &Command<'_>) -> Result<String, Exit> {
        if container.env.keys().any(|name| name.starts_with("WORDPRESS_DB_")) {
            let text = format!("{}: a flush has credentials that it does not need", container.pod);
            self.violations.push(text);
            return Err(error("a flush has credentials that it does not need"));
        }
        if container.setting("CDM_TABLE").is_none_or(str::is_empty) {
            return Err(error("the table of the image is not configured"));
        }
        if self.down {
            return Err(error("Error establishing a database connection."));
        }
        let Some(url) = command.options.get("url") else {
            return Err(error("the option --url is missing"));
        };
        let of_url = self.sites.iter().find(|(_, site)| host(&site.home) == host(url));
        let none = || error("The site you have requested is not installed.");
        of_url.map(|(database, _)| database.clone()).ok_or_else(none)
    }

    /// Returns the site in a database, if the command's URL matches it.
    fn site(&mut self, database: &str, command: &Command<'_>) -> Result<&mut Site, Exit> {
        let existing = self.sites.get_mut(database).filter(|site| site.contents.writes() > 0);
        let Some(site) = existing else {
            return Err(error("The site you have requested is not installed."));
        };
        if !site.contents.has_address() {
            return Err(error(Installation::UNAVAILABLE));
        }
        let Some(url) = command.options.get("url") else {
            return Err(error("the option --url is missing"));
        };
        if host(url) != host(&site.home) {
            self.violations.push(format!("{url} is not the address of the site in {database}"));
            return Err(error("the URL belongs to another site"));
        }
        Ok(site)
    }
}

/// Returns the host of a URL.
fn host(url: &str) -> &str {
    url.split("://").last().unwrap_or_default().trim_end_matches('/')
}

/// Returns the configuration file of `wp` as an object.
fn configuration(container: &Container) -> Result<serde_json::Value, Exit> {
    let Some(path) = container.env.get("WP_CLI_CONFIG_PATH") else { return Ok(serde_json::Value::Null) };
    let Some(text) = container.files.get(path) else {
        return Err(error(&format!("the configuration file {path} does not exist")));
    };
    serde_norway::from_str(text)
        .map_err(|_| error(&format!("the configuration file {path} is not valid YAML")))
}

impl<'a> Command<'a> {
    fn parse(argv: &'a [String]) -> Result<Self, Exit> {
        let mut command = Self { words: Vec::new(), options: BTreeMap::new() };
        for argument in argv.iter().skip(1) {
            match argument.strip_prefix("--") {
                Some(option) => {
                    let (name, value) = option.split_once('=').unwrap_or((option, ""));
                    if command.options.insert(name, value).is_some() {
                        return Err(error(&format!("--{name} is given twice")));
                    }
                }
                None if argument.starts_with('-') => {
                    return Err(error(&format!("unknown option {argument:?}")));
                }
                None => command.words.push(argument),
            }
        }
        Ok(command)
    }

    /// Checks that every option is known, globally or for this command, and has a value only if it needs one.
    fn check_options(&self, known: &[(&str, Value)]) -> Result<(), Exit> {
        for (name, value) in &self.options {
            let Some((_, wanted)) = GLOBAL.iter().chain(known).find(|(one, _)| one == name) else {
                return Err(error(&format!("Parameter errors:\n unknown --{name} parameter")));
            };
            if (*wanted == Value::Required) == value.is_empty() {
                return Err(error(&format!("Parameter errors:\n --{name} has an invalid value")));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWORD: &str = "s3cret-of-the-database";
    const ADMIN: &str = "s3cret-of-the-admin";
    const URL: &str = "--url=https://rrr.example.com";

    fn container(argv: &[&str]) -> Container {
        let file = |name: &str, text: &str| (format!("/run/cdm/{name}"), text.to_owned());
        let files = [("host", "db"), ("name", "site_1"), ("user", "site_1"), ("password", PASSWORD)];
        let mut container = Container {
            argv: argv.iter().map(|argument| (*argument).to_owned()).collect(),
            files: files.map(|(name, text)| file(name, text)).into(),
            ..Container::default()
        };
        for name in ["HOST", "NAME", "USER", "PASSWORD"] {
            let path = format!("/run/cdm/{}", name.to_lowercase());
            container.env.insert(format!("WORDPRESS_DB_{name}_FILE"), path);
        }
        let yaml = format!("core install:\n  admin_password: \"{ADMIN}\"\n");
        container.files.extend([file("wp-cli.yml", &yaml)]);
        container.env.insert("WP_CLI_CONFIG_PATH".to_owned(), "/run/cdm/wp-cli.yml".to_owned());
        container
    }

    /// Returns a container of a flush job: a URL and the image's own settings, without credentials.
    fn flush(argv: &[&str]) -> Container {
        let mut container = container(argv);
        container.files.retain(|path, _| path.ends_with("wp-cli.yml") || path == PRELUDE);
        container.env.retain(|name, _| !name.starts_with("WORDPRESS_DB_"));
        container.env.insert("CDM_TABLE".to_owned(), "cdm".to_owned());
        container
    }

    fn install() -> Container {
        let title = "--title=--exec=system('id');";
        container(&[
            "wp",
            "core",
            "install",
            URL,
            title,
            "--admin_user=admin",
            "--admin_email=a@example.com",
            "--skip-email",
        ])
    }

    #[test]
    fn a_site_is_installed_once() {
        let wordpress = WordPress::with_themes(&["shop"]);
        let run = |argv: &[&str]| wordpress.run(&container(argv));
        assert_eq!(run(&["wp", "core", "is-installed", URL]).code, 1);
        assert_eq!(run(&["wp", "theme", "activate", "shop", URL]).code, 1);
        for text in ["Success", "already installed"] {
            let exit = wordpress.run(&install());
            assert!(exit.code == 0 && exit.log.contains(text), "{exit:?}");
        }
        assert_eq!(run(&["wp", "core", "is-installed", URL]).code, 0);
        assert_eq!(run(&["wp", "option", "get", "home", URL]).log, "https://rrr.example.com\n");
        assert!(run(&["wp", "theme", "activate", "shop", URL]).log.contains("Success"));
        assert!(run(&["wp", "theme", "activate", "none", URL]).log.contains("could not be found"));
        assert_eq!(wordpress.run(&flush(&["wp", "cache", "flush", URL, "--skip-plugins"])).code, 0);
        let site = wordpress.site("site_1").expect("a site");
        assert_eq!((site.theme.as_str(), site.installations, site.flushes), ("shop", 1, 1));
        assert_eq!(site.title, "--exec=system('id');");
        assert_eq!(wordpress.violations(), Vec::<String>::new());
    }

    #[test]
    fn a_contract_violation_fails_and_is_recorded() {
        let wordpress = WordPress::default();
        let mut shown = install();
        shown.argv.push(format!("--locale={PASSWORD}"));
        let mut variable = install();
        variable.env.insert("WORDPRESS_DB_PASSWORD".to_owned(), PASSWORD.to_owned());
        let mut silent = install();
        silent.env.remove("WP_CLI_CONFIG_PATH");
        let cases = [
            shown,
            variable,
            silent,
            container(&["sh", "-c", "wp core is-installed"]),
            container(&["wp", "cache", "flush", URL, "--exec=phpinfo();"]),
            container(&["wp", "@all", "cache", "flush", URL]),
            container(&["wp", "cache", "flush", URL]),
        ];
        let many = cases.len();
        for case in cases {
            assert_eq!(wordpress.run(&case).code, 1, "{case:?}");
        }
        let violations = wordpress.violations();
        assert_eq!(violations.len(), many, "{violations:?}");
        let text = format!("{violations:?} {wordpress:?} {:?}", install());
        assert!(!text.contains(PASSWORD) && !text.contains(ADMIN), "{text}");
        assert_eq!(wordpress.sites(), 0);
    }

    #[test]
    fn an_unknown_command_or_option_fails() {
        let wordpress = WordPress::default();
        wordpress.run(&install());
        for argv in [
            &["wp", "cache", "flush", URL, "--fast"][..],
            &["wp", "cache", "flush"],
            &["wp", "cache", "flush", "extra", URL],
            &["wp", "cache", "flush", "--url=https://other.example.com"],
            &["wp", "db", "drop", URL],
            &["wp", "cache", "flush", "-x", URL],
        ] {
            assert_eq!(wordpress.run(&flush(argv)).code, 1, "{argv:?}");
        }
        let right = flush(&["wp", "cache", "flush", URL]);
        let mut lost = right.clone();
        lost.env.remove("CDM_TABLE");
        assert_eq!(wordpress.run(&lost).code, 1);
        wordpress.set_databases(Availability::Down);
        assert_eq!(wordpress.run(&right).code, 1);
        wordpress.set_databases(Availability::Up);
        assert_eq!(wordpress.run(&right).code, 0);
    }
}
