//! What a job runs: `wp` by its arguments, one element each, without a shell; and what proves that it did its work.

use super::settings::{KubernetesSettings, WpRoot};

/// Where the job's own files are mounted: what `wp` loads, and a site's credentials or the addresses of a batch.
pub(super) const FILES: &str = "/run/cdm";

/// One command, in a container of that name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Command {
    pub(super) container: &'static str,
    pub(super) argv: Vec<String>,
}

/// Commands that follow on each other; the last one is the job's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Commands {
    pub(super) before: Vec<Command>,
    pub(super) last: Command,
    /// Which container prints which line when the work is done. That a command ended with 0 proves nothing.
    pub(super) proofs: Vec<(&'static str, String)>,
}

/// What a site's plugins and themes have no say in.
const PLAIN: [&str; 2] = ["--skip-plugins", "--skip-themes"];

/// Installs WordPress where it is not installed; `core install` asks itself, and is content with an address. The
/// administrator and the mark of its end are proved besides: an installation that was cut short may have an address and
/// nobody who can sign in, or no content.
/// The administrator's password is in the configuration file of `wp`.
pub(super) fn install(settings: &KubernetesSettings, site: &Site<'_>) -> Commands {
    let url = flag("url", site.address);
    let install = [
        "core",
        "install",
        &url,
        &flag("title", site.title),
        &flag("admin_user", site.user),
        &flag("admin_email", site.email),
        "--skip-email",
    ];
    Commands {
        before: vec![
            command(settings, "install", &install),
            command(settings, ADDRESS, &["option", "get", "home", &url, PLAIN[0], PLAIN[1]]),
            command(settings, MARK, &["option", "get", "cdm_installed", &url, PLAIN[0], PLAIN[1]]),
        ],
        last: command(
            settings,
            PROVE,
            &["user", "get", &escaped(site.user), "--field=roles", &url, PLAIN[0], PLAIN[1]],
        ),
        proofs: vec![
            (ADDRESS, site.address.to_owned()),
            (MARK, "complete".to_owned()),
            (PROVE, "administrator".to_owned()),
        ],
    }
}

/// The container whose log proves the work, in jobs of before alone.
pub(super) const PROVE: &str = "prove";
/// The container whose log proves a site's address.
pub(super) const ADDRESS: &str = "address";
/// The container whose log has the mark that [`PRELUDE`] leaves at the end of an installation.
pub(super) const MARK: &str = "mark";

/// The container that flushes caches; those of a batch are numbered.
pub(super) const FLUSH: &str = "flush";

/// What `core install` is told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Site<'a> {
    pub(super) address: &'a str,
    pub(super) title: &'a str,
    pub(super) user: &'a str,
    pub(super) email: &'a str,
}

/// Makes a theme the active one. A theme's name begins with a letter, a digit or an underscore, so it is no option
/// and no alias.
pub(super) fn activate_theme(settings: &KubernetesSettings, address: &str, theme: &str) -> Commands {
    let url = flag("url", address);
    Commands {
        before: vec![command(settings, "activate", &["theme", "activate", &escaped(theme), &url])],
        last: command(settings, PROVE, &["option", "get", "stylesheet", &url, PLAIN[0], PLAIN[1]]),
        proofs: vec![(PROVE, theme.to_owned())],
    }
}

/// Flushes the object cache of the site that the configuration file of `wp` names.
pub(super) fn flush_caches(settings: &KubernetesSettings) -> Commands {
    let last = command(settings, FLUSH, &["cache", "flush", PLAIN[0], PLAIN[1]]);
    Commands { before: Vec::new(), last, proofs: vec![(FLUSH, FLUSHED.to_owned())] }
}

/// What `wp cache flush` prints when it has flushed, and what its container leaves as its termination message.
pub(super) const FLUSHED: &str = "Success: The cache was flushed.";

/// The file that `wp` loads before WordPress, and its name among the job's files.
pub(super) const PRELUDE: (&str, &str) = ("wp-cli.php", include_str!("wp-cli.php"));

fn command(settings: &KubernetesSettings, container: &'static str, arguments: &[&str]) -> Command {
    let arguments = arguments.iter().map(|argument| (*argument).to_owned());
    let mut argv: Vec<String> = settings.wp.iter().cloned().chain(arguments).collect();
    argv.push(flag("require", &format!("{FILES}/{}", PRELUDE.0)));
    if let Some(path) = &settings.wp_path {
        argv.push(flag("path", path));
    }
    if settings.wp_root == WpRoot::Allowed {
        argv.push("--allow-root".to_owned());
    }
    Command { container, argv }
}

/// An option with its value, in one element.
fn flag(name: &str, value: &str) -> String {
    format!("--{name}={}", escaped(value))
}

/// A value as Kubernetes leaves it alone: it reads `$(NAME)` in arguments as a variable, and `$$` as `$`.
fn escaped(value: &str) -> String {
    value.replace('$', "$$")
}

/// The configuration file of `wp` with the administrator's password; `None` for a password that would need quoting.
pub(super) fn install_configuration(password: &str) -> Option<String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    let plain = !password.is_empty() && password.bytes().all(is_plain);
    plain.then(|| format!("core install:\n  admin_password: \"{password}\"\n"))
}

/// The configuration file of `wp` that names a site.
pub(super) fn site_configuration(address: &str) -> String {
    format!("url: {address}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> KubernetesSettings {
        KubernetesSettings::new("sites", "repo")
    }

    fn site(title: &str) -> Vec<String> {
        let site = Site { address: "https://rrr.example.com", title, user: "admin", email: "a@example.com" };
        install(&settings(), &site).before.remove(0).argv
    }

    #[test]
    fn a_title_is_one_element_whatever_it_says() {
        for title in [
            "A Title",
            "--exec=system('id');",
            "@alias",
            "a\" b' c",
            "`id`",
            "x; wp eval 1",
            "--url=https://other.example.com",
        ] {
            let argv = site(title);
            assert_eq!(argv.len(), 9, "{argv:?}");
            assert_eq!(argv[..3], ["wp", "core", "install"]);
            assert_eq!(argv[4], format!("--title={title}"));
        }
    }

    #[test]
    fn kubernetes_reads_no_variable_in_a_value() {
        assert_eq!(site("$(WORDPRESS_DB_HOST) costs 5$")[4], "--title=$$(WORDPRESS_DB_HOST) costs 5$$");
    }

    #[test]
    fn a_theme_is_an_argument_and_proved_by_name() {
        let commands = activate_theme(&settings(), "https://rrr.example.com", "twentytwentysix");
        assert_eq!(commands.before[0].argv[..4], ["wp", "theme", "activate", "twentytwentysix"]);
        assert_eq!(commands.proofs, [(PROVE, "twentytwentysix".to_owned())]);
    }

    #[test]
    fn every_command_has_the_path_and_may_run_as_root_where_that_is_set() {
        let settings = KubernetesSettings {
            wp_path: Some("/srv/wordpress".to_owned()),
            wp_root: WpRoot::Allowed,
            ..settings()
        };
        let site = Site { address: "https://a.example", title: "A", user: "admin", email: "a@example.com" };
        for commands in [
            install(&settings, &site),
            activate_theme(&settings, "https://a.example", "x"),
            flush_caches(&settings),
        ] {
            for command in commands.before.iter().chain([&commands.last]) {
                let end = &command.argv[command.argv.len() - 3..];
                assert_eq!(end, ["--require=/run/cdm/wp-cli.php", "--path=/srv/wordpress", "--allow-root"]);
            }
        }
    }

    #[test]
    fn an_installation_is_proved_by_its_address_and_its_administrator() {
        let site = Site { address: "https://a.example", title: "A", user: "admin", email: "a@example.com" };
        let commands = install(&settings(), &site);
        assert_eq!(commands.last.argv[..5], ["wp", "user", "get", "admin", "--field=roles"]);
        assert_eq!(
            commands.proofs,
            [
                (ADDRESS, "https://a.example".to_owned()),
                (MARK, "complete".to_owned()),
                (PROVE, "administrator".to_owned())
            ]
        );
    }

    #[test]
    fn only_a_plain_password_gets_into_the_file() {
        let text = install_configuration("-a_B9");
        assert_eq!(text.as_deref(), Some("core install:\n  admin_password: \"-a_B9\"\n"));
        for password in ["", "a\"b", "a\nb", "a b", "\u{e4}"] {
            assert_eq!(install_configuration(password), None, "{password}");
        }
    }
}
